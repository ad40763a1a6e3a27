/** Work on images that outlives attachments. Each task is done once while it is listed; a failed one is tried again. */
import type { HostTask, TaskResult } from '../aws/host-protocol.ts';
import { deleteVolumeImage } from '../blocks/images.ts';

const retryFirstMs = 1_000;
const retryMaxMs = 60_000;

interface Progress {
  readonly task: HostTask;
  result: TaskResult | undefined;
  failures: number;
  timer: NodeJS.Timeout | undefined;
}

export class HostTasks {
  readonly #progress = new Map<string, Progress>();
  readonly #imagePath: (volumeId: string) => string;
  readonly #news: () => void;

  constructor(imagePath: (volumeId: string) => string, news: () => void) {
    this.#imagePath = imagePath;
    this.#news = news;
  }

  /** Results of the tasks that are still listed. */
  results(): TaskResult[] {
    return [...this.#progress.values()].map(({ result }) => result).filter((result) => result !== undefined);
  }

  apply(tasks: readonly HostTask[]): void {
    const listed = new Set(tasks.map((task) => task.taskId));
    for (const [taskId, progress] of this.#progress) {
      if (listed.has(taskId)) continue;
      clearTimeout(progress.timer);
      this.#progress.delete(taskId);
    }
    for (const task of tasks) {
      if (this.#progress.has(task.taskId)) continue;
      const progress: Progress = { task, result: undefined, failures: 0, timer: undefined };
      this.#progress.set(task.taskId, progress);
      this.#attempt(progress);
    }
  }

  #attempt(progress: Progress): void {
    const { taskId } = progress.task;
    try {
      this.#perform(progress.task);
      progress.result = { taskId, state: 'done' };
    } catch (error) {
      progress.result = { taskId, state: 'failed', error: error instanceof Error ? error.message : String(error) };
      const pauseMs = Math.min(retryFirstMs * 2 ** progress.failures++, retryMaxMs);
      progress.timer = setTimeout(() => this.#attempt(progress), pauseMs).unref();
    }
    this.#news();
  }

  #perform(task: HostTask): void {
    switch (task.kind) {
      case 'eraseVolume':
        deleteVolumeImage(this.#imagePath(task.volumeId));
        return;
      default:
        throw new Error(`this host is too old for a task of kind ${JSON.stringify(task.kind)}`);
    }
  }
}
