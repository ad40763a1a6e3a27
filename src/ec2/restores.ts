/** How a volume gets its content from a snapshot: usable at once, filled by its host on touch and in the background. */
import type { Call } from '../aws/call.ts';
import type { RestoreSource } from '../aws/host-protocol.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { hostTopic, volumeTopic } from './host-store.ts';
import { encryptionContext, rewrapDataKey, type WrappedDataKey } from './keys.ts';
import { tables, type VolumeRow } from './records.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { removeSnapshot, snapshotById } from './snapshot-store.ts';
import { endTaskGrants, grantForTask } from './task-grants.ts';
import { addTask, dropTasks, hostForVolume, wakeHosts } from './task-store.ts';

const gib = 1024 ** 3;

/** What a new volume is filled from. */
export interface RestorePlan {
  readonly snapshot: SnapshotRow;
  /** VolumeInitializationRate, MiB/s */
  readonly rate?: number | undefined;
  /** For a copy of a volume; `snapshot` is then the point in time that was made for it. */
  readonly sourceVolumeId?: string;
}

export type RestoreColumns = Pick<
  VolumeRow,
  | 'snapshot_id'
  | 'source_volume_id'
  | 'initialization_type'
  | 'initialization_rate'
  | 'initialization_progress'
  | 'initialization_started_at'
  | 'initialization_error'
  | 'restore_snapshot_id'
  | 'restore_size_gib'
  | 'restore_encrypted_data_key'
>;

/** Of a volume that begins empty. */
export const noRestore: RestoreColumns = {
  snapshot_id: null,
  source_volume_id: null,
  initialization_type: null,
  initialization_rate: null,
  initialization_progress: null,
  initialization_started_at: null,
  initialization_error: null,
  restore_snapshot_id: null,
  restore_size_gib: null,
  restore_encrypted_data_key: null,
};

/**
 * What a volume's row says of its restore. The data key of the snapshot's blocks is encrypted anew under the volume's own
 * key and context, so that the volume depends on one key, and one grant opens both.
 * @throws {KeyUnusable}
 */
export async function planRestore(
  call: Call,
  volumeId: string,
  volumeKeyArn: string | undefined,
  { snapshot, rate, sourceVolumeId }: RestorePlan,
): Promise<RestoreColumns> {
  const dataKey = dataKeyOf(snapshot);
  const volumeKey = volumeKeyArn === undefined ? undefined : { keyArn: volumeKeyArn, contextId: volumeId };
  if (dataKey && !volumeKey) throw new Error(`${volumeId} must be encrypted like ${snapshot.snapshot_id}`);
  const rewrapped = dataKey && volumeKey ? await rewrapDataKey(call, dataKey, volumeKey) : null;
  if (volumeKey) await grantForTask(call, volumeId, volumeKey);
  return {
    snapshot_id: sourceVolumeId === undefined ? snapshot.snapshot_id : null,
    source_volume_id: sourceVolumeId ?? null,
    initialization_type:
      sourceVolumeId !== undefined ? 'volume-copy' : rate === undefined ? 'default' : 'provisioned-rate',
    initialization_rate: rate ?? null,
    initialization_progress: 0,
    initialization_started_at: null,
    initialization_error: null,
    restore_snapshot_id: snapshot.snapshot_id,
    restore_size_gib: snapshot.size_gib,
    restore_encrypted_data_key: rewrapped,
  };
}

/** The data key of a snapshot's blocks, or undefined when they are not encrypted. */
export function dataKeyOf(snapshot: SnapshotRow): WrappedDataKey | undefined {
  if (!snapshot.encrypted) return undefined;
  return {
    keyArn: snapshot.key_arn!,
    encryptedDataKey: snapshot.encrypted_data_key!,
    contextId: snapshot.context_id!,
  };
}

/** Has a host of the volume's zone restore it in the background. */
export async function startRestore(call: Call, volume: VolumeRow): Promise<void> {
  const host = await hostForVolume(call, volume, 'initializeVolume');
  await tables(call)
    .updateTable('ec2_volumes')
    .set({
      initialization_started_at: call.clock.now(),
      ...(host ? { image_host_id: host.host_id } : {}),
    })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  await addTask(call, {
    kind: 'initializeVolume',
    account: volume.account,
    region: volume.region,
    volumeId: volume.volume_id,
    zone: volume.zone,
    ...(host ? { hostId: host.host_id } : {}),
  });
}

/** Where the blocks of a volume come from that are not in its image yet, or undefined when all are. */
export function restoreSource(volume: VolumeRow): RestoreSource | undefined {
  if (volume.restore_snapshot_id === null) return undefined;
  const dataKey = volume.restore_encrypted_data_key;
  return {
    snapshotId: volume.restore_snapshot_id,
    sizeBytes: volume.restore_size_gib! * gib,
    ...(dataKey
      ? {
          encryption: {
            keyArn: volume.key_arn!,
            encryptedDataKey: Buffer.from(dataKey).toString('base64'),
            encryptionContext: encryptionContext(volume.volume_id),
          },
        }
      : {}),
    ...(volume.initialization_rate === null ? {} : { rate: volume.initialization_rate }),
  };
}

/** The image has everything: the volume needs the snapshot no more. `call` acts in the volume's account. */
export async function finishRestore(call: Call, volume: VolumeRow): Promise<void> {
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ initialization_progress: 100, initialization_error: null, has_image: 1 })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  await endRestore(call, volume);
}

/** Forgets where a volume's content came from: it is all there, or the volume goes. */
export async function endRestore(call: Call, volume: VolumeRow): Promise<void> {
  if (volume.restore_snapshot_id === null) return;
  await dropTasks(call, { volumeId: volume.volume_id }, ['initializeVolume']);
  await endTaskGrants(call, volume.volume_id);
  if (volume.restore_encrypted_data_key) forgetForGood(call.db);
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ restore_snapshot_id: null, restore_size_gib: null, restore_encrypted_data_key: null })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  const snapshot = await snapshotById(call, volume.restore_snapshot_id);
  // The point in time of a copy serves that copy only.
  if (snapshot?.origin === 'internal') await removeSnapshot(call, snapshot);
  await wakeHosts(call);
  if (volume.image_host_id) call.raise(hostTopic(volume.image_host_id));
  call.raise(volumeTopic(volume.volume_id));
}
