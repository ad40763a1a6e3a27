/**
 * Work on volumes and snapshots that outlives attachments. A task is worked on while it is listed: it starts when the rules
 * let it (tasks/order.ts), a failed one is tried again after a pause, one that is no longer listed is stopped. What has
 * become of each is reported until it leaves the list.
 */
import type { CreateSnapshotTask, HostTask, SnapshotOutcome, TaskResult } from '../aws/host-protocol.ts';
import type { PointInTime } from '../blocks/copy-before-write.ts';
import { inFull } from '../blocks/store.ts';
import { Journal } from './movers/journal.ts';
import { JobError } from './movers/mover.ts';
import { copySnapshot } from './tasks/copy-snapshot.ts';
import { createSnapshot } from './tasks/create-snapshot.ts';
import { deleteSnapshot } from './tasks/delete-snapshot.ts';
import { eraseVolume } from './tasks/erase-volume.ts';
import { initializeVolume } from './tasks/initialize-volume.ts';
import { isMarked, markSnapshots } from './tasks/mark-snapshots.ts';
import { fullKinds, inListOrder, mustWait, type TaskState } from './tasks/order.ts';
import { FinalTaskError, type TaskContext, type TaskWork, type TaskWorld } from './tasks/task.ts';
import { journalPath } from './volume-files.ts';
import { wordsOf } from './words.ts';

/** Progress is told to the control plane at most this often, for all tasks together. */
const progressEveryMs = 1_000;

export interface TaskTimes {
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
}
const defaultTimes: TaskTimes = { retryFirstMs: 1_000, retryMaxMs: 60_000 };

const works: { readonly [Kind in HostTask['kind']]: TaskWork<Kind> } = {
  eraseVolume,
  createSnapshot,
  initializeVolume,
  copySnapshot,
  deleteSnapshot,
};

interface Entry extends TaskState {
  task: HostTask;
  isListed: boolean;
  isOver: boolean;
  isRunning: boolean;
  /** createSnapshot: the point in time is fixed (`gone`: it was, and has been used or given up). */
  point: 'none' | 'marked' | 'gone';
  /** createSnapshot: resolves when the point in time is fixed or a first attempt at it has failed. */
  readonly markTried: PromiseWithResolvers<void>;
  result: TaskResult | undefined;
  progress: number | undefined;
  failures: number;
  retryTimer: NodeJS.Timeout | undefined;
  abort: AbortController;
}

export class HostTasks {
  readonly #world: TaskWorld;
  readonly #news: () => void;
  readonly #times: TaskTimes;
  /** In the order of the list; those that are stopping still count. */
  #entries = new Map<string, Entry>();
  #progressTimer: NodeJS.Timeout | undefined;
  #idle: PromiseWithResolvers<void> | undefined;
  #hasEnded = false;

  constructor(world: TaskWorld, news: () => void, times = defaultTimes) {
    this.#world = world;
    this.#news = news;
    this.#times = times;
  }

  /** Results of the tasks that are still listed. */
  results(): TaskResult[] {
    return this.#listed()
      .map(({ result }) => result)
      .filter((result) => result !== undefined);
  }

  /** The sessions whose credentials a listed task needs, or may need again when it fails. */
  sessions(): string[] {
    return this.#listed()
      .filter(({ isOver }) => !isOver)
      .map(({ task }) => sessionOf(task))
      .filter((session) => session !== undefined);
  }

  apply(tasks: readonly HostTask[]): void {
    if (this.#hasEnded) return;
    const listed = new Set(tasks.map((task) => task.taskId));
    for (const entry of this.#listed()) if (!listed.has(entry.task.taskId)) this.#unlist(entry);
    let hasNews = false;
    for (const task of tasks) {
      const known = this.#entries.get(task.taskId);
      if (!known) {
        const entry = this.#newEntry(task);
        this.#entries.set(task.taskId, entry);
        // Marked by the process before, which may not have come to say so.
        hasNews ||= entry.result !== undefined;
      }
      // One that was given up and has come back while it is still being stopped starts anew when it has.
      else {
        known.task = task;
        known.isListed = true;
      }
    }
    const inOrder = inListOrder([...this.#entries.values()], tasks);
    this.#entries = new Map(inOrder.map((entry) => [entry.task.taskId, entry]));
    this.#schedule();
    if (hasNews) this.#news();
  }

  /**
   * Resolves when no listed snapshot of the volume waits for its first attempt at a point in time: whoever opens the volume
   * then changes nothing that those shall have. Never rejects.
   */
  async marksTried(volumeId: string): Promise<void> {
    const snapshots = this.#listed().filter(({ task }) => task.kind === 'createSnapshot' && task.volumeId === volumeId);
    await Promise.all(snapshots.map(({ markTried }) => markTried.promise));
  }

  /** Stops all work; resolves when none is under way. What was begun is taken up again by the next process. */
  async end(): Promise<void> {
    this.#hasEnded = true;
    clearTimeout(this.#progressTimer);
    for (const entry of this.#entries.values()) {
      clearTimeout(entry.retryTimer);
      entry.abort.abort(new Error('the host is ending'));
      entry.markTried.resolve();
    }
    this.#idle = Promise.withResolvers();
    this.#checkIdle();
    await this.#idle.promise;
  }

  #listed(): Entry[] {
    return [...this.#entries.values()].filter(({ isListed }) => isListed);
  }

  #newEntry(task: HostTask): Entry {
    const entry: Entry = {
      task,
      isListed: true,
      isOver: false,
      isRunning: false,
      point: 'none',
      markTried: Promise.withResolvers(),
      result: undefined,
      progress: undefined,
      failures: 0,
      retryTimer: undefined,
      abort: new AbortController(),
    };
    if (task.kind !== 'createSnapshot') return entry;
    try {
      if (isMarked(task, this.#world)) this.#setPoint(entry, 'marked');
    } catch (error) {
      this.#failed([entry], error);
    }
    return entry;
  }

  #unlist(entry: Entry): void {
    entry.isListed = false;
    if (entry.isOver) forget(entry.task, this.#world);
    clearTimeout(entry.retryTimer);
    entry.retryTimer = undefined;
    entry.markTried.resolve();
    entry.abort.abort(new Error('the task is no longer listed'));
    if (!entry.isRunning) this.#entries.delete(entry.task.taskId);
  }

  /** Starts all that may start now. */
  #schedule(): void {
    if (this.#hasEnded) return;
    const all = [...this.#entries.values()];
    let full = fullKinds(all);
    for (const entry of all) {
      const { kind } = entry.task;
      if (!this.#canStart(entry)) continue;
      if (kind === 'createSnapshot' && entry.point === 'none') void this.#mark(entry);
      else if (!full.has(kind) && !mustWait(entry, all)) {
        void this.#work(entry);
        full = fullKinds(all);
      }
    }
  }

  #canStart(entry: Entry): boolean {
    return entry.isListed && !entry.isOver && !entry.isRunning && entry.retryTimer === undefined;
  }

  /** Fixes the point in time of one snapshot, or of its whole group. */
  async #mark(first: Entry): Promise<void> {
    const { group } = first.task as CreateSnapshotTask;
    const all = group ? this.#groupMembers(group.groupId) : [first];
    const members = all.filter((member) => member.point === 'none' && !member.isOver);
    // Marks of one volume are made in order, so that the order of the list is the order of the points in time.
    if (members.some((member) => this.#hasOlderUnmarked(member))) return;
    if (!members.every((member) => this.#canStart(member))) return;
    this.#begin(members);
    try {
      const missing = group?.snapshotIds.filter((id) => !all.some(({ task }) => snapshotOf(task) === id)) ?? [];
      if (missing.length > 0) throw new Error(`not all snapshots of the group are there: ${missing.join(', ')}`);
      const tasks = all.map(({ task }) => task as CreateSnapshotTask);
      const points = await markSnapshots(tasks, this.#world);
      for (const [position, member] of all.entries()) this.#takePoint(member, points[position]!);
    } catch (error) {
      this.#failed(members, error);
    }
    for (const member of members) member.markTried.resolve();
    this.#end(members);
  }

  #takePoint(entry: Entry, point: PointInTime): void {
    if (point.state === 'lost') this.#failed([entry], new FinalTaskError(point.reason));
    // One that is gone was used before: the store has the snapshot, or it can't be made any more.
    else if (entry.point === 'none') this.#setPoint(entry, point.state);
  }

  #setPoint(entry: Entry, point: 'marked' | 'gone'): void {
    entry.point = point;
    entry.markTried.resolve();
    entry.failures = 0;
    entry.result = { ...runningResult(entry), progress: entry.progress ?? 0 };
  }

  #groupMembers(groupId: string): Entry[] {
    return this.#listed().filter(({ task }) => task.kind === 'createSnapshot' && task.group?.groupId === groupId);
  }

  #hasOlderUnmarked(entry: Entry): boolean {
    const all = this.#listed();
    const { volumeId } = entry.task as CreateSnapshotTask;
    return all
      .slice(0, all.indexOf(entry))
      .some(
        ({ task, point, isOver }) =>
          task.kind === 'createSnapshot' && task.volumeId === volumeId && point === 'none' && !isOver,
      );
  }

  async #work(entry: Entry): Promise<void> {
    const { task } = entry;
    this.#begin([entry]);
    entry.result = runningResult(entry);
    const context: TaskContext = {
      signal: entry.abort.signal,
      progress: (percent) => this.#progress(entry, percent),
    };
    try {
      const work = works[task.kind] as TaskWork<typeof task.kind> | undefined;
      if (!work) throw new Error(`this host is too old for a task of kind ${JSON.stringify(task.kind)}`);
      this.#done(entry, await work(task as never, this.#world, context));
    } catch (error) {
      this.#failed([entry], error);
    }
    this.#end([entry]);
  }

  #begin(entries: readonly Entry[]): void {
    for (const entry of entries) {
      entry.isRunning = true;
      if (entry.abort.signal.aborted) entry.abort = new AbortController();
    }
  }

  #end(entries: readonly Entry[]): void {
    for (const entry of entries) {
      entry.isRunning = false;
      if (!entry.isListed) this.#entries.delete(entry.task.taskId);
    }
    this.#news();
    this.#schedule();
    this.#checkIdle();
  }

  #done(entry: Entry, outcome: SnapshotOutcome | undefined): void {
    entry.isOver = true;
    entry.result = { ...runningResult(entry), state: 'done', ...(outcome ? { progress: 100, outcome } : {}) };
  }

  #failed(entries: readonly Entry[], error: unknown): void {
    const final = error instanceof FinalTaskError || (error instanceof JobError && error.final);
    for (const entry of entries) {
      // What was stopped has not failed.
      if (entry.abort.signal.aborted) continue;
      const { taskId, kind } = entry.task;
      entry.isOver = final;
      entry.result = { ...runningResult(entry), state: 'failed', error: wordsOf(error), ...(final ? { final } : {}) };
      const pauseMs = Math.min(this.#times.retryFirstMs * 2 ** entry.failures++, this.#times.retryMaxMs);
      this.#world.log.warn({ task: taskId, kind, error: inFull(error), final, pauseMs }, 'task failed');
      if (!final) entry.retryTimer = setTimeout(() => this.#retry(entry), pauseMs);
    }
  }

  #retry(entry: Entry): void {
    entry.retryTimer = undefined;
    this.#schedule();
  }

  #progress(entry: Entry, percent: number): void {
    const whole = Math.floor(percent);
    if (whole === entry.progress || !entry.isListed || this.#hasEnded) return;
    entry.progress = whole;
    entry.failures = 0;
    entry.result = runningResult(entry);
    this.#progressTimer ??= setTimeout(() => {
      this.#progressTimer = undefined;
      this.#news();
    }, progressEveryMs);
  }

  #checkIdle(): void {
    if (this.#idle && ![...this.#entries.values()].some(({ isRunning }) => isRunning)) this.#idle.resolve();
  }
}

/** The control plane has taken notice of the end of a task: what was noted down for its case goes, too. */
function forget(task: HostTask, { volumesDir }: TaskWorld): void {
  if (task.kind === 'createSnapshot') Journal.remove(journalPath(volumesDir, task.volumeId, task.snapshotId));
}

function runningResult({ task, point, progress }: Entry): TaskResult {
  return {
    taskId: task.taskId,
    state: 'running',
    ...(point === 'marked' ? { marked: true } : {}),
    ...(progress === undefined ? {} : { progress }),
  };
}

function snapshotOf(task: HostTask): string | undefined {
  return 'snapshotId' in task ? task.snapshotId : undefined;
}

/** Whose infrastructure credentials a task needs, if any. */
function sessionOf(task: HostTask): string | undefined {
  if (task.kind === 'initializeVolume') return task.encryption || task.source.encryption ? task.volumeId : undefined;
  if (task.kind === 'copySnapshot') return task.encryption || task.sourceEncryption ? task.snapshotId : undefined;
  return undefined;
}
