// Answers any number of flushes with as few fdatasync calls as possible, and remembers a failed one.
//
// A flush may use only an fdatasync that began after the flush was asked for; those that arrive while one is running
// share the next. After a failure the kernel may have dropped the dirty pages and marked them clean, so a second
// fdatasync can succeed although data is lost (PostgreSQL's "fsyncgate"; https://lwn.net/Articles/752063/). So the first
// failure stays: every later flush reports it until the image is opened again.

import { fdatasync } from 'node:fs';
import { DeviceError } from './device.ts';

type Done = (error?: Error) => void;

export class GroupFlush {
  readonly #sync: (done: (error: NodeJS.ErrnoException | null) => void) => void;
  #running = false;
  #waiting: Done[] = [];
  #failure: Error | undefined;

  /** `sync` can be replaced in tests, to make it fail. */
  constructor(fd: number, sync?: (done: (error: NodeJS.ErrnoException | null) => void) => void) {
    this.#sync = sync ?? ((done) => fdatasync(fd, done));
  }

  /** The failure that made every later flush fail, if there was one. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Calls `done` once all that was written before this call is on stable storage, or with the error. Never in turn. */
  flush(done: Done): void {
    this.#waiting.push(done);
    if (!this.#running) this.#run();
  }

  #run(): void {
    const group = this.#waiting;
    this.#waiting = [];
    this.#running = true;
    const finish = (error: NodeJS.ErrnoException | null) => {
      if (error && !this.#failure) {
        const code = error.code ?? 'EIO';
        this.#failure = new DeviceError(
          code === 'ENOSPC' || code === 'EDQUOT' ? code : 'EIO',
          'fdatasync of the volume image failed; flushes fail until the volume is attached again',
        );
      }
      this.#running = false;
      for (const done of group) done(this.#failure);
      if (this.#waiting.length > 0 && !this.#running) this.#run();
    };
    if (this.#failure) setImmediate(finish, null);
    else this.#sync(finish);
  }
}
