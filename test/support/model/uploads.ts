/** Snapshots that are written block by block through the EBS direct APIs, with a parent or without. */
import { hash } from 'node:crypto';
import { CompleteSnapshotCommand, PutSnapshotBlockCommand, StartSnapshotCommand } from '@aws-sdk/client-ebs';
import { DeleteSnapshotCommand } from '@aws-sdk/client-ec2';
import { aggregate } from '../../../src/cli/transfer/import.ts';
import { blockBytes, Contents, fillFromWrite } from './contents.ts';
import { snapshotToUse, unlessRefusedForNow } from './snapshots.ts';
import { gib, type ModelUpload, type ModelWorld, type Place, pause } from './world.ts';

const uploadsMax = 2;

export async function upload(world: ModelWorld): Promise<void> {
  const { random } = world;
  const [first] = world.uploads.values();
  if (!first || (world.uploads.size < uploadsMax && random.oneIn(4))) return start(world);
  if (random.oneIn(6)) return abandon(world, first);
  if (first.isCompleting) return complete(world, first);
  await putSome(world, first);
  if (random.oneIn(2)) await complete(world, first);
}

async function start(world: ModelWorld): Promise<void> {
  const { random } = world;
  const place = random.pick(['home', 'home', 'abroad', 'neighbour'] satisfies Place[]);
  const parent = random.oneIn(3) ? undefined : await snapshotToUse(world, [place]);
  const key = parent
    ? parent.key
    : random.pick([undefined, ...world.keys[place].filter((one) => !world.disabled.has(one))]);
  const contents = parent?.contents.clone() ?? new Contents(gib);
  world.note(`start a snapshot of ${parent?.id ?? 'nothing'} under ${key ?? 'no key'}`);
  const begin = new StartSnapshotCommand({
    VolumeSize: contents.sizeBytes / gib,
    ...(parent ? { ParentSnapshotId: parent.id } : key ? { Encrypted: true, KmsKeyArn: key } : {}),
  });
  const id = await unlessRefusedForNow(
    world,
    world.retried(() => world.ebs(place).send(begin)).then(({ SnapshotId }) => SnapshotId!),
  );
  if (id === undefined) return;
  world.note(`it is ${id}`);
  const empty = { digests: new Map(), unsure: new Set<number>(), isCompleting: false };
  world.uploads.set(id, { id, parentId: parent?.id, place, contents, key, ...empty });
}

/** Puts some blocks, a few at a time; one that fails because something is killed is put again. */
async function putSome(world: ModelWorld, upload: ModelUpload): Promise<void> {
  const { contents, key, unsure } = upload;
  if (key !== undefined && world.disabled.has(key)) return;
  const { random } = world;
  const blocks = new Set(unsure);
  const all = contents.sizeBytes / blockBytes;
  for (let count = 1 + random.below(6); count > 0; count--)
    blocks.add(random.pick([random.below(4), all - 1 - random.below(2), random.below(all)]));
  await put(world, upload, blocks);
}

async function put(
  world: ModelWorld,
  { id, place, contents, digests, unsure }: ModelUpload,
  blocks: ReadonlySet<number>,
): Promise<void> {
  const settled = await Promise.allSettled(
    [...blocks].map(async (index) => {
      unsure.add(index);
      const write = world.nextWrite();
      const data = Buffer.alloc(blockBytes);
      const offset = index * blockBytes;
      fillFromWrite(data, write, offset);
      const Checksum = hash('sha256', data, 'base64');
      world.note(`put block ${index} of ${id} (${write})`);
      world.count('snapshot blocks written');
      await world.retried(() =>
        world.ebs(place).send(
          new PutSnapshotBlockCommand({
            SnapshotId: id,
            BlockIndex: index,
            BlockData: data,
            DataLength: blockBytes,
            Checksum,
            ChecksumAlgorithm: 'SHA256',
          }),
        ),
      );
      contents.apply({ kind: 'write', offset, length: blockBytes, write }, true);
      digests.set(index, Checksum);
      unsure.delete(index);
    }),
  );
  for (const one of settled) if (one.status === 'rejected') throw one.reason;
}

export async function complete(world: ModelWorld, upload: ModelUpload): Promise<void> {
  const { id, place, contents, key, digests, unsure } = upload;
  if (key !== undefined && world.disabled.has(key)) return;
  if (unsure.size > 0 && !upload.isCompleting) await put(world, upload, new Set(unsure));
  world.note(`complete ${id}`);
  upload.isCompleting = true;
  await world.retried(() =>
    world.ebs(place).send(
      new CompleteSnapshotCommand({
        SnapshotId: id,
        ChangedBlocksCount: digests.size,
        Checksum: aggregate(digests),
        ChecksumAlgorithm: 'SHA256',
        ChecksumAggregationMethod: 'LINEAR',
      }),
    ),
  );
  world.uploads.delete(id);
  const hot = [...digests.keys()].slice(0, 3);
  world.snapshots.set(id, { id, place, volumeId: undefined, contents, key, hot, isCompleted: true });
}

/** Gives one up, perhaps while blocks are on their way. */
async function abandon(world: ModelWorld, upload: ModelUpload): Promise<void> {
  const { id, place } = upload;
  world.note(`give up ${id}`);
  world.uploads.delete(id);
  const putting = world.random.oneIn(2) ? putSome(world, upload).catch(() => {}) : undefined;
  await pause(world.random.below(12));
  await world.retried(() => world.ec2(place).send(new DeleteSnapshotCommand({ SnapshotId: id })));
  await putting;
}
