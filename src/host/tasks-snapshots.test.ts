import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CreateSnapshotTask, HostTask } from '../aws/host-protocol.ts';
import { blockBytes } from '../blocks/store.ts';
import type { NbdClient } from '../cli/nbd-client.ts';
import { digests, soon, TestHost, xtsBlock } from './testing-host.ts';

const volumeId = 'vol-0123456789abcdef1';
const otherVolumeId = 'vol-0123456789abcdef2';
const blocks = 32;
const sizeBytes = blocks * blockBytes;
const snapshotId = (n: number) => `snap-0000000000000000${n}`;

/** The task that makes snapshot `n` of the volume. */
function snapshot(n: number, change: Partial<CreateSnapshotTask> = {}): CreateSnapshotTask {
  const parent = n > 1 ? { parentSnapshotId: snapshotId(n - 1) } : {};
  return {
    taskId: `create ${n}`,
    kind: 'createSnapshot',
    volumeId,
    snapshotId: snapshotId(n),
    sizeBytes,
    hasImage: true,
    ...parent,
    ...change,
  };
}
const deletion = (n: number, family: number[]): HostTask => ({
  taskId: `delete ${n}`,
  kind: 'deleteSnapshot',
  snapshotId: snapshotId(n),
  family: family.map(snapshotId),
});

const zeros = Buffer.alloc(blockBytes);

let host: TestHost;
let model: Buffer;
beforeEach(async () => {
  host = await TestHost.start();
  model = Buffer.alloc(sizeBytes);
});
afterEach(() => host.end());

/** Writes random bytes to the volume and to the model. */
async function write(nbd: NbdClient, offset: number, length: number, to = model): Promise<void> {
  const bytes = randomBytes(length);
  bytes.copy(to, offset);
  await nbd.write(offset, bytes);
}

/** The model's blocks that are not all zeros. */
function modelBlocks(of = model): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let index = 0; index * blockBytes < of.length; index++) {
    const block = of.subarray(index * blockBytes, (index + 1) * blockBytes);
    if (!block.equals(zeros)) found.set(index, block);
  }
  return found;
}

async function expectSnapshot(n: number, expected = model): Promise<void> {
  expect(digests(await host.readSnapshot(snapshotId(n)))).toEqual(digests(modelBlocks(expected)));
}

describe('a snapshot', () => {
  test('of an attached volume is what the volume was when it was asked for, whatever is written meanwhile', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (let index = 0; index < blocks; index += 2) await write(nbd, index * blockBytes + 5000, 9000);
    host.list(snapshot(1));
    await host.reports('create 1', { marked: true });
    const then = Buffer.from(model);
    for (let index = 0; index < blocks; index++) await write(nbd, index * blockBytes, 20_000);
    await nbd.trim(4 * blockBytes, 2 * blockBytes);
    const { outcome } = await host.reports('create 1', { state: 'done' });
    await expectSnapshot(1, then);
    expect(outcome).toEqual({ blocks: 16, fullBytes: 16 * blockBytes, storedBytes: 16 * blockBytes });
    await nbd.close();
  });

  test('of an encrypted volume is ciphertext, made without asking for a key', async () => {
    const { key, encryption } = host.newKey(volumeId);
    const nbd = await host.attach({ volumeId, sizeBytes, encryption });
    await write(nbd, 3 * blockBytes, blockBytes);
    await nbd.flush();
    await nbd.close();
    await host.detach(volumeId);
    const before = host.controlPlane.decrypts;
    await host.do(snapshot(1));
    expect(host.controlPlane.decrypts).toBe(before);
    const stored = (await host.readSnapshot(snapshotId(1)))!.get(3)!;
    const plain = model.subarray(3 * blockBytes, 4 * blockBytes);
    expect(stored.equals(plain)).toBe(false);
    expect(xtsBlock('decrypt', key, 3, stored).equals(plain)).toBe(true);
  });

  test('stores only what changed since the one before, and any may be deleted', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (const index of [1, 2, 3, 4]) await write(nbd, index * blockBytes, blockBytes);
    const states: Buffer[] = [Buffer.from(model)];
    await host.do(snapshot(1));
    for (const index of [2, 9]) await write(nbd, index * blockBytes, 4096);
    await nbd.trim(3 * blockBytes, blockBytes);
    model.fill(0, 3 * blockBytes, 4 * blockBytes);
    states.push(Buffer.from(model));
    const second = await host.do(snapshot(2));
    expect(second.outcome).toEqual({ blocks: 4, fullBytes: 4 * blockBytes, storedBytes: 2 * blockBytes });
    await write(nbd, 9 * blockBytes, 4096);
    states.push(Buffer.from(model));
    const third = await host.do(snapshot(3));
    expect(third.outcome).toMatchObject({ blocks: 4, storedBytes: blockBytes });
    expect(await host.storedBlocks()).toEqual({
      [snapshotId(1)]: [1, 2, 3, 4],
      [snapshotId(2)]: [2, 9],
      [snapshotId(3)]: [9],
    });

    await host.do(deletion(2, [1, 3]));
    expect(await host.storedBlocks()).toEqual({
      [snapshotId(1)]: [1, 2, 3, 4],
      [snapshotId(2)]: [2],
      [snapshotId(3)]: [9],
    });
    await expectSnapshot(1, states[0]);
    await expectSnapshot(3, states[2]);
    await host.do(deletion(1, [3]));
    expect(await host.storedBlocks()).toEqual({ [snapshotId(1)]: [1, 4], [snapshotId(2)]: [2], [snapshotId(3)]: [9] });
    await expectSnapshot(3, states[2]);
    await host.do(deletion(3, []));
    expect(await host.storedBlocks()).toEqual({});
    await nbd.close();
  });

  test('whose parent is not the last one that was taken is compared block by block', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (const index of [0, 1, 2]) await write(nbd, index * blockBytes, blockBytes);
    await host.do(snapshot(1));
    await write(nbd, blockBytes, 4096);
    await host.do(snapshot(2));
    await host.do(deletion(2, [1]));
    const { outcome } = await host.do(snapshot(3, { parentSnapshotId: snapshotId(1) }));
    expect(outcome).toMatchObject({ blocks: 3, storedBytes: blockBytes });
    await expectSnapshot(3);
    await nbd.close();
  });

  test('of a volume that was never attached is empty, even if the volume is written to right after', async () => {
    host.list(snapshot(1, { hasImage: false }));
    const nbd = await host.attach({ volumeId, sizeBytes });
    await write(nbd, 0, blockBytes);
    const { outcome } = await host.reports('create 1', { state: 'done' });
    expect(outcome).toEqual({ blocks: 0, fullBytes: 0, storedBytes: 0 });
    expect(await host.readSnapshot(snapshotId(1))).toEqual(new Map());
    await host.do(snapshot(2));
    await expectSnapshot(2);
    await nbd.close();
  });

  test('of a volume whose image is lost fails, and says so', async () => {
    host.list(snapshot(1));
    const { error, marked } = await host.reports('create 1', { state: 'failed' });
    expect(error).toMatch(/image .*\.img is missing/);
    expect(marked).toBeUndefined();
  });

  test('is fixed before an attachment that the same answer asks for is opened', async () => {
    const image = join(host.volumesDir, `${volumeId}.img`);
    mkdirSync(host.volumesDir, { recursive: true });
    const file = openSync(image, 'w', 0o600);
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    host.controlPlane.desired = { ...host.controlPlane.desired, tasks: [snapshot(1)] };
    const nbd = await host.attach({ volumeId, sizeBytes });
    await write(nbd, 0, 4096);
    await host.reports('create 1', { state: 'done' });
    expect(await host.readSnapshot(snapshotId(1))).toEqual(new Map());
    await nbd.close();
  });

  test('leaves nothing behind beside the volume', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    await write(nbd, 0, 4096);
    await host.do(snapshot(1));
    expect(readdirSync(host.volumesDir).sort()).toEqual([`${volumeId}.img`, `${volumeId}.map`]);
    for await (const mark of (await host.store()).listMarks()) expect.fail(`the mark of ${mark} is still there`);
    await nbd.close();
  });

  test('is not made a second time when the control plane has missed that it is complete', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    await write(nbd, 0, 4096);
    const then = Buffer.from(model);
    host.list(snapshot(1));
    await host.reports('create 1', { state: 'done' });
    await nbd.close();
    await host.stopAgent();
    host.startAgent();
    await host.reports('create 1', {
      state: 'done',
      outcome: { blocks: 1, fullBytes: blockBytes, storedBytes: blockBytes },
    });
    const again = await host.attach({ volumeId, sizeBytes });
    await write(again, 5 * blockBytes, 4096);
    host.unlist('create 1');
    // What changed since the first snapshot is still known to have changed.
    await host.do(snapshot(2));
    await expectSnapshot(1, then);
    await expectSnapshot(2);
    await again.close();
  });
});

describe('snapshots of one volume that are asked for together', () => {
  test('are made one after the other, each as of its own point in time', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    const states: Buffer[] = [];
    for (const n of [1, 2, 3]) {
      for (let index = n; index < blocks; index += n) await write(nbd, index * blockBytes, 8192);
      host.list(snapshot(n));
      await host.reports(`create ${n}`, { marked: true });
      states.push(Buffer.from(model));
    }
    await write(nbd, 0, 3 * blockBytes);
    await Promise.all([1, 2, 3].map((n) => host.reports(`create ${n}`, { state: 'done' })));
    for (const n of [1, 2, 3]) await expectSnapshot(n, states[n - 1]);
    await nbd.close();
  });
});

describe('snapshots of several volumes', () => {
  test('share one point in time', async () => {
    const nbds = [
      await host.attach({ volumeId, sizeBytes }),
      await host.attach({ volumeId: otherVolumeId, sizeBytes }),
    ];
    let isOver = false;
    // One counter, written to the first volume, then to the second: a point in time never shows the second ahead.
    const writing = (async () => {
      for (let count = 1; !isOver; count++) {
        const bytes = Buffer.alloc(4096);
        bytes.writeUInt32LE(count);
        for (const nbd of nbds) await nbd.write(0, bytes);
      }
    })();
    await expect.poll(() => nbds[1]!.read(0, 4).then((bytes) => bytes.readUInt32LE()), soon).toBeGreaterThan(10);
    for (let round = 0; round < 4; round++) {
      const ids = [snapshotId(2 * round), snapshotId(2 * round + 1)];
      const group = { groupId: `group ${round}`, snapshotIds: ids };
      const tasks = [volumeId, otherVolumeId].map((each, position) =>
        snapshot(1, { taskId: `g${round} ${position}`, volumeId: each, snapshotId: ids[position]!, group }),
      );
      host.list(...tasks);
      for (const { taskId } of tasks) await host.reports(taskId, { state: 'done' });
      const [first, second] = await Promise.all(
        ids.map(async (id) => (await host.readSnapshot(id))!.get(0)!.readUInt32LE()),
      );
      expect([first, first! - 1]).toContain(second);
    }
    isOver = true;
    await writing;
    for (const nbd of nbds) await nbd.close();
  });

  test('none is made when one of the volumes has lost its image', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    const ids = [snapshotId(1), snapshotId(2)];
    const group = { groupId: 'group', snapshotIds: ids };
    host.list(snapshot(1, { group }), snapshot(2, { volumeId: otherVolumeId, parentSnapshotId: undefined, group }));
    await host.reports('create 1', { state: 'failed' });
    await host.reports('create 2', { state: 'failed' });
    expect(readdirSync(host.volumesDir).filter((name) => name.includes('snap'))).toEqual([]);
    await nbd.close();
  });
});

describe('a snapshot that is no longer wanted', () => {
  test('stops, and its deletion leaves no trace in the store or beside the volume', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (let index = 0; index < blocks; index++) await write(nbd, index * blockBytes, blockBytes);
    host.list(snapshot(1));
    await host.reports('create 1', { marked: true });
    host.unlist('create 1');
    await host.do(deletion(1, []));
    expect(await host.storedBlocks()).toEqual({});
    expect(readdirSync(host.volumesDir).sort()).toEqual([`${volumeId}.img`, `${volumeId}.map`]);
    await host.do(snapshot(2, { parentSnapshotId: undefined }));
    await expectSnapshot(2);
    await nbd.close();
  });

  test('does not harm an older one that is still being made', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (let index = 0; index < blocks; index++) await write(nbd, index * blockBytes, blockBytes);
    const then = Buffer.from(model);
    host.list(snapshot(1));
    host.list(snapshot(2));
    await host.reports('create 2', { marked: true });
    for (let index = 0; index < blocks; index++) await write(nbd, index * blockBytes, blockBytes);
    host.unlist('create 2');
    await host.do(deletion(2, [1]));
    await host.reports('create 1', { state: 'done' });
    await expectSnapshot(1, then);
    await nbd.close();
  });
});

describe('a volume from a snapshot', () => {
  const restored = 'vol-0123456789abcdef3';

  test('is restored in the background under its own key, and reads the same', async () => {
    const old = host.newKey(volumeId);
    const nbd = await host.attach({ volumeId, sizeBytes, encryption: old.encryption });
    for (const index of [0, 5, 31]) await write(nbd, index * blockBytes + 4096, 12_288);
    await nbd.close();
    await host.do(snapshot(1));
    const own = host.newKey(restored);
    const source = { snapshotId: snapshotId(1), sizeBytes, encryption: old.encryption };
    const larger = 2 * sizeBytes;
    await host.do({
      taskId: 'initialize',
      kind: 'initializeVolume',
      volumeId: restored,
      sizeBytes: larger,
      hasImage: false,
      encryption: own.encryption,
      source,
    });
    const again = await host.attach({ volumeId: restored, sizeBytes: larger, encryption: own.encryption });
    expect((await again.read(0, sizeBytes)).equals(model)).toBe(true);
    expect((await again.read(sizeBytes, blockBytes)).equals(zeros)).toBe(true);
    await again.close();
  });

  test('can be snapshot while it is being restored; the snapshot is whole', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    for (let index = 0; index < blocks; index++) await write(nbd, index * blockBytes, blockBytes);
    await nbd.close();
    await host.do(snapshot(1));
    const source = { snapshotId: snapshotId(1), sizeBytes, rate: 4 };
    const volume = { volumeId: restored, sizeBytes, hasImage: false, source };
    host.list({ taskId: 'initialize', kind: 'initializeVolume', ...volume });
    const again = await host.attach({ volumeId: restored, sizeBytes, source });
    await write(again, blockBytes, blockBytes);
    host.list(snapshot(2, { volumeId: restored, parentSnapshotId: undefined }));
    await host.reports('create 2', { marked: true });
    const then = Buffer.from(model);
    await write(again, 30 * blockBytes, 4096);
    await host.reports('create 2', { state: 'done' });
    await expectSnapshot(2, then);
    await again.close();
  });

  test('says which block of its snapshot is damaged, and is finished when that is put back', async () => {
    const damaged = { owner: snapshotId(1), index: 4 };
    const bytes = randomBytes(blockBytes);
    await host.putSnapshot(
      snapshotId(1),
      sizeBytes,
      new Map([
        [3, randomBytes(blockBytes)],
        [4, bytes],
      ]),
    );
    const store = await host.store();
    await store.putBlock(damaged, randomBytes(blockBytes));
    host.list({
      taskId: 'initialize',
      kind: 'initializeVolume',
      volumeId: restored,
      sizeBytes,
      hasImage: false,
      source: { snapshotId: snapshotId(1), sizeBytes },
    });
    const { error, final } = await host.reports('initialize', { state: 'failed' });
    expect(error).toContain(snapshotId(1));
    expect(error).toMatch(/\b4\b/);
    expect(final).toBeUndefined();
    await store.putBlock(damaged, bytes);
    await host.reports('initialize', { state: 'done' });
  });
});

describe('a block store without room', () => {
  test('makes the snapshot fail with the reason; it is tried again, and its point in time stands', async () => {
    const nbd = await host.attach({ volumeId, sizeBytes });
    await write(nbd, 0, blockBytes);
    const then = Buffer.from(model);
    // A file where the directory of its blocks should be: nothing can be written under the snapshot's name.
    const inTheWay = join(host.storeLocation, 'blocks', snapshotId(1));
    await expect.poll(() => host.controlPlane.last.blockStoreId, soon).toBeTruthy();
    writeFileSync(inTheWay, '');
    host.list(snapshot(1));
    expect(await host.reports('create 1', { state: 'failed' })).toMatchObject({ marked: true });
    await write(nbd, 0, blockBytes);
    rmSync(inTheWay);
    await host.reports('create 1', { state: 'done' });
    await expectSnapshot(1, then);
    await nbd.close();
  });
});

test('a deleted volume is erased after its snapshots are made, with all that lies beside its image', async () => {
  const nbd = await host.attach({ volumeId, sizeBytes });
  await write(nbd, 0, 5 * blockBytes);
  await nbd.close();
  await host.detach(volumeId);
  host.list(snapshot(1), { taskId: 'erase', kind: 'eraseVolume', volumeId });
  await host.reports('create 1', { state: 'done' });
  await host.reports('erase', { state: 'done' });
  await expectSnapshot(1);
  host.unlist('create 1', 'erase');
  await expect.poll(() => readdirSync(host.volumesDir), soon).toEqual([]);
});
