/** Blocks of a snapshot that were altered or lost on disk: found at the first read, and named, by whoever reads them. */
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import { DeleteSnapshotCommand, DeleteVolumeCommand } from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CommandFailed, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { blockBytes, range, Stored, withNbd } from './support/stored.ts';
import { failure } from './support/wire.ts';

const altered = 2;
const lost = 5;
let server: TestServer;
let stored: Stored;
let instance: string;
let volume: string;
let socket: string;
let snapshot: string;
/** One that has the damaged blocks from the first, and others of its own. */
let next: string;
let content: Map<number, Buffer>;
let contentOfNext: Map<number, Buffer>;

beforeAll(async () => {
  server = await startServer();
  stored = new Stored(server);
  instance = await stored.runInstance();
  volume = await stored.create();
  socket = await stored.attach(volume, instance);
  content = await stored.write(socket, range(0, 8));
  snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
  contentOfNext = new Map([...content, ...(await stored.write(socket, [0, altered]))]);
  next = await stored.snapshot(volume);
  await stored.completed(next);

  for (const index of [altered, lost])
    copyFileSync(stored.blockFile(snapshot, index), join(server.dataDir, `good-${index}`));
  const bytes = readFileSync(stored.blockFile(snapshot, altered));
  bytes[4321]! ^= 1;
  writeFileSync(stored.blockFile(snapshot, altered), bytes);
  rmSync(stored.blockFile(snapshot, lost));
});
afterAll(() => server?.stop());

const block = (index: number) => `${index} of ${snapshot}`;

async function get(index: number): Promise<void> {
  const ebs = server.sdk(EBSClient);
  const { Blocks } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: snapshot }));
  const { BlockToken } = Blocks!.find(({ BlockIndex }) => BlockIndex === index)!;
  await ebs.send(new GetSnapshotBlockCommand({ SnapshotId: snapshot, BlockIndex: index, BlockToken }));
}

const cli = (...args: string[]) =>
  run(coffer, [...args, '--data', server.dataDir]).then(
    ({ stdout, stderr }) => ({ exitCode: 0, stdout, stderr }),
    ({ exitCode, stdout, stderr }: CommandFailed) => ({ exitCode, stdout, stderr }),
  );

test('GetSnapshotBlock names it, and gives out all others', async () => {
  for (const index of [altered, lost]) {
    const refusal = await failure(get(index));
    expect(refusal.message).toContain(block(index));
    expect(refusal.message).not.toContain(server.dataDir);
    expect(refusal.status).toBeGreaterThanOrEqual(400);
  }
  for (const index of [0, 1, 3, 4, 6, 7]) await get(index);
});

test('a volume made of it can’t read these blocks, reads all others, and is impaired', async () => {
  const restored = await stored.restore(snapshot);
  const there = await stored.attach(restored, instance, '/dev/sdg');
  const differences = await stored.differences(there, content);
  expect([...differences.keys()]).toEqual([altered, lost]);
  for (const words of differences.values()) expect(words).toMatch(/error 5/);
  expect(await stored.impaired(restored)).toMatch(new RegExp(`(${block(altered)}|${block(lost)})`));
  // What is discarded needs nothing of what was there, and can be written after.
  for (const index of [altered, lost]) await withNbd(there, (nbd) => nbd.trim(index * blockBytes, blockBytes));
  const rewritten = await stored.write(there, [lost]);
  expect(await stored.differences(there, rewritten)).toEqual(new Map());
  await stored.initialized(restored);
  await stored.detach(restored);
  await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: restored }));
});

test('a snapshot that has replaced one of the blocks misses only the other', async () => {
  const restored = await stored.restore(next);
  const there = await stored.attach(restored, instance, '/dev/sdh');
  expect([...(await stored.differences(there, contentOfNext)).keys()]).toEqual([lost]);
  await stored.detach(restored);
  await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: restored }));
});

test('a copy under another data key fails for good, says why, and leaves nothing in the store', async () => {
  const copy = await stored.copy(snapshot);
  expect(await stored.trouble(copy, 'error')).toMatch(new RegExp(`(${block(altered)}|${block(lost)})`));
  await until(() => stored.blocksOf(copy) === 0, 'what was stored of it to be removed');
  const { stdout } = await cli('events', '--json');
  const failed = stdout.split('\n').find((line) => line.includes('"copySnapshot"') && line.includes(copy));
  expect(failed).toContain('"failed"');
  expect(failed).toContain(snapshot);
  await stored.ec2.send(new DeleteSnapshotCommand({ SnapshotId: copy }));
});

test('coffer snapshot export names it, and leaves no image that looks whole', async () => {
  const image = join(server.dataDir, 'out.img');
  const { exitCode, stderr } = await cli('snapshot', 'export', snapshot, image, '--quiet');
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(new RegExp(`(${block(altered)}|${block(lost)})`));
  expect(existsSync(image)).toBe(false);
});

test('coffer store check names both, and who needs them', async () => {
  const { exitCode, stdout } = await cli('store', 'check', '--json', '--quiet');
  expect(exitCode).toBe(1);
  // biome-ignore lint/suspicious/noExplicitAny: the command's JSON.
  const found = JSON.parse(stdout).Problems.map(({ Kind, Owner, BlockIndex, SnapshotIds }: any) => ({
    kind: Kind,
    owner: Owner,
    index: BlockIndex,
    snapshotIds: [...SnapshotIds].sort(),
  }));
  expect(found).toHaveLength(2);
  expect(found).toContainEqual({ kind: 'corrupt', owner: snapshot, index: altered, snapshotIds: [snapshot] });
  const both = [snapshot, next].sort();
  expect(found).toContainEqual({ kind: 'missing', owner: snapshot, index: lost, snapshotIds: both });
});

test('the volume itself is well, and its next snapshot, too', async () => {
  const after = new Map([...contentOfNext, ...(await stored.write(socket, [lost]))]);
  expect(await stored.differences(socket, after)).toEqual(new Map());
  const later = await stored.snapshot(volume);
  await stored.completed(later);
  const restored = await stored.restore(later);
  await stored.initialized(restored);
  const there = await stored.attach(restored, instance, '/dev/sdi');
  expect(await stored.differences(there, after)).toEqual(new Map());
});

test('with the blocks put back, the restore of a volume that waited for them is finished', async () => {
  const restored = await stored.restore(snapshot);
  await stored.impaired(restored);
  // A snapshot of such a volume waits for what the volume lacks.
  const early = await stored.snapshot(restored);
  expect(await stored.trouble(early)).toMatch(new RegExp(`${restored} .*(${block(altered)}|${block(lost)})`));
  for (const index of [altered, lost])
    copyFileSync(join(server.dataDir, `good-${index}`), stored.blockFile(snapshot, index));
  await get(altered);
  await get(lost);
  const there = await stored.attach(restored, instance, '/dev/sdj');
  expect(await stored.differences(there, content)).toEqual(new Map());
  await stored.initialized(restored);
  await stored.completed(early);
  const ofIt = await stored.attach(await stored.restore(early), instance, '/dev/sdk');
  expect(await stored.differences(ofIt, content)).toEqual(new Map());
  await stored.completed(await stored.copy(snapshot));
  expect((await cli('store', 'check', '--quiet')).exitCode).toBe(0);
});
