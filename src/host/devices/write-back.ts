// Has what the background restore writes to an image put on the disk soon, while the next blocks are fetched, and then leave
// memory. Left to itself Linux waits until gigabytes are dirty: the disk idles meanwhile, a client's flush takes as long as they
// do, writers to other volumes are held up with this one's, and what clients use makes room for what nobody has asked for.
//
// This is no flush: nothing is durable by it, and failures are left to the next fdatasync to find.

import { closeSync, constants, openSync } from 'node:fs';
import { type Libc, syncFileRangeWait, syncFileRangeWrite } from '../../blocks/libc.ts';

/** Worth a call. */
const stepBytes = 16 * 2 ** 20;
/** So much may be waiting to be handed to the disk; then whoever restores should wait. */
const waitingMaxBytes = 64 * 2 ** 20;
/** What was handed to the disk this long ago is likely to be there, so that waiting for it takes a thread of the pool for no time. */
const underWayBytes = 64 * 2 ** 20;

interface Range {
  readonly from: number;
  to: number;
}

interface Step {
  readonly ranges: readonly Range[];
  readonly bytes: number;
}

export class WriteBack {
  readonly #libc: Libc;
  /**
   * The image, opened anew: a failed write is told once to each opening of a file, and hearing of it here must not keep the
   * flushes from hearing of it.
   */
  readonly #fd: number;
  readonly #caughtUp: () => void;
  #waiting: Range[] = [];
  #waitingBytes = 0;
  /** Handed to the disk, oldest first. */
  readonly #submitted: Step[] = [];
  #submittedBytes = 0;
  #isRunning = false;
  #isClosed = false;

  /** @param caughtUp called when it is no longer behind */
  constructor(imageFd: number, libc: Libc, caughtUp: () => void) {
    this.#libc = libc;
    this.#caughtUp = caughtUp;
    this.#fd = openSync(`/proc/self/fd/${imageFd}`, constants.O_RDONLY);
  }

  /** Whether the disk can't keep up. */
  get isBehind(): boolean {
    return this.#waitingBytes >= waitingMaxBytes && !this.#isClosed;
  }

  wrote(offset: number, length: number): void {
    if (this.#isClosed) return;
    const last = this.#waiting.at(-1);
    if (last?.to === offset) last.to += length;
    else this.#waiting.push({ from: offset, to: offset + length });
    this.#waitingBytes += length;
    if (this.#waitingBytes >= stepBytes && !this.#isRunning) void this.#run();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isRunning) closeSync(this.#fd);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waitingBytes >= stepBytes && !this.#isClosed) {
      const step: Step = { ranges: this.#waiting, bytes: this.#waitingBytes };
      const wasBehind = this.isBehind;
      this.#waiting = [];
      this.#waitingBytes = 0;
      if (wasBehind) this.#caughtUp();
      for (const range of step.ranges) await this.#sync(range, syncFileRangeWrite);
      this.#submitted.push(step);
      this.#submittedBytes += step.bytes;
      if (!(await this.#dropOld())) this.#isClosed = true;
    }
    this.#isRunning = false;
    if (!this.#isClosed) return;
    closeSync(this.#fd);
    this.#caughtUp();
  }

  /** False when something could not be written: then memory has the only copy, and must be left alone. */
  async #dropOld(): Promise<boolean> {
    while (this.#submittedBytes - this.#submitted[0]!.bytes >= underWayBytes) {
      const { ranges, bytes } = this.#submitted.shift()!;
      this.#submittedBytes -= bytes;
      for (const range of ranges) if ((await this.#sync(range, syncFileRangeWait)) < 0) return false;
      for (const { from, to } of ranges) await this.#libc.dropCache(this.#fd, from, to - from);
    }
    return true;
  }

  #sync({ from, to }: Range, flags: number): Promise<number> {
    return this.#libc.syncFileRange(this.#fd, from, to - from, flags);
  }
}
