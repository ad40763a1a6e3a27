// What a block device is here: a handful of methods that stack, as nbdkit's filters do. The NBD server talks to the top
// of a stack (cipher → file, or only file) and knows nothing of what lies below.
//
// One thread serves a volume, and every call below runs to its end without giving way to another request. So a request
// is atomic against all others, on whatever connection, without locks. A call that would have to wait (for the disk, a
// block that is still to be restored) does not: it answers a `Wait`, the server goes on with other requests, and asks
// again when the wait is over.

import { constants } from 'node:os';
import type { Slab } from '../../crypto/native.ts';

/** Something that must happen before a request can be carried out. `start` is called once; it calls `done` later. */
export interface Wait {
  start(done: (error?: Error) => void): void;
}

/** `undefined`: carried out. Otherwise nothing the caller was promised has happened: wait, then ask again. */
export type Outcome = Wait | undefined;

/** A stretch of the device. A hole has no storage behind it, and reads as zeros. */
export interface Extent {
  readonly length: number;
  readonly hole: boolean;
}

/**
 * Offsets and lengths are bytes, of any alignment, inside the device: the server has checked them. Methods throw
 * `DeviceError` when the storage refuses.
 */
export interface Device {
  /** Size in bytes. May grow. */
  readonly size: number;
  /** Whether `zero` without `allocate` is quicker than writing. */
  readonly zeroesFast: boolean;
  /** Whether `expectWrite` is of use now. */
  readonly expectsWrites: boolean;
  /** Reads `length` bytes at `offset` to `memory.bytes[at]`. After a Wait or an error the memory is undefined. */
  read(memory: Slab, at: number, offset: number, length: number): Outcome;
  /**
   * Writes `length` bytes from `memory.bytes[at]`, and may use that memory as its own: its contents are undefined
   * afterwards, except after a Wait, when they are as given. A write that waits or fails may be on disk in part.
   */
  write(memory: Slab, at: number, offset: number, length: number): Outcome;
  /** Makes a range read as zeros; with `allocate` it keeps (or gets) its storage, otherwise it may give it back. */
  zero(offset: number, length: number, allocate: boolean): Outcome;
  /** Gives storage back where that is possible; what it can't discard keeps its contents. */
  trim(offset: number, length: number): Outcome;
  /** Says that a range will be read soon. A hint. */
  cache(offset: number, length: number): void;
  /** Says that a range is about to be written, together with others. A hint. */
  expectWrite(offset: number, length: number): void;
  /** Consecutive extents from `offset` on, at most `count` of them, together at most `length` bytes, at least one. */
  extents(offset: number, length: number, count: number): Extent[];
  /** Calls `done` when all writes carried out before this call are on stable storage, or with the reason why not. */
  flush(done: (error?: Error) => void): void;
  /** Releases what the device holds, keys first. No call may follow. Flushes nothing. */
  close(): void;
}

/** An error of the storage, with the name of the errno (`ENOSPC`, `EIO` …). */
export class DeviceError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${message}: ${code}`);
    this.name = 'DeviceError';
    this.code = code;
  }

  /** Makes the error for a negated errno, as src/blocks/libc.ts answers it. */
  static of(negatedErrno: number, message: string): DeviceError {
    return new DeviceError(errnoNames.get(-negatedErrno) ?? `errno ${-negatedErrno}`, message);
  }
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
