// The mover's thread: everything that moves snapshots' blocks, beside the volumes' own threads. It keeps no keys: those of a
// copy come with it and are wiped with it.

import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { PointInTimeError } from '../../blocks/copy-before-write.ts';
import { type BlockStore, inFull, StoreError } from '../../blocks/store.ts';
import { openRightStore } from '../right-store.ts';
import { copySnapshot } from './copy-snapshot.ts';
import { createSnapshot } from './create-snapshot.ts';
import { deleteSnapshot } from './delete-snapshot.ts';
import type { MoverInput, MoverJob, MoverMessage, MoverRequest } from './jobs.ts';
import { FinalJobError, type JobContext } from './mover-world.ts';
import { Slabs } from './slabs.ts';

const input = workerData as MoverInput;
const port = parentPort!;
const say = (message: MoverMessage) => port.postMessage(message);

/** Blocks in memory at once, of all jobs. */
const slabCount = 12;
/** How often a store that could not be opened is tried again when nobody asks for it. */
const reopenMs = 10_000;
/** Linux gives each thread a niceness of its own: where processors are short, volumes' requests come first. */
const niceness = 5;
/** Progress of one job is told at most this often. */
const progressEveryMs = 250;

const pace = new Int32Array(input.pace);
const slabs = new Slabs(slabCount, () => Atomics.load(pace, 0));
const jobs = new Map<number, AbortController>();
let opening: Promise<BlockStore> | undefined;

try {
  setPriority(0, niceness);
} catch {
  // Then all threads are equal.
}
port.on('message', (request: MoverRequest) => {
  if (request.type === 'cancel') jobs.get(request.id)?.abort(new Error('the job was cancelled'));
  else void start(request.id, request.job);
});
watchStore();

async function start(id: number, job: MoverJob): Promise<void> {
  const abort = new AbortController();
  jobs.set(id, abort);
  try {
    const context: JobContext = {
      store: await store(),
      slabs,
      signal: abort.signal,
      progress: throttledProgress(id),
    };
    say({ type: 'done', id, outcome: await perform(job, context) });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const detail = error instanceof StoreError ? error.detail : undefined;
    say({ type: 'failed', id, error: message, ...(detail ? { detail } : {}), final: isFinal(error) });
  } finally {
    wipeKeys(job);
    jobs.delete(id);
  }
}

async function perform(job: MoverJob, context: JobContext): Promise<SnapshotOutcome | undefined> {
  switch (job.kind) {
    case 'createSnapshot':
      return createSnapshot(job, context);
    case 'copySnapshot':
      return copySnapshot(job, context);
    case 'deleteSnapshot':
      await deleteSnapshot(job, context);
      return undefined;
  }
}

function isFinal(error: unknown): boolean {
  if (error instanceof StoreError) return error.code === 'Corrupt' || error.code === 'Missing';
  return error instanceof FinalJobError || error instanceof PointInTimeError;
}

function wipeKeys(job: MoverJob): void {
  if (job.kind !== 'copySnapshot') return;
  for (const key of [job.sourceKey, job.key]) if (key) Buffer.from(key).fill(0);
}

/** The store, opened by whoever needs it first; tried again by the next after a failure. */
function store(): Promise<BlockStore> {
  opening ??= openRightStore(input.storeLocation, input.storeId).then(
    (opened) => {
      say({ type: 'store', storeId: opened.id });
      return opened;
    },
    (error: Error) => {
      opening = undefined;
      say({ type: 'store', error: inFull(error) });
      throw error;
    },
  );
  return opening;
}

function watchStore(): void {
  store().catch(() => setTimeout(watchStore, reopenMs).unref());
}

function throttledProgress(id: number): (percent: number) => void {
  let toldAt = 0;
  return (percent) => {
    const now = performance.now();
    if (now - toldAt < progressEveryMs) return;
    toldAt = now;
    say({ type: 'progress', id, percent });
  };
}
