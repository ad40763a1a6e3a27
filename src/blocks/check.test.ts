import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkStore, isFine } from './check.ts';
import type { Manifest } from './manifest.ts';
import { openStore } from './open-store.ts';
import { type BlockStore, blockBytes } from './store.ts';
import { blockOf, blocksIn, storeSnapshot } from './testing-store.ts';

const memoryDirectory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const later = () => Date.now() + 2 * 60 * 60 * 1000;

let directory: string;
let store: BlockStore;
let first: Manifest;
beforeEach(async () => {
  directory = mkdtempSync(join(memoryDirectory, 'coffer-check-'));
  store = await openStore(directory);
  first = await storeSnapshot(store, 'snap-0a', [0, 1, 5000]);
  await storeSnapshot(store, 'snap-0b', [1], { manifest: first, inherited: [0, 5000] });
});
afterEach(() => {
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

const blockFile = (owner: string, index: number) =>
  join(directory, 'blocks', owner, (index >>> 12).toString(16).padStart(4, '0'), index.toString(16).padStart(8, '0'));
const put = (owner: string, index: number) => store.putBlock({ owner, index }, blockOf({ owner, index }));

function alter(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 100]! ^= 1;
  writeFileSync(path, bytes);
}

describe('checking a block store', () => {
  it('reads every block once and finds nothing wrong', async () => {
    const seen: [number, number][] = [];
    const report = await checkStore(store, { now: later, onProgress: (done, total) => seen.push([done, total]) });
    expect(report).toEqual({
      location: directory,
      storeId: store.id,
      snapshots: 2,
      blocks: 4,
      blocksRead: 4,
      damagedManifests: [],
      problems: [],
      problemCount: 0,
      unreferenced: { blocks: 0, bytes: 0, owners: [] },
      recentBlocks: 0,
      beingMade: [],
      beingFreed: [],
    });
    expect(isFine(report)).toBe(true);
    expect(seen[0]).toEqual([0, 4 * blockBytes]);
    expect(seen.at(-1)).toEqual([4 * blockBytes, 4 * blockBytes]);
  });

  it('names a block of which a bit has changed, and the snapshots that need it', async () => {
    alter(blockFile('snap-0a', 5000));
    alter(blockFile('snap-0a', 1));
    const report = await checkStore(store, { now: later });
    expect(report.problems).toEqual([
      expect.objectContaining({ kind: 'corrupt', owner: 'snap-0a', index: 1, snapshotIds: ['snap-0a'] }),
      expect.objectContaining({ kind: 'corrupt', owner: 'snap-0a', index: 5000, snapshotIds: ['snap-0a', 'snap-0b'] }),
    ]);
    expect(isFine(report)).toBe(false);
    expect(isFine(await checkStore(store, { now: later, quick: true }))).toBe(true);
  });

  it.each([true, false])('names missing blocks (quick: %s)', async (quick) => {
    await store.deleteBlocks([
      { owner: 'snap-0a', index: 0 },
      { owner: 'snap-0b', index: 1 },
    ]);
    const report = await checkStore(store, { now: later, quick });
    expect(report.problems).toEqual([
      expect.objectContaining({ kind: 'missing', owner: 'snap-0a', index: 0, snapshotIds: ['snap-0a', 'snap-0b'] }),
      expect.objectContaining({ kind: 'missing', owner: 'snap-0b', index: 1, snapshotIds: ['snap-0b'] }),
    ]);
    expect(report).toMatchObject({ problemCount: 2, blocksRead: quick ? 0 : 2, blocks: 4 });
  });

  it('finds blocks that nothing refers to, and drops these alone when it is to repair', async () => {
    await put('snap-0a', 7);
    await put('snap-0f', 0);
    const found = await checkStore(store, { now: later });
    expect(found.unreferenced).toEqual({
      blocks: 2,
      bytes: 2 * blockBytes,
      owners: [
        { snapshotId: 'snap-0a', blocks: 1 },
        { snapshotId: 'snap-0f', blocks: 1 },
      ],
    });
    expect(isFine(found)).toBe(false);
    const repaired = await checkStore(store, { now: later, repair: true, quick: true });
    expect(repaired.dropped).toBe(2);
    expect(isFine(repaired)).toBe(true);
    expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0a:1', 'snap-0a:5000', 'snap-0b:1']);
    expect((await checkStore(store, { now: later })).unreferenced.blocks).toBe(0);
  });

  it('leaves alone what is young, being made or being freed', async () => {
    await put('snap-0f', 0);
    expect(await checkStore(store, { repair: true })).toMatchObject({
      recentBlocks: 1,
      dropped: 0,
      unreferenced: { blocks: 0 },
    });
    await store.putMark('snap-0f');
    expect(await checkStore(store, { repair: true, now: later })).toMatchObject({
      beingMade: ['snap-0f'],
      unreferenced: { blocks: 0 },
    });
    // Being freed: what it alone names may be gone or not; what others need may not.
    await store.putFreeing('snap-0b');
    for (let round = 0; round < 2; round++) {
      const report = await checkStore(store, { repair: true, now: later });
      expect(report).toMatchObject({ beingFreed: ['snap-0b'], problemCount: 0, unreferenced: { blocks: 0 } });
      expect(isFine(report)).toBe(true);
      await store.deleteBlocks([{ owner: 'snap-0b', index: 1 }]);
    }
    expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0a:1', 'snap-0a:5000', 'snap-0f:0']);
  });

  it('says which manifest is damaged, and then drops nothing', async () => {
    alter(join(directory, 'manifests', 'snap-0b.manifest'));
    await put('snap-0f', 0);
    const report = await checkStore(store, { repair: true, now: later });
    expect(report.damagedManifests).toEqual([
      { snapshotId: 'snap-0b', message: expect.stringContaining('the manifest of snap-0b') },
    ]);
    expect(report.notRepaired).toContain('snap-0b');
    expect(report).toMatchObject({ unreferenced: { blocks: 2 }, snapshots: 1 });
    expect(report).not.toHaveProperty('dropped');
    expect(isFine(report)).toBe(false);
    expect(await blocksIn(store)).toContain('snap-0f:0');
  });

  it('drops nothing that a snapshot refers to which was finished while it ran', async () => {
    await put('snap-0f', 0);
    // Begun before the check and finished in its middle, after the manifests were listed.
    await store.putMark('snap-0c');
    await put('snap-0c', 3);
    const during = new Proxy(store, {
      get(target, property) {
        if (property !== 'listBlocks') {
          const value = Reflect.get(target, property, target);
          return typeof value === 'function' ? value.bind(target) : value;
        }
        return async function* () {
          await storeSnapshot(target, 'snap-0c', [3], { manifest: first, inherited: [0] });
          await storeSnapshot(target, 'snap-0d', [4]);
          yield* target.listBlocks();
        };
      },
    });
    const report = await checkStore(during, { repair: true, now: later });
    expect(report).toMatchObject({ problemCount: 0, dropped: 1, unreferenced: { blocks: 1 } });
    expect(await blocksIn(store)).toEqual(expect.arrayContaining(['snap-0c:3', 'snap-0d:4']));
    expect(isFine(await checkStore(store, { now: later }))).toBe(true);
  });

  it('does not take a snapshot that is freed while it runs for a damaged one', async () => {
    const during = new Proxy(store, {
      get(target, property) {
        if (property !== 'getBlock') {
          const value = Reflect.get(target, property, target);
          return typeof value === 'function' ? value.bind(target) : value;
        }
        return async (...parameters: Parameters<BlockStore['getBlock']>) => {
          const [name] = parameters;
          if (name.owner === 'snap-0b') {
            await target.putFreeing('snap-0b');
            await target.deleteBlocks([name]);
          }
          return target.getBlock(...parameters);
        };
      },
    });
    expect(await checkStore(during, { now: later })).toMatchObject({ problemCount: 0, beingFreed: ['snap-0b'] });
  });

  it('nor one whose freeing ends while it looks again', async () => {
    let isFreeing = false;
    const during = new Proxy(store, {
      get(target, property) {
        if (property === 'listBlocks') {
          return async function* () {
            isFreeing = true;
            await target.putFreeing('snap-0b');
            await target.deleteBlocks([{ owner: 'snap-0b', index: 1 }]);
            yield* target.listBlocks();
          };
        }
        if (property === 'listManifests' || property === 'listFreeing') {
          return async function* () {
            yield* target[property]();
            if (!isFreeing) return;
            await target.deleteManifest('snap-0b');
            await target.deleteFreeing('snap-0b');
          };
        }
        const value = Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    for (const quick of [true, false]) {
      expect(await checkStore(during, { now: later, quick })).toMatchObject({ problemCount: 0 });
      await storeSnapshot(store, 'snap-0b', [1], { manifest: first, inherited: [0, 5000] });
      isFreeing = false;
    }
  });

  it('ends when asked to', async () => {
    await expect(checkStore(store, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
  });
});
