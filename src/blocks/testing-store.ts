/** What every block store must do, whatever it is made of; and snapshots made of made-up blocks. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Manifest, ManifestBuilder } from './manifest.ts';
import { type BlockName, type BlockStore, blockBytes } from './store.ts';
import { blockOf, sha256Of } from './testing-blocks.ts';

export { blockOf, sha256Of } from './testing-blocks.ts';

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** `snap-1:5` for every block that is there, sorted. */
export async function blocksIn(store: BlockStore, owner?: string): Promise<string[]> {
  return (await collect(store.listBlocks(owner))).map((name) => `${name.owner}:${name.index}`).sort();
}

/**
 * Stores a snapshot the way a host does: mark, blocks, manifest. `own` are the blocks it stores, `inherited` those that it
 * takes over where the parent has them.
 */
export async function storeSnapshot(
  store: BlockStore,
  snapshotId: string,
  own: readonly number[],
  parent?: { readonly manifest: Manifest; readonly inherited: readonly number[] },
): Promise<Manifest> {
  await store.putMark(snapshotId);
  const builder = new ManifestBuilder({
    snapshotId,
    volumeId: 'vol-1',
    sizeBytes: 2 ** 30 * 64,
    createdAt: '2026-11-21T00:00:00.000Z',
    parent: parent?.manifest,
  });
  const stored = new Set(own);
  for (const index of [...new Set([...own, ...(parent?.inherited ?? [])])].sort((a, b) => a - b)) {
    if (!stored.has(index)) {
      builder.inherit(index);
      continue;
    }
    const name = { owner: snapshotId, index };
    const bytes = blockOf(name);
    await store.putBlock(name, bytes);
    builder.append(index, sha256Of(bytes));
  }
  const bytes = builder.finish();
  await store.putManifest(snapshotId, bytes);
  await store.deleteMark(snapshotId);
  return Manifest.parse(bytes, { snapshotId, location: store.location });
}

/** The rules of `BlockStore`, as tests. `open` opens the same, at first empty, store every time. */
export function itIsABlockStore(open: () => Promise<BlockStore>, runs: number): void {
  const name = { owner: 'snap-0a', index: 5 };

  it('keeps its id', async () => {
    const [first, second] = [await open(), await open()];
    expect(first.id).toMatch(/^[0-9a-f-]{36}$/);
    expect(second.id).toBe(first.id);
    first.close();
    second.close();
  });

  it('gives back what was put, to any index, and says when it was stored', async () => {
    const store = await open();
    const bytes = Buffer.alloc(blockBytes);
    for (const index of [0, 4095, 4096, 2 ** 27 - 1]) {
      const each = { owner: 'snap-0e', index };
      await store.putBlock(each, blockOf(each));
      await store.getBlock(each, sha256Of(blockOf(each)), bytes);
      expect(bytes.equals(blockOf(each))).toBe(true);
      expect(Math.abs(Date.now() - (await store.blockStoredAt(each))!)).toBeLessThan(180_000);
    }
    expect(await blocksIn(store, 'snap-0e')).toEqual(
      ['snap-0e:0', 'snap-0e:134217727', 'snap-0e:4095', 'snap-0e:4096'].sort(),
    );
    await store.deleteBlocks(await collect(store.listBlocks('snap-0e')));
    expect(await store.blockStoredAt({ owner: 'snap-0e', index: 0 })).toBeUndefined();
    store.close();
  });

  it('says what is missing and what is not what was expected', async () => {
    const store = await open();
    const bytes = Buffer.alloc(blockBytes);
    const sha256 = sha256Of(blockOf(name));
    const message = (text: string) => expect.stringMatching(text);
    await expect(store.getBlock(name, sha256, bytes)).rejects.toMatchObject({
      code: 'Missing',
      message: message('5 of snap-0a .*missing'),
    });
    await expect(store.copyBlock(name, { ...name, index: 6 })).rejects.toMatchObject({ code: 'Missing' });
    await store.putBlock(name, blockOf(name, 1));
    await expect(store.getBlock(name, sha256, bytes)).rejects.toMatchObject({
      code: 'Corrupt',
      message: message('5 of snap-0a .*SHA-256'),
    });
    await store.putBlock(name, blockOf(name));
    await store.getBlock(name, sha256, bytes);
    await store.deleteBlocks([name]);
    expect(await store.getManifest('snap-0a')).toBeUndefined();
    expect(await store.getManifestStart('snap-0a', 10)).toBeUndefined();
    store.close();
  });

  it('takes no names that lead elsewhere, and no blocks of another size', async () => {
    const store = await open();
    for (const owner of ['', '..', 'snap-', 'snap-1/../snap-2', 'SNAP-1', 'snap-1\0', 'vol-1']) {
      await expect(async () => store.putBlock({ owner, index: 0 }, blockOf(name))).rejects.toThrow(RangeError);
      await expect(async () => store.putManifest(owner, Buffer.alloc(1))).rejects.toThrow(RangeError);
      await expect(async () => store.putMark(owner)).rejects.toThrow(RangeError);
    }
    for (const index of [-1, 0.5, 2 ** 32, Number.NaN]) {
      await expect(async () => store.putBlock({ owner: 'snap-1', index }, blockOf(name))).rejects.toThrow(RangeError);
    }
    await expect(async () => store.putBlock(name, Buffer.alloc(4096))).rejects.toThrow(RangeError);
    expect(await blocksIn(store)).toEqual([]);
    store.close();
  });

  it('ends early when asked to', async () => {
    const store = await open();
    const signal = AbortSignal.abort();
    await expect(store.putBlock(name, blockOf(name), signal)).rejects.toMatchObject({ name: 'AbortError' });
    await expect(store.getBlock(name, Buffer.alloc(32), blockOf(name), signal)).rejects.toMatchObject({
      name: 'AbortError',
    });
    store.close();
  });

  it('has at any time what a list of what was done says', async () => {
    const ids = fc.constantFrom('snap-0a', 'snap-0b', 'snap-0c');
    const names = fc.record({ owner: ids, index: fc.constantFrom(0, 1, 4096) });
    const step = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), name: names, version: fc.nat(2) }),
      fc.record({ kind: fc.constant('copy' as const), name: names, to: names }),
      fc.record({ kind: fc.constant('delete' as const), names: fc.array(names, { maxLength: 4 }) }),
      fc.record({
        kind: fc.constantFrom('Manifest' as const, 'Mark' as const, 'Freeing' as const),
        id: ids,
        put: fc.boolean(),
      }),
    );
    const store = await open();
    const check = async (steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[]) => {
      const blocks = new Map<string, Buffer>();
      const small = { Manifest: new Set<string>(), Mark: new Set<string>(), Freeing: new Set<string>() };
      const key = (of: BlockName) => `${of.owner}:${of.index}`;
      for (const each of steps) {
        if (each.kind === 'put') {
          await store.putBlock(each.name, blockOf(each.name, each.version));
          blocks.set(key(each.name), blockOf(each.name, each.version));
        } else if (each.kind === 'copy') {
          if (key(each.name) === key(each.to)) continue;
          const source = blocks.get(key(each.name));
          const copying = store.copyBlock(each.name, each.to);
          if (source) await copying.then(() => blocks.set(key(each.to), source));
          else await expect(copying).rejects.toMatchObject({ code: 'Missing' });
        } else if (each.kind === 'delete') {
          await store.deleteBlocks(each.names);
          for (const gone of each.names) blocks.delete(key(gone));
        } else if (each.put) {
          if (each.kind === 'Manifest') await store.putManifest(each.id, Buffer.from(`the manifest of ${each.id}`));
          else await store[`put${each.kind}`](each.id);
          small[each.kind].add(each.id);
        } else {
          await store[`delete${each.kind}`](each.id);
          small[each.kind].delete(each.id);
        }
      }
      expect(await blocksIn(store)).toEqual([...blocks.keys()].sort());
      expect((await collect(store.listOwners())).sort()).toEqual(
        [...new Set([...blocks.keys()].map((each) => each.split(':')[0]))].sort(),
      );
      const bytes = Buffer.alloc(blockBytes);
      for (const [each, content] of blocks) {
        const [owner, index] = each.split(':') as [string, string];
        await store.getBlock({ owner, index: Number(index) }, sha256Of(content), bytes);
        expect(bytes.equals(content)).toBe(true);
      }
      expect((await collect(store.listManifests())).sort()).toEqual([...small.Manifest].sort());
      expect((await collect(store.listMarks())).sort()).toEqual([...small.Mark].sort());
      expect((await collect(store.listFreeing())).sort()).toEqual([...small.Freeing].sort());
      for (const id of small.Manifest) {
        expect(String(await store.getManifest(id))).toBe(`the manifest of ${id}`);
        expect(String(await store.getManifestStart(id, 12))).toBe('the manifest');
      }
      await empty(store);
    };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), check).afterEach(() => empty(store)),
      { numRuns: runs },
    );
    store.close();
  });
}

async function empty(store: BlockStore): Promise<void> {
  await store.deleteBlocks(await collect(store.listBlocks()));
  for (const id of await collect(store.listManifests())) await store.deleteManifest(id);
  for (const id of await collect(store.listMarks())) await store.deleteMark(id);
  for (const id of await collect(store.listFreeing())) await store.deleteFreeing(id);
}
