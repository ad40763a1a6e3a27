/** Several steps at the same time, on the same volumes and snapshots as it happens. */
import { copySnapshot, createSnapshot, createSnapshots, deleteSnapshot, readSomeSnapshot } from './snapshots.ts';
import { ignoreGone } from './traffic.ts';
import { upload } from './uploads.ts';
import { attach, copyVolume, createVolume, deleteVolume, detach, grow } from './volumes.ts';
import type { ModelWorld } from './world.ts';

export type Step = (world: ModelWorld) => Promise<void>;
/** What may be under way when something is killed. */
export const interruptible: readonly Step[] = [
  createSnapshot,
  createSnapshot,
  createSnapshots,
  deleteSnapshot,
  deleteSnapshot,
  createVolume,
  copySnapshot,
  copyVolume,
  deleteVolume,
  attach,
  detach,
  grow,
  upload,
];

/** What may be said to a step whose volume or snapshot another one has taken away or uses. */
const refusals = new Set([
  'IncorrectState',
  'IncorrectModificationState',
  'ConcurrentSnapshotLimitExceeded',
  'InvalidVolume.NotFound',
  'InvalidSnapshot.NotFound',
  'VolumeInUse',
  'InvalidParameterCombination',
  'InvalidParameterValue',
  'InvalidAttachment.NotFound',
  'ResourceNotFoundException',
  'ValidationException',
]);

export const isRefusal = (error: Error) => refusals.has(error.name);

export async function together(world: ModelWorld): Promise<void> {
  const { random } = world;
  const steps = Array.from({ length: 2 + random.below(3) }, () => random.pick([...interruptible, readSomeSnapshot]));
  world.note(`together: ${steps.map(({ name }) => name).join(', ')}`);
  await sideBySide(world, steps, isRefusal);
}

/** Takes steps at the same time. Those that fail must have a reason to. */
export async function sideBySide(
  world: ModelWorld,
  steps: readonly Step[],
  mayFail: (error: Error) => boolean,
): Promise<void> {
  // Uploads have no business with each other.
  const distinct = steps.filter((step, position) => step !== upload || steps.indexOf(upload) === position);
  world.isTogether = true;
  const settled = await Promise.allSettled(distinct.map((step) => step(world)));
  world.isTogether = false;
  for (const one of settled) {
    if (one.status === 'fulfilled') continue;
    if (mayFail(one.reason)) world.note(`refused: ${one.reason.message}`);
    else ignoreGone(one.reason);
  }
}
