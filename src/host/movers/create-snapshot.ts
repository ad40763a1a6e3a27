/**
 * Copies a volume's point in time to the block store, as it lies on disk. What the parent snapshot has already is not stored
 * again: in doubt the hash decides. The manifest comes last, so until then there is no snapshot.
 */
import { hash } from 'node:crypto';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { removeCow } from '../../blocks/copy-before-write.ts';
import { Manifest, ManifestBuilder } from '../../blocks/manifest.ts';
import { isBeingFreed } from '../../blocks/read-manifest.ts';
import { openSnapshotView, type SnapshotView } from '../../blocks/snapshot-view.ts';
import { StoreError } from '../../blocks/store.ts';
import { pause } from '../pause.ts';
import { inOrder } from './in-order.ts';
import type { CreateSnapshotJob } from './jobs.ts';
import { Journal } from './journal.ts';
import { blocksUnderWayMax, FinalJobError, type JobContext } from './mover-world.ts';
import { outcomeOf } from './outcome.ts';

const unrestoredFirstMs = 20;
const unrestoredMaxMs = 1_000;
/** How far ahead of the copying the disk is told what comes. */
const prefetchBlocks = 16;

/** What became of one block. */
type Found = { readonly kind: 'stored' | 'inherited'; readonly sha256: Uint8Array } | { readonly kind: 'hole' };

export async function createSnapshot(job: CreateSnapshotJob, context: JobContext): Promise<SnapshotOutcome> {
  const { store, signal } = context;
  const source = { snapshotId: job.snapshotId, location: store.location };
  const bytes = (await store.getManifest(job.snapshotId, signal)) ?? (await copy(job, context));
  const outcome = outcomeOf(Manifest.parse(bytes, source));
  await store.deleteMark(job.snapshotId, signal);
  removeCow(job.volumesDir, job.volumeId, job.snapshotId);
  new Journal(job.journalPath, job.snapshotId).closeEmpty();
  return outcome;
}

/** Answers the manifest, which is stored. */
async function copy(job: CreateSnapshotJob, context: JobContext): Promise<Buffer> {
  const { store, signal } = context;
  const view = openSnapshotView(job.volumesDir, job.volumeId, job.snapshotId);
  try {
    await store.putMark(job.snapshotId, signal);
    const journal = new Journal(job.journalPath, job.snapshotId, job.parentSnapshotId ?? null);
    let end: CopyingEnd = 'stopped';
    try {
      const parent = journal.parent ? await parentManifest(journal.parent, context) : undefined;
      const copying = new Copying(job, context, view, journal, parent);
      const manifest = await copying.run();
      if (parent && (await isBeingFreed(store, parent.header.snapshotId, signal)))
        throw new Error(`the parent ${parent.header.snapshotId} of ${job.snapshotId} is being deleted`);
      // Makes everything durable that was put before; if it can't, some of that may be lost.
      end = 'unsafe';
      await store.putManifest(job.snapshotId, manifest, signal);
      end = 'whole';
      return manifest;
    } finally {
      await closeJournal(journal, end, context);
    }
  } finally {
    view.close();
  }
}

/** A parent that is missing, damaged or being deleted costs room, not the snapshot. */
async function parentManifest(snapshotId: string, { store, signal }: JobContext): Promise<Manifest | undefined> {
  const bytes = await store.getManifest(snapshotId, signal);
  if (!bytes || (await isBeingFreed(store, snapshotId, signal))) return undefined;
  try {
    return Manifest.parse(bytes, { snapshotId, location: store.location });
  } catch (error) {
    if (error instanceof StoreError && error.code === 'Corrupt') return undefined;
    throw error;
  }
}

type CopyingEnd = 'stopped' | 'unsafe' | 'whole';

/** When the work was stopped in order, what it came to is made durable, so that it outlasts the machine's next start. */
async function closeJournal(journal: Journal, end: CopyingEnd, { store, signal }: JobContext): Promise<void> {
  if (end === 'unsafe') {
    journal.closeSuspect();
    return;
  }
  if (end === 'whole' || !signal.aborted) {
    journal.close();
    return;
  }
  try {
    await store.sync();
    journal.closeClean();
  } catch {
    journal.close();
  }
}

class Copying {
  readonly #job: CreateSnapshotJob;
  readonly #context: JobContext;
  readonly #view: SnapshotView;
  readonly #journal: Journal;
  readonly #parent: Manifest | undefined;
  readonly #builder: ManifestBuilder;
  /** Whether what is not changed is the parent's, so that it needn't be looked at. */
  readonly #isExact: boolean;
  /** Blocks below it are in the manifest, or are zeros. */
  #settled = 0;

  constructor(
    job: CreateSnapshotJob,
    context: JobContext,
    view: SnapshotView,
    journal: Journal,
    parent: Manifest | undefined,
  ) {
    this.#job = job;
    this.#context = context;
    this.#view = view;
    this.#journal = journal;
    this.#parent = parent;
    this.#isExact = parent !== undefined && view.changedSince === journal.parent;
    const { snapshotId, volumeId } = job;
    const createdAt = new Date().toISOString();
    this.#builder = new ManifestBuilder({ snapshotId, volumeId, sizeBytes: view.sizeBytes, createdAt, parent });
  }

  async run(): Promise<Buffer> {
    await inOrder(
      this.#announced(this.#isExact ? this.#changed() : this.#data()),
      { limit: blocksUnderWayMax, signal: this.#context.signal },
      (index, signal) => this.#found(index, signal) ?? this.#examine(index, signal),
      (found, index) => this.#take(found, index),
    );
    this.#passTo(this.#view.blocks);
    return this.#builder.finish();
  }

  *#changed(): Iterable<number> {
    const { blocks } = this.#view;
    for (let index = this.#view.nextChanged(0); index < blocks; index = this.#view.nextChanged(index + 1)) yield index;
  }

  /** Blocks that may hold data. What was copied before may be a hole in the volume by now. */
  *#data(): Iterable<number> {
    const { blocks } = this.#view;
    for (let index = 0; index < blocks; index++) {
      index = Math.min(this.#view.nextData(index), this.#journal.nextData(index));
      if (index < blocks) yield index;
    }
  }

  /** The same, with the disk told of each some time before. (Only of these: reading ahead fills holes with memory.) */
  *#announced(indexes: Iterable<number>): Iterable<number> {
    const queue: number[] = [];
    for (const index of indexes) {
      this.#view.prefetch(index, index + 1);
      queue.push(index);
      if (queue.length > prefetchBlocks) yield queue.shift()!;
    }
    yield* queue;
  }

  /** What an earlier process has found out, if anything. */
  #found(index: number, signal: AbortSignal): Found | Promise<Found> | undefined {
    const found = this.#journal.find(index);
    return found?.kind === 'stored' && this.#journal.isSuspect ? this.#putAgain(index, found.sha256, signal) : found;
  }

  /** Puts a block again that the store may have lost since; if it has, the volume is looked at again. */
  async #putAgain(index: number, sha256: Buffer, signal: AbortSignal): Promise<Found> {
    const { slabs, store } = this.#context;
    const name = { owner: this.#job.snapshotId, index };
    try {
      await slabs.lend(async ({ bytes }) => {
        await store.getBlock(name, sha256, bytes, signal);
        await store.putBlock(name, bytes, signal);
      });
      return { kind: 'stored', sha256 };
    } catch (error) {
      if (error instanceof StoreError && (error.code === 'Corrupt' || error.code === 'Missing'))
        return this.#examine(index, signal);
      throw error;
    }
  }

  async #examine(index: number, signal: AbortSignal): Promise<Found> {
    for (let pauseMs = unrestoredFirstMs; ; pauseMs = Math.min(2 * pauseMs, unrestoredMaxMs)) {
      const found = await this.#tryExamine(index, signal);
      if (found) return found;
      await pause(pauseMs, signal);
    }
  }

  #tryExamine(index: number, signal: AbortSignal): Promise<Found | undefined> {
    const { slabs, store } = this.#context;
    return slabs.lend(async ({ bytes }) => {
      signal.throwIfAborted();
      const state = this.#view.read(index, bytes);
      if (state === 'unrestored') return undefined;
      if (state === 'hole') return { kind: 'hole' };
      const sha256 = hash('sha256', bytes, 'buffer');
      const position = this.#parent?.find(index) ?? -1;
      if (position >= 0 && this.#parent!.sha256At(position).equals(sha256)) return { kind: 'inherited', sha256 };
      await store.putBlock({ owner: this.#job.snapshotId, index }, bytes, signal);
      this.#journal.addStored(index, sha256);
      return { kind: 'stored', sha256 };
    });
  }

  #take(found: Found, index: number): void {
    this.#passTo(index);
    const isKnown = this.#journal.find(index) !== undefined;
    if (found.kind === 'stored') this.#builder.append(index, found.sha256);
    else if (found.kind === 'inherited') {
      this.#inheritSame(index, found.sha256);
      if (!isKnown) this.#journal.addInherited(index, found.sha256);
    } else if (!isKnown) this.#journal.addHoles(index, 1);
    this.#settled = index + 1;
    this.#view.setWatermark(this.#settled);
    this.#context.progress((100 * this.#settled) / this.#view.blocks);
  }

  /** Settles the blocks before `index` that were not looked at. */
  #passTo(index: number): void {
    if (this.#isExact) for (let passed = this.#settled; passed < index; passed++) this.#builder.inherit(passed);
    else this.#passHoles(index);
    this.#settled = Math.max(this.#settled, index);
  }

  #passHoles(index: number): void {
    let fresh = this.#settled;
    // What lies below the watermark can't be looked at: an earlier process must have seen that it was zeros.
    for (; fresh < Math.min(index, this.#view.watermark); fresh++)
      if (this.#journal.find(fresh)?.kind !== 'hole')
        throw new FinalJobError(`what was found out of the volume's blocks for ${this.#job.snapshotId} is lost`);
    if (index > fresh) this.#journal.addHoles(fresh, index - fresh);
  }

  /** The parent is that of the earlier process: while a snapshot is being made, what it was begun with can't go. */
  #inheritSame(index: number, sha256: Uint8Array): void {
    const position = this.#parent?.find(index) ?? -1;
    if (position < 0 || !this.#parent!.sha256At(position).equals(sha256))
      throw new FinalJobError(
        `block ${index} of ${this.#job.snapshotId} was left to ${this.#journal.parent}, which no longer has it`,
      );
    this.#builder.inherit(index);
  }
}
