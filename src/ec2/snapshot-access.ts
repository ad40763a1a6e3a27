/**
 * What a caller must be allowed to do with snapshots. Their ARNs have no account: whose a snapshot is, and who else may use
 * it, the condition keys and the snapshot's own permissions say.
 * Source: service authorization reference, "Actions, resources, and condition keys for Amazon EC2".
 */
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import type { AccessRequest } from '../aws/service.ts';
import { allow, requestTagContext, volumeArn } from './access.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { noTags, type Tags } from './tag-store.ts';

type Context = NonNullable<AccessRequest['context']>;

/** `arn:aws:ec2:us-east-1::snapshot/snap-…` */
export function snapshotArn(snapshot: { readonly region: string; readonly snapshot_id: string }): string {
  return formatArn('ec2', snapshot.region, '', `snapshot/${snapshot.snapshot_id}`);
}

/** Leave to do `action` on an existing snapshot, the caller's own or one that is shared with it. */
export function allowOnSnapshot(
  call: Call,
  action: string,
  snapshot: SnapshotRow,
  tags: Tags,
  more: Context = {},
): AccessRequest {
  const context: Record<string, string | readonly string[]> = { ...snapshotContext(snapshot), ...more };
  for (const [key, value] of snapshot.account === call.account ? tags : noTags) {
    context[`aws:ResourceTag/${key}`] = value;
    context[`ec2:ResourceTag/${key}`] = value;
  }
  // Sharing is what lets another account use it; the rest is for the caller's own policies to say.
  return allow(call, action, snapshotArn(snapshot), context);
}

/** Leave to do `action`, which makes a snapshot of `volume`, or of nothing that is here. */
export function allowNewSnapshot(
  call: Call,
  action: string,
  tags: Tags,
  of: { readonly volume?: { account: string; region: string; volume_id: string; size_gib: number } },
): AccessRequest[] {
  const resource = snapshotArn({ region: call.region, snapshot_id: '*' });
  const parent: Context = of.volume
    ? { 'ec2:ParentVolume': volumeArn(of.volume), 'ec2:VolumeSize': String(of.volume.size_gib) }
    : {};
  const requests = [allow(call, action, resource, { ...parent, ...requestTagContext(tags) })];
  if (tags.size > 0)
    requests.push(allow(call, 'CreateTags', resource, { 'ec2:CreateAction': action, ...requestTagContext(tags) }));
  return requests;
}

function snapshotContext(snapshot: SnapshotRow): Context {
  return {
    'ec2:SnapshotID': snapshot.snapshot_id,
    'ec2:Owner': snapshot.account,
    'ec2:ParentVolume': volumeArn(snapshot),
    'ec2:SnapshotTime': new Date(snapshot.started_at).toISOString(),
    'ec2:VolumeSize': String(snapshot.size_gib),
    'ec2:Encrypted': snapshot.encrypted ? 'true' : 'false',
  };
}
