/** Steps on snapshots: made while volumes are written to, copied, deleted, read block by block. */
import { hash } from 'node:crypto';
import { GetSnapshotBlockCommand, ListChangedBlocksCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  ModifySnapshotAttributeCommand,
} from '@aws-sdk/client-ec2';
import type { Contents } from './contents.ts';
import { blockBytes } from './contents.ts';
import { contentsAtPoint, Traffic } from './traffic.ts';
import {
  allPlaces,
  areOneAccount,
  areOneRegion,
  gib,
  type ModelSnapshot,
  type ModelWorld,
  type Place,
  pause,
  places,
  waitFor,
} from './world.ts';

const snapshotsMax = 24;
const readsAtOnce = 4;

/** Looks whether a snapshot is completed. @throws when it has failed */
async function isCompleted(world: ModelWorld, snapshot: ModelSnapshot): Promise<boolean> {
  if (snapshot.isCompleted) return true;
  const { Snapshots } = await world.retried(() =>
    world.ec2(snapshot.place).send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshot.id] })),
  );
  const { State, StateMessage } = Snapshots![0]!;
  if (State === 'error') throw new Error(`${snapshot.id} has failed: ${StateMessage}`);
  snapshot.isCompleted = State === 'completed';
  return snapshot.isCompleted;
}

export async function completed(world: ModelWorld, snapshot: ModelSnapshot): Promise<void> {
  await waitFor(`${snapshot.id} to be completed`, () => isCompleted(world, snapshot), 90_000);
}

/** A completed snapshot under a key that can be used; some other steps wait for it. */
export async function snapshotToUse(
  world: ModelWorld,
  where: readonly Place[] = allPlaces,
): Promise<ModelSnapshot | undefined> {
  const usable = [...world.snapshots.values()].filter(
    ({ place, key }) => where.includes(place) && (key === undefined || !world.disabled.has(key)),
  );
  if (usable.length === 0) return undefined;
  // Mostly one of the last, which may be under way.
  const snapshot = world.random.oneIn(2) ? usable.at(-1)! : world.random.pick(usable);
  if (await isCompleted(world, snapshot)) return snapshot;
  // Now and then by someone who doesn't wait, and is refused unless it is completed by then.
  if (world.random.oneIn(6)) return snapshot;
  // While a key is disabled it may have to wait for that.
  if (world.disabled.size > 0) return undefined;
  await completed(world, snapshot);
  return snapshot;
}

function add(
  world: ModelWorld,
  id: string,
  { place, key, hot }: Pick<ModelSnapshot, 'place' | 'key' | 'hot'>,
  contents: Contents,
  volumeId?: string,
): void {
  world.snapshots.set(id, { id, place, volumeId, contents, key, hot, isCompleted: false });
}

export async function createSnapshot(world: ModelWorld): Promise<void> {
  if (world.snapshots.size >= snapshotsMax) return deleteSnapshot(world);
  const { random } = world;
  if (world.volumes.size === 0) return;
  const volume = random.pick([...world.volumes.values()]);
  const others = [...world.volumes.values()].filter(() => random.oneIn(3));
  const traffic = await Traffic.begin(
    world,
    random.oneIn(4) ? [] : [volume, ...others.filter((other) => other !== volume)],
  );
  await pause(random.below(8));
  const before = volume.contents.clone();
  const changes = world.changes.observe();
  try {
    world.note(`snapshot of ${volume.id}`);
    const { SnapshotId, VolumeSize } = await world
      .ec2(volume.place)
      .send(new CreateSnapshotCommand({ VolumeId: volume.id }));
    const made = changes();
    world.note(`it is ${SnapshotId}`);
    add(world, SnapshotId!, volume, contentsAtPoint(before, volume, made, VolumeSize! * gib), volume.id);
    await pause(random.below(5));
  } catch (error) {
    if (!isRefusedForNow(error)) throw error;
    world.note(`refused: ${(error as Error).message}`);
  } finally {
    changes();
    await traffic.end();
  }
}

export async function createSnapshots(world: ModelWorld): Promise<void> {
  const { random } = world;
  const instance = random.pick(world.instances);
  const members = [...world.volumes.values()].filter(({ attached }) =>
    attached.some(({ instanceId }) => instanceId === instance.id),
  );
  if (members.length === 0 || world.snapshots.size + members.length > snapshotsMax) return deleteSnapshot(world);
  const traffic = await Traffic.begin(world, members, 3);
  await pause(random.below(8));
  const before = new Map<string, Contents>(members.map(({ id, contents }) => [id, contents.clone()]));
  const changes = world.changes.observe();
  try {
    world.note(`snapshots of ${members.map(({ id }) => id).join(' ')}`);
    const { Snapshots } = await world
      .ec2(instance.place)
      .send(new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId: instance.id } }));
    const made = changes();
    for (const volume of members) {
      // One may have been detached a moment before.
      const snapshot = Snapshots!.find(({ VolumeId }) => VolumeId === volume.id);
      if (!snapshot && world.isTogether) continue;
      const { SnapshotId, VolumeSize } = snapshot!;
      world.note(`that of ${volume.id} is ${SnapshotId}`);
      const contents = contentsAtPoint(before.get(volume.id)!, volume, made, VolumeSize! * gib);
      add(world, SnapshotId!, volume, contents, volume.id);
    }
    await pause(random.below(5));
  } catch (error) {
    if (!isRefusedForNow(error)) throw error;
    world.note(`refused: ${(error as Error).message}`);
  } finally {
    changes();
    await traffic.end();
  }
}

/** Too many are pending, what is used is still being made, the host is too busy, or there is none (any more, or again). */
export function isRefusedForNow(error: unknown): boolean {
  const { name, message } = error as Error;
  return refusedForNow[name]?.test(message) ?? false;
}

const refusedForNow: Readonly<Record<string, RegExp>> = {
  ConcurrentSnapshotLimitExceeded: /./,
  IncorrectState: /No host|'creating' state|invalid state - pending/,
  Unavailable: /soon enough; no snapshot was made/,
  ValidationException: /is not completed|only a completed one/,
};

export async function deleteSnapshot(world: ModelWorld): Promise<void> {
  if (world.snapshots.size === 0) return;
  const all = [...world.snapshots.values()];
  await removeSnapshot(world, world.random.oneIn(3) ? all.at(-1)! : world.random.pick(all));
}

export async function removeSnapshot(world: ModelWorld, { id, place }: ModelSnapshot): Promise<void> {
  world.note(`delete ${id}`);
  world.snapshots.delete(id);
  await world.retried(() => world.ec2(place).send(new DeleteSnapshotCommand({ SnapshotId: id })));
}

export async function copySnapshot(world: ModelWorld): Promise<void> {
  if (world.snapshots.size >= snapshotsMax) return deleteSnapshot(world);
  const { random } = world;
  const source = await snapshotToUse(world);
  if (!source) return;
  const place = random.weighted([
    [3, 'home'],
    [2, 'abroad'],
    [2, 'neighbour'],
  ] satisfies [number, Place][]);
  const keys = world.keys[place].filter((one) => !world.disabled.has(one));
  const isOthers = !areOneAccount(place, source.place);
  // Encryption can't be taken away. Of another account's and across regions a copy needs a key that is named here.
  const mustName = source.key !== undefined && (isOthers || !areOneRegion(place, source.place));
  if (mustName && keys.length === 0) return;
  const key = keys.length > 0 && (mustName || random.oneIn(2)) ? random.pick(keys) : undefined;
  if (isOthers) await share(world, source, place);
  world.note(`copy ${source.id} to ${place} under ${key ?? 'no other key'}`);
  const copy = new CopySnapshotCommand({
    SourceRegion: places[source.place].region,
    SourceSnapshotId: source.id,
    ...(key ? { Encrypted: true, KmsKeyId: key } : {}),
  });
  const SnapshotId = await unlessRefusedForNow(
    world,
    world.retried(() => world.ec2(place).send(copy)).then((answer) => answer.SnapshotId!),
  );
  if (SnapshotId === undefined) return;
  world.note(`the copy is ${SnapshotId}`);
  add(world, SnapshotId, { place, key: key ?? source.key, hot: source.hot }, source.contents.clone());
  if (isOthers && random.oneIn(2)) await share(world, source, place, 'Remove');
}

/** What a call has answered, or undefined when it was refused for now. */
export async function unlessRefusedForNow<Answer>(
  world: ModelWorld,
  answer: Promise<Answer>,
): Promise<Answer | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (!isRefusedForNow(error)) throw error;
    world.note(`refused: ${(error as Error).message}`);
    return undefined;
  }
}

/** Lets the account of a place use a snapshot, or no more: what it has begun by then goes on. */
export async function share(
  world: ModelWorld,
  { id, place }: ModelSnapshot,
  other: Place,
  what: 'Add' | 'Remove' = 'Add',
): Promise<void> {
  world.note(`${what === 'Add' ? 'share' : 'no longer share'} ${id} with ${other}`);
  const CreateVolumePermission = { [what]: [{ UserId: world.account(other) }] };
  await world.retried(() =>
    world.ec2(place).send(new ModifySnapshotAttributeCommand({ SnapshotId: id, CreateVolumePermission })),
  );
}

/** Reads blocks of a snapshot: all of them, or a few. */
export async function readSnapshot(world: ModelWorld, snapshot: ModelSnapshot, blocksMax: number): Promise<void> {
  const { id, contents } = snapshot;
  const readers = allPlaces.filter((place) => areOneRegion(place, snapshot.place));
  const reader = world.random.oneIn(6) ? world.random.pick(readers) : snapshot.place;
  if (reader !== snapshot.place) await share(world, snapshot, reader);
  const ebs = () => world.ebs(reader);
  world.note(`read ${blocksMax === Number.POSITIVE_INFINITY ? 'all' : blocksMax} blocks of ${id} from ${reader}`);
  const blocks = new Map<number, string>();
  let NextToken: string | undefined;
  do {
    const page = await world.retried(() =>
      ebs().send(new ListSnapshotBlocksCommand({ SnapshotId: id, NextToken, MaxResults: 1000 })),
    );
    for (const { BlockIndex, BlockToken } of page.Blocks ?? []) blocks.set(BlockIndex!, BlockToken!);
    NextToken = page.NextToken;
  } while (NextToken);
  const touched = contents.touchedBlocks();
  for (const index of blocks.keys())
    if (!touched.includes(index)) throw new Error(`${id} has block ${index}, which was never written`);
  const chosen = touched.length <= blocksMax ? touched : world.random.shuffle(touched).slice(0, blocksMax);
  const left = [...chosen];
  const readNext = async () => {
    for (let index = left.pop(); index !== undefined; index = left.pop()) {
      world.count('snapshot blocks read');
      const BlockToken = blocks.get(index);
      const get = new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: index, BlockToken });
      const bytes = BlockToken === undefined ? Buffer.alloc(blockBytes) : await getBlock(world, reader, get);
      contents.check(index * blockBytes, bytes, BlockToken === undefined ? `${id}, block ${index} absent` : id);
    }
  };
  await Promise.all(Array.from({ length: readsAtOnce }, readNext));
}

async function getBlock(world: ModelWorld, reader: Place, get: GetSnapshotBlockCommand): Promise<Buffer> {
  const answer = await world.retried(() => world.ebs(reader).send(get));
  const bytes = Buffer.from(await answer.BlockData!.transformToByteArray());
  const { SnapshotId, BlockIndex } = get.input;
  if (hash('sha256', bytes, 'base64') !== answer.Checksum)
    throw new Error(`${SnapshotId}: block ${BlockIndex} has a wrong checksum`);
  return bytes;
}

/** Two snapshots of a volume: every block that differs for sure must be listed. */
export async function compareSnapshots(world: ModelWorld): Promise<void> {
  const second = await snapshotToUse(world);
  const others = [...world.snapshots.values()].filter(
    (one) => one !== second && one.volumeId !== undefined && one.volumeId === second?.volumeId && one.isCompleted,
  );
  if (!second?.isCompleted || others.length === 0) return;
  const first = world.random.pick(others);
  world.note(`compare ${first.id} and ${second.id}`);
  const listed = new Set<number>();
  let NextToken: string | undefined;
  do {
    const request = { FirstSnapshotId: first.id, SecondSnapshotId: second.id, NextToken };
    const page = await world.retried(() => world.ebs(second.place).send(new ListChangedBlocksCommand(request)));
    for (const { BlockIndex } of page.ChangedBlocks ?? []) listed.add(BlockIndex!);
    NextToken = page.NextToken;
  } while (NextToken);
  const touched = new Set([...first.contents.touchedBlocks(), ...second.contents.touchedBlocks()]);
  for (const block of touched)
    if (!listed.has(block) && first.contents.differs(second.contents, block))
      throw new Error(`block ${block} of ${first.id} and ${second.id} differs, and is not listed`);
}

export async function readSomeSnapshot(world: ModelWorld): Promise<void> {
  const snapshot = await snapshotToUse(world);
  if (snapshot?.isCompleted) await readSnapshot(world, snapshot, world.random.oneIn(3) ? Number.POSITIVE_INFINITY : 3);
}
