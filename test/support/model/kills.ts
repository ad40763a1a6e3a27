/** kill -9 of the control plane, the host or both, in the middle of things; and keys that can't be used for a while. */
import {
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
} from '@aws-sdk/client-ec2';
import { DisableKeyCommand, EnableKeyCommand } from '@aws-sdk/client-kms';
import { interruptible, isRefusal, together } from './together.ts';
import { burst, ignoreGone, Traffic } from './traffic.ts';
import { complete } from './uploads.ts';
import { describeVolume, isMade } from './volumes.ts';
import { allPlaces, gib, type ModelVolume, type ModelWorld, type Place, pause, waitFor } from './world.ts';

export async function killSomething(world: ModelWorld): Promise<void> {
  const { random } = world;
  const part = random.weighted([
    [5, 'host' as const],
    [3, 'control plane' as const],
    [2, 'both' as const],
    [1, 'nothing' as const],
  ]);
  const volumes = [...world.volumes.values()].filter(({ attached }) => attached.length > 0);
  const traffic = random.oneIn(2) ? await Traffic.begin(world, random.shuffle(volumes).slice(0, 2), 3) : undefined;
  const step = random.oneIn(4) ? undefined : random.oneIn(3) ? together : random.pick(interruptible);
  if (random.oneIn(4) && world.disabled.size === 0) await disableOrEnable(world);
  world.isKilling = true;
  const call = step?.(world).catch((error) => {
    const { message } = error as Error;
    world.note(`interrupted: ${message}`);
    return error as Error;
  });
  await pause(random.below(60));
  // Or an end in order, which is to lose nothing, either.
  await (part === 'nothing' ? world.stop() : world.kill(part));
  if (part === 'control plane' && !traffic && random.oneIn(2)) {
    // A host without its control plane goes on.
    const volume = volumes.find((one) => one.attached.every(({ connection }) => connection?.isOpen));
    if (volume && world.volumes.has(volume.id) && world.usable(volume).length > 0)
      await burst(world, volume, 20).catch(ignoreGone);
  }
  await traffic?.end();
  await world.restart();
  if (random.oneIn(4)) {
    // And again, while everything is being taken up.
    await pause(random.below(1500));
    await world.kill(random.oneIn(3) ? 'both' : 'host');
    await world.restart();
  }
  const failure = await call;
  world.isKilling = false;
  if (failure && !isOfKill(failure) && !(step === together && isRefusal(failure))) throw failure;
  await reconcile(world);
}

/** What a call may say that was under way. */
export function isOfKill({ message, name }: Error): boolean {
  return (
    /ECONNRESET|ECONNREFUSED|EPIPE|socket hang up|No host|could not fix|not connected|connection is gone|cancelled/i.test(
      message,
    ) ||
    name === 'Disconnected' ||
    /Unavailable|TimeoutError|ServiceUnavailable|InternalServer/.test(name)
  );
}

/** Compares the lists of what there is; what came of calls that were not answered is taken back. */
export async function reconcile(world: ModelWorld): Promise<void> {
  for (const one of world.uploads.values()) if (one.isCompleting) await complete(world, one);
  for (const place of allPlaces) {
    const { Snapshots } = await world.retried(() =>
      world.ec2(place).send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] })),
    );
    const found = new Set(Snapshots!.map(({ SnapshotId }) => SnapshotId!));
    for (const one of world.snapshots.values())
      if (one.place === place && !found.has(one.id)) throw new Error(`${one.id} is gone`);
    for (const id of found) {
      if (world.snapshots.has(id) || world.uploads.has(id)) continue;
      world.note(`delete ${id}, which nobody was told of`);
      await world.retried(() => world.ec2(place).send(new DeleteSnapshotCommand({ SnapshotId: id })));
    }
    await reconcileVolumes(world, place);
  }
}

async function reconcileVolumes(world: ModelWorld, place: Place): Promise<void> {
  const { Volumes } = await world.retried(() => world.ec2(place).send(new DescribeVolumesCommand({})));
  const found = new Map(Volumes!.map((volume) => [volume.VolumeId!, volume]));
  for (const one of world.volumes.values()) {
    if (one.place !== place) continue;
    const { id, contents, attached } = one;
    const volume = found.get(id);
    if (!volume || volume.State === 'deleting') throw new Error(`${id} is gone`);
    if (volume.Size! * gib > contents.sizeBytes) contents.grow(volume.Size! * gib);
    if (volume.Size! * gib !== contents.sizeBytes) throw new Error(`${id} has ${volume.Size} GiB`);
    for (const { InstanceId, State } of volume.Attachments ?? []) {
      if (attached.some(({ instanceId }) => instanceId === InstanceId)) continue;
      await detachUnknown(world, one, InstanceId!, State!);
    }
    for (const { instanceId } of attached)
      if (!volume.Attachments?.some(({ InstanceId }) => InstanceId === instanceId))
        throw new Error(`${id} is not attached to ${instanceId} any more`);
  }
  for (const [id, { State, Attachments }] of found) {
    if (world.volumes.has(id) || State === 'deleting') continue;
    const unknown = { id, place };
    world.note(`delete ${id}, which nobody was told of`);
    for (const one of Attachments ?? []) await detachUnknown(world, unknown, one.InstanceId!, one.State!);
    await isMade(world, unknown);
    if (await describeVolume(world, unknown))
      await world.retried(() => world.ec2(place).send(new DeleteVolumeCommand({ VolumeId: id })));
  }
}

async function detachUnknown(
  world: ModelWorld,
  volume: Pick<ModelVolume, 'id' | 'place'>,
  instanceId: string,
  state: string,
): Promise<void> {
  const { id, place } = volume;
  world.note(`detach ${id} from ${instanceId}, which nobody was told of (${state})`);
  if (state !== 'detaching')
    await world.retried(() => world.ec2(place).send(new DetachVolumeCommand({ VolumeId: id, InstanceId: instanceId })));
  await waitFor(`${id} to be detached from ${instanceId}`, async () => {
    const attachments = (await describeVolume(world, volume))?.Attachments ?? [];
    return !attachments.some((one) => one.InstanceId === instanceId);
  });
}

/** Disables a key, or enables the one that is disabled. What is at work under it goes on, or goes on later. */
export async function disableOrEnable(world: ModelWorld): Promise<void> {
  if (world.disabled.size > 0) return enableAll(world);
  const place = world.random.weighted([
    [4, 'home'],
    [1, 'abroad'],
    [1, 'neighbour'],
  ] satisfies [number, Place][]);
  const key = world.random.pick(world.keys[place]);
  world.note(`disable ${key}`);
  await world.retried(() => world.kms(place).send(new DisableKeyCommand({ KeyId: key })));
  world.disabled.add(key);
}

export async function enableAll(world: ModelWorld): Promise<void> {
  for (const key of world.disabled) {
    world.note(`enable ${key}`);
    const place = allPlaces.find((one) => world.keys[one].includes(key))!;
    await world.retried(() => world.kms(place).send(new EnableKeyCommand({ KeyId: key })));
    world.disabled.delete(key);
  }
}
