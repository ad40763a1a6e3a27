/**
 * The volumes that this process has open. Each has one thread, shared by all that use it: the sockets of attachments (several
 * with Multi-Attach), the background restore, points in time. The thread ends with its last user.
 */
import type { RestoreSource } from '../aws/host-protocol.ts';
import type { PointInTime } from '../blocks/copy-before-write.ts';
import { type MarkMember, markMembers } from './mark.ts';
import { statFields } from './volume-messages.ts';
import { type ExportFailure, type ExportLog, type ExportStats, readStats, VolumeThread } from './volume-thread.ts';

export type { ExportFailure, ExportLog, ExportStats, MarkMember };

export interface VolumeSpec {
  readonly volumeId: string;
  /** `volumes/vol-….img`; map and copy-before-write files lie beside it. */
  readonly imagePath: string;
  /** An image that is smaller is grown to it. */
  readonly sizeBytes: number;
  /** The image must be there (a missing one is lost); otherwise it is made when it is missing. */
  readonly hasImage: boolean;
  /** 64 bytes, wiped in any case. Undefined: the volume is not encrypted. */
  readonly dataKey?: Buffer;
  /** Given while the volume is (or may be) yet to be restored. */
  readonly restore?: RestoreSpec;
}

export interface RestoreSpec {
  readonly source: RestoreSource;
  /** 64 bytes, wiped in any case. Undefined: the snapshot is not encrypted. */
  readonly sourceDataKey?: Buffer;
  /** For `openStore`: a directory or `s3://bucket/prefix`. */
  readonly storeLocation: string;
  /** The store that must be there; undefined: whatever is there. */
  readonly storeId?: string | undefined;
}

export interface RestoreProgress {
  /** Blocks that the snapshot has data for. */
  readonly blocks: number;
  /** How many of them are not in the image yet. 0: restored (durably so when `onRestored` calls). */
  readonly left: number;
  /** The last trouble of the background restore: what the store said, with the block's name. Gone when it goes on. */
  readonly trouble?: { readonly code: string; readonly message: string; readonly final: boolean };
}

export interface ListenOptions {
  /** At most 107 bytes. Its directory is made (0700) when missing; a socket left there by a crash is replaced. */
  readonly socketPath: string;
  /** What NBD clients ask for; the empty name works, too. Default: the volume's id. */
  readonly exportName?: string;
  readonly readOnly?: boolean;
}

/** One socket of an open volume. */
export interface VolumeExport {
  readonly volumeId: string;
  readonly socketPath: string;
  /**
   * Takes no more requests, lets those under way finish (5 s at most, not at all with `force`), drops the connections,
   * and puts all that was written on stable storage. Rejects when that failed; the socket is gone all the same.
   */
  close(options?: { readonly force?: boolean }): Promise<void>;
  stats(): ExportStats;
}

/** One user's hold on an open volume. */
export interface VolumeHandle {
  readonly volumeId: string;
  /** Serves the volume on one more socket. Resolves when clients can connect. */
  listen(options: ListenOptions): Promise<VolumeExport>;
  restoreProgress(): RestoreProgress;
  /** Calls back once when the whole volume is restored, durably; at once when it is already. */
  onRestored(callback: () => void): void;
  /** MiB/s for the background restore; undefined: as fast as is sensible. */
  setRate(mibPerSecond: number | undefined): void;
  /** Grows the volume. Connections from now on see the new size, those that exist keep theirs. */
  resize(sizeBytes: number): Promise<void>;
  /** Calls back when the storage refuses requests (once per kind of error and minute) or the thread has died. */
  onFailure(callback: (failure: ExportFailure) => void): void;
  /**
   * Gives the volume up, its exports included. The last user's release flushes, wipes the keys and ends the thread; it
   * rejects when the flush failed, and the volume is closed all the same.
   */
  release(): Promise<void>;
}

export interface OpenVolumes {
  /**
   * Opens a volume, or joins those who have it open: then its keys are there already and those given are only wiped. A
   * larger size grows it. Rejects with an Error whose `code` is `ImageMissing`, `ImageInUse`, `ImageSizeMismatch`,
   * `MapMissing`, a StoreErrorCode (the snapshot's manifest can't be had) or an errno's name.
   */
  open(spec: VolumeSpec): Promise<VolumeHandle>;
  isOpen(volumeId: string): boolean;
  /**
   * Fixes one point in time of all `members`, open or not, while their I/O goes on. When it resolves, each of them survives
   * the end of this process. All or none: a point in time that some members have is never given to others later; those are
   * `gone`. Doing it again changes nothing. A volume that is to be restored must have been opened once before.
   */
  markSnapshots(members: readonly MarkMember[]): Promise<PointInTime[]>;
  /** Closes everything. */
  close(): Promise<void>;
  /** Reads and writes that clients have been answered through the sockets that are open now. */
  readonly requests: number;
}

/** How long requests under way may take to finish when their socket closes. */
const graceMs = 5_000;

interface User {
  readonly failed: ((failure: ExportFailure) => void)[];
}

/** A volume with its thread. */
interface Opened {
  readonly thread: VolumeThread;
  readonly users: Set<User>;
  sizeBytes: number;
  listeners: number;
  isRestored: boolean;
  onRestored: (() => void)[];
  trouble: RestoreProgress['trouble'];
  /** Its thread is about to end, as it was asked to. */
  isClosing: boolean;
}

export function createOpenVolumes(options: { readonly log: ExportLog }): OpenVolumes {
  return new Volumes(options.log);
}

class Volumes implements OpenVolumes {
  readonly #log: ExportLog;
  /** Of each open socket. */
  readonly #stats = new Set<SharedArrayBuffer>();
  readonly #open = new Map<string, Opened>();
  /** The last of those who are opening, closing or marking a volume. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(log: ExportLog) {
    this.#log = log;
  }

  isOpen(volumeId: string): boolean {
    return this.#open.has(volumeId);
  }

  async open(spec: VolumeSpec): Promise<VolumeHandle> {
    const done = await this.#turn(spec.volumeId);
    try {
      let opened = this.#open.get(spec.volumeId);
      if (!opened) opened = await this.#start(spec);
      else if (spec.sizeBytes > opened.sizeBytes) await this.#resize(opened, spec.sizeBytes);
      return this.#handle(spec.volumeId, opened);
    } finally {
      spec.dataKey?.fill(0);
      spec.restore?.sourceDataKey?.fill(0);
      done();
    }
  }

  async markSnapshots(members: readonly MarkMember[]): Promise<PointInTime[]> {
    const done: (() => void)[] = [];
    // In one order everywhere, so that two groups never wait for each other.
    for (const volumeId of new Set(members.map((member) => member.volumeId).sort())) {
      done.push(await this.#turn(volumeId));
    }
    try {
      return await markMembers(members, (volumeId) => this.#open.get(volumeId)?.thread);
    } finally {
      for (const end of done) end();
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open].map(([volumeId, opened]) => this.#end(volumeId, opened)));
  }

  /** Waits for its turn with a volume. The answer ends the turn. */
  async #turn(volumeId: string): Promise<() => void> {
    const before = this.#turns.get(volumeId);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turns.set(volumeId, promise);
    await before;
    return () => {
      if (this.#turns.get(volumeId) === promise) this.#turns.delete(volumeId);
      resolve();
    };
  }

  async #start(spec: VolumeSpec): Promise<Opened> {
    const { volumeId, imagePath, sizeBytes, hasImage, dataKey, restore } = spec;
    let opened: Opened | undefined;
    let wasRestored = false;
    const { thread, implementation } = await VolumeThread.start({
      volumeId,
      imagePath,
      sizeBytes,
      hasImage,
      dataKey,
      restore: restore && {
        snapshotId: restore.source.snapshotId,
        dataKey: restore.sourceDataKey,
        storeLocation: restore.storeLocation,
        storeId: restore.storeId,
        rate: restore.source.rate,
      },
      events: {
        trouble: (failure) => opened && this.#failed(volumeId, opened, failure),
        restoreTrouble: (trouble) => {
          if (trouble) this.#log.warn({ volumeId, ...trouble }, 'restoring the volume is held up');
          if (opened) opened.trouble = trouble;
        },
        restored: () => {
          wasRestored = true;
          if (opened) this.#restored(opened);
        },
        ended: () => opened && this.#ended(volumeId, opened),
      },
    });
    opened = {
      thread,
      users: new Set(),
      sizeBytes,
      listeners: 0,
      isRestored: wasRestored,
      onRestored: [],
      trouble: undefined,
      isClosing: false,
    };
    this.#open.set(volumeId, opened);
    this.#log.info({ volumeId, cipher: implementation }, 'volume opened');
    return opened;
  }

  get requests(): number {
    let sum = 0;
    for (const stats of this.#stats) {
      const { reads, writes } = readStats(stats);
      sum += reads + writes;
    }
    return sum;
  }

  #handle(volumeId: string, opened: Opened): VolumeHandle {
    const user: User = { failed: [] };
    const exports = new Set<VolumeExport>();
    opened.users.add(user);
    let released: Promise<void> | undefined;
    return {
      volumeId,
      listen: async (options) => {
        const one = await this.#listen(volumeId, opened, options);
        exports.add(one);
        return one;
      },
      restoreProgress: () => ({
        blocks: opened.thread.restoreProgress[0]!,
        left: opened.thread.restoreProgress[1]!,
        ...(opened.trouble ? { trouble: opened.trouble } : {}),
      }),
      onRestored: (callback) => {
        if (opened.isRestored) queueMicrotask(callback);
        else opened.onRestored.push(callback);
      },
      setRate: (rate) => void opened.thread.ask({ call: 'setRate', rate }).catch(() => {}),
      resize: (sizeBytes) => this.#resize(opened, sizeBytes),
      onFailure: (callback) => void user.failed.push(callback),
      release: () => (released ??= this.#release(volumeId, opened, user, exports)),
    };
  }

  async #listen(volumeId: string, opened: Opened, options: ListenOptions): Promise<VolumeExport> {
    const { socketPath, exportName = volumeId, readOnly = false } = options;
    const listener = ++opened.listeners;
    const stats = new SharedArrayBuffer(statFields.length * 8);
    this.#stats.add(stats);
    await opened.thread.ask({ call: 'listen', listener, socketPath, exportName, readOnly, stats });
    this.#log.info({ volumeId, socketPath }, 'volume exported');
    let closed: Promise<void> | undefined;
    const close = async (force: boolean) => {
      this.#stats.delete(stats);
      if (opened.thread.endedAs) return;
      try {
        await opened.thread.ask({ call: 'closeListener', listener, graceMs: force ? 0 : graceMs });
      } catch (error) {
        throw notSafe(error);
      }
      this.#log.info({ volumeId, socketPath }, 'volume export closed');
    };
    return {
      volumeId,
      socketPath,
      close: ({ force = false } = {}) => (closed ??= close(force)),
      stats: () => readStats(stats),
    };
  }

  async #resize(opened: Opened, sizeBytes: number): Promise<void> {
    await opened.thread.ask({ call: 'resize', sizeBytes });
    opened.sizeBytes = Math.max(opened.sizeBytes, sizeBytes);
  }

  async #release(volumeId: string, opened: Opened, user: User, exports: ReadonlySet<VolumeExport>): Promise<void> {
    const results = await Promise.allSettled([...exports].map((one) => one.close()));
    const done = await this.#turn(volumeId);
    try {
      opened.users.delete(user);
      if (opened.users.size === 0) await this.#end(volumeId, opened);
    } finally {
      done();
    }
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #end(volumeId: string, opened: Opened): Promise<void> {
    opened.isClosing = true;
    try {
      await opened.thread.close(graceMs);
      this.#log.info({ volumeId }, 'volume closed');
    } catch (error) {
      throw notSafe(error);
    }
  }

  #restored(opened: Opened): void {
    opened.isRestored = true;
    opened.trouble = undefined;
    for (const callback of opened.onRestored.splice(0)) callback();
  }

  #failed(volumeId: string, opened: Opened, failure: ExportFailure): void {
    this.#log.error(
      { volumeId, ...failure },
      failure.stopped ? 'the thread of a volume died' : 'volume storage failed',
    );
    for (const { failed } of opened.users) for (const callback of failed) callback(failure);
  }

  #ended(volumeId: string, opened: Opened): void {
    if (this.#open.get(volumeId) === opened) this.#open.delete(volumeId);
    if (opened.isClosing) return;
    const { message, code } = opened.thread.endedAs as NodeJS.ErrnoException;
    this.#failed(volumeId, opened, { stopped: true, code, message });
  }
}

function notSafe(error: unknown): Error {
  const { code, message } = error as NodeJS.ErrnoException;
  const text = `the volume was closed, but not all data may be safe: ${message}`;
  return Object.assign(new Error(text), code === undefined ? {} : { code });
}
