/**
 * Keeps a host running beside the server: finds the one that outlived an earlier server, or starts one, and starts it again
 * when it dies. The host is a process in a session of its own, so that nothing that ends the server ends it too.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { hostFiles, supersededExitCode } from '../host/host-files.ts';
import { isLocked, readPid } from '../host/process.ts';
import { readStoreNote, storeLocation } from '../host/store-note.ts';

const lookEveryMs = 250;
const restartFirstMs = 200;
const restartMaxMs = 10_000;
/** A host that has lived this long starts from the shortest pause again when it dies. */
const healthyAfterMs = 30_000;
const drainMs = 30_000;
/** The log is set aside at a start when it is longer; one older log is kept. */
const logBytesMax = 16 * 1024 * 1024;

export class HostSupervisor {
  readonly #dataDir: string;
  readonly #store: string | undefined;
  readonly #files: ReturnType<typeof hostFiles>;
  readonly #warn: (message: string) => void;
  #child: ChildProcess | undefined;
  #childStartedAt = 0;
  #deaths = 0;
  #startAfter = 0;
  #timer: NodeJS.Timeout | undefined;
  #isWatching = false;
  #hasHost = false;

  /** @param store where snapshots are kept; undefined: in the data directory */
  constructor(dataDir: string, store: string | undefined, warn: (message: string) => void) {
    this.#dataDir = dataDir;
    this.#store = store;
    this.#files = hostFiles(dataDir);
    this.#warn = warn;
  }

  /** Finds or starts the host and watches over it from then on. */
  start(): void {
    // One that outlived an earlier server may be in a pause between two attempts to reach it.
    if (isLocked(this.#files.lock)) {
      this.#signal('SIGHUP');
      this.#warnOfOtherStore();
    }
    this.#isWatching = true;
    this.#look();
    this.#timer = setInterval(() => this.#look(), lookEveryMs);
  }

  /** Resolves when the host has talked to this server (`since`: ms since the epoch), false after `timeoutMs`. */
  async synced(since: number, timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    while (Date.now() < deadline) {
      const at = statSync(this.#files.synced, { throwIfNoEntry: false })?.mtimeMs ?? 0;
      if (at >= since && isLocked(this.#files.lock)) return true;
      await new Promise((wake) => setTimeout(wake, 20));
    }
    return false;
  }

  /** Ends the host: volumes flushed and closed. One that takes longer than half a minute is left to finish alone. */
  async stop(): Promise<void> {
    this.#rest();
    this.#signal('SIGTERM');
    const deadline = Date.now() + drainMs;
    while (this.#isThere()) {
      if (Date.now() > deadline) {
        this.#warn('the host is still writing volumes to disk; it ends when that is done');
        return;
      }
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  #warnOfOtherStore(): void {
    const wanted = storeLocation(this.#store, this.#dataDir);
    const used = readStoreNote(this.#dataDir)?.location ?? wanted;
    if (used !== wanted)
      this.#warn(
        `the host that runs here keeps snapshots in ${used}, not in ${wanted}; stop it to have another one started`,
      );
  }

  #isThere(): boolean {
    return this.#child !== undefined || isLocked(this.#files.lock);
  }

  #look(): void {
    if (this.#isThere()) {
      this.#hasHost = true;
      return;
    }
    if (Date.now() < this.#startAfter) return;
    if (this.#hasHost && !this.#childStartedAt) this.#warn('the host found at the start has ended; starting another');
    this.#childStartedAt = Date.now();
    try {
      this.#spawn();
    } catch (error) {
      this.#died(`could not be started: ${(error as Error).message}`);
    }
  }

  #spawn(): void {
    setAsideLog(this.#files.log);
    const log = openSync(this.#files.log, 'a', 0o600);
    const main = join(import.meta.dirname, 'main.ts');
    const store = this.#store === undefined ? [] : ['--store', this.#store];
    const child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', main, 'host', '--data', this.#dataDir, ...store],
      { detached: true, stdio: ['ignore', log, log], env: hostEnvironment(process.env, this.#store) },
    );
    closeSync(log);
    this.#child = child;
    child.once('error', (error) => this.#died(`could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      if (code === supersededExitCode) {
        this.#rest();
        this.#child = undefined;
        this.#warn('another host took over with the same credentials; this server starts none any more');
      } else this.#died(`ended (${signal ?? code})`);
    });
  }

  #died(how: string): void {
    this.#child = undefined;
    if (!this.#isWatching) return;
    if (Date.now() - this.#childStartedAt > healthyAfterMs) this.#deaths = 0;
    const pauseMs = Math.min(restartFirstMs * 2 ** this.#deaths++, restartMaxMs);
    this.#startAfter = Date.now() + pauseMs;
    this.#warn(`the host ${how}; starting it again. Its log is ${this.#files.log}`);
  }

  #rest(): void {
    this.#isWatching = false;
    clearInterval(this.#timer);
  }

  #signal(signal: NodeJS.Signals): void {
    const pid = this.#child?.pid ?? (isLocked(this.#files.lock) ? readPid(this.#files.pid) : undefined);
    try {
      if (pid !== undefined) process.kill(pid, signal);
    } catch {
      // It has just ended.
    }
  }
}

/**
 * Nothing that is a credential, or steers an AWS client, passes to the host, but for what it needs to reach an S3 store:
 * AWS's own variables without those that name this server as AWS's endpoint.
 */
function hostEnvironment(env: NodeJS.ProcessEnv, store: string | undefined): NodeJS.ProcessEnv {
  const isS3 = store?.startsWith('s3://');
  const passes = (name: string) =>
    isS3 ? !/^(AWS_ENDPOINT_URL|COFFER_(?!S3_))/.test(name) : !/^(AWS_|COFFER_)/.test(name);
  return Object.fromEntries(Object.entries(env).filter(([name]) => passes(name)));
}

function setAsideLog(path: string): void {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > logBytesMax) renameSync(path, `${path}.1`);
}
