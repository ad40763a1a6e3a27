// Gives back the blocks of a snapshot that no other snapshot needs.
//
// Which others can need one? Entries are inherited from parent to child only, so the snapshots that ever named a given
// block form a connected part of their family's tree. Take one of them, S. If another that still stands names the block,
// then so does every snapshot on the path between the two, and so does the first one on that path that still stands. So
// it is enough to look at S's neighbours: the snapshots that the tree connects with S through deleted ones only. In the
// usual family, a chain, that is one on either side, however long the chain.

import { ancestorsMax, DamagedManifest, Manifest, type ManifestHeader } from './manifest.ts';
import { isBeingFreed, readManifest, readManifestHeader } from './read-manifest.ts';
import type { BlockName, BlockStore } from './store.ts';

const headersAtOnce = 8;
/** Blocks deleted between two looks at the signal: an S3 request takes as many. */
const batchBlocks = 1000;

export interface FreeOptions {
  /**
   * The snapshots that may share blocks with it, as far as the caller knows. It matters only when a manifest is damaged:
   * one of these then stops the work, any other does not. Absent: every damaged one does.
   */
  readonly family?: readonly string[];
  readonly signal?: AbortSignal;
  /** Blocks deleted so far, of how many. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface FreeResult {
  /** Blocks that were deleted, or were to be and are gone. */
  readonly blocks: number;
}

/**
 * Frees a snapshot: its blocks that no other manifest names, then its manifest. One that is half made (a mark, no
 * manifest) loses all that was stored of it. Can be ended at any point, by whatever means, and done again; doing it to a
 * snapshot that is gone does nothing.
 *
 * Nobody may be making a snapshot with this one as its parent, nor be reading it. Rejects with StoreError; `Corrupt` when
 * the manifest of another snapshot that may share blocks is damaged, and then nothing was deleted.
 */
export async function freeSnapshot(
  store: BlockStore,
  snapshotId: string,
  options: FreeOptions = {},
): Promise<FreeResult> {
  const { signal } = options;
  const bytes = await store.getManifest(snapshotId, signal);
  if (bytes === undefined) return freeHalfMade(store, snapshotId, options);

  // From now on nobody counts on this snapshot: neither a check of the store nor the freeing of its neighbours.
  await store.putFreeing(snapshotId, signal);
  let blocks: number;
  try {
    const manifest = Manifest.parse(bytes, { snapshotId, location: store.location });
    blocks = await freeUnneeded(store, manifest, options);
  } catch (error) {
    if (!isDamageOf(error, snapshotId)) throw error;
    // What it inherited can't be known any more; `coffer store check` finds what of that nobody else has.
    blocks = await freeOwn(store, snapshotId, options);
  }
  // Blocks, mark, manifest: in this order, or a later attempt would take the snapshot for half made.
  await store.sync();
  await store.deleteMark(snapshotId, signal);
  await store.deleteManifest(snapshotId, signal);
  await store.deleteFreeing(snapshotId, signal);
  return { blocks };
}

async function freeHalfMade(store: BlockStore, snapshotId: string, options: FreeOptions): Promise<FreeResult> {
  const { signal } = options;
  if (await isBeingFreed(store, snapshotId, signal)) {
    // Interrupted after its manifest went: what it stored and is still there, others need.
    await store.deleteMark(snapshotId, signal);
    await store.deleteFreeing(snapshotId, signal);
    return { blocks: 0 };
  }
  if (!(await includes(store.listMarks(signal), snapshotId))) return { blocks: 0 };
  const blocks = await freeOwn(store, snapshotId, options);
  await store.sync();
  await store.deleteMark(snapshotId, signal);
  return { blocks };
}

/** Deletes what `manifest` names and no neighbour does. */
async function freeUnneeded(store: BlockStore, manifest: Manifest, options: FreeOptions): Promise<number> {
  const { signal } = options;
  const needed = new Uint8Array(Math.ceil(manifest.blocks / 8));
  let left = manifest.blocks;
  const others = await standingHeaders(store, manifest.header.snapshotId, options);
  for (const neighbour of neighbours(manifest.header, others)) {
    if (left === 0) break;
    const other = await readManifest(store, neighbour, signal);
    if (other) left -= markShared(manifest, other, needed);
  }
  const total = left;
  let done = 0;
  options.onProgress?.(0, total);
  let batch: BlockName[] = [];
  const flush = async () => {
    await store.deleteBlocks(batch, signal);
    done += batch.length;
    batch = [];
    options.onProgress?.(done, total);
  };
  for (let position = 0; position < manifest.blocks; position++) {
    if ((needed[position >>> 3]! & (1 << (position & 7))) !== 0) continue;
    batch.push({ owner: manifest.ownerAt(position), index: manifest.indexAt(position) });
    if (batch.length === batchBlocks) await flush();
  }
  if (batch.length > 0) await flush();
  return total;
}

/** Deletes what is stored under the snapshot's name, except what another manifest names after all. */
async function freeOwn(store: BlockStore, snapshotId: string, options: FreeOptions): Promise<number> {
  const { signal } = options;
  const needed = new Set<number>();
  for (const header of await standingHeaders(store, snapshotId, options)) {
    const number = header.owners.indexOf(snapshotId);
    const other = number < 0 ? undefined : await readManifest(store, header.snapshotId, signal);
    for (let position = 0; position < (other?.blocks ?? 0); position++) {
      if (other!.ownerNumberAt(position) === number) needed.add(other!.indexAt(position));
    }
  }
  let done = 0;
  let batch: BlockName[] = [];
  const flush = async () => {
    await store.deleteBlocks(batch, signal);
    done += batch.length;
    batch = [];
    // How many there are turns out on the way.
    options.onProgress?.(done, done);
  };
  for await (const name of store.listBlocks(snapshotId, signal)) {
    if (needed.has(name.index)) continue;
    batch.push(name);
    if (batch.length === batchBlocks) await flush();
  }
  if (batch.length > 0) await flush();
  return done;
}

/**
 * The snapshots to compare `header`'s with: those that a path through deleted ones only connects with it. Exported for
 * the tests.
 */
export function neighbours(header: ManifestHeader, others: readonly ManifestHeader[]): string[] {
  const owners = new Set(header.owners);
  const related = others.filter((other) => other.owners.some((owner) => owners.has(owner)));
  const standing = new Set(related.map((other) => other.snapshotId)).add(header.snapshotId);
  const nearest = nearestStanding(header, standing);
  // Its list of ancestors was cut off before any that stands: then any of them may be the nearest.
  if (nearest === 'unknown') return related.map((other) => other.snapshotId);
  return related
    .filter((other) => {
      const theirs = nearestStanding(other, standing);
      // Child, parent, or below the same one (or below deleted ones only): cousins by a deleted snapshot.
      return theirs === 'unknown' || theirs === header.snapshotId || other.snapshotId === nearest || theirs === nearest;
    })
    .map((other) => other.snapshotId);
}

function nearestStanding(header: ManifestHeader, standing: ReadonlySet<string>): string | 'unknown' | undefined {
  const found = header.ancestors.find((ancestor) => standing.has(ancestor));
  if (found !== undefined) return found;
  return header.ancestors.length < ancestorsMax ? undefined : 'unknown';
}

/** Sets the bit of every entry that `other` has, too; how many were not set before. */
function markShared(manifest: Manifest, other: Manifest, needed: Uint8Array): number {
  const numbers = other.header.owners.map((owner) => manifest.header.owners.indexOf(owner));
  const cursor = other.cursor();
  let marked = 0;
  for (let position = 0; position < manifest.blocks; position++) {
    const theirs = cursor.find(manifest.indexAt(position));
    if (theirs < 0 || numbers[other.ownerNumberAt(theirs)] !== manifest.ownerNumberAt(position)) continue;
    const bit = 1 << (position & 7);
    if ((needed[position >>> 3]! & bit) === 0) marked += 1;
    needed[position >>> 3]! |= bit;
  }
  return marked;
}

/** The headers of all other snapshots of the store but those that are being freed, too. */
async function standingHeaders(
  store: BlockStore,
  snapshotId: string,
  { family, signal }: FreeOptions,
): Promise<ManifestHeader[]> {
  const freed = new Set<string>([snapshotId]);
  for await (const each of store.listFreeing(signal)) freed.add(each);
  const ids: string[] = [];
  for await (const each of store.listManifests(signal)) if (!freed.has(each)) ids.push(each);
  const headers: ManifestHeader[] = [];
  let next = 0;
  const reader = async () => {
    while (next < ids.length) {
      const id = ids[next++]!;
      try {
        const header = await readManifestHeader(store, id, signal);
        if (header) headers.push(header);
      } catch (error) {
        if (!isDamageOf(error, id) || !family || family.includes(id)) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: headersAtOnce }, reader));
  return headers;
}

/** Whether the error says that this very manifest is damaged. */
function isDamageOf(error: unknown, snapshotId: string): boolean {
  return error instanceof DamagedManifest && error.snapshotId === snapshotId;
}

async function includes(ids: AsyncIterable<string>, wanted: string): Promise<boolean> {
  for await (const id of ids) if (id === wanted) return true;
  return false;
}
