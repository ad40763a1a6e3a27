/** Steps on volumes. Each does something through the API, and says so in the model once it is answered. */
import {
  AttachVolumeCommand,
  CopyVolumesCommand,
  CreateVolumeCommand,
  type CreateVolumeCommandInput,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  ModifyVolumeCommand,
  type Volume,
} from '@aws-sdk/client-ec2';
import { blockBytes, Contents } from './contents.ts';
import { share, snapshotToUse, unlessRefusedForNow } from './snapshots.ts';
import { contentsAtPoint, fill, ignoreGone, Traffic } from './traffic.ts';
import {
  type Attached,
  allPlaces,
  areOneAccount,
  areOneRegion,
  gib,
  type ModelSnapshot,
  type ModelVolume,
  type ModelWorld,
  type Place,
  pause,
  places,
  waitFor,
} from './world.ts';

const volumesMax = 8;
const sizeGibMax = 6;
/** Of io2 volumes, which several instances can share. */
const sharedGibMin = 4;
/** Modifications of a volume in a day. */
const modificationsMax = 4;

export async function describeVolume(
  world: ModelWorld,
  { id, place }: Pick<ModelVolume, 'id' | 'place'>,
): Promise<Volume | undefined> {
  try {
    const { Volumes } = await world.retried(() =>
      world.ec2(place).send(new DescribeVolumesCommand({ VolumeIds: [id] })),
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

/** What a new volume is made from, how it is encrypted, and what it shall read. */
interface Plan {
  readonly place: Place;
  readonly snapshot: ModelSnapshot | undefined;
  readonly key: string | undefined;
  /** The parameters of CreateVolume, or of a block device mapping. */
  readonly input: Pick<CreateVolumeCommandInput, 'SnapshotId' | 'Encrypted' | 'KmsKeyId'> & { readonly Size: number };
  readonly isOthers: boolean;
}

const usableKeys = (world: ModelWorld, place: Place) => world.keys[place].filter((key) => !world.disabled.has(key));

/** Undefined when there is nothing to be made at the moment. */
export async function planVolume(world: ModelWorld, place: Place, sizeGibMin: number): Promise<Plan | undefined> {
  const { random } = world;
  const sources = allPlaces.filter((one) => areOneRegion(one, place));
  const snapshot = random.oneIn(4) ? undefined : await snapshotToUse(world, sources);
  const isOthers = snapshot !== undefined && !areOneAccount(snapshot.place, place);
  const keys = usableKeys(world, place);
  // Encryption can't be taken away. Without a key's name it stays under the one it has, unless that is another account's.
  const mustName = isOthers && snapshot.key !== undefined;
  if (mustName && keys.length === 0) return undefined;
  const named = random.pick(mustName ? keys : [undefined, ...keys]);
  if (isOthers) await share(world, snapshot, place);
  const sizeBytes = snapshot?.contents.sizeBytes ?? gib;
  const more = random.oneIn(5) && sizeBytes < sizeGibMax * gib ? 1 : 0;
  const input = {
    Size: Math.max(sizeBytes / gib + more, sizeGibMin),
    ...(snapshot ? { SnapshotId: snapshot.id } : {}),
    ...(named ? { Encrypted: true, KmsKeyId: named } : {}),
  };
  return { place, snapshot, key: named ?? snapshot?.key, input, isOthers };
}

/** Notes that a planned volume has been made. */
export async function addPlanned(
  world: ModelWorld,
  id: string,
  { place, snapshot, key, input: { Size }, isOthers }: Plan,
  isShared = false,
): Promise<ModelVolume> {
  const contents = snapshot ? snapshot.contents.clone(Size * gib) : new Contents(Size * gib);
  const hot = [...new Set([...(snapshot?.hot ?? []).slice(-3), ...someBlocks(world, Size * gib)])];
  const volume: ModelVolume = { id, place, contents, key, isShared, hot, attached: [], modifications: 0 };
  world.volumes.set(id, volume);
  if (isOthers && world.random.oneIn(2)) await share(world, snapshot!, place, 'Remove');
  return volume;
}

export async function createVolume(world: ModelWorld): Promise<void> {
  if (world.volumes.size >= volumesMax) return deleteVolume(world);
  const { random } = world;
  const place = random.weighted([
    [4, 'home'],
    [1, 'abroad'],
    [1, 'neighbour'],
  ] satisfies [number, Place][]);
  const isShared = random.oneIn(4);
  const plan = await planVolume(world, place, isShared ? sharedGibMin : 1);
  if (!plan) return;
  const input: CreateVolumeCommandInput = {
    AvailabilityZone: places[place].zone,
    ...plan.input,
    ...(isShared ? { VolumeType: 'io2', Iops: 100, MultiAttachEnabled: true } : {}),
    ...(plan.snapshot && random.oneIn(3) ? { VolumeInitializationRate: 100 } : {}),
  };
  const from = plan.snapshot?.id ?? 'nothing';
  world.note(`create a volume of ${from} at ${place}, ${plan.input.Size} GiB, key ${plan.key ?? 'none'}`);
  const made = world.retried(() => world.ec2(place).send(new CreateVolumeCommand(input)));
  const id = await unlessRefusedForNow(
    world,
    made.then(({ VolumeId }) => VolumeId!),
  );
  if (id === undefined) return;
  world.note(`it is ${id}`);
  await addPlanned(world, id, plan, isShared);
}

export async function copyVolume(world: ModelWorld): Promise<void> {
  const { random } = world;
  const sources = [...world.volumes.values()].filter(({ key }) => key === undefined || !world.disabled.has(key));
  if (world.volumes.size >= volumesMax || sources.length === 0) return deleteVolume(world);
  const source = random.pick(sources);
  const { place } = source;
  const key = random.pick([undefined, ...usableKeys(world, place)]) ?? source.key;
  const traffic = await Traffic.begin(world, [source]);
  await pause(random.below(5));
  const before = source.contents.clone();
  const changes = world.changes.observe();
  world.note(`copy ${source.id} under ${key ?? 'no key'}`);
  const copy = new CopyVolumesCommand({
    SourceVolumeId: source.id,
    ...(key !== undefined && key !== source.key ? { Encrypted: true, KmsKeyId: key } : {}),
  });
  try {
    const answer = await unlessRefusedForNow(world, world.ec2(place).send(copy));
    if (!answer) return;
    const [copied] = answer.Volumes!;
    const contents = contentsAtPoint(before, source, changes(), copied!.Size! * gib);
    const id = copied!.VolumeId!;
    world.note(`the copy is ${id}`);
    const hot = [...source.hot.slice(-3), ...someBlocks(world, contents.sizeBytes)];
    world.volumes.set(id, { id, place, contents, key, isShared: false, hot, attached: [], modifications: 0 });
  } finally {
    changes();
    await traffic.end();
  }
}

export async function deleteVolume(world: ModelWorld): Promise<void> {
  const free = [...world.volumes.values()].filter(({ attached }) => attached.length === 0);
  if (free.length === 0) return detach(world);
  await removeVolume(world, world.random.pick(free));
}

export async function removeVolume(world: ModelWorld, volume: ModelVolume): Promise<void> {
  const { id, place } = volume;
  world.note(`delete ${id}`);
  await isMade(world, volume);
  world.volumes.delete(id);
  await world.retried(() => world.ec2(place).send(new DeleteVolumeCommand({ VolumeId: id })));
}

/** Waits until a volume is made. */
export function isMade(world: ModelWorld, volume: Pick<ModelVolume, 'id' | 'place'>): Promise<void> {
  return waitFor(`${volume.id} to be made`, async () => (await describeVolume(world, volume))?.State !== 'creating');
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
    ({ id, place, isRunning }) =>
      isRunning && place === volume.place && !volume.attached.some(({ instanceId }) => instanceId === id),
  );
  if (instances.length === 0) return;
  await attachTo(world, volume, random.pick(instances).id);
}

export async function attachTo(world: ModelWorld, volume: ModelVolume, instanceId: string): Promise<void> {
  const { id, place } = volume;
  const all = [...world.volumes.values()].flatMap(({ attached }) => attached);
  const taken = new Set(all.filter((one) => one.instanceId === instanceId).map(({ device }) => device));
  const device = devices.find((one) => !taken.has(one))!;
  await isMade(world, volume);
  if (!world.volumes.has(id)) return;
  world.note(`attach ${id} to ${instanceId} as ${device}`);
  await world.retried(() =>
    world.ec2(place).send(new AttachVolumeCommand({ VolumeId: id, InstanceId: instanceId, Device: device })),
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
  const { id, place } = volume;
  const { instanceId } = attached;
  world.note(`detach ${id} from ${instanceId}${force ? ', by force' : ''}`);
  volume.attached = volume.attached.filter((one) => one !== attached);
  const detaching = { VolumeId: id, InstanceId: instanceId, Force: force };
  await world.retried(() => world.ec2(place).send(new DetachVolumeCommand(detaching)));
  await waitFor(`${id} to be detached from ${instanceId}`, async () => {
    const attachments = (await describeVolume(world, volume))?.Attachments ?? [];
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
  const { id, place, contents } = volume;
  await isMade(world, volume);
  const sizeBytes = contents.sizeBytes + gib;
  const traffic = random.oneIn(2) ? await Traffic.begin(world, [volume]) : undefined;
  volume.modifications++;
  try {
    world.note(`grow ${id} to ${sizeBytes / gib} GiB`);
    await world.retried(() => world.ec2(place).send(new ModifyVolumeCommand({ VolumeId: id, Size: sizeBytes / gib })));
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
