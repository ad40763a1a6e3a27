/** Copies a snapshot under its own name, its blocks under another data key. It shares nothing with its source. */
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { Manifest, ManifestBuilder, type ManifestEntry } from '../../blocks/manifest.ts';
import { sha256 } from '../../crypto/sha256.ts';
import { createXts, type Xts } from '../../crypto/xts.ts';
import { inOrder } from './in-order.ts';
import type { CopySnapshotJob } from './jobs.ts';
import { Journal } from './journal.ts';
import { blocksUnderWayMax, FinalJobError, type JobContext } from './mover-world.ts';
import { outcomeOf } from './outcome.ts';
import { reencryptBlock } from './reencrypt.ts';

export async function copySnapshot(job: CopySnapshotJob, context: JobContext): Promise<SnapshotOutcome> {
  const { store, signal } = context;
  const from = takeKey(job.sourceKey);
  let to: Xts | undefined;
  try {
    to = takeKey(job.key);
    const bytes = (await store.getManifest(job.snapshotId, signal)) ?? (await copy(job, context, from, to));
    const outcome = outcomeOf(Manifest.parse(bytes, { snapshotId: job.snapshotId, location: store.location }));
    await store.deleteMark(job.snapshotId, signal);
    Journal.remove(job.journalPath);
    return outcome;
  } finally {
    from?.close();
    to?.close();
  }
}

function takeKey(memory: ArrayBuffer | undefined): Xts | undefined {
  if (!memory) return undefined;
  const key = Buffer.from(memory);
  try {
    return createXts(key);
  } finally {
    key.fill(0);
  }
}

async function copy(
  job: CopySnapshotJob,
  context: JobContext,
  from: Xts | undefined,
  to: Xts | undefined,
): Promise<Buffer> {
  const { store, slabs, signal } = context;
  const { snapshotId } = job;
  const source = await sourceManifest(job, context);
  await store.putMark(snapshotId, signal);
  const journal = new Journal(job.journalPath, snapshotId);
  const { volumeId, sizeBytes } = source.header;
  const builder = new ManifestBuilder({ snapshotId, volumeId, sizeBytes, createdAt: new Date().toISOString() });

  const copyOne = async (entry: ManifestEntry, stop: AbortSignal): Promise<Buffer> => {
    const { index } = entry;
    const known = journal.find(index);
    if (known?.kind === 'stored') return known.sha256;
    const target = { owner: snapshotId, index };
    const digest = await slabs.lend(async (slab) => {
      stop.throwIfAborted();
      if (!from && !to) {
        await store.copyBlock(entry, target, stop);
        return entry.sha256;
      }
      await store.getBlock(entry, entry.sha256, slab.bytes, stop);
      reencryptBlock(slab, index, from, to);
      const [reencrypted] = await Promise.all([sha256(slab.bytes), store.putBlock(target, slab.bytes, stop)]);
      return reencrypted;
    });
    journal.addStored(index, digest);
    return digest;
  };

  try {
    await inOrder(source.entries(), { limit: blocksUnderWayMax, signal }, copyOne, (digest, { index }) => {
      builder.append(index, digest);
      context.progress((100 * builder.blocks) / source.blocks);
    });
    const manifest = builder.finish();
    try {
      await store.putManifest(snapshotId, manifest, signal);
    } catch (error) {
      // Some of what was put may be lost: everything is put again.
      Journal.remove(job.journalPath);
      throw error;
    }
    return manifest;
  } finally {
    journal.close();
  }
}

async function sourceManifest(job: CopySnapshotJob, { store, signal }: JobContext): Promise<Manifest> {
  const { sourceSnapshotId, sizeBytes } = job;
  const bytes = await store.getManifest(sourceSnapshotId, signal);
  if (!bytes) throw new FinalJobError(`the snapshot ${sourceSnapshotId} is not in the block store`);
  const manifest = Manifest.parse(bytes, { snapshotId: sourceSnapshotId, location: store.location });
  if (manifest.header.sizeBytes !== sizeBytes)
    throw new FinalJobError(
      `the snapshot ${sourceSnapshotId} in the block store has ${manifest.header.sizeBytes} bytes, not ${sizeBytes}`,
    );
  return manifest;
}
