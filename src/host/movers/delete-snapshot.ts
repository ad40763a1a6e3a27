/** Frees a snapshot's blocks that none of its family needs, in the mover's thread. */
import { freeSnapshot } from '../../blocks/free.ts';
import type { DeleteSnapshotJob } from './jobs.ts';
import type { JobContext } from './mover-world.ts';

export async function deleteSnapshot(job: DeleteSnapshotJob, { store, signal, progress }: JobContext): Promise<void> {
  const { snapshotId, family } = job;
  const onProgress = (done: number, total: number) => progress((100 * done) / Math.max(1, total));
  await freeSnapshot(store, snapshotId, { family, signal, onProgress });
}
