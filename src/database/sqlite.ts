import { chmodSync, closeSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { syncDirectory } from '../files/durable.ts';
import { type Database, DatabaseUnavailable } from './database.ts';
import { onForgetting } from './forgetting.ts';
import { sqliteDialect } from './sqlite-dialect.ts';

/** Bounds of one group of work that shares a commit. */
const groupWorkMax = 512;
const groupTimeMaxMs = 8;

interface QueuedWork {
  readonly atomic: boolean;
  readonly work: (db: AnyDatabase) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The embedded database: one SQLite file in write-ahead mode, synchronous=FULL, one connection.
 * The file is made 0600; another process that tries to open it meanwhile is refused.
 */
export class SqliteDatabase implements Database {
  readonly #sqlite: DatabaseSync;
  readonly #db: AnyDatabase;
  readonly #queue: QueuedWork[] = [];
  readonly #undoneListeners: Array<() => void> = [];
  readonly #committingListeners: Array<(db: AnyDatabase) => Promise<void>> = [];
  #waiting: Array<{ resolve: () => void; reject: (error: unknown) => void }> = [];
  #draining = false;
  #groupOpen = false;
  #closed = false;
  #depth = 0;
  #isUsable = true;
  /** Whether the log may have something that was destroyed: at first, because the server may have died over it. */
  #hasToForget = true;

  /** @throws when the file cannot be opened, or another process has it open */
  constructor(path: string) {
    const isMemory = path === ':memory:';
    if (!isMemory) createPrivateFile(path);
    this.#sqlite = new DatabaseSync(path, { timeout: 0 });
    try {
      // What is deleted is overwritten: a destroyed key must not be left in a free page.
      // Exclusive: the caches above hold for one process only, and a second server on the same file would break them.
      this.#sqlite.exec(
        'pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;' +
          'pragma temp_store = memory; pragma cache_size = -32768; pragma wal_autocheckpoint = 1000; pragma secure_delete = on;' +
          'begin immediate; commit',
      );
    } catch (error) {
      this.#sqlite.close();
      if (/locked|busy/i.test(String(error)))
        throw new Error(`${path} is in use by another coffer server; stop it, or choose another --data directory`);
      throw error;
    }
    this.#db = new Kysely({ dialect: sqliteDialect(this.#sqlite) });
    onForgetting(this.#db, () => {
      this.#hasToForget = true;
    });
    this.#forget();
  }

  run<T>(work: (db: AnyDatabase) => Promise<T>, options: { atomic?: boolean } = {}): Promise<T> {
    if (this.#closed) return Promise.reject(new DatabaseUnavailable('it is closed'));
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#queue.push({ work, atomic: options.atomic ?? true, resolve: resolve as QueuedWork['resolve'], reject });
    this.#wake();
    return promise;
  }

  async nested<T>(_db: AnyDatabase, work: () => Promise<T>): Promise<T> {
    const savepoint = `nested_${++this.#depth}`;
    try {
      this.#sqlite.exec(`savepoint ${savepoint}`);
      const result = await work();
      this.#sqlite.exec(`release ${savepoint}`);
      return result;
    } catch (error) {
      this.#sqlite.exec(`rollback to ${savepoint}; release ${savepoint}`);
      throw error;
    } finally {
      this.#depth--;
    }
  }

  durable(): Promise<void> {
    if (!this.#draining && !this.#groupOpen) return Promise.resolve();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ resolve, reject });
    this.#wake();
    return promise;
  }

  get isUsable(): boolean {
    return this.#isUsable && !this.#closed;
  }

  onCommitting(listener: (db: AnyDatabase) => Promise<void>): void {
    this.#committingListeners.push(listener);
  }

  onUndone(listener: () => void): void {
    this.#undoneListeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#draining || this.#queue.length > 0) await new Promise((resolve) => setImmediate(resolve));
    this.#sqlite.exec('pragma wal_checkpoint(truncate)');
    this.#sqlite.close();
  }

  #wake(): void {
    if (this.#draining) return;
    this.#draining = true;
    void this.#drain();
  }

  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0 || this.#waiting.length > 0) {
        await this.#runGroup();
      }
    } finally {
      this.#draining = false;
    }
  }

  async #runGroup(): Promise<void> {
    const started = performance.now();
    let count = 0;
    try {
      this.#sqlite.exec('begin immediate');
      this.#groupOpen = true;
    } catch (error) {
      this.#undo(error);
      for (const queued of this.#queue.splice(0)) queued.reject(new DatabaseUnavailable(error));
      return;
    }
    for (;;) {
      let queued: QueuedWork | undefined;
      while (count < groupWorkMax && performance.now() - started < groupTimeMaxMs && (queued = this.#queue.shift())) {
        count++;
        await this.#runOne(queued);
        // Out of disk space or unable to read, SQLite rolls back by itself, in the middle of a statement: the group is lost.
        if (!this.#sqlite.isTransaction) return this.#undo(new Error('SQLite gave the transaction up'));
      }
      const full = count >= groupWorkMax || performance.now() - started >= groupTimeMaxMs;
      if (full) break;
      // One turn of the event loop lets requests that have already arrived join this group, and this fsync.
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#queue.length === 0) break;
    }
    await this.#commit();
  }

  async #runOne({ work, atomic, resolve, reject }: QueuedWork): Promise<void> {
    try {
      resolve(await (atomic ? this.nested(this.#db, () => work(this.#db)) : work(this.#db)));
    } catch (error) {
      reject(this.#sqlite.isTransaction ? error : new DatabaseUnavailable(error));
    }
  }

  async #commit(): Promise<void> {
    try {
      for (const write of this.#committingListeners) await write(this.#db);
    } catch (error) {
      this.#undo(error);
      return;
    }
    const waiting = this.#waiting;
    try {
      this.#sqlite.exec('commit');
      this.#isUsable = true;
    } catch (error) {
      this.#undo(error);
      return;
    } finally {
      this.#groupOpen = false;
    }
    this.#waiting = [];
    if (this.#hasToForget) this.#forget();
    for (const waiter of waiting) waiter.resolve();
  }

  /**
   * Brings all pages into the file, where they overwrite what was destroyed, and empties the log. Where that fails (the disk
   * is full), the next group tries again: what is committed is durable in the log.
   */
  #forget(): void {
    try {
      this.#sqlite.exec('pragma wal_checkpoint(truncate)');
      this.#hasToForget = false;
    } catch {}
  }

  #undo(cause: unknown): void {
    this.#groupOpen = false;
    this.#isUsable = false;
    if (this.#sqlite.isTransaction) this.#sqlite.exec('rollback');
    for (const listener of this.#undoneListeners) listener();
    const error = new DatabaseUnavailable(cause);
    for (const waiter of this.#waiting.splice(0)) waiter.reject(error);
  }
}

/** Creates the file with mode 0600 and makes its directory entry durable; an existing file's mode is tightened. */
function createPrivateFile(path: string): void {
  closeSync(openSync(path, 'a', 0o600));
  chmodSync(path, 0o600);
  syncDirectory(dirname(path));
}
