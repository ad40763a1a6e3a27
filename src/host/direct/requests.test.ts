import { createDecipheriv, createHash, hash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { BlockAnswers, BlockRequest } from '../../aws/block-protocol.ts';
import { freeSnapshot } from '../../blocks/free.ts';
import { Manifest } from '../../blocks/manifest.ts';
import { openStore } from '../../blocks/open-store.ts';
import { type BlockStore, blockBytes, StoreError } from '../../blocks/store.ts';
import { digestKeyBytes, sealDigest } from '../../crypto/block-digest.ts';
import { SealedBoxKey, sealFor } from '../../crypto/sealed-box.ts';
import { BlockRequests } from './requests.ts';
import { UploadFile } from './upload-file.ts';
import { Uploads } from './uploads.ts';

const sizeBytes = 2 ** 30;
const boxKey = new SealedBoxKey();
let directory: string;
let store: BlockStore;
let uploads: Uploads;
let requests: BlockRequests;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-direct-'));
  store = await openStore(join(directory, 'store'));
  begin();
});

afterEach(() => {
  vi.restoreAllMocks();
  uploads.close();
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

/** A host process: what it knows, it knows from files. */
function begin(): void {
  uploads = new Uploads(join(directory, 'uploads'), async () => store);
  requests = new BlockRequests(store, uploads, boxKey);
}

function ask<Kind extends BlockRequest['kind']>(request: Extract<BlockRequest, { kind: Kind }>) {
  return requests.perform(request) as Promise<BlockAnswers[Kind]>;
}

const start = (snapshotId: string, parentSnapshotId?: string) =>
  ask({
    kind: 'startUpload',
    snapshotId,
    volumeId: 'vol-ffffffff',
    sizeBytes,
    ...(parentSnapshotId && { parentSnapshotId }),
  });
const put = (snapshotId: string, index: number, data: Buffer, dataKey?: string) =>
  ask({
    kind: 'putBlock',
    snapshotId,
    index,
    data: data.toString('base64'),
    sha256: hash('sha256', data, 'base64'),
    ...(dataKey && { dataKey }),
  });
const complete = (snapshotId: string, changedBlocks: number, checksum?: string) =>
  ask({ kind: 'completeUpload', snapshotId, changedBlocks, ...(checksum && { checksum }) });
const get = async (snapshotId: string, index: number, dataKey?: string) => {
  const { data, sha256 } = await ask({ kind: 'getBlock', snapshotId, index, ...(dataKey && { dataKey }) });
  const bytes = Buffer.from(data, 'base64');
  expect(hash('sha256', bytes, 'base64')).toBe(sha256);
  return bytes;
};
const list = (snapshotId: string, from = 0, count = 1000) => ask({ kind: 'listBlocks', snapshotId, from, count });
const block = () => randomBytes(blockBytes);
const linear = (blocks: readonly Buffer[]) => {
  const all = createHash('sha256');
  for (const one of blocks) all.update(hash('sha256', one, 'buffer'));
  return all.digest('base64');
};

test('what was put in any order is listed in order, page by page, and read back', async () => {
  await start('snap-a1');
  const blocks = [block(), block(), Buffer.alloc(blockBytes)];
  await Promise.all([put('snap-a1', 2047, blocks[2]!), put('snap-a1', 0, blocks[0]!), put('snap-a1', 7, blocks[1]!)]);
  expect(await complete('snap-a1', 3, linear(blocks))).toEqual({
    blocks: 3,
    fullBytes: 3 * blockBytes,
    storedBytes: 3 * blockBytes,
  });
  expect(await list('snap-a1')).toEqual({ indexes: [0, 7, 2047] });
  expect(await list('snap-a1', 0, 2)).toEqual({ indexes: [0, 7], next: 2047 });
  expect(await list('snap-a1', 8, 2)).toEqual({ indexes: [2047] });
  for (const [at, index] of [0, 7, 2047].entries())
    expect((await get('snap-a1', index)).equals(blocks[at]!)).toBe(true);
  await expect(get('snap-a1', 1)).rejects.toMatchObject({ code: 'NoSuchBlock' });
  await expect(get('snap-b1', 1)).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
  expect(readdirSync(join(directory, 'uploads'))).toEqual([]);
});

test('an encrypted block lies in the store as AES-256-XTS under its data key, and opens with that key alone', async () => {
  const dataKey = randomBytes(64);
  const sealed = () => sealFor(boxKey.publicKey, dataKey, 'snap-e1').toString('base64');
  await start('snap-e1');
  const data = block();
  await put('snap-e1', 5, data, sealed());
  await complete('snap-e1', 1, linear([data]));
  expect((await get('snap-e1', 5, sealed())).equals(data)).toBe(true);

  const manifest = Manifest.parse((await store.getManifest('snap-e1'))!, { snapshotId: 'snap-e1', location: 'x' });
  const stored = Buffer.alloc(blockBytes);
  await store.getBlock({ owner: 'snap-e1', index: 5 }, manifest.sha256At(0), stored);
  for (const unit of [0, 127]) {
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt(5 * 128 + unit));
    const plain = createDecipheriv('aes-256-xts', dataKey, tweak).update(
      stored.subarray(unit * 4096, (unit + 1) * 4096),
    );
    expect(plain).toEqual(data.subarray(unit * 4096, (unit + 1) * 4096));
  }
  // Without the key it is noise, and a key sealed for another snapshot or session is none.
  expect((await get('snap-e1', 5)).equals(stored)).toBe(true);
  const foreign = sealFor(boxKey.publicKey, dataKey, 'snap-other').toString('base64');
  await expect(get('snap-e1', 5, foreign)).rejects.toMatchObject({ code: 'OtherSession' });
  const later = sealFor(new SealedBoxKey().publicKey, dataKey, 'snap-e1').toString('base64');
  await expect(get('snap-e1', 5, later)).rejects.toMatchObject({ code: 'OtherSession' });
});

const upload = (snapshotId: string) => join(directory, 'uploads', `${snapshotId}.upload`);

test('digests come under a key that the host has at the end only: what it notes down till then tells nothing of the blocks', async () => {
  const blocks = [block(), block()];
  const digestKey = randomBytes(digestKeyBytes);
  const sealed = sealFor(boxKey.publicKey, digestKey, 'snap-e1').toString('base64');
  await start('snap-e1');
  for (const [index, data] of blocks.entries())
    await ask({
      kind: 'putBlock',
      snapshotId: 'snap-e1',
      index,
      data: data.toString('base64'),
      sha256: hash('sha256', data, 'base64'),
      sealedSha256: sealDigest(digestKey, index, hash('sha256', data, 'buffer')).toString('base64'),
      dataKey: sealFor(boxKey.publicKey, randomBytes(64), 'snap-e1').toString('base64'),
    });
  const noted = readFileSync(upload('snap-e1'));
  for (const data of blocks) expect(noted.includes(hash('sha256', data, 'buffer'))).toBe(false);
  // A later process has what the first one noted down.
  uploads.close();
  begin();
  const end = (checksum: string, key: object) =>
    ask({ kind: 'completeUpload', snapshotId: 'snap-e1', changedBlocks: 2, checksum, ...key });
  await expect(end(linear(blocks), {})).rejects.toMatchObject({ code: 'ChecksumMismatch' });
  await expect(end(linear([block(), block()]), { digestKey: sealed })).rejects.toMatchObject({
    code: 'ChecksumMismatch',
  });
  await end(linear(blocks), { digestKey: sealed });
});

test('an upload that an earlier version began, which noted down digests as they are, is gone on with', async () => {
  const blocks = [block(), block()];
  await start('snap-e1');
  const lines = readFileSync(upload('snap-e1'), 'utf8').split('\n');
  const record = Buffer.alloc(4);
  const digest = hash('sha256', blocks[0]!, 'buffer');
  writeFileSync(
    upload('snap-e1'),
    Buffer.concat([
      Buffer.from(`${JSON.stringify({ ...JSON.parse(lines[0]!), format: 1 })}\n`),
      record,
      hash('sha256', blocks[0]!, 'buffer'),
      digest,
    ]),
  );
  await store.putBlock({ owner: 'snap-e1', index: 0 }, blocks[0]!);
  uploads.close();
  begin();
  const digestKey = randomBytes(digestKeyBytes);
  await ask({
    kind: 'putBlock',
    snapshotId: 'snap-e1',
    index: 1,
    data: blocks[1]!.toString('base64'),
    sha256: hash('sha256', blocks[1]!, 'base64'),
    sealedSha256: sealDigest(digestKey, 1, hash('sha256', blocks[1]!, 'buffer')).toString('base64'),
  });
  await ask({
    kind: 'completeUpload',
    snapshotId: 'snap-e1',
    changedBlocks: 2,
    checksum: linear(blocks),
    digestKey: sealFor(boxKey.publicKey, digestKey, 'snap-e1').toString('base64'),
  });
  expect((await get('snap-e1', 0)).equals(blocks[0]!)).toBe(true);
});

test('a block whose record could not be made durable is written again when it is put again', async () => {
  await start('snap-a1');
  const data = block();
  const sync = vi.spyOn(UploadFile.prototype, 'sync').mockRejectedValueOnce(new Error('EIO'));
  await expect(put('snap-a1', 0, data)).rejects.toThrow('EIO');
  await expect(complete('snap-a1', 1)).rejects.toMatchObject({ code: 'ChecksumMismatch' });
  await put('snap-a1', 0, data);
  expect(sync).toHaveBeenCalledTimes(2);
  await complete('snap-a1', 1, linear([data]));
});

test('nothing is taken over from a parent that is being deleted', async () => {
  await start('snap-a1');
  await put('snap-a1', 0, block());
  await complete('snap-a1', 1);
  await start('snap-a2', 'snap-a1');
  await store.putFreeing('snap-a1');
  const gone = { code: 'NoSuchSnapshot', message: expect.stringContaining('snap-a1') };
  await expect(start('snap-a3', 'snap-a1')).rejects.toMatchObject(gone);
  await expect(complete('snap-a2', 0)).rejects.toMatchObject(gone);
  expect(await store.getManifest('snap-a2')).toBeUndefined();
});

test('a successor begins as its parent, and the two can be compared', async () => {
  await start('snap-a1');
  const [zero, one, two] = [block(), block(), block()];
  for (const [index, data] of [zero, one, two].entries()) await put('snap-a1', index, data);
  await complete('snap-a1', 3);
  await start('snap-a2', 'snap-a1');
  const [changed, added] = [block(), block()];
  await put('snap-a2', 1, changed);
  await put('snap-a2', 9, added);
  await put('snap-a2', 2, two);
  expect(await complete('snap-a2', 3, linear([changed, two, added]))).toEqual({
    blocks: 4,
    fullBytes: 4 * blockBytes,
    storedBytes: 3 * blockBytes,
  });
  expect((await get('snap-a2', 0)).equals(zero)).toBe(true);
  expect((await get('snap-a2', 1)).equals(changed)).toBe(true);
  expect((await get('snap-a1', 1)).equals(one)).toBe(true);
  const compare = (firstSnapshotId: string | undefined, secondSnapshotId: string, from = 0, count = 100) =>
    ask({ kind: 'listChangedBlocks', ...(firstSnapshotId && { firstSnapshotId }), secondSnapshotId, from, count });
  expect(await compare('snap-a1', 'snap-a2')).toEqual({
    blocks: [
      { index: 1, inFirst: true, inSecond: true },
      { index: 9, inFirst: false, inSecond: true },
    ],
  });
  expect(await compare('snap-a2', 'snap-a1', 2)).toEqual({ blocks: [{ index: 9, inFirst: true, inSecond: false }] });
  expect(await compare('snap-a1', 'snap-a2', 0, 1)).toMatchObject({ blocks: [{ index: 1 }], next: 9 });
  expect((await compare(undefined, 'snap-a2')).blocks).toHaveLength(4);
  await expect(start('snap-a3', 'snap-gone')).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
});

test('counts and checksums that differ from what was written are refused, and writing can go on', async () => {
  await start('snap-a1');
  const [one, two] = [block(), block()];
  await put('snap-a1', 0, one);
  await expect(complete('snap-a1', 2)).rejects.toMatchObject({ code: 'ChecksumMismatch' });
  await expect(complete('snap-a1', 1, linear([two]))).rejects.toMatchObject({ code: 'ChecksumMismatch' });
  await put('snap-a1', 1, two);
  await complete('snap-a1', 2, linear([one, two]));
  // The first answer was lost: the client asks again.
  expect(await complete('snap-a1', 2, linear([one, two]))).toMatchObject({ blocks: 2, storedBytes: 2 * blockBytes });
});

test('a block written again counts once, with what was written last', async () => {
  await start('snap-a1');
  const [old, fresh] = [block(), block()];
  await put('snap-a1', 3, old);
  await put('snap-a1', 3, old);
  await Promise.all([put('snap-a1', 3, fresh), put('snap-a1', 3, fresh)]);
  await complete('snap-a1', 1, linear([fresh]));
  expect((await get('snap-a1', 3)).equals(fresh)).toBe(true);
});

test('another process goes on where one was killed: what was acknowledged is there', async () => {
  await start('snap-a1');
  const blocks = [block(), block(), block()];
  await put('snap-a1', 0, blocks[0]!);
  await put('snap-a1', 1, blocks[1]!);
  // A record that was cut short by the end of the process was not acknowledged.
  const file = join(directory, 'uploads', 'snap-a1.upload');
  writeFileSync(file, Buffer.concat([readFileSync(file), randomBytes(30)]));
  begin();
  await start('snap-a1');
  await put('snap-a1', 2, blocks[2]!);
  begin();
  expect(await complete('snap-a1', 3, linear(blocks))).toMatchObject({ blocks: 3 });
  for (const [index, data] of blocks.entries()) expect((await get('snap-a1', index)).equals(data)).toBe(true);
});

test('a block whose replacement was cut off is neither old nor new, and the snapshot not complete without it', async () => {
  await start('snap-a1');
  const [old, fresh] = [block(), block()];
  await put('snap-a1', 0, old);
  const file = join(directory, 'uploads', 'snap-a1.upload');
  const before = readFileSync(file).length;
  await put('snap-a1', 0, fresh);
  // The record of the replacement is lost, the one that announced it is not.
  truncateSync(file, before + 68);
  begin();
  await expect(complete('snap-a1', 1, linear([fresh]))).rejects.toThrow('Block 0 of snap-a1 was being replaced');
  await put('snap-a1', 0, fresh);
  await complete('snap-a1', 1, linear([fresh]));
  expect((await get('snap-a1', 0)).equals(fresh)).toBe(true);
});

test('blocks beyond the end, and uploads that nobody began, are refused', async () => {
  await start('snap-a1');
  await expect(put('snap-a1', 2048, block())).rejects.toMatchObject({ code: 'NoSuchBlock' });
  await expect(put('snap-b1', 0, block())).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
  await expect(put('snap-../../x', 0, block())).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
  await expect(complete('snap-b1', 0)).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
});

test('what was given up is forgotten when the host starts again', async () => {
  await start('snap-a1');
  await start('snap-b1');
  await store.deleteMark('snap-a1');
  begin();
  await uploads.prune();
  expect(existsSync(join(directory, 'uploads', 'snap-a1.upload'))).toBe(false);
  expect(existsSync(join(directory, 'uploads', 'snap-b1.upload'))).toBe(true);
});

test('a block that was altered in the store is not given out', async () => {
  await start('snap-a1');
  await put('snap-a1', 0, block());
  await complete('snap-a1', 1);
  await store.putBlock({ owner: 'snap-a1', index: 0 }, block());
  await expect(get('snap-a1', 0)).rejects.toMatchObject({ code: 'Corrupt' });
  await expect(get('snap-a1', 0)).rejects.toThrow(/snap-a1/);
});

test('completing twice at once, and beside writing, leaves a snapshot that is whole', async () => {
  for (const round of [1, 2, 3, 4]) {
    const id = `snap-a${round}`;
    await start(id);
    const [zero, one, late] = [block(), block(), block()];
    await put(id, 0, zero);
    await put(id, 1, one);
    const outcome = { blocks: 2, fullBytes: 2 * blockBytes, storedBytes: 2 * blockBytes };
    const writing = put(id, 1, late);
    const [first, second, third, written] = await Promise.allSettled([
      complete(id, 2),
      complete(id, 2),
      put(id, 0, late),
      writing,
    ]);
    expect(first).toEqual({ status: 'fulfilled', value: outcome });
    expect(second).toEqual({ status: 'fulfilled', value: outcome });
    // It came too late, and says so; what was acknowledged is what the snapshot has.
    expect(third).toMatchObject({ status: 'rejected', reason: { code: 'NotOpen' } });
    expect(written.status).toBe('fulfilled');
    expect((await get(id, 0)).equals(zero)).toBe(true);
    expect((await get(id, 1)).equals(late)).toBe(true);
    await expect(put(id, 0, late)).rejects.toMatchObject({ code: 'NotOpen' });
  }
});

test('one write that fails does not let the snapshot be completed while others are under way', async () => {
  await start('snap-a1');
  const [bad, good] = [block(), block()];
  const putBlock = store.putBlock.bind(store);
  const gate = Promise.withResolvers<void>();
  store.putBlock = async (name, bytes, signal) => {
    if (name.index === 0) throw new StoreError('Unavailable', 'for a moment');
    await gate.promise;
    return putBlock(name, bytes, signal);
  };
  const failing = put('snap-a1', 0, bad);
  const slow = put('snap-a1', 1, good);
  const completing = complete('snap-a1', 1, linear([good]));
  await expect(failing).rejects.toMatchObject({ code: 'Unavailable' });
  gate.resolve();
  await slow;
  expect(await completing).toMatchObject({ blocks: 1 });
});

test('what is given up leaves nothing behind: no file, and no block that comes later', async () => {
  await start('snap-a1');
  await start('snap-b1');
  await put('snap-a1', 0, block());
  const late = [put('snap-a1', 1, block()), put('snap-a1', 0, block())];
  await uploads.giveUp('snap-a1');
  await Promise.allSettled(late);
  await freeSnapshot(store, 'snap-a1');
  const stored: string[] = [];
  await expect(put('snap-a1', 2, block())).rejects.toMatchObject({ code: 'NotOpen' });
  await expect(start('snap-a1')).rejects.toMatchObject({ code: 'NotOpen' });
  await expect(complete('snap-a1', 1)).rejects.toMatchObject({ code: 'NoSuchSnapshot' });
  for await (const { owner } of store.listBlocks()) stored.push(owner);
  for await (const marked of store.listMarks()) stored.push(marked);
  expect(stored).toEqual(['snap-b1']);
  expect(readdirSync(join(directory, 'uploads'))).toEqual(['snap-b1.upload']);
  // One that this process has never had open.
  begin();
  await uploads.giveUp('snap-b1');
  expect(readdirSync(join(directory, 'uploads'))).toEqual([]);
});

test('many uploads at a time take few file descriptors', async () => {
  const ids = Array.from({ length: 300 }, (_, n) => `snap-a${n}`);
  const data = block();
  const before = readdirSync('/proc/self/fd').length;
  for (const id of ids) await start(id);
  expect(readdirSync('/proc/self/fd').length - before).toBeLessThan(150);
  for (const id of [ids[0]!, ids[299]!]) {
    await put(id, 0, data);
    expect(await complete(id, 1, linear([data]))).toMatchObject({ blocks: 1 });
  }
});
