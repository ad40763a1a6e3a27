import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CopySnapshotTask, DeleteSnapshotTask } from '../aws/host-protocol.ts';
import { blockBytes } from '../blocks/store.ts';
import { digests, soon, TestHost, xtsBlock } from './testing-host.ts';

const source = 'snap-0000000000000000a';
const copy = 'snap-0000000000000000b';
const sizeBytes = 64 * blockBytes;
const copyTask: CopySnapshotTask = {
  taskId: 'copy',
  kind: 'copySnapshot',
  snapshotId: copy,
  sourceSnapshotId: source,
  sizeBytes,
};
const deletion = (snapshotId: string, family: string[] = []): DeleteSnapshotTask => ({
  taskId: `delete ${snapshotId}`,
  kind: 'deleteSnapshot',
  snapshotId,
  family,
});

let host: TestHost;
beforeEach(async () => {
  host = await TestHost.start();
});
afterEach(() => host.end());

/** Blocks of random bytes; one is zeros here and there, as a volume that was written in part is. */
function someBlocks(): Map<number, Buffer> {
  const blocks = new Map<number, Buffer>();
  for (const index of [0, 1, 7, 40, 63]) blocks.set(index, randomBytes(blockBytes));
  blocks.get(1)!.fill(0, 8192, 16384);
  blocks.get(7)!.fill(0, 0, blockBytes - 4096);
  return blocks;
}

const mapBlocks = (blocks: Map<number, Buffer>, change: (bytes: Buffer, index: number) => Buffer) =>
  new Map([...blocks].map(([index, bytes]) => [index, change(bytes, index)]));

describe('a copy of a snapshot', () => {
  test('is encrypted anew under its own data key, unit by unit, and zeros stay zeros', async () => {
    const plain = someBlocks();
    const old = host.newKey(source, 'eu-west-1');
    const own = host.newKey(copy);
    await host.putSnapshot(
      source,
      sizeBytes,
      mapBlocks(plain, (bytes, index) => xtsBlock('encrypt', old.key, index, bytes)),
    );
    const task = { ...copyTask, sourceEncryption: old.encryption, encryption: own.encryption };
    const result = await host.do(task);
    expect(result).toMatchObject({
      progress: 100,
      outcome: { blocks: 5, fullBytes: 5 * blockBytes, storedBytes: 5 * blockBytes },
    });
    const stored = (await host.readSnapshot(copy))!;
    expect([...stored.keys()]).toEqual([...plain.keys()]);
    for (const [index, bytes] of stored) {
      expect(bytes.equals(xtsBlock('encrypt', own.key, index, plain.get(index)!))).toBe(true);
      expect(xtsBlock('decrypt', own.key, index, bytes).equals(plain.get(index)!)).toBe(true);
    }
  });

  test('asks for both keys as the infrastructure of the copy, each in the region of its key', async () => {
    await host.putSnapshot(source, sizeBytes, someBlocks());
    const old = host.newKey(source, 'eu-west-1');
    const own = host.newKey(copy);
    await host.do({ ...copyTask, sourceEncryption: old.encryption, encryption: own.encryption });
    const asked = host.controlPlane.decryptRequests;
    expect(asked.map(({ EncryptionContext }) => EncryptionContext)).toEqual([
      { 'aws:ebs:id': source },
      { 'aws:ebs:id': copy },
    ]);
    expect(asked.map(({ authorization }) => /Credential=(\w+)\/\d+\/([\w-]+)\//.exec(authorization)!.slice(1))).toEqual(
      [
        ['ASIASNAP0000000000000000B', 'eu-west-1'],
        ['ASIASNAP0000000000000000B', 'us-east-1'],
      ],
    );
    await expect.poll(() => host.controlPlane.last.credentials, soon).toEqual([]);
  });

  test('of an unencrypted snapshot is encrypted when it has a key, and a plain copy when it has none', async () => {
    const plain = someBlocks();
    await host.putSnapshot(source, sizeBytes, plain);
    await host.do(copyTask);
    expect(digests(await host.readSnapshot(copy))).toEqual(digests(plain));

    const third = 'snap-0000000000000000c';
    const own = host.newKey(third);
    await host.do({ ...copyTask, taskId: 'third', snapshotId: third, encryption: own.encryption });
    expect(digests(await host.readSnapshot(third))).toEqual(
      digests(mapBlocks(plain, (bytes, index) => xtsBlock('encrypt', own.key, index, bytes))),
    );
  });

  test('stands alone: its source can be deleted', async () => {
    const plain = someBlocks();
    await host.putSnapshot(source, sizeBytes, plain);
    await host.do(copyTask);
    await host.do(deletion(source));
    expect(await host.readSnapshot(source)).toBeUndefined();
    expect(digests(await host.readSnapshot(copy))).toEqual(digests(plain));
    expect(await host.storedBlocks()).toEqual({ [copy]: [...plain.keys()] });
  });

  test('never turns what is encrypted into something that is not', async () => {
    await host.putSnapshot(source, sizeBytes, someBlocks());
    host.list({ ...copyTask, sourceEncryption: host.newKey(source).encryption });
    const { final, error } = await host.reports('copy', { state: 'failed' });
    expect({ final, error }).toEqual({ final: true, error: `${source} is encrypted, so its copy must be` });
    expect(host.controlPlane.decrypts).toBe(0);
  });

  test("fails with KMS's words while the key can't be used, and goes on when it can", async () => {
    const plain = someBlocks();
    await host.putSnapshot(source, sizeBytes, plain);
    const own = host.newKey(copy);
    host.controlPlane.dataKeys.clear();
    const message = `${own.encryption.keyArn} is disabled.`;
    host.controlPlane.decryptAnswer = { status: 400, body: { __type: 'DisabledException', message } };
    host.list({ ...copyTask, encryption: own.encryption });
    expect(await host.reports('copy', { state: 'failed' })).toEqual({
      taskId: 'copy',
      state: 'failed',
      error: message,
    });
    host.controlPlane.dataKeys.set(own.encryption.encryptedDataKey, own.key);
    await host.reports('copy', { state: 'done' });
  });

  test('of a snapshot with a block that was altered fails for good, and names the block', async () => {
    await host.putSnapshot(source, sizeBytes, someBlocks());
    const altered = randomBytes(blockBytes);
    await (await host.store()).putBlock({ owner: source, index: 40 }, altered);
    host.list({ ...copyTask, encryption: host.newKey(copy).encryption });
    const { error } = await host.reports('copy', { state: 'failed', final: true });
    expect(error).toContain('40');
    expect(error).toContain(source);
    expect(await host.readSnapshot(copy)).toBeUndefined();
  });

  test('that is no longer listed stops, and deleting it removes what was stored of it', async () => {
    const blocks = new Map(Array.from({ length: 64 }, (_, index) => [index, randomBytes(blockBytes)]));
    await host.putSnapshot(source, sizeBytes, blocks);
    host.list({ ...copyTask, encryption: host.newKey(copy).encryption });
    await expect.poll(async () => copy in (await host.storedBlocks()), soon).toBe(true);
    host.unlist('copy');
    await host.do(deletion(copy));
    expect(Object.keys(await host.storedBlocks())).toEqual([source]);
    expect(readdirSync(join(host.dataDir, 'tasks'))).toEqual([]);
  });
});

describe('a block store that is not there', () => {
  test('makes tasks fail with the reason, and they go on when it is back', async () => {
    await host.putSnapshot(source, sizeBytes, someBlocks());
    await expect.poll(() => host.controlPlane.last.blockStoreId, soon).toMatch(/^[0-9a-f-]{36}$/);
    const { blockStoreId } = host.controlPlane.last;
    await host.stopAgent();
    const away = `${host.storeLocation}-away`;
    renameSync(host.storeLocation, away);
    mkdirSync(host.storeLocation);
    host.startAgent();

    host.list(copyTask);
    const { error } = await host.reports('copy', { state: 'failed' });
    // Where it should be is the operator's to know, not that of whoever owns the snapshot.
    expect(error).toBe('there is no block store');
    expect(host.controlPlane.last.blockStoreId).toBeUndefined();
    expect(host.controlPlane.last.blockStore).toMatchObject({
      location: host.storeLocation,
      error: expect.stringContaining(`${error} (${host.storeLocation} has no store.json`),
    });
    // An empty directory, such as one whose file system is not mounted, does not become a new store.
    expect(existsSync(join(host.storeLocation, 'store.json'))).toBe(false);

    rmSync(host.storeLocation, { recursive: true });
    renameSync(away, host.storeLocation);
    await host.reports('copy', { state: 'done' });
    expect(host.controlPlane.last.blockStoreId).toBe(blockStoreId);
  });

  test('is not made anew in another place either: --store was forgotten, or the store has yet to be moved there', async () => {
    await host.putSnapshot(source, sizeBytes, someBlocks());
    await expect.poll(() => host.controlPlane.last.blockStoreId, soon).toMatch(/^[0-9a-f-]{36}$/);
    const { blockStoreId } = host.controlPlane.last;
    await host.stopAgent();
    const elsewhere = join(host.dataDir, 'elsewhere');
    host.startAgent(elsewhere);
    await expect
      .poll(() => host.controlPlane.last.blockStore?.error, soon)
      .toMatch(/no block store .*elsewhere.*host\.store/);
    expect(existsSync(elsewhere)).toBe(false);
    await host.stopAgent();
    renameSync(host.storeLocation, elsewhere);
    host.startAgent(elsewhere);
    await expect.poll(() => host.controlPlane.last.blockStoreId, soon).toBe(blockStoreId);
  });

  test('that is another one than before is not taken for it', async () => {
    await expect.poll(() => host.controlPlane.last.blockStoreId, soon).toBeTruthy();
    await host.stopAgent();
    const note = join(host.dataDir, 'host.store');
    writeFileSync(note, JSON.stringify({ location: host.storeLocation, storeId: 'another' }));
    host.startAgent();
    await expect.poll(() => host.controlPlane.last.blockStore?.error, soon).toMatch(/but this host's is another/);
  });
});
