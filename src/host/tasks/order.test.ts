import { expect, test } from 'vitest';
import type { HostTask } from '../../aws/host-protocol.ts';
import { atOnceMax, fullKinds, inListOrder, mustWait, type TaskState } from './order.ts';

const create = (n: number, volumeId = 'vol-1') =>
  ({
    taskId: `c${n}`,
    kind: 'createSnapshot',
    volumeId,
    snapshotId: `snap-${n}`,
    sizeBytes: 1,
    hasImage: true,
  }) as const;
const remove = (n: number) =>
  ({ taskId: `d${n}`, kind: 'deleteSnapshot', snapshotId: `snap-${n}`, family: [] }) as const;
const erase = (volumeId: string) => ({ taskId: `e${volumeId}`, kind: 'eraseVolume', volumeId }) as const;

const waiting = (task: HostTask): TaskState => ({ task, isRunning: false, isOver: false });
const running = (task: HostTask): TaskState => ({ task, isRunning: true, isOver: false });
const over = (task: HostTask): TaskState => ({ task, isRunning: false, isOver: true });
/** Whether the last one must wait for the others. */
const waits = (...all: TaskState[]) => mustWait(all.at(-1)!, all);

test('snapshots of one volume are made oldest first, those of others beside them', () => {
  expect(waits(waiting(create(1)), waiting(create(2)))).toBe(true);
  expect(waits(running(create(1)), waiting(create(2)))).toBe(true);
  expect(waits(over(create(1)), waiting(create(2)))).toBe(false);
  expect(waits(running(create(1, 'vol-2')), waiting(create(2)))).toBe(false);
  const [first, second] = [waiting(create(1)), waiting(create(2))];
  expect(mustWait(first, [first, second])).toBe(false);
});

test('a volume is erased when none of its snapshots is being made any more', () => {
  expect(waits(waiting(create(1)), waiting(erase('vol-1')))).toBe(true);
  expect(waits(over(create(1)), waiting(erase('vol-1')))).toBe(false);
  expect(waits(waiting(create(1, 'vol-2')), waiting(erase('vol-1')))).toBe(false);
});

test('a snapshot is deleted when the work on it has stopped', () => {
  // No longer listed, and still being stopped.
  const stopping: TaskState = { task: create(1), isRunning: true, isOver: true };
  expect(waits(stopping, waiting(remove(1)))).toBe(true);
  expect(waits(stopping, waiting(remove(2)))).toBe(false);
});

test('snapshots are deleted one after the other', () => {
  expect(atOnceMax.deleteSnapshot).toBe(1);
  expect([...fullKinds([running(remove(1)), waiting(remove(2))])]).toEqual(['deleteSnapshot']);
  expect([...fullKinds([over(remove(1)), waiting(remove(2))])]).toEqual([]);
});

test('what has been listed before later comes to stand where the list has it; what is stopping stays', () => {
  const [one, two, three] = [create(1), create(2), create(3)];
  const listed = (task: HostTask) => ({ ...waiting(task), isListed: true });
  const all = [listed(one), { ...running(erase('vol-9')), isListed: false }, listed(two), listed(three)];
  const order = inListOrder(all, [three, one, two]).map(({ task }) => task.taskId);
  expect(order).toEqual(['c3', 'evol-9', 'c1', 'c2']);
});
