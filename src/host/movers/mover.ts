/** The mover's thread, seen from outside: jobs go in, what became of them comes out. A thread that dies is started anew. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { libc } from '../../blocks/libc.ts';
import type { MoverInput, MoverJob, MoverMessage, MoverRequest, StoreStatus } from './jobs.ts';
import { paceBeside, processorTime, utilizationBetween } from './pace.ts';

export interface MoverOptions {
  /** For `openStore`. */
  readonly storeLocation: string;
  /** The store that was there before. Undefined: any will do, and a new one is made where there is none. */
  readonly storeId?: string;
  /** The store's state has become known, or has changed. */
  readonly onStore: (status: StoreStatus) => void;
  /** How many requests clients have made of volumes so far; while it grows quickly, moving blocks takes its time. */
  readonly volumeRequests?: () => number;
}

/** How often it is looked at how busy volumes and processors are. */
const lookEveryMs = 100;

/** Why a job came to nothing. */
export class JobError extends Error {
  /** Trying again can't help. */
  readonly final: boolean;
  /** For the operator: see StoreError. */
  readonly detail: string | undefined;

  constructor(message: string, final: boolean, detail?: string) {
    super(message);
    this.final = final;
    this.detail = detail;
  }
}

interface RunningJob {
  readonly settled: PromiseWithResolvers<SnapshotOutcome | undefined>;
  readonly progress: (percent: number) => void;
}

export class Mover {
  readonly #options: MoverOptions;
  readonly #jobs = new Map<number, RunningJob>();
  #worker: Worker | undefined;
  #lastId = 0;
  #isClosed = false;
  #status: StoreStatus = {};
  #storeId: string | undefined;
  readonly #pace = new SharedArrayBuffer(4);
  #looking: NodeJS.Timeout | undefined;

  constructor(options: MoverOptions) {
    this.#options = options;
    this.#storeId = options.storeId;
  }

  get store(): StoreStatus {
    return this.#status;
  }

  /** Of the store that is there, or was the last time. */
  get storeId(): string | undefined {
    return this.#storeId;
  }

  /** Starts the thread, which opens the store and says how it is. */
  start(): void {
    this.#thread();
  }

  /**
   * Runs a job. Its keys are moved to the thread: the caller's buffers are empty afterwards.
   * @throws {JobError} @throws the signal's reason, when the job has stopped after that was aborted
   */
  async run(
    job: MoverJob,
    signal: AbortSignal,
    progress: (percent: number) => void = () => {},
  ): Promise<SnapshotOutcome | undefined> {
    signal.throwIfAborted();
    const id = ++this.#lastId;
    const settled = Promise.withResolvers<SnapshotOutcome | undefined>();
    this.#jobs.set(id, { settled, progress });
    this.#look();
    const cancel = () => this.#send({ type: 'cancel', id });
    signal.addEventListener('abort', cancel, { once: true });
    try {
      this.#send({ type: 'start', id, job }, keysOf(job));
      return await settled.promise;
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
      this.#jobs.delete(id);
      this.#look();
    }
  }

  /** Ends the thread. Jobs should have been stopped before. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#looking);
    await this.#worker?.terminate();
  }

  /** Tells the thread how fast it may be beside the volumes in use, as long as there are jobs. */
  #look(): void {
    const { volumeRequests } = this.#options;
    if (!volumeRequests || this.#jobs.size > 0 === (this.#looking !== undefined)) return;
    if (this.#looking) {
      clearInterval(this.#looking);
      this.#looking = undefined;
      Atomics.store(new Int32Array(this.#pace), 0, 0);
      return;
    }
    const pace = new Int32Array(this.#pace);
    const now = () => ({ requests: volumeRequests(), ms: performance.now(), processors: processorTime() });
    let before = now();
    this.#looking = setInterval(() => {
      const after = now();
      const requestsPerSecond = ((after.requests - before.requests) / (after.ms - before.ms)) * 1000;
      const utilization = utilizationBetween(before.processors, after.processors);
      Atomics.store(pace, 0, paceBeside(requestsPerSecond, utilization, availableParallelism()));
      before = after;
    }, lookEveryMs).unref();
  }

  #send(request: MoverRequest, transfer: readonly ArrayBuffer[] = []): void {
    this.#thread().postMessage(request, transfer as ArrayBuffer[]);
  }

  #thread(): Worker {
    if (this.#isClosed) throw new Error('the mover is closed');
    if (this.#worker) return this.#worker;
    // From now on the process may hold keys, and a core dump would, too.
    libc().forbidDumps();
    const { storeLocation } = this.#options;
    const input: MoverInput = {
      storeLocation,
      storeId: this.storeId,
      pace: this.#pace,
    };
    const worker = new Worker(new URL('./worker.ts', import.meta.url), {
      name: 'mover',
      workerData: input,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 512, maxYoungGenerationSizeMb: 16 },
    });
    this.#worker = worker;
    let reason = 'it ended unexpectedly';
    worker.on('message', (message: MoverMessage) => this.#hear(message));
    worker.on('error', (error) => {
      reason = String((error as Error).message ?? error);
    });
    worker.once('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const { settled } of this.#jobs.values())
        settled.reject(new JobError(`the thread that moves blocks died: ${reason}`, false));
    });
    return worker;
  }

  #hear(message: MoverMessage): void {
    if (message.type === 'store') {
      const { storeId, error } = message;
      const isNews = storeId !== this.#status.storeId || error !== this.#status.error;
      this.#status = { storeId, error };
      this.#storeId = storeId ?? this.#storeId;
      if (isNews) this.#options.onStore(this.#status);
      return;
    }
    const job = this.#jobs.get(message.id);
    if (message.type === 'progress') job?.progress(message.percent);
    else if (message.type === 'done') job?.settled.resolve(message.outcome);
    else job?.settled.reject(new JobError(message.error, message.final, message.detail));
  }
}

function keysOf(job: MoverJob): ArrayBuffer[] {
  if (job.kind !== 'copySnapshot') return [];
  return [job.sourceKey, job.key].filter((key) => key !== undefined);
}
