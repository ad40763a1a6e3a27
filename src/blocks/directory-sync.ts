// Makes durable all that was written to the file system of a directory: one syncfs serves all who ask at a time.

import { closeSync, constants, openSync } from 'node:fs';
import { libc } from './libc.ts';
import { StoreError } from './store.ts';

export class DirectorySync {
  readonly #path: string;
  /** Errors of writing back are reported once to each descriptor: this one is open from before the first write. */
  #directory: number | undefined;
  #sync: { readonly running: Promise<void>; next?: Promise<void> } | undefined;

  constructor(path: string) {
    this.#path = path;
    this.#directory = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /**
   * One at a time; whoever asks while one runs gets the next, which covers what was written meanwhile. Rejects with
   * StoreError: `Full` where what was written has found no room.
   */
  sync(): Promise<void> {
    if (!this.#sync) return this.#start();
    const { running } = this.#sync;
    return (this.#sync.next ??= running.then(
      () => this.#start(),
      () => this.#start(),
    ));
  }

  close(): void {
    const directory = this.#directory;
    this.#directory = undefined;
    if (directory === undefined) return;
    const closeIt = () => closeSync(directory);
    if (this.#sync) (this.#sync.next ?? this.#sync.running).then(closeIt, closeIt);
    else closeIt();
  }

  #start(): Promise<void> {
    const directory = this.#directory;
    if (directory === undefined) {
      this.#sync = undefined;
      return Promise.reject(new StoreError('Unavailable', 'the block store is closed', { detail: this.#path }));
    }
    const running = libc()
      .syncfs(directory)
      .then((result) => {
        if (result < 0) throw syncFailed(this.#path, -result);
      })
      .finally(() => {
        // A next one that is waited for takes the place by itself.
        if (this.#sync?.running === running && !this.#sync.next) this.#sync = undefined;
      });
    this.#sync = { running };
    return running;
  }
}

function syncFailed(path: string, errno: number): StoreError {
  const [enospc, edquot] = [28, 122];
  const code = errno === enospc || errno === edquot ? 'Full' : 'Unavailable';
  return new StoreError(code, `the block store could not be synced: syncfs failed with errno ${errno}`, {
    detail: path,
  });
}
