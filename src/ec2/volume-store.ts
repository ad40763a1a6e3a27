/** Volumes where they are kept: making one, finding some, and the end of one. */
import { sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { newResourceId } from '../aws/ids.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { volumesNotFound } from './errors.ts';
import { volumeEvent } from './events.ts';
import { volumeTopic } from './host-store.ts';
import { KeyUnusable, newDataKey } from './keys.ts';
import { preparedQuery, tables, type VolumeRow } from './records.ts';
import { endRestore, noRestore, planRestore, type RestorePlan, startRestore } from './restores.ts';
import { pendingSnapshotsOf } from './snapshot-store.ts';
import { dropTags } from './tag-store.ts';
import { addTask } from './task-store.ts';
import type { VolumeSettings } from './volume-rules.ts';

/** The most volumes that an account can have in a region. */
export const volumesPerRegionMax = 250_000;

const insertVolume = preparedQuery<{ seq: number }>((db) =>
  db
    .insertInto('ec2_volumes')
    .values({
      volume_id: '',
      account: '',
      region: '',
      zone: '',
      size_gib: 0,
      volume_type: '',
      iops: 0,
      throughput: 0,
      multi_attach: 0,
      encrypted: 0,
      key_arn: '',
      encrypted_data_key: null,
      state: 'available',
      created_at: 0,
      auto_enable_io: 0,
      has_image: 0,
    })
    .returning('seq'),
);

const countVolume = preparedQuery<{ volumes: number }>((db) =>
  db
    .insertInto('ec2_usage')
    .values({ account: '', region: '', volumes: 0 })
    .onConflict((conflict) =>
      conflict
        .columns(['account', 'region'])
        .doUpdateSet({ volumes: sql<number>`ec2_usage.volumes + excluded.volumes` }),
    )
    .returning('volumes'),
);

const selectVolume = preparedQuery<VolumeRow>((db) =>
  db
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('volume_id', '=', '')
    .where('account', '=', '')
    .where('region', '=', ''),
);

export interface NewVolume {
  readonly settings: VolumeSettings;
  readonly zone: string;
  /** The key as it was named, or undefined for a volume that is not encrypted. */
  readonly key: string | undefined;
  /** What it is filled from; absent for a volume that begins empty. */
  readonly restore?: RestorePlan | undefined;
  /** The host that is to restore it, because it is going to be attached there; absent: any that can. */
  readonly hostId?: string | null;
}

/**
 * Makes a volume, with its data key when it is encrypted. No host hears of an empty one until it is attached; one from a
 * snapshot is restored from now on. A copy of a volume is `creating` until its point in time is stored.
 * @throws {AwsError} VolumeLimitExceeded; {KeyUnusable}, after announcing the failure
 */
export async function createVolume(
  call: Call,
  { settings, zone, key, restore, hostId }: NewVolume,
): Promise<VolumeRow> {
  const volumeId = newResourceId('vol');
  const name = { account: call.account, region: call.region, volume_id: volumeId };
  const { rows } = await countVolume(call, [call.account, call.region, 1]);
  if (rows[0]!.volumes > volumesPerRegionMax)
    throw new AwsError('VolumeLimitExceeded', `Maximum number of volumes, '${volumesPerRegionMax}', exceeded.`);
  try {
    const dataKey = key === undefined ? undefined : await newDataKey(call, key, volumeId);
    const origin = restore ? await planRestore(call, volumeId, dataKey?.keyArn, restore) : noRestore;
    const isReady = restore === undefined || restore.snapshot.state === 'completed';
    const volume = {
      ...name,
      zone,
      size_gib: settings.size_gib,
      volume_type: settings.volume_type,
      iops: settings.iops,
      throughput: settings.throughput,
      multi_attach: settings.multi_attach,
      encrypted: dataKey ? 1 : 0,
      key_arn: dataKey?.keyArn ?? null,
      encrypted_data_key: dataKey?.encryptedDataKey ?? null,
      state: isReady ? 'available' : 'creating',
      created_at: call.clock.now(),
      auto_enable_io: 0,
      has_image: 0,
    } as const;
    // The order of the columns is the order above and in the prepared insert.
    const inserted = await insertVolume(call, [
      volumeId,
      call.account,
      call.region,
      zone,
      volume.size_gib,
      volume.volume_type,
      volume.iops,
      volume.throughput,
      volume.multi_attach,
      volume.encrypted,
      volume.key_arn,
      volume.encrypted_data_key,
      volume.state,
      volume.created_at,
      volume.auto_enable_io,
      volume.has_image,
    ]);
    const row: VolumeRow = { ...volume, ...origin, seq: inserted.rows[0]!.seq, image_host_id: null };
    if (restore) await tables(call).updateTable('ec2_volumes').set(origin).where('volume_id', '=', volumeId).execute();
    if (isReady) call.emit(volumeEvent(name, 'createVolume', 'available', { requestId: call.requestId }));
    if (restore && isReady) await startRestore(call, { ...row, image_host_id: hostId ?? null });
    return row;
  } catch (error) {
    if (error instanceof KeyUnusable)
      call.emit(volumeEvent(name, 'createVolume', 'failed', { cause: error.eventCause, requestId: call.requestId }));
    throw error;
  }
}

/** @throws {AwsError} InvalidVolume.NotFound */
export async function findVolume(call: Call, volumeId: string): Promise<VolumeRow> {
  const { rows } = await selectVolume(call, [volumeId, call.account, call.region]);
  const volume = rows[0];
  if (!volume) throw volumesNotFound([volumeId]);
  return volume;
}

/**
 * Begins the end of a volume that is not attached: its encrypted data key is destroyed here and now, so that whatever is
 * left of its bytes is noise; the image is then erased by a host, and with that the volume is gone. Only where a snapshot of
 * it waits for data that is still to be restored does the key outlive it until the snapshot is stored.
 */
export async function deleteVolume(call: Call, volume: VolumeRow): Promise<void> {
  call.raise(volumeTopic(volume.volume_id));
  const isNeeded = volume.restore_snapshot_id !== null && (await pendingSnapshotsOf(call, volume.volume_id)).length > 0;
  if (isNeeded) {
    await tables(call)
      .updateTable('ec2_volumes')
      .set({ state: 'deleting' })
      .where('volume_id', '=', volume.volume_id)
      .execute();
    return;
  }
  if (volume.encrypted) forgetForGood(call.db);
  await endRestore(call, volume);
  if (volume.image_host_id === null) return forgetVolume(call, volume, call.requestId);
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ state: 'deleting', encrypted_data_key: null })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  await addTask(call, {
    kind: 'eraseVolume',
    account: volume.account,
    region: volume.region,
    volumeId: volume.volume_id,
    zone: volume.zone,
    hostId: volume.image_host_id,
  });
}

/** Goes on with the end of volumes that waited for their snapshots. `call` is the service's own. */
export async function resumeDeletions(call: Call): Promise<void> {
  const waiting = await tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('state', '=', 'deleting')
    .where('restore_snapshot_id', 'is not', null)
    .execute();
  for (const volume of waiting) await deleteVolume(call.asItself(volume.account, volume.region), volume);
}

/** Removes what is left of a volume whose image is gone. `call` acts in the volume's account. */
export async function forgetVolume(call: Call, volume: VolumeRow, requestId: string): Promise<void> {
  await tables(call).deleteFrom('ec2_volumes').where('volume_id', '=', volume.volume_id).execute();
  await tables(call).deleteFrom('ec2_volume_modifications').where('volume_id', '=', volume.volume_id).execute();
  await dropTags(call, volume.volume_id);
  await countVolume(call, [volume.account, volume.region, -1]);
  call.emit(volumeEvent(volume, 'deleteVolume', 'deleted', { requestId }));
  call.raise(volumeTopic(volume.volume_id));
}
