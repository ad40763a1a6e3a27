/** The events that EC2 sends. Source: EBS user guide, "Amazon EventBridge events for Amazon EBS". */
import { partitionOf } from '../aws/arn.ts';
import type { EventDraft } from '../aws/call.ts';
import { instanceArn, volumeArn } from './access.ts';

type VolumeName = { readonly account: string; readonly region: string; readonly volume_id: string };
type InstanceName = { readonly account: string; readonly region: string; readonly instance_id: string };

/** `EBS Volume Notification`. The cause is empty for a success; failures to attach name the key beside the volume. */
export function volumeEvent(
  volume: VolumeName,
  event: 'createVolume' | 'attachVolume' | 'reattachVolume' | 'deleteVolume' | 'modifyVolume',
  result: 'available' | 'failed' | 'deleted' | 'modifying' | 'optimizing' | 'completed',
  more: { readonly cause?: string; readonly keyArn?: string | null | undefined; readonly requestId: string },
): EventDraft {
  return {
    source: 'aws.ec2',
    detailType: 'EBS Volume Notification',
    resources: [volumeArn(volume), ...(more.keyArn ? [more.keyArn] : [])],
    detail: { result, cause: more.cause ?? '', event, 'request-id': more.requestId },
  };
}

export function instanceEvent(instance: InstanceName, state: string): EventDraft {
  return {
    source: 'aws.ec2',
    detailType: 'EC2 Instance State-change Notification',
    resources: [instanceArn(instance)],
    detail: { 'instance-id': instance.instance_id, state },
  };
}

type SnapshotName = { readonly region: string; readonly snapshot_id: string };

/** ARNs as EBS's events about snapshots have them: without an account, the region where that would be. */
function eventArn(region: string, resource: string): string {
  return `arn:${partitionOf(region)}:ec2::${region}:${resource}`;
}

const eventTime = (ms: number) => `${new Date(ms).toISOString().slice(0, 19)}Z`;

/** `EBS Snapshot Notification`. `source` is the volume, the snapshot that was copied, or the account that shares it. */
export function snapshotEvent(
  snapshot: SnapshotName,
  event: 'createSnapshot' | 'copySnapshot' | 'shareSnapshot',
  result: 'succeeded' | 'failed',
  more: {
    readonly source: string;
    readonly startedAt: number;
    readonly endedAt?: number;
    readonly cause?: string;
    readonly requestId: string;
    readonly incremental?: boolean;
  },
): EventDraft {
  const arn = eventArn(snapshot.region, `snapshot/${snapshot.snapshot_id}`);
  return {
    source: 'aws.ec2',
    detailType: 'EBS Snapshot Notification',
    resources: [arn],
    detail: {
      event,
      result,
      cause: more.cause ?? '',
      'request-id': more.requestId,
      snapshot_id: arn,
      source: more.source,
      startTime: eventTime(more.startedAt),
      endTime: more.endedAt === undefined ? '' : eventTime(more.endedAt),
      ...(more.incremental === undefined ? {} : { Incremental: String(more.incremental) }),
    },
  };
}

/** The event source of a volume or snapshot: its ARN as these events have it. */
export const volumeSource = (region: string, volumeId: string) => eventArn(region, `volume/${volumeId}`);
export const snapshotSource = (region: string, snapshotId: string) => eventArn(region, `snapshot/${snapshotId}`);

/** `EBS Multi-Volume Snapshots Completion Status`, once all snapshots of a CreateSnapshots have come to an end. */
export function snapshotsEvent(
  members: ReadonlyArray<SnapshotName & { readonly volume_id: string; readonly state: string }>,
  more: { readonly startedAt: number; readonly endedAt: number; readonly requestId: string },
): EventDraft {
  const failed = members.find(({ state }) => state === 'error');
  return {
    source: 'aws.ec2',
    detailType: 'EBS Multi-Volume Snapshots Completion Status',
    resources: members.map(({ region, snapshot_id }) => snapshotSource(region, snapshot_id)),
    detail: {
      event: 'createSnapshots',
      result: failed ? 'failed' : 'succeeded',
      cause: failed ? `Snapshot ${failed.snapshot_id} is in status error` : '',
      'request-id': more.requestId,
      startTime: eventTime(more.startedAt),
      endTime: eventTime(more.endedAt),
      snapshots: members.map(({ region, snapshot_id, volume_id, state }) => ({
        snapshot_id: snapshotSource(region, snapshot_id),
        source: volumeSource(region, volume_id),
        status: state,
      })),
    },
  };
}
