/** Points in time. They are fixed before anything else that the same answer of the control plane asks for. */
import type { CreateSnapshotTask } from '../../aws/host-protocol.ts';
import { type PointInTime, pointInTime } from '../../blocks/copy-before-write.ts';
import { Journal } from '../movers/journal.ts';
import { imagePath, journalPath } from '../volume-files.ts';
import type { TaskWorld } from './task.ts';

type World = Pick<TaskWorld, 'volumesDir' | 'volumes'>;

/** Whether the point in time of a snapshot has been fixed, by this process or an earlier one. */
export function isMarked(task: CreateSnapshotTask, { volumesDir }: World): boolean {
  const { volumeId, snapshotId } = task;
  return (
    Journal.exists(journalPath(volumesDir, volumeId, snapshotId)) ||
    pointInTime(volumesDir, volumeId, snapshotId).state !== 'gone'
  );
}

/**
 * Fixes one point in time for all of these snapshots, and notes durably that it was. Doing it again changes nothing.
 * @returns of each snapshot, in order, how its point in time stands
 */
export async function markSnapshots(
  tasks: readonly CreateSnapshotTask[],
  { volumesDir, volumes }: World,
): Promise<PointInTime[]> {
  const points = await volumes.markSnapshots(
    tasks.map(({ volumeId, snapshotId, sizeBytes, hasImage }) => ({
      volumeId,
      snapshotId,
      sizeBytes,
      hasImage,
      imagePath: imagePath(volumesDir, volumeId),
    })),
  );
  tasks.forEach(({ volumeId, snapshotId }, position) => {
    const path = journalPath(volumesDir, volumeId, snapshotId);
    if (points[position]!.state === 'marked' && !Journal.exists(path)) Journal.create(path, snapshotId);
  });
  return points;
}
