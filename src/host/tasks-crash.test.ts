import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { blockBytes } from '../blocks/store.ts';
import { digests, soon, TestHost, xtsBlock } from './testing-host.ts';

/** The host is killed (SIGKILL) this often in each test, in the middle of things; these must come out right all the same. */
const kills = 3;
/** A host that has not got on by then is killed, too. */
const killAfterMaxMs = 1500;
const volumeId = 'vol-0123456789abcdef1';
const source = 'snap-0000000000000000a';
const target = 'snap-0000000000000000b';
const blocks = 96;
const sizeBytes = blocks * blockBytes;

let host: TestHost;
beforeEach(async () => {
  host = await TestHost.start();
});
afterEach(() => host.end());

/** Blocks that a snapshot has in the store. */
const storedOf = async (snapshotId: string) => (await host.storedBlocks())[snapshotId]?.length ?? 0;

/**
 * Kills the host again and again, each time when it has moved some more blocks, as long as it has not done the task.
 * @param moved how many blocks have been moved
 */
async function untilDone(
  taskId: string,
  moved: () => Promise<number>,
  between: () => Promise<void> = async () => {},
): Promise<void> {
  const isDone = () => host.result(taskId)?.state === 'done';
  for (let count = 0; count < kills && !isDone(); count++) {
    await host.startProcess();
    await between();
    const enough = (await moved()) + Math.random() * (blocks / kills);
    for (const deadline = Date.now() + killAfterMaxMs; Date.now() < deadline && !isDone(); )
      if ((await moved()) > enough) break;
    await host.kill9();
  }
  await host.startProcess();
  await host.reports(taskId, { state: 'done' });
}

function fullSnapshot(): Map<number, Buffer> {
  return new Map(Array.from({ length: blocks }, (_, index) => [index, randomBytes(blockBytes)]));
}

const create = (n: number) =>
  ({
    taskId: `create ${n}`,
    kind: 'createSnapshot',
    volumeId,
    snapshotId: `snap-0000000000000000${n}`,
    sizeBytes,
    hasImage: true,
    ...(n > 1 ? { parentSnapshotId: `snap-0000000000000000${n - 1}` } : {}),
  }) as const;

test('a snapshot of a volume that is being written to', async () => {
  const model = Buffer.alloc(sizeBytes);
  const asBlocks = (bytes: Buffer) =>
    new Map(
      Array.from({ length: blocks }, (_, index) => [
        index,
        bytes.subarray(index * blockBytes, (index + 1) * blockBytes),
      ]),
    );
  const first = await host.attach({ volumeId, sizeBytes });
  const write = async (nbd: typeof first, index: number, length: number) => {
    const bytes = randomBytes(length);
    bytes.copy(model, index * blockBytes);
    await nbd.write(index * blockBytes, bytes);
  };
  for (let index = 0; index < blocks; index++) await write(first, index, blockBytes);
  await first.close();
  await host.startProcess();
  (await host.reconnect(volumeId)).close().catch(() => {});

  for (const n of [1, 2]) {
    host.list(create(n));
    await host.reports(create(n).taskId, { marked: true });
    const then = Buffer.from(model);
    await host.kill9();
    const moved = () => storedOf(create(n).snapshotId);
    await untilDone(create(n).taskId, moved, async () => {
      const nbd = await host.reconnect(volumeId);
      for (let count = 0; count < 12; count++) await write(nbd, Math.floor(Math.random() * blocks), 4096);
      await nbd.close();
    });
    expect(digests(await host.readSnapshot(create(n).snapshotId))).toEqual(digests(asBlocks(then)));
    host.unlist(create(n).taskId);
  }
  await expect.poll(() => readdirSync(host.volumesDir).filter((name) => name.includes('snap')), soon).toEqual([]);
});

test('a snapshot whose parent is given up meanwhile, having been made already', async () => {
  const model = Buffer.alloc(sizeBytes);
  let nbd = await host.attach({ volumeId, sizeBytes });
  const write = async (index: number, length = blockBytes) => {
    const bytes = randomBytes(length);
    bytes.copy(model, index * blockBytes);
    await nbd.write(index * blockBytes, bytes);
  };
  for (let index = 0; index < blocks; index++) await write(index);
  await host.do(create(1));
  await write(0);
  await host.do(create(2));
  for (let index = 1; index < blocks; index += 2) await write(index);
  const then = Buffer.from(model);
  await host.stopAgent();
  await host.startProcess();
  // The store takes no more than the first blocks of it.
  const inTheWay = join(host.storeLocation, 'blocks', create(3).snapshotId, '0000', '00000015');
  mkdirSync(inTheWay, { recursive: true });
  host.list(create(3));
  await host.reports(create(3).taskId, { state: 'failed', marked: true });
  // Blocks that were on their way when that one failed come in after it has been said.
  await expect.poll(() => storedOf(create(3).snapshotId), soon).toBeGreaterThan(6);
  await host.kill9();
  rmSync(inTheWay, { recursive: true });
  // The control plane had not heard that the second was made, and its deletion gave its child to the first.
  host.unlist(create(2).taskId, create(3).taskId);
  await host.startProcess();
  nbd = await host.reconnect(volumeId);
  for (let index = 0; index < blocks; index++) await write(index, 4096);
  await nbd.close();
  host.list({ ...create(3), parentSnapshotId: create(1).snapshotId });
  await host.reports(create(3).taskId, { state: 'done' });
  const expected = Array.from({ length: blocks }, (_, index) =>
    then.subarray(index * blockBytes, (index + 1) * blockBytes),
  );
  expect(digests(await host.readSnapshot(create(3).snapshotId))).toEqual(digests(new Map(expected.entries())));
});

test('a copy under another data key', async () => {
  const [old, own] = [host.newKey(source), host.newKey(target)];
  const plain = fullSnapshot();
  await host.putSnapshot(
    source,
    sizeBytes,
    new Map([...plain].map(([index, bytes]) => [index, xtsBlock('encrypt', old.key, index, bytes)])),
  );
  await host.stopAgent();
  host.list({
    taskId: 'copy',
    kind: 'copySnapshot',
    snapshotId: target,
    sourceSnapshotId: source,
    sizeBytes,
    sourceEncryption: old.encryption,
    encryption: own.encryption,
  });
  await untilDone('copy', () => storedOf(target));
  const copied = [...(await host.readSnapshot(target))!];
  expect(digests(new Map(copied.map(([index, bytes]) => [index, xtsBlock('decrypt', own.key, index, bytes)])))).toEqual(
    digests(plain),
  );
});

test('the deletion of a snapshot', async () => {
  await host.putSnapshot(source, sizeBytes, fullSnapshot());
  await host.putSnapshot(target, sizeBytes, new Map([[1, randomBytes(blockBytes)]]));
  await host.stopAgent();
  host.list({ taskId: 'delete', kind: 'deleteSnapshot', snapshotId: source, family: [] });
  await untilDone('delete', async () => blocks - (await storedOf(source)));
  expect(await host.storedBlocks()).toEqual({ [target]: [1] });
  expect(await host.readSnapshot(source)).toBeUndefined();
});

test('the restoring of a volume that is being written to', async () => {
  const [old, own] = [host.newKey(source), host.newKey(volumeId)];
  const plain = fullSnapshot();
  await host.putSnapshot(
    source,
    sizeBytes,
    new Map([...plain].map(([index, bytes]) => [index, xtsBlock('encrypt', old.key, index, bytes)])),
  );
  const volume = {
    volumeId,
    sizeBytes,
    encryption: own.encryption,
    source: { snapshotId: source, sizeBytes, encryption: old.encryption, rate: 16 },
  };
  await (await host.attach(volume)).close();
  host.list({ taskId: 'initialize', kind: 'initializeVolume', hasImage: true, ...volume });
  const moved = async () => ((host.result('initialize')?.progress ?? 0) * blocks) / 100;
  await untilDone('initialize', moved, async () => {
    const nbd = await host.reconnect(volumeId);
    for (let count = 0; count < 12; count++) {
      const index = Math.floor(Math.random() * blocks);
      const bytes = randomBytes(4096);
      bytes.copy(plain.get(index)!, 8192);
      await nbd.write(index * blockBytes + 8192, bytes);
    }
    await nbd.close();
  });
  const nbd = await host.reconnect(volumeId);
  const read = new Map<number, Buffer>();
  for (let index = 0; index < blocks; index++) read.set(index, await nbd.read(index * blockBytes, blockBytes));
  await nbd.close();
  expect(digests(read)).toEqual(digests(plain));
});
