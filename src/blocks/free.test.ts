import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { freeSnapshot, neighbours } from './free.ts';
import { type Manifest, ManifestBuilder } from './manifest.ts';
import { openStore } from './open-store.ts';
import type { BlockStore } from './store.ts';
import { blockOf, blocksIn, collect, sha256Of, storeSnapshot } from './testing-store.ts';

/** Thousands of syncs: where memory can be a file system, they cost nothing. */
const memoryDirectory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

let directory: string;
let store: BlockStore;
beforeEach(async () => {
  directory = mkdtempSync(join(memoryDirectory, 'coffer-free-'));
  store = await openStore(directory);
});
afterEach(() => {
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

/** What the manifests that stand name, as `blocksIn` prints it. */
function named(manifests: Iterable<Manifest>): string[] {
  const all = [...manifests].flatMap((manifest) => [...manifest.entries()]);
  return [...new Set(all.map(({ owner, index }) => `${owner}:${index}`))].sort();
}

const marks = async () => [...(await collect(store.listMarks())), ...(await collect(store.listFreeing()))];

/** The store, whose calls fail from the `nth` on: before they do anything, as after a crash there. */
function failingFrom(nth: number): BlockStore {
  let calls = 0;
  return new Proxy(store, {
    get(target, property) {
      const value = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      return (...parameters: unknown[]) => {
        calls += 1;
        if (calls > nth) throw new Error('crash');
        // One block at a time, so that a crash can come between any two.
        if (property !== 'deleteBlocks') return value.apply(target, parameters);
        return (async () => {
          for (const name of parameters[0] as never[]) {
            if (++calls > nth) throw new Error('crash');
            await target.deleteBlocks([name]);
          }
        })();
      };
    },
  });
}

describe('freeing a snapshot', () => {
  it('leaves exactly what the others need, in any family and order, wherever it is interrupted', async () => {
    const index = fc.nat(5);
    const step = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant('create' as const),
          /** Which of those that stand is the parent. */
          parent: fc.option(fc.nat(100), { freq: 8 }),
          own: fc.uniqueArray(index, { maxLength: 3 }),
          inherited: fc.subarray([0, 1, 2, 3, 4, 5], { minLength: 3 }),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant('free' as const),
          which: fc.nat(100),
          crashes: fc.array(fc.nat(25), { maxLength: 2 }),
        }),
      },
    );
    let nextId = 1;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 20 }), async (steps) => {
        const standing = new Map<string, Manifest>();
        for (const each of steps) {
          const ids = [...standing.keys()];
          if (each.kind === 'create') {
            const manifest = each.parent === null ? undefined : standing.get(ids[each.parent % ids.length] ?? '');
            const parent = manifest && { manifest, inherited: each.inherited };
            const id = `snap-${nextId++}`;
            standing.set(id, await storeSnapshot(store, id, each.own, parent));
            continue;
          }
          const id = ids[each.which % ids.length];
          if (id === undefined) continue;
          standing.delete(id);
          for (const crash of each.crashes) {
            await freeSnapshot(failingFrom(crash), id).catch((error) => expect(error.message).toBe('crash'));
            expect(await blocksIn(store)).toEqual(expect.arrayContaining(named(standing.values())));
          }
          await freeSnapshot(store, id);
          expect(await blocksIn(store)).toEqual(named(standing.values()));
          expect(await marks()).toEqual([]);
        }
        for (const id of standing.keys()) await freeSnapshot(store, id);
        expect(await blocksIn(store)).toEqual([]);
        expect(await collect(store.listManifests())).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  it('reads two manifests of a chain, however long it is', async () => {
    const headers = [];
    let parent: Manifest | undefined;
    for (let id = 1; id <= 30; id++) {
      const inherited = [0, 1, 2];
      parent = await storeSnapshot(
        store,
        `snap-${id}`,
        id === 1 ? [0, 1] : [2],
        parent && { manifest: parent, inherited },
      );
      headers.push(parent.header);
    }
    const [fifteenth] = headers.splice(14, 1);
    expect(neighbours(fifteenth!, headers).sort()).toEqual(['snap-14', 'snap-16']);
    // Without the two they are neighbours no more; the next ones are.
    const thinner = headers.filter(({ snapshotId }) => snapshotId !== 'snap-14' && snapshotId !== 'snap-16');
    expect(neighbours(fifteenth!, thinner).sort()).toEqual(['snap-13', 'snap-17']);
    expect(neighbours({ ...fifteenth!, owners: ['snap-99'] }, thinner)).toEqual([]);
  });

  it('looks at cousins by a deleted snapshot, and at all where the list of ancestors was cut off', async () => {
    const root = await storeSnapshot(store, 'snap-0a', [0]);
    const parent = { manifest: root, inherited: [0] };
    const left = await storeSnapshot(store, 'snap-0b', [1], parent);
    const right = await storeSnapshot(store, 'snap-0c', [1], parent);
    expect(neighbours(left.header, [right.header])).toEqual(['snap-0c']);
    expect(neighbours(left.header, [root.header, right.header])).toEqual(['snap-0a', 'snap-0c']);
    const cutOff = { ...right.header, ancestors: Array.from({ length: 1024 }, (_, n) => `snap-9${n}`) };
    expect(neighbours(left.header, [root.header, cutOff])).toEqual(['snap-0a', 'snap-0c']);
    expect(neighbours(cutOff, [root.header, left.header])).toEqual(['snap-0a', 'snap-0b']);
  });

  it('takes all from a snapshot that is half made, but for blocks that another names', async () => {
    const put = (owner: string, index: number) => store.putBlock({ owner, index }, blockOf({ owner, index }));
    await storeSnapshot(store, 'snap-0a', [0]);
    await store.putMark('snap-0b');
    await put('snap-0b', 1);
    await put('snap-0b', 5000);
    expect(await freeSnapshot(store, 'snap-0b')).toEqual({ blocks: 2 });
    expect(await blocksIn(store)).toEqual(['snap-0a:0']);
    expect(await marks()).toEqual([]);
  });

  it('does nothing to one that is gone or was never there', async () => {
    const first = await storeSnapshot(store, 'snap-0a', [0, 1]);
    await storeSnapshot(store, 'snap-0b', [2], { manifest: first, inherited: [0, 1] });
    await freeSnapshot(store, 'snap-0a');
    expect(await freeSnapshot(store, 'snap-0a')).toEqual({ blocks: 0 });
    expect(await freeSnapshot(store, 'snap-0f')).toEqual({ blocks: 0 });
    expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0a:1', 'snap-0b:2']);
  });

  it('stops before it deletes anything when a relative’s manifest is damaged, and then goes on', async () => {
    const first = await storeSnapshot(store, 'snap-0a', [0, 1]);
    const second = await storeSnapshot(store, 'snap-0b', [2], { manifest: first, inherited: [0] });
    const bytes = (await store.getManifest('snap-0b'))!;
    const file = join(directory, 'manifests', 'snap-0b.manifest');
    for (const offset of [20, bytes.length - 40]) {
      const damaged = Buffer.from(bytes);
      damaged[offset]! ^= 1;
      writeFileSync(file, damaged);
      for (const family of [undefined, ['snap-0b']]) {
        await expect(freeSnapshot(store, 'snap-0a', { family })).rejects.toMatchObject({
          code: 'Corrupt',
          message: expect.stringContaining('snap-0b'),
        });
      }
      expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0a:1', 'snap-0b:2']);
    }
    writeFileSync(file, bytes);
    await freeSnapshot(store, 'snap-0a');
    expect(await blocksIn(store)).toEqual(named([second]));
  });

  it('is not stopped by the damaged manifest of a stranger, nor by its own', async () => {
    await storeSnapshot(store, 'snap-0a', [0]);
    await storeSnapshot(store, 'snap-0b', [1]);
    writeFileSync(join(directory, 'manifests', 'snap-0b.manifest'), 'nothing of the kind');
    await freeSnapshot(store, 'snap-0a', { family: [] });
    expect(await blocksIn(store)).toEqual(['snap-0b:1']);
    expect(await freeSnapshot(store, 'snap-0b')).toEqual({ blocks: 1 });
    expect(await blocksIn(store)).toEqual([]);
    expect(await collect(store.listManifests())).toEqual([]);
  });

  it('counts on nothing of a snapshot that is being freed, too', async () => {
    const first = await storeSnapshot(store, 'snap-0a', [0]);
    await storeSnapshot(store, 'snap-0b', [1], { manifest: first, inherited: [0] });
    await store.putFreeing('snap-0b');
    await freeSnapshot(store, 'snap-0a');
    expect(await blocksIn(store)).toEqual(['snap-0b:1']);
    await freeSnapshot(store, 'snap-0b');
    expect(await blocksIn(store)).toEqual([]);
  });

  it('tells how far it is, and ends when asked to', async () => {
    const [owner, sizeBytes] = ['snap-0a', 2 ** 30];
    const builder = new ManifestBuilder({ snapshotId: owner, volumeId: 'vol-1', sizeBytes, createdAt: '' });
    const block = blockOf({ owner, index: 0 });
    await store.putBlock({ owner, index: 0 }, block);
    const sha256 = sha256Of(block);
    for (let index = 0; index < 1100; index++) {
      if (index > 0) await store.copyBlock({ owner, index: 0 }, { owner, index });
      builder.append(index, sha256);
    }
    await store.putManifest(owner, builder.finish());
    const seen: string[] = [];
    const controller = new AbortController();
    const onProgress = (done: number, total: number) => {
      seen.push(`${done}/${total}`);
      if (done > 0) controller.abort();
    };
    const { signal } = controller;
    await expect(freeSnapshot(store, 'snap-0a', { onProgress, signal })).rejects.toMatchObject({ name: 'AbortError' });
    expect(seen).toEqual(['0/1100', '1000/1100']);
    expect(await blocksIn(store)).toHaveLength(100);
    expect(await freeSnapshot(store, 'snap-0a')).toEqual({ blocks: 1100 });
  });
});
