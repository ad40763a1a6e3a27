// Attached volumes. An export is one volume, served over NBD on one Unix socket by one worker thread, so that volumes
// share neither keys nor time: a slow disk or a failed thread concerns one volume.

import { Worker } from 'node:worker_threads';
import { libc } from '../blocks/libc.ts';
import { dataKeyBytes } from '../crypto/xts.ts';

export interface ExportOptions {
  readonly volumeId: string;
  /** An image made by src/blocks/images.ts. */
  readonly imagePath: string;
  /** Must be the image's exact size. */
  readonly sizeBytes: number;
  /** 64 bytes. The export takes a copy to its thread and wipes this one. Undefined: the volume is not encrypted. */
  readonly dataKey: Buffer | undefined;
  /** At most 107 bytes. Its directory is made (0700) when it is missing; a socket left there by a crash is replaced. */
  readonly socketPath: string;
  /** What NBD clients ask for; the empty name works, too. Default: the volume's id. */
  readonly exportName?: string;
  readonly readOnly?: boolean;
  readonly log: ExportLog;
}

/** The part of a pino logger that is used here. */
export interface ExportLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ExportStats {
  readonly connections: number;
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly flushes: number;
}

/** Something went wrong with an open export. */
export interface ExportFailure {
  /** True: the thread is gone, and with it socket and key; only `close` remains to be called. */
  readonly stopped: boolean;
  /** `ENOSPC`, `EIO` …: what the storage answered. */
  readonly code?: string;
  readonly message: string;
}

export interface VolumeExport {
  readonly volumeId: string;
  readonly socketPath: string;
  /**
   * Lets requests under way finish (5 s at most), puts everything on stable storage, drops the connections, wipes the
   * key and ends the thread. All of that happens even when it rejects, which says that the last flush failed.
   */
  close(): Promise<void>;
  stats(): ExportStats;
  /** Calls back when the storage refuses requests (once per kind of error and minute) or the thread has died. */
  onFailure(callback: (failure: ExportFailure) => void): void;
}

/** What the thread gets. The key is moved there, not copied. */
export interface WorkerInput {
  readonly volumeId: string;
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly key: ArrayBuffer | undefined;
  readonly socketPath: string;
  readonly exportName: string;
  readonly readOnly: boolean;
  readonly graceMs: number;
  /** Doubles, in the order of `statFields`, written by the thread only. */
  readonly stats: SharedArrayBuffer;
}

export const statFields = ['connections', 'reads', 'readBytes', 'writes', 'writeBytes', 'flushes'] as const;

/** What the thread says. */
export type WorkerMessage =
  | { readonly type: 'ready'; readonly implementation: string }
  | { readonly type: 'refused' | 'crashed' | 'trouble'; readonly code?: string; readonly message: string }
  | { readonly type: 'closed'; readonly failure?: string };

const graceMs = 5_000;
/** Beyond the grace: a flush of everything that is dirty can take its time. */
const closeTimeoutMs = 60_000;

/**
 * Opens a volume's image and serves it. Resolves when clients can connect. Rejects with an Error whose `code` is
 * `ImageMissing`, `ImageInUse` or `ImageSizeMismatch` (src/blocks/images.ts), or an errno's name; with a RangeError for a
 * key of the wrong form. The data key is wiped in any case.
 */
export async function openExport(options: ExportOptions): Promise<VolumeExport> {
  const { volumeId, socketPath, log } = options;
  const stats = new SharedArrayBuffer(statFields.length * 8);
  const failures: ((failure: ExportFailure) => void)[] = [];
  const worker = startWorker(options, stats);

  let state: 'opening' | 'open' | 'closing' | 'stopped' = 'opening';
  let crash: ExportFailure = { stopped: true, message: 'the thread of the volume ended unexpectedly' };
  let closedAs: (failure: string | undefined) => void = () => {};
  const fail = (failure: ExportFailure) => {
    log.error({ volumeId, ...failure }, failure.stopped ? 'volume export stopped' : 'volume storage failed');
    for (const callback of failures) callback(failure);
  };
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));

  await new Promise<void>((resolve, reject) => {
    worker.on('message', (message: WorkerMessage) => {
      switch (message.type) {
        case 'ready':
          state = 'open';
          log.info({ volumeId, socketPath, cipher: message.implementation }, 'volume exported');
          resolve();
          break;
        case 'refused':
          reject(Object.assign(new Error(message.message), { code: message.code }));
          break;
        case 'crashed':
          crash = { stopped: true, code: message.code, message: message.message };
          break;
        case 'trouble':
          fail({ stopped: false, code: message.code, message: message.message });
          break;
        case 'closed':
          closedAs(message.failure);
      }
    });
    worker.on('error', (error) => {
      crash = { stopped: true, message: String((error as Error).message ?? error) };
    });
    worker.once('exit', () => {
      const before = state;
      state = 'stopped';
      reject(new Error(crash.message));
      if (before === 'open') fail(crash);
      closedAs(crash.message);
    });
  });

  let closing: Promise<void> | undefined;
  const close = async () => {
    if (state === 'stopped') return;
    state = 'closing';
    const timer = setTimeout(() => void worker.terminate(), graceMs + closeTimeoutMs);
    const failure = await new Promise<string | undefined>((resolve) => {
      closedAs = resolve;
      worker.postMessage('close');
    });
    await exited;
    clearTimeout(timer);
    if (failure !== undefined) throw new Error(`the volume was closed, but not all data may be safe: ${failure}`);
    log.info({ volumeId }, 'volume export closed');
  };
  return {
    volumeId,
    socketPath,
    close: () => (closing ??= close()),
    stats: () => readStats(stats),
    onFailure: (callback) => void failures.push(callback),
  };
}

function startWorker(options: ExportOptions, stats: SharedArrayBuffer): Worker {
  const { dataKey, volumeId } = options;
  let key: ArrayBuffer | undefined;
  if (dataKey) {
    try {
      if (dataKey.length !== dataKeyBytes) throw new RangeError(`a data key has ${dataKeyBytes} bytes`);
      // From now on the process holds a key, and a core dump would, too.
      libc().forbidDumps();
      key = new ArrayBuffer(dataKeyBytes);
      dataKey.copy(Buffer.from(key));
    } finally {
      dataKey.fill(0);
    }
  }
  const input: WorkerInput = {
    volumeId,
    imagePath: options.imagePath,
    sizeBytes: options.sizeBytes,
    key,
    socketPath: options.socketPath,
    exportName: options.exportName ?? volumeId,
    readOnly: options.readOnly ?? false,
    graceMs,
    stats,
  };
  return new Worker(new URL('./export-worker.ts', import.meta.url), {
    name: volumeId,
    workerData: input,
    transferList: key ? [key] : [],
    // The thread needs nothing of the process's environment but the cache of compiled code, without which it would load
    // the TypeScript compiler: 11 MB more for each volume. Its heap stays small; data lives outside of it.
    env: process.env.NODE_COMPILE_CACHE ? { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE } : {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 8 },
  });
}

function readStats(stats: SharedArrayBuffer): ExportStats {
  const values = new Float64Array(stats);
  return Object.fromEntries(statFields.map((field, index) => [field, values[index]!])) as unknown as ExportStats;
}
