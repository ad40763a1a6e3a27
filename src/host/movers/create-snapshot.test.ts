import { hash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManifestBuilder } from '../../blocks/manifest.ts';
import { openStore } from '../../blocks/open-store.ts';
import { readManifest } from '../../blocks/read-manifest.ts';
import { type BlockStore, blockBytes, StoreError } from '../../blocks/store.ts';
import { createOpenVolumes } from '../volumes.ts';
import { createSnapshot } from './create-snapshot.ts';
import type { CreateSnapshotJob } from './jobs.ts';
import type { JobContext } from './mover-world.ts';
import { Slabs } from './slabs.ts';

const volumeId = 'vol-00000000000000001';
const snapshotId = 'snap-00000000000000001';
const sizeBytes = 8 * blockBytes;
let directory: string;
let contents: Buffer;
let job: CreateSnapshotJob;
let store: BlockStore;
/** Blocks that were put, in order. */
let put: number[];
let onPut: () => void;
let manifestError: Error | undefined;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-create-'));
  const volumesDir = join(directory, 'volumes');
  const imagePath = join(volumesDir, `${volumeId}.img`);
  mkdirSync(volumesDir);
  contents = randomBytes(sizeBytes);
  writeFileSync(imagePath, contents);
  await createOpenVolumes({ log: pino({ level: 'silent' }) }).markSnapshots([
    { volumeId, snapshotId, sizeBytes, imagePath, hasImage: true },
  ]);
  const journalPath = join(volumesDir, 'journal');
  job = {
    kind: 'createSnapshot',
    volumesDir,
    journalPath,
    volumeId,
    snapshotId,
    sizeBytes,
    parentSnapshotId: undefined,
  };
  const real = await openStore(join(directory, 'store'));
  put = [];
  onPut = () => {};
  manifestError = undefined;
  store = Object.create(real, {
    putBlock: {
      value: (name: { owner: string; index: number }, bytes: Buffer) => {
        put.push(name.index);
        onPut();
        return real.putBlock(name, bytes);
      },
    },
    putManifest: {
      value: async (id: string, bytes: Buffer) => {
        if (manifestError) throw manifestError;
        await real.putManifest(id, bytes);
      },
    },
  });
  // Private members are found on the real store only.
  for (const name of [
    'getBlock',
    'getManifest',
    'putMark',
    'deleteMark',
    'putFreeing',
    'listFreeing',
    'deleteBlocks',
    'sync',
    'close',
  ] as const)
    Object.defineProperty(store, name, { value: (real[name] as (...all: unknown[]) => unknown).bind(real) });
});
afterEach(() => {
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

const context = (signal = new AbortController().signal): JobContext => ({
  store,
  slabs: new Slabs(4),
  signal,
  progress: () => {},
});

async function expectWhole(): Promise<void> {
  const manifest = await readManifest(store, snapshotId);
  const bytes = Buffer.alloc(blockBytes);
  expect(manifest!.blocks).toBe(8);
  for (const entry of manifest!.entries()) {
    await store.getBlock(entry, entry.sha256, bytes);
    expect(bytes.equals(contents.subarray(entry.index * blockBytes, (entry.index + 1) * blockBytes))).toBe(true);
  }
}

test('blocks are put once, although the work was stopped in between', async () => {
  const stop = new AbortController();
  onPut = () => {
    if (put.length === 3) stop.abort(new Error('stopped'));
  };
  await expect(createSnapshot(job, context(stop.signal))).rejects.toThrow('stopped');
  await createSnapshot(job, context());
  expect(put.sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  await expectWhole();
});

describe('a parent that is being deleted', () => {
  const parentSnapshotId = 'snap-00000000000000000';
  beforeEach(async () => {
    const builder = new ManifestBuilder({ snapshotId: parentSnapshotId, volumeId, sizeBytes, createdAt: 'now' });
    for (let index = 0; index < 8; index++)
      builder.append(index, hash('sha256', contents.subarray(index * blockBytes, (index + 1) * blockBytes), 'buffer'));
    await store.putManifest(parentSnapshotId, builder.finish());
    job = { ...job, parentSnapshotId };
  });

  test('is none: what the snapshot needs is stored with it', async () => {
    await store.putFreeing(parentSnapshotId);
    await createSnapshot(job, context());
    await expectWhole();
  });

  test('is noticed also when that begins while blocks are compared with it', async () => {
    const slabs = new Slabs(4);
    const lend = slabs.lend.bind(slabs);
    slabs.lend = async (use) => {
      await store.putFreeing(parentSnapshotId);
      return lend(use);
    };
    await expect(createSnapshot(job, { ...context(), slabs })).rejects.toThrow('is being deleted');
    expect(await store.getManifest(snapshotId)).toBeUndefined();
  });
});

test('blocks that the store could not make durable are put again', async () => {
  manifestError = new StoreError('Unavailable', 'the disk failed');
  await expect(createSnapshot(job, context())).rejects.toThrow('the disk failed');
  expect(put.length).toBe(8);
  manifestError = undefined;
  put = [];
  await createSnapshot(job, context());
  expect(put.sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  await expectWhole();
});

test('a block that the store has lost, and that the volume has kept, is copied again', async () => {
  manifestError = new StoreError('Unavailable', 'the disk failed');
  await expect(createSnapshot(job, context())).rejects.toThrow('the disk failed');
  await store.deleteBlocks([{ owner: snapshotId, index: 5 }]);
  manifestError = undefined;
  await createSnapshot(job, context());
  await expectWhole();
});
