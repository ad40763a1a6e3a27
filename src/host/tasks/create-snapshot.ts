/** Copies a point in time that is fixed already (mark-snapshots.ts) to the block store. */
import { journalPath } from '../volume-files.ts';
import type { TaskWork } from './task.ts';

export const createSnapshot: TaskWork<'createSnapshot'> = (task, { volumesDir, mover }, { signal, progress }) => {
  const { kind, volumeId, snapshotId, sizeBytes, parentSnapshotId } = task;
  const journal = journalPath(volumesDir, volumeId, snapshotId);
  return mover.run(
    { kind, volumesDir, journalPath: journal, volumeId, snapshotId, sizeBytes, parentSnapshotId },
    signal,
    progress,
  );
};
