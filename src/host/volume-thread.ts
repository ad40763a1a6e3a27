/** The thread of one open volume, seen from the process: started, asked, ended. */
import { Worker } from 'node:worker_threads';
import { libc } from '../blocks/libc.ts';
import { dataKeyBytes } from '../crypto/xts.ts';
import {
  type RestoreInput,
  statFields,
  type ThreadCall,
  type ThreadError,
  type ThreadInput,
  type ThreadMessage,
} from './volume-messages.ts';

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

/** Something went wrong with an open volume. */
export interface ExportFailure {
  /** True: the thread is gone, and with it sockets and keys; what remains is to release the volume. */
  readonly stopped: boolean;
  /** `ENOSPC`, `EIO` …: what the storage answered. */
  readonly code?: string;
  readonly message: string;
}

export interface ThreadEvents {
  trouble(failure: ExportFailure): void;
  restoreTrouble(trouble: (ThreadMessage & { type: 'restoreTrouble' })['trouble']): void;
  restored(): void;
  /** The thread has ended, as it was asked to or not. */
  ended(): void;
}

export interface ThreadOptions {
  readonly volumeId: string;
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly hasImage: boolean;
  /** Wiped in any case. */
  readonly dataKey: Buffer | undefined;
  readonly restore:
    | (Omit<RestoreInput, 'key'> & {
        /** Wiped in any case. */ readonly dataKey: Buffer | undefined;
      })
    | undefined;
  readonly events: ThreadEvents;
}

interface Waiting {
  resolve(): void;
  reject(error: Error): void;
}

/** Beyond the grace: a flush of everything that is dirty can take its time. */
const closeTimeoutMs = 60_000;

export class VolumeThread {
  /** Blocks that the snapshot has data for, and how many of them are missing. */
  readonly restoreProgress: Float64Array;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #exited: Promise<void>;
  #lastId = 0;
  #ended: Error | undefined;

  private constructor(worker: Worker, restoreProgress: SharedArrayBuffer) {
    this.#worker = worker;
    this.restoreProgress = new Float64Array(restoreProgress);
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()));
  }

  /** Opens a volume. Rejects with an Error whose `code` says why it can't be; nothing is open then. */
  static async start(options: ThreadOptions): Promise<{ thread: VolumeThread; implementation: string }> {
    const restoreProgress = new SharedArrayBuffer(16);
    const thread = new VolumeThread(startWorker(options, restoreProgress), restoreProgress);
    return { thread, implementation: await thread.#opened(options.events) };
  }

  /** Asks the thread for something. @throws what it says, or why it has ended */
  ask(call: ThreadCall): Promise<void> {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...call, id });
    });
  }

  /** Flushes and ends it. Rejects when not all data may be safe; the thread is gone in any case. */
  async close(graceMs: number): Promise<void> {
    if (this.#ended) return;
    const timer = setTimeout(() => void this.#worker.terminate(), graceMs + closeTimeoutMs);
    try {
      await this.ask({ call: 'close', graceMs });
    } finally {
      await this.#exited;
      clearTimeout(timer);
    }
  }

  #opened(events: ThreadEvents): Promise<string> {
    return new Promise((resolve, reject) => {
      let crash: ThreadError = { message: 'the thread of the volume ended unexpectedly' };
      this.#worker.on('message', (message: ThreadMessage) => {
        switch (message.type) {
          case 'ready':
            return resolve(message.implementation);
          case 'refused':
            return reject(errorOf(message));
          case 'crashed':
            crash = message;
            return;
          case 'answer':
            return this.#answered(message.id, message.error);
          case 'trouble':
            return events.trouble({ stopped: false, code: message.code, message: message.message });
          case 'restoreTrouble':
            return events.restoreTrouble(message.trouble);
          case 'restored':
            return events.restored();
        }
      });
      this.#worker.on('error', (error) => {
        crash = { message: String((error as Error).message ?? error) };
      });
      this.#worker.once('exit', () => {
        this.#ended = errorOf(crash);
        reject(this.#ended);
        for (const { reject: fail } of this.#waiting.values()) fail(this.#ended);
        this.#waiting.clear();
        events.ended();
      });
    });
  }

  /** Why it has ended. */
  get endedAs(): Error | undefined {
    return this.#ended;
  }

  #answered(id: number, error: ThreadError | undefined): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(errorOf(error));
    else waiting?.resolve();
  }
}

function errorOf({ code, message, detail }: ThreadError): Error {
  return Object.assign(new Error(message), code === undefined ? {} : { code }, detail === undefined ? {} : { detail });
}

function startWorker(options: ThreadOptions, restoreProgress: SharedArrayBuffer): Worker {
  const { volumeId, imagePath, sizeBytes, hasImage, dataKey, restore } = options;
  const keys: ArrayBuffer[] = [];
  const move = (given: Buffer | undefined): ArrayBuffer | undefined => {
    if (!given) return undefined;
    if (given.length !== dataKeyBytes) throw new RangeError(`a data key has ${dataKeyBytes} bytes`);
    // From now on the process holds a key, and a core dump would, too.
    libc().forbidDumps();
    const key = new ArrayBuffer(dataKeyBytes);
    given.copy(Buffer.from(key));
    keys.push(key);
    return key;
  };
  try {
    const { dataKey: sourceKey, ...from } = restore ?? {};
    const input: ThreadInput = {
      volumeId,
      imagePath,
      sizeBytes,
      hasImage,
      key: move(dataKey),
      restore: restore && { ...(from as Omit<RestoreInput, 'key'>), key: move(sourceKey) },
      restoreProgress,
    };
    return new Worker(new URL('./volume-worker.ts', import.meta.url), {
      name: volumeId,
      workerData: input,
      transferList: keys,
      env: threadEnvironment(restore !== undefined),
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 8 },
    });
  } finally {
    dataKey?.fill(0);
    restore?.dataKey?.fill(0);
    // Those that were moved are empty here; those that were not, because something was wrong, are wiped.
    for (const key of keys) if (key.byteLength > 0) new Uint8Array(key).fill(0);
  }
}

/**
 * A thread needs nothing of the process's environment but the cache of compiled code, without which it would load the
 * TypeScript compiler: 11 MB more for each volume. One that restores may need what the AWS SDK reads.
 */
function threadEnvironment(usesStore: boolean): NodeJS.ProcessEnv {
  if (usesStore) return { ...process.env };
  return process.env.NODE_COMPILE_CACHE ? { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE } : {};
}

/** Running totals of an export. */
export function readStats(stats: SharedArrayBuffer): ExportStats {
  const values = new Float64Array(stats);
  return Object.fromEntries(statFields.map((field, index) => [field, values[index]!])) as unknown as ExportStats;
}
