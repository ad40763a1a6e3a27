/** Steps on volumes and instances. Each does something through the API, and says so in the model once it is answered. */
import {
  AttachVolumeCommand,
  CopyVolumesCommand,
  CreateVolumeCommand,
  type CreateVolumeCommandInput,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  ModifyVolumeCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  type Volume,
} from '@aws-sdk/client-ec2';
import { imageId } from '../volumes.ts';
import { blockBytes, Contents } from './contents.ts';
import { isRefusedForNow, snapshotToUse } from './snapshots.ts';
import { contentsAtPoint, fill, ignoreGone, Traffic } from './traffic.ts';
import { type Attached, gib, type ModelVolume, type ModelWorld, pause, waitFor, zone } from './world.ts';

const volumesMax = 8;
const sizeGibMax = 6;
/** Of io2 volumes, which several instances can share. */
const sharedGibMin = 4;
/** Modifications of a volume in a day. */
const modificationsMax = 4;

export async function describeVolume(world: ModelWorld, VolumeId: string): Promise<Volume | undefined> {
  try {
    const { Volumes } = await world.retried(() =>
      world.ec2().send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] })),
    );
    return Volumes![0];
  } catch (error) {
    if ((error as Error).name === 'InvalidVolume.NotFound') return undefined;
    throw error;
  }
}

/** A few blocks to write around: the first ones, the last one, some in between. */
function someBlocks(world: ModelWorld, sizeBytes: number): number[] {
  const blocks = sizeBytes / blockBytes;
  return [0, 1, blocks - 1, world.random.below(blocks), world.random.below(blocks)];
}

function usableKey(world: ModelWorld): string | undefined {
  const key = world.random.pick([undefined, ...world.keys]);
  return key !== undefined && world.disabled.has(key) ? undefined : key;
}

export async function createVolume(world: ModelWorld): Promise<void> {
  if (world.volumes.size >= volumesMax) return deleteVolume(world);
  const { random } = world;
  const snapshot = random.oneIn(4) ? undefined : await snapshotToUse(world);
  let key = usableKey(world);
  // Encryption can't be taken away; without a key's name it stays under the one it has.
  const names = key !== undefined || snapshot?.key === undefined;
  if (!names) key = snapshot.key;
  const isShared = random.oneIn(4);
  const sizeBytes = snapshot?.contents.sizeBytes ?? gib;
  const more = random.oneIn(5) && sizeBytes < sizeGibMax * gib ? 1 : 0;
  const Size = Math.max(sizeBytes / gib + more, isShared ? sharedGibMin : 1);
  const input: CreateVolumeCommandInput = {
    AvailabilityZone: zone,
    Size,
    ...(snapshot ? { SnapshotId: snapshot.id } : {}),
    ...(names ? (key ? { Encrypted: true, KmsKeyId: key } : {}) : {}),
    ...(isShared ? { VolumeType: 'io2', Iops: 100, MultiAttachEnabled: true } : {}),
    ...(snapshot && random.oneIn(3) ? { VolumeInitializationRate: 100 } : {}),
  };
  const contents = snapshot ? snapshot.contents.clone(Size * gib) : new Contents(Size * gib);
  world.note(`create a volume of ${snapshot?.id ?? 'nothing'}, ${Size} GiB, key ${key ?? 'none'}`);
  const { VolumeId } = await world.retried(() => world.ec2().send(new CreateVolumeCommand(input)));
  world.note(`it is ${VolumeId}`);
  const hot = [...new Set([...(snapshot?.hot ?? []).slice(-3), ...someBlocks(world, Size * gib)])];
  world.volumes.set(VolumeId!, { id: VolumeId!, contents, key, isShared, hot, attached: [], modifications: 0 });
}

export async function copyVolume(world: ModelWorld): Promise<void> {
  const { random } = world;
  const sources = [...world.volumes.values()].filter(({ key }) => key === undefined || !world.disabled.has(key));
  if (world.volumes.size >= volumesMax || sources.length === 0) return deleteVolume(world);
  const source = random.pick(sources);
  const key = usableKey(world) ?? source.key;
  const traffic = await Traffic.begin(world, [source]);
  await pause(random.below(5));
  const before = source.contents.clone();
  const changes = world.changes.observe();
  let volumeId: string;
  let contents: Contents;
  try {
    world.note(`copy ${source.id} under ${key ?? 'no key'}`);
    const { Volumes } = await world.ec2().send(
      new CopyVolumesCommand({
        SourceVolumeId: source.id,
        ...(key !== undefined && key !== source.key ? { Encrypted: true, KmsKeyId: key } : {}),
      }),
    );
    contents = contentsAtPoint(before, source, changes());
    volumeId = Volumes![0]!.VolumeId!;
  } catch (error) {
    if (!isRefusedForNow(error)) throw error;
    world.note(`refused: ${(error as Error).message}`);
    return;
  } finally {
    changes();
    await traffic.end();
  }
  world.note(`the copy is ${volumeId}`);
  const hot = [...source.hot.slice(-3), ...someBlocks(world, contents.sizeBytes)];
  world.volumes.set(volumeId, { id: volumeId, contents, key, isShared: false, hot, attached: [], modifications: 0 });
}

export async function deleteVolume(world: ModelWorld): Promise<void> {
  const free = [...world.volumes.values()].filter(({ attached }) => attached.length === 0);
  if (free.length === 0) return detach(world);
  await removeVolume(world, world.random.pick(free));
}

export async function removeVolume(world: ModelWorld, { id }: ModelVolume): Promise<void> {
  world.note(`delete ${id}`);
  const state = (await describeVolume(world, id))?.State;
  if (state === 'creating') {
    await waitFor(`${id} to be made`, async () => (await describeVolume(world, id))?.State !== 'creating');
  }
  world.volumes.delete(id);
  await world.retried(() => world.ec2().send(new DeleteVolumeCommand({ VolumeId: id })));
}

const devices = [...'fghijklmnop'].map((letter) => `/dev/sd${letter}`);

export async function attach(world: ModelWorld): Promise<void> {
  const { random } = world;
  const usable = [...world.volumes.values()].filter(
    ({ attached, isShared, key }) =>
      attached.length < (isShared ? 2 : 1) && (key === undefined || !world.disabled.has(key)),
  );
  if (usable.length === 0) return createVolume(world);
  const volume = random.pick(usable);
  const instances = world.instances.filter(
    ({ id, isRunning }) => isRunning && !volume.attached.some(({ instanceId }) => instanceId === id),
  );
  if (instances.length === 0) return;
  await attachTo(world, volume, random.pick(instances).id);
}

export async function attachTo(world: ModelWorld, volume: ModelVolume, instanceId: string): Promise<void> {
  const { id } = volume;
  const all = [...world.volumes.values()].flatMap(({ attached }) => attached);
  const taken = new Set(all.filter((one) => one.instanceId === instanceId).map(({ device }) => device));
  const device = devices.find((one) => !taken.has(one))!;
  await waitFor(`${id} to be made`, async () => (await describeVolume(world, id))?.State !== 'creating');
  if (!world.volumes.has(id)) return;
  world.note(`attach ${id} to ${instanceId} as ${device}`);
  await world.retried(() =>
    world.ec2().send(new AttachVolumeCommand({ VolumeId: id, InstanceId: instanceId, Device: device })),
  );
  volume.attached.push({ instanceId, device, connection: undefined });
  if (world.random.oneIn(12)) await fill(world, volume);
}

export async function detach(world: ModelWorld): Promise<void> {
  const { random } = world;
  const volumes = [...world.volumes.values()].filter(({ attached }) => attached.length > 0);
  if (volumes.length === 0) return attach(world);
  const volume = random.pick(volumes);
  const attached = random.pick(volume.attached);
  const traffic = random.oneIn(3) ? await Traffic.begin(world, [volume]) : undefined;
  if (!traffic && random.oneIn(2)) attached.connection?.close();
  await pause(random.below(5));
  const force = random.oneIn(4);
  try {
    await detachFrom(world, volume, attached, force);
  } finally {
    await traffic?.end();
  }
}

export async function detachFrom(world: ModelWorld, volume: ModelVolume, attached: Attached, force = false) {
  const { id } = volume;
  const { instanceId } = attached;
  world.note(`detach ${id} from ${instanceId}${force ? ', by force' : ''}`);
  volume.attached = volume.attached.filter((one) => one !== attached);
  const detaching = { VolumeId: id, InstanceId: instanceId, Force: force };
  await world.retried(() => world.ec2().send(new DetachVolumeCommand(detaching)));
  await waitFor(`${id} to be detached from ${instanceId}`, async () => {
    const attachments = (await describeVolume(world, id))?.Attachments ?? [];
    return !attachments.some((one) => one.InstanceId === instanceId);
  });
  attached.connection?.close();
}

export async function grow(world: ModelWorld): Promise<void> {
  const { random } = world;
  const volumes = [...world.volumes.values()].filter(
    ({ contents, modifications }) => contents.sizeBytes < sizeGibMax * gib && modifications < modificationsMax,
  );
  if (volumes.length === 0) return;
  const volume = random.pick(volumes);
  const { id, contents } = volume;
  await waitFor(`${id} to be made`, async () => (await describeVolume(world, id))?.State !== 'creating');
  const sizeBytes = contents.sizeBytes + gib;
  const traffic = random.oneIn(2) ? await Traffic.begin(world, [volume]) : undefined;
  volume.modifications++;
  try {
    world.note(`grow ${id} to ${sizeBytes / gib} GiB`);
    await world.retried(() => world.ec2().send(new ModifyVolumeCommand({ VolumeId: id, Size: sizeBytes / gib })));
  } catch (error) {
    if ((error as Error).name !== 'IncorrectModificationState') throw error;
    return;
  } finally {
    await traffic?.end();
  }
  if (!world.volumes.has(id)) return;
  await takeSize(world, volume, sizeBytes);
}

/** The volume has that size now; connections made from now on shall see it. */
export async function takeSize(world: ModelWorld, volume: ModelVolume, sizeBytes: number): Promise<void> {
  const { contents, hot, id } = volume;
  hot.push(contents.sizeBytes / blockBytes - 1, contents.sizeBytes / blockBytes, sizeBytes / blockBytes - 1);
  contents.grow(sizeBytes);
  for (const attached of world.usable(volume)) {
    await waitFor(`${id} to show its new size`, async () => {
      // Others may be using the connection, or have the volume detached.
      if (!world.isAttached(attached)) return true;
      if (!world.changes.isBusy(volume)) {
        attached.connection?.close();
        return (await world.connection(attached).catch(ignoreGone))?.sizeBytes === sizeBytes;
      }
      return false;
    });
  }
}

export async function runInstance(world: ModelWorld): Promise<void> {
  const run = { ImageId: imageId, InstanceType: 'm5.large' as const, MinCount: 1, MaxCount: 1 };
  const { Instances } = await world
    .ec2()
    .send(new RunInstancesCommand({ ...run, Placement: { AvailabilityZone: zone } }));
  world.instances.push({ id: Instances![0]!.InstanceId!, isRunning: true });
}

/** Stops an instance that runs, or starts one that doesn't. */
export async function stopOrStart(world: ModelWorld): Promise<void> {
  const { random } = world;
  const stopped = world.instances.find(({ isRunning }) => !isRunning);
  if (stopped) {
    // One that has a volume whose key is disabled doesn't start.
    if (world.disabled.size > 0) return;
    world.note(`start ${stopped.id}`);
    await world.retried(() => world.ec2().send(new StartInstancesCommand({ InstanceIds: [stopped.id] })));
    await reaches(world, stopped.id, 'running');
    stopped.isRunning = true;
    return;
  }
  const instance = random.pick(world.instances);
  const affected = [...world.volumes.values()].filter(({ attached }) =>
    attached.some(({ instanceId }) => instanceId === instance.id),
  );
  world.note(`stop ${instance.id}`);
  const traffic = random.oneIn(2) ? await Traffic.begin(world, affected) : undefined;
  await pause(random.below(5));
  instance.isRunning = false;
  try {
    await world.retried(() => world.ec2().send(new StopInstancesCommand({ InstanceIds: [instance.id] })));
    await reaches(world, instance.id, 'stopped');
  } finally {
    await traffic?.end();
  }
  for (const { attached } of affected) {
    for (const one of attached) {
      if (one.instanceId !== instance.id) continue;
      one.connection?.close();
      one.connection = undefined;
    }
  }
}

function reaches(world: ModelWorld, id: string, state: 'running' | 'stopped'): Promise<void> {
  return waitFor(`${id} to be ${state}`, async () => {
    const { Reservations } = await world.retried(() =>
      world.ec2().send(new DescribeInstancesCommand({ InstanceIds: [id] })),
    );
    return Reservations![0]!.Instances![0]!.State!.Name === state;
  });
}
