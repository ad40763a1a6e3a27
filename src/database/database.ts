import type { AnyDatabase } from '../aws/call.ts';

/**
 * The metadata database, as the pipeline uses it.
 *
 * Work runs one at a time, in the order it was handed in, so no operation ever sees another's half-done changes. Work that
 * has run is *applied*: later work sees it. It is *durable* a little later, when the group it belongs to is committed with
 * one fsync. Whoever tells the outside world about applied work waits for `durable` first.
 */
export interface Database {
  /**
   * Runs `work` alone and resolves with its result once applied. When it throws, everything it changed is undone (unless
   * `atomic` is false: then what it did before stays) and the error passes on.
   */
  run<T>(work: (db: AnyDatabase) => Promise<T>, options?: { atomic?: boolean }): Promise<T>;

  /**
   * Runs `work` inside work that is already running (a nested call): its changes alone are undone when it throws.
   */
  nested<T>(db: AnyDatabase, work: () => Promise<T>): Promise<T>;

  /**
   * Resolves once everything applied before this call is on disk.
   * @throws {DatabaseUnavailable} when it could not be written; it has then been undone as a whole
   */
  durable(): Promise<void>;

  /**
   * `listener` runs at the end of every group of work, as a part of it: to write at once what its work has gathered. When
   * it throws, the whole group is undone.
   */
  onCommitting(listener: (db: AnyDatabase) => Promise<void>): void;

  /** Whether the last group could be written. */
  readonly isUsable: boolean;

  /** Called after a group was undone because it could not be written; caches of applied state must be dropped. */
  onUndone(listener: () => void): void;

  /** Finishes what is queued, makes it durable and closes. */
  close(): Promise<void>;
}

/** The database could not be written (disk full, I/O error). Nothing of the group was kept. */
export class DatabaseUnavailable extends Error {
  constructor(cause: unknown) {
    super(`the metadata database could not be written: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
    this.name = 'DatabaseUnavailable';
  }
}
