// Brings parts of an image into the page cache for requests that found them missing.
//
// A thread per read would cost more than the read. Instead the kernel is told at once what every waiting request needs
// (posix_fadvise WILLNEED starts the I/O and does not wait for it), so the disk sees the whole queue, and a single
// ordinary read in Node's thread pool waits for the oldest. When that one is in, those behind it usually are too.

import { read } from 'node:fs';
import { fadviseWillNeed, type Libc, rwfNowait } from '../../blocks/libc.ts';
import { createSlab } from '../../crypto/native.ts';
import { DeviceError, type Wait } from './device.ts';

/** Linux caps one WILLNEED at the device's largest request or the read-ahead window, often 128 KiB: ask piecewise. */
const adviceBytes = 128 * 1024;
const stepBytes = 256 * 1024;

interface Waiter {
  offset: number;
  readonly end: number;
  readonly done: (error?: Error) => void;
}

export class ColdReads {
  readonly #fd: number;
  readonly #libc: Libc;
  readonly #waiters: Waiter[] = [];
  readonly #step = Buffer.allocUnsafeSlow(stepBytes);
  readonly #probe = createSlab(1);
  #reading = false;

  constructor(fd: number, libc: Libc) {
    this.#fd = fd;
    this.#libc = libc;
  }

  /** A wait that ends when `length` bytes at `offset` of the file have been read into the page cache. */
  wait(offset: number, length: number): Wait {
    return {
      start: (done) => {
        this.advise(offset, length);
        this.#waiters.push({ offset, end: offset + length, done });
        if (!this.#reading) this.#readOldest();
      },
    };
  }

  /** Starts reading a range without waiting for it. */
  advise(offset: number, length: number): void {
    for (let position = offset; position < offset + length; position += adviceBytes) {
      const piece = Math.min(adviceBytes, offset + length - position);
      this.#libc.fadvise(this.#fd, position, piece, fadviseWillNeed);
    }
  }

  /** Forgets those who wait: the file is about to be closed. */
  close(): void {
    this.#waiters.length = 0;
  }

  #readOldest(): void {
    const waiter = this.#waiters[0];
    if (!waiter) {
      this.#reading = false;
      return;
    }
    this.#reading = true;
    const length = Math.min(stepBytes, waiter.end - waiter.offset);
    read(this.#fd, this.#step, 0, length, waiter.offset, (error, bytesRead) => {
      if (this.#waiters[0] !== waiter) return;
      waiter.offset += bytesRead ?? 0;
      if (error || bytesRead === 0) this.#finish(new DeviceError(error?.code ?? 'EIO', 'read of the volume image'));
      else if (waiter.offset >= waiter.end) this.#finish();
      while (this.#oldestIsCached()) this.#finish();
      this.#readOldest();
    });
  }

  #finish(error?: Error): void {
    this.#waiters.shift()?.done(error);
  }

  // Looks at the last byte only. If the rest is missing the request asks again, and waits again.
  #oldestIsCached(): boolean {
    const waiter = this.#waiters[0];
    if (!waiter) return false;
    return this.#libc.pread(this.#fd, this.#probe.address, 1, waiter.end - 1, rwfNowait) === 1;
  }
}
