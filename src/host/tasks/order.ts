/** What has to wait for what. Nothing here knows how a task is done. */
import type { HostTask } from '../../aws/host-protocol.ts';

/** How many tasks of a kind may be at work at once; each volume that is initialized has a thread. */
export const atOnceMax: Readonly<Record<HostTask['kind'], number>> = {
  eraseVolume: 4,
  createSnapshot: 64,
  initializeVolume: 16,
  copySnapshot: 16,
  // One after the other: two of a family that look at each other's manifest would both leave a shared block behind.
  deleteSnapshot: 1,
};

/** What the rules need to know of a task. */
export interface TaskState {
  readonly task: HostTask;
  /** Its work is under way (perhaps being stopped). */
  readonly isRunning: boolean;
  /** Nothing remains to be done: it is done, has failed for good, or is no longer listed. */
  readonly isOver: boolean;
}

/**
 * The same, those that are listed in the order of the list, as the control plane has it now: what an account has asked for
 * last may come before what another asked for long ago. Those that are stopping stay where they are.
 */
export function inListOrder<State extends TaskState & { readonly isListed: boolean }>(
  all: readonly State[],
  list: readonly HostTask[],
): State[] {
  const byId = new Map(all.map((state) => [state.task.taskId, state]));
  const listed = list.map(({ taskId }) => byId.get(taskId)!);
  let next = 0;
  return all.map((state) => (state.isListed ? listed[next++]! : state));
}

/** Kinds of which as many are at work as may be. */
export function fullKinds(all: readonly TaskState[]): Set<HostTask['kind']> {
  const running = new Map<HostTask['kind'], number>();
  for (const { isRunning, task } of all) if (isRunning) running.set(task.kind, (running.get(task.kind) ?? 0) + 1);
  return new Set([...running].filter(([kind, count]) => count >= atOnceMax[kind]).map(([kind]) => kind));
}

/**
 * Whether `one` must wait for another of `all`, which are in the order in which the control plane lists them: oldest first.
 */
export function mustWait(one: TaskState, all: readonly TaskState[]): boolean {
  return all.some((other) => other !== one && !isSettled(other) && precedes(other, one, all));
}

const isSettled = (state: TaskState) => state.isOver && !state.isRunning;

function precedes(other: TaskState, one: TaskState, all: readonly TaskState[]): boolean {
  const before = other.task;
  const { task } = one;
  switch (task.kind) {
    case 'eraseVolume':
      return (
        (before.kind === 'createSnapshot' || before.kind === 'initializeVolume') && before.volumeId === task.volumeId
      );
    case 'createSnapshot':
      // Older points in time are read through what newer ones saved.
      return isOlderSnapshot(before, task) && all.indexOf(other) < all.indexOf(one);
    case 'deleteSnapshot':
      return (
        (before.kind === 'createSnapshot' || before.kind === 'copySnapshot') && before.snapshotId === task.snapshotId
      );
    default:
      return false;
  }
}

/** Whether both make a snapshot of the same volume. */
function isOlderSnapshot(before: HostTask, task: HostTask): boolean {
  return before.kind === 'createSnapshot' && task.kind === 'createSnapshot' && before.volumeId === task.volumeId;
}
