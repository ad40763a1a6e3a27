/** Copies a snapshot: gets the data keys and hands them to the mover. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { checkId, snapshotIdForm } from '../volume-files.ts';
import { FinalTaskError, type TaskWork } from './task.ts';

export const copySnapshot: TaskWork<'copySnapshot'> = async (task, world, { signal, progress }) => {
  const { kind, snapshotId, sourceSnapshotId, sizeBytes, encryption, sourceEncryption } = task;
  if (sourceEncryption && !encryption)
    throw new FinalTaskError(`${sourceSnapshotId} is encrypted, so its copy must be`);
  mkdirSync(world.tasksDir, { recursive: true, mode: 0o700 });
  const journalPath = copyJournalPath(world.tasksDir, snapshotId);
  const keys: Buffer[] = [];
  const keyFor = async (of: typeof encryption): Promise<ArrayBuffer | undefined> => {
    if (!of) return undefined;
    const key = await world.dataKey(of, snapshotId, signal);
    keys.push(key);
    return key.buffer as ArrayBuffer;
  };
  try {
    const sourceKey = await keyFor(sourceEncryption);
    const key = await keyFor(encryption);
    return await world.mover.run(
      { kind, journalPath, snapshotId, sourceSnapshotId, sizeBytes, sourceKey, key },
      signal,
      progress,
    );
  } finally {
    // Those that were moved to the mover's thread are empty here, and wiped there.
    for (const key of keys) if (key.length > 0) key.fill(0);
  }
};

export function copyJournalPath(tasksDir: string, snapshotId: string): string {
  return join(tasksDir, `${checkId(snapshotId, snapshotIdForm)}.journal`);
}
