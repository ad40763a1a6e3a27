/** Frees what only this snapshot needs, in the store, beside the volume that it was being made of, and of its upload. */
import { readdirSync } from 'node:fs';
import { removeCow } from '../../blocks/copy-before-write.ts';
import { Journal } from '../movers/journal.ts';
import { journalPath } from '../volume-files.ts';
import { copyJournalPath } from './copy-snapshot.ts';
import type { TaskWork } from './task.ts';

export const deleteSnapshot: TaskWork<'deleteSnapshot'> = async (task, world, { signal, progress }) => {
  const { kind, snapshotId, family } = task;
  const { volumesDir, tasksDir, mover, uploads } = world;
  // First: what a client writes to it now would be stored after its blocks were freed.
  await uploads.giveUp(snapshotId);
  for (const volumeId of volumesWith(volumesDir, snapshotId)) {
    removeCow(volumesDir, volumeId, snapshotId);
    Journal.remove(journalPath(volumesDir, volumeId, snapshotId));
  }
  await mover.run({ kind, snapshotId, family }, signal, progress);
  Journal.remove(copyJournalPath(tasksDir, snapshotId));
  return undefined;
};

/** The volumes beside which something of the making of a snapshot lies: `vol-….snap-….*`. */
function volumesWith(volumesDir: string, snapshotId: string): Set<string> {
  const parts = readdirSync(volumesDir).map((name) => name.split('.'));
  return new Set(parts.filter((part) => part[1] === snapshotId).map((part) => part[0]!));
}
