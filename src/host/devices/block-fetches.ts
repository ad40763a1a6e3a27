// Brings blocks of a snapshot in, a bounded number at a time. Those that a request waits for go first; the others follow in the
// background, as fast as is wanted, and step aside for requests: no more than one block is worked on between two looks at
// what clients ask.

import { alignedBuffer } from '../../blocks/aligned.ts';
import { blockBytes, StoreError } from '../../blocks/store.ts';
import { type Slab, slabOver } from '../../crypto/native.ts';
import type { BlockSource } from '../snapshot-blocks.ts';
import { DeviceError } from './device.ts';

export interface FetchOptions {
  readonly source: BlockSource;
  /** How many blocks the background asks for at a time. */
  readonly backgroundMax: number;
  /** The next block that is still missing, at or after `index`; undefined: none. */
  next(index: number): number | undefined;
  /** Whether the background has to wait until `goOn` is called. */
  mustPause(): boolean;
  /** Whether a block is still missing. */
  isMissing(block: number): boolean;
  /** Takes in a block that was fetched, `isWanted` by a request or not. May throw a DeviceError. */
  take(block: number, memory: Slab, isWanted: boolean): void;
  /** The background has been held up; undefined: it goes on. */
  trouble(trouble: FetchTrouble | undefined): void;
}

export interface FetchTrouble {
  readonly code: string;
  readonly message: string;
  /** For the operator: see StoreError. */
  readonly detail?: string | undefined;
  /** Trying again does not help. */
  readonly final: boolean;
}

type Done = (error?: Error) => void;

interface Fetch {
  readonly block: number;
  readonly memory: Slab;
  readonly waiters: Done[];
  failure: Error | undefined;
}

/** Fetches at a time, 512 KiB of memory each. */
const fetchesMax = 24;
const burstMs = 100;
const retryFirstMs = 1_000;
const retryMaxMs = 30_000;
/** After so long a block that could not be had is asked for again: the store may have been repaired. */
const badRetryMs = 60_000;

export class BlockFetches {
  readonly #options: FetchOptions;
  readonly #ending = new AbortController();
  readonly #running = new Map<number, Fetch>();
  /** Blocks that requests wait for and no fetch has been begun for. */
  readonly #wanted = new Map<number, Done[]>();
  #finished: Fetch[] = [];
  readonly #free: Slab[] = [];
  readonly #bad = new Set<number>();
  #cursor = 0;
  #failures = 0;
  #mibPerSecond: number | undefined;
  /** When the background may begin its next fetch, in terms of performance.now(). */
  #dueMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #isScheduled = false;
  #isBackgroundOn = false;

  constructor(options: FetchOptions) {
    this.#options = options;
  }

  /** Begins to bring in everything that is missing. */
  startBackground(): void {
    this.#isBackgroundOn = true;
    this.#pump();
  }

  /** The background need not pause any more. */
  goOn(): void {
    this.#pump();
  }

  /** MiB/s of the background; undefined: unlimited. */
  setRate(mibPerSecond: number | undefined): void {
    this.#mibPerSecond = mibPerSecond;
    this.#dueMs = 0;
    this.#pump();
  }

  /** Brings one block in, and says when it is there or why it can't be had. */
  want(block: number, done: Done): void {
    const waiters = this.#running.get(block)?.waiters ?? this.#wanted.get(block);
    if (waiters) waiters.push(done);
    else this.#wanted.set(block, [done]);
    this.#pump();
  }

  /** Ends everything; nobody hears of it. */
  close(): void {
    this.#ending.abort();
    clearTimeout(this.#timer);
    this.#wanted.clear();
    this.#running.clear();
    this.#finished = [];
    for (const { bytes } of this.#free) bytes.fill(0);
    this.#options.source.close();
  }

  #pump(): void {
    if (this.#ending.signal.aborted) return;
    for (const [block, waiters] of this.#wanted) {
      if (this.#running.size >= fetchesMax) return;
      this.#wanted.delete(block);
      this.#begin(block, waiters);
    }
    while (this.#isBackgroundOn && this.#running.size < this.#options.backgroundMax && !this.#options.mustPause()) {
      const now = performance.now();
      if (this.#dueMs > now) {
        this.#pumpIn(this.#dueMs - now);
        return;
      }
      const block = this.#nextForBackground();
      if (block === undefined) return;
      if (this.#mibPerSecond !== undefined) {
        const stepMs = (blockBytes / 2 ** 20 / this.#mibPerSecond) * 1000;
        // What a pause held up is not made up for by more than a moment's worth.
        this.#dueMs = Math.max(this.#dueMs, now - burstMs) + stepMs;
      }
      this.#begin(block, []);
    }
  }

  #pumpIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#pump(), ms);
  }

  #nextForBackground(): number | undefined {
    for (let turn = 0; turn < 2; turn++) {
      let block = this.#options.next(this.#cursor);
      while (block !== undefined && (this.#running.has(block) || this.#bad.has(block))) {
        block = this.#options.next(block + 1);
      }
      if (block !== undefined) {
        this.#cursor = block + 1;
        return block;
      }
      this.#cursor = 0;
    }
    if (this.#bad.size > 0 && this.#running.size === 0) {
      this.#bad.clear();
      this.#dueMs = performance.now() + badRetryMs;
      this.#pumpIn(badRetryMs);
    }
    return undefined;
  }

  #begin(block: number, waiters: Done[]): void {
    const memory = this.#free.pop() ?? slabOver(alignedBuffer(blockBytes));
    const fetch: Fetch = { block, memory, waiters, failure: undefined };
    this.#running.set(block, fetch);
    this.#options.source.fetch(block, memory.bytes, this.#ending.signal).then(
      () => this.#arrived(fetch),
      (error) => {
        fetch.failure = error as Error;
        this.#arrived(fetch);
      },
    );
  }

  #arrived(fetch: Fetch): void {
    if (this.#ending.signal.aborted) {
      fetch.memory.bytes.fill(0);
      return;
    }
    this.#finished.push(fetch);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#finishOne();
      if (this.#finished.length > 0) this.#schedule();
      this.#pump();
    });
  }

  #finishOne(): void {
    const position = this.#finished.findIndex(({ waiters }) => waiters.length > 0);
    const [fetch] = this.#finished.splice(Math.max(position, 0), 1);
    if (!fetch) return;
    if (!fetch.failure && this.#options.isMissing(fetch.block)) {
      try {
        this.#options.take(fetch.block, fetch.memory, fetch.waiters.length > 0);
      } catch (error) {
        // A mistake of this program must not pass for a failing disk.
        if (!(error instanceof DeviceError)) throw error;
        fetch.failure = error;
      }
    }
    this.#running.delete(fetch.block);
    this.#free.push(fetch.memory);
    this.#note(fetch);
    const error = fetch.failure && deviceError(fetch.failure);
    for (const done of fetch.waiters) done(error);
  }

  #note({ block, failure }: Fetch): void {
    if (!failure) {
      if (this.#failures > 0) this.#options.trouble(undefined);
      this.#failures = 0;
      return;
    }
    const { code = 'EIO', message } = failure as NodeJS.ErrnoException;
    const final = failure instanceof StoreError && (code === 'Corrupt' || code === 'Missing');
    const detail = failure instanceof StoreError ? failure.detail : undefined;
    this.#options.trouble({ code, message, detail, final });
    if (final) {
      this.#bad.add(block);
      return;
    }
    const pauseMs = Math.min(retryFirstMs * 2 ** this.#failures++, retryMaxMs);
    this.#dueMs = performance.now() + pauseMs;
  }
}

function deviceError(failure: Error): DeviceError {
  return failure instanceof DeviceError ? failure : new DeviceError('EIO', failure.message);
}
