/** How a snapshot looks in answers. */
import { createHash } from 'node:crypto';
import type { Snapshot, SnapshotInfo } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { noTags, type Tags, tagList, tagsOfAll } from './tag-store.ts';

/** What CreateSnapshot and CreateSnapshots answer. */
export function snapshotInfo(snapshot: SnapshotRow, tags: Tags): SnapshotInfo & Snapshot {
  return {
    SnapshotId: snapshot.snapshot_id,
    VolumeId: snapshot.volume_id,
    VolumeSize: snapshot.size_gib,
    State: snapshot.state,
    StartTime: new Date(snapshot.started_at),
    Progress: snapshot.progress > 0 ? `${snapshot.progress}%` : '',
    OwnerId: snapshot.account,
    Description: snapshot.description,
    Encrypted: snapshot.encrypted === 1,
    Tags: tagList(tags),
    ...(snapshot.encrypted ? { SseType: 'sse-kms' } : {}),
  };
}

/** What DescribeSnapshots shows. Tags are the owner's alone. */
export function snapshotView(call: Call, snapshot: SnapshotRow, tags: Tags): Snapshot {
  const isTimeBased = snapshot.completion_minutes !== null;
  return {
    ...snapshotInfo(snapshot, snapshot.account === call.account ? tags : noTags),
    Progress: `${snapshot.progress}%`,
    StorageTier: 'standard',
    ...(snapshot.key_arn ? { KmsKeyId: snapshot.key_arn } : {}),
    ...(snapshot.context_id ? { DataEncryptionKeyId: dataKeyId(snapshot.context_id) } : {}),
    ...(snapshot.state_message ? { StateMessage: snapshot.state_message } : {}),
    ...(snapshot.completed_at === null ? {} : { CompletionTime: new Date(snapshot.completed_at) }),
    ...(snapshot.full_bytes === null ? {} : { FullSnapshotSizeInBytes: snapshot.full_bytes }),
    ...(snapshot.origin === 'copy' ? { TransferType: isTimeBased ? 'time-based' : 'standard' } : {}),
    ...(isTimeBased ? { CompletionDurationMinutes: snapshot.completion_minutes! } : {}),
  };
}

/** A UUID that names the data key of a lineage: snapshots of one volume share its key, and so have the same. */
function dataKeyId(contextId: string): string {
  const digest = createHash('sha256').update(`data key of ${contextId}`).digest('hex');
  const parts = [digest.slice(0, 8), digest.slice(8, 12), `4${digest.slice(13, 16)}`, `8${digest.slice(17, 20)}`];
  return [...parts, digest.slice(20, 32)].join('-');
}

export async function snapshotViews(call: Call, snapshots: readonly SnapshotRow[]): Promise<Snapshot[]> {
  const tags = await tagsOfAll(
    call,
    snapshots.map((snapshot) => snapshot.snapshot_id),
  );
  return snapshots.map((snapshot) => snapshotView(call, snapshot, tags.get(snapshot.snapshot_id) ?? noTags));
}
