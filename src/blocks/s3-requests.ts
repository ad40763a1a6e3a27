// How requests to S3 are made: so many at once, each with a deadline, tried again with pauses that grow, and every
// failure said as a StoreError.

import type { Readable } from 'node:stream';
import { addAbortSignal } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { StoreError, type StoreErrorCode } from './store.ts';

export interface S3Limits {
  /** Requests in flight; more wait. */
  readonly requests: number;
  readonly attempts: number;
  /** For one attempt, and as much again as its bytes take at the slowest rate that does not count as stalled. */
  readonly attemptTimeoutMs: number;
  readonly slowestBytesPerMs: number;
  readonly connectTimeoutMs: number;
  /** Of the first pause; each one after it may be twice as long. */
  readonly pauseMs: number;
  readonly pauseMaxMs: number;
  /** Manifests above this size go up in parts of this size. */
  readonly partBytes: number;
}

export const s3Limits: S3Limits = {
  requests: 16,
  attempts: 6,
  attemptTimeoutMs: 20_000,
  slowestBytesPerMs: 128,
  connectTimeoutMs: 5_000,
  pauseMs: 100,
  pauseMaxMs: 5_000,
  partBytes: 64 * 1024 * 1024,
};

/** What arrives damaged was damaged on the way, or is stored so: a few tries tell. */
export const corruptAttemptsMax = 3;

/** A part of an SDK error; network errors have `code`. */
interface Failure {
  readonly name?: string;
  readonly message?: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $response?: { readonly statusCode?: number };
}

export class S3Requests {
  readonly #location: string;
  readonly #limits: S3Limits;
  readonly #waiting: Array<() => void> = [];
  #running = 0;

  constructor(location: string, limits: S3Limits) {
    this.#location = location;
    this.#limits = limits;
  }

  /**
   * Runs `attempt` until it succeeds, with a signal that ends it at its deadline or when `signal` says so. `what` begins
   * the message of the StoreError that it rejects with in the end (`block 5 of snap-… can't be read`).
   */
  async run<T>(
    what: string,
    attempt: (signal: AbortSignal) => Promise<T>,
    { signal, bytes = 0 }: { readonly signal?: AbortSignal; readonly bytes?: number } = {},
  ): Promise<T> {
    const { attempts, attemptTimeoutMs, slowestBytesPerMs } = this.#limits;
    const deadlineMs = Math.ceil(attemptTimeoutMs + bytes / slowestBytesPerMs);
    for (let number = 1; ; number++) {
      signal?.throwIfAborted();
      const deadline = new AbortController();
      try {
        return await this.#inTurn(() => within(deadline, deadlineMs, signal, attempt));
      } catch (error) {
        signal?.throwIfAborted();
        const verdict = deadline.signal.aborted
          ? { code: 'Unavailable' as const, mayPass: true, message: `no answer within ${deadlineMs} ms` }
          : judge(error as Failure);
        const isLast = number >= (verdict.code === 'Corrupt' ? corruptAttemptsMax : attempts);
        if (isLast || !verdict.mayPass) {
          if (error instanceof StoreError) throw error;
          const tried = number > 1 ? ` (tried ${number} times)` : '';
          const detail = `${this.#location}: ${verdict.message}${tried}`;
          throw new StoreError(verdict.code, `${what}: ${reasons[verdict.code]}`, { cause: error, detail });
        }
        await this.#pause(number, signal);
      }
    }
  }

  /** At random up to a bound that doubles each time, so that many who were turned away do not come back together. */
  async #pause(number: number, signal?: AbortSignal): Promise<void> {
    const { pauseMs, pauseMaxMs } = this.#limits;
    const bound = Math.min(pauseMaxMs, pauseMs * 2 ** (number - 1));
    await sleep(bound / 2 + (Math.random() * bound) / 2, undefined, { signal });
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limits.requests) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }
}

/** Runs `work` with a signal that `signal`, or the time, aborts. */
async function within<T>(
  controller: AbortController,
  limitMs: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const abort = () => controller.abort();
  const timer = setTimeout(abort, limitMs);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Whether the object that was asked for is not there (and its bucket is). */
export function isNotFound(error: unknown): boolean {
  const { name, $metadata } = error as Failure;
  return $metadata?.httpStatusCode === 404 && name !== 'NoSuchBucket';
}

/** Whether the range that was asked for lies beyond the object. */
export function isRangeNotSatisfiable(error: unknown): boolean {
  return (error as Failure).$metadata?.httpStatusCode === 416;
}

/** Whether a condition of the request (`If-None-Match`) did not hold. */
export function isPreconditionFailed(error: unknown): boolean {
  return (error as Failure).$metadata?.httpStatusCode === 412;
}

/**
 * Fills `into` with a body; `signal` ends it. One that ends early or goes on rejects: such an answer is worth another
 * try.
 */
export async function readBody(body: unknown, into: Buffer, signal: AbortSignal): Promise<void> {
  const stream = addAbortSignal(signal, body as Readable);
  let done = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (done + chunk.length > into.length) throw new Error(`the answer is longer than ${into.length} bytes`);
    chunk.copy(into, done);
    done += chunk.length;
  }
  if (done < into.length) throw new Error(`the answer ended after ${done} of ${into.length} bytes`);
}

/** Lets go of a body that nobody wants, and of its connection. */
export function discardBody(body: unknown): void {
  const stream = body as Readable | undefined;
  stream?.on?.('error', () => {});
  stream?.destroy?.();
}

/** What a server says names its address, buckets and users: that is for the operator. */
const reasons: Readonly<Record<StoreErrorCode, string>> = {
  Corrupt: 'what the block store answers is damaged',
  Missing: 'the block store does not have it',
  Unavailable: 'the block store is not available',
  Denied: 'the block store refuses',
  Full: 'the block store is full',
};

interface Verdict {
  readonly code: StoreErrorCode;
  /** Whether trying again may help. */
  readonly mayPass: boolean;
  readonly message: string;
}

/** Answers of status 4xx that another try may well not get: the request was damaged or delayed on its way. */
const passing = new Set([
  'XAmzContentSHA256Mismatch',
  'BadDigest',
  'IncompleteBody',
  'RequestTimeout',
  'OperationAborted',
]);
const full = new Set(['QuotaExceeded', 'InsufficientStorage', 'InsufficientCapacity', 'EntityTooLarge']);
const denied = new Set([
  'RequestTimeTooSkewed',
  'ExpiredToken',
  'InvalidToken',
  'CredentialsProviderError',
  'TokenProviderError',
]);

function judge(error: Failure): Verdict {
  if (error instanceof StoreError)
    return { code: error.code, mayPass: error.code === 'Corrupt', message: error.message };
  const { name = '', code, message = String(error) } = error;
  const status = error.$metadata?.httpStatusCode;
  // Network errors name their cause in `code`, and often nowhere else.
  const text = isForeign(error)
    ? `an answer that is not one of S3 (HTTP ${error.$response?.statusCode ?? status})`
    : [name === 'Error' || name === 'AggregateError' ? code : name, message].filter(Boolean).join(': ');
  if (full.has(name) || status === 507) return { code: 'Full', mayPass: false, message: text };
  if (denied.has(name)) return { code: 'Denied', mayPass: false, message: text };
  if (status === 429 || passing.has(name)) return { code: 'Unavailable', mayPass: true, message: text };
  if (status === 401 || status === 403) return { code: 'Denied', mayPass: false, message: text };
  const isFinal = status !== undefined && status >= 300 && status < 500;
  return { code: 'Unavailable', mayPass: !isFinal, message: text };
}

/** The SDK could not read the answer: it comes from something between, and the SDK's hint is for programmers. */
function isForeign({ message }: Failure): boolean {
  return message?.includes('Deserialization error') ?? false;
}
