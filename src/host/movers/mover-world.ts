/** What a job in the mover's thread is given. */
import type { BlockStore } from '../../blocks/store.ts';
import type { Slabs } from './slabs.ts';

export interface JobContext {
  readonly store: BlockStore;
  readonly slabs: Slabs;
  readonly signal: AbortSignal;
  progress(percent: number): void;
}

/** A failure that trying again can't mend. */
export class FinalJobError extends Error {}

/** Blocks of one job that are under way at once; `Slabs` bounds those of all jobs together. */
export const blocksUnderWayMax = 8;
