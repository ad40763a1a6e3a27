/** The snapshot that a request is about, and leave to use it. Source: service authorization reference, "Amazon EBS". */
import { formatArn } from '../aws/arn.ts';
import type { BlockRequest } from '../aws/block-protocol.ts';
import type { Call } from '../aws/call.ts';
import { denialSentence } from '../aws/denial.ts';
import type { DirectAccess, DirectSnapshot } from '../aws/direct-snapshots.ts';
import { AwsError } from '../aws/errors.ts';
import type { AccessRequest, Denial } from '../aws/service.ts';
import type { BlockBroker } from './block-broker.ts';
import { asking, hostFailure, invalid, snapshotNotFound } from './errors.ts';

export const blockBytes = 512 * 1024;
export const blocksPerGib = 2048;

const snapshotIdForm = /^snap-[0-9a-f]+$/;
const snapshotIdMax = 64;

/** @throws {AwsError} ValidationException, or ResourceNotFoundException for one that the caller can't see */
export async function findSnapshot(call: Call, snapshotId: string | undefined): Promise<DirectSnapshot> {
  if (!snapshotId || snapshotId.length > snapshotIdMax || !snapshotIdForm.test(snapshotId))
    throw invalid('INVALID_SNAPSHOT_ID', `'${snapshotId ?? ''}' is not a snapshot id.`);
  return asking(() => call.invoke<DirectSnapshot>('ec2', 'GetDirectSnapshot', { SnapshotId: snapshotId }));
}

/** @throws {AwsError} ValidationException unless the snapshot is complete */
export function requireCompleted(snapshot: DirectSnapshot): void {
  if (snapshot.State !== 'completed')
    throw invalid(
      'INVALID_SNAPSHOT_ID',
      `The snapshot '${snapshot.SnapshotId}' is in the '${snapshot.State}' state; only a completed one can be read.`,
    );
}

/** @throws {AwsError} unless the snapshot is one that the caller started and has not completed */
export function requireOpen(snapshot: DirectSnapshot): void {
  if (!snapshot.IsOwn) throw snapshotNotFound(snapshot.SnapshotId);
  if (!snapshot.IsOpen)
    throw invalid(
      'INVALID_SNAPSHOT_ID',
      `The snapshot '${snapshot.SnapshotId}' is in the '${snapshot.State}' state; blocks can be written only to one that StartSnapshot made, while it is pending.`,
    );
}

/** @throws {AwsError} ValidationException */
export function requireIndex(index: number | undefined, snapshot: DirectSnapshot): asserts index is number {
  const count = snapshot.VolumeSize * blocksPerGib;
  if (index === undefined || index < 0 || index >= count)
    throw invalid(
      'INVALID_BLOCK',
      `Block index ${index ?? '(missing)'} is outside of the snapshot, which has ${count} blocks.`,
    );
}

/** Leave to do `action` on a snapshot. Its ARN has no account, so that a shared one is authorized like one's own. */
export function allowOnSnapshot(call: Call, action: string, snapshot: DirectSnapshot): AccessRequest {
  const context: Record<string, string | readonly string[]> = {};
  for (const [key, value] of snapshot.Tags) context[`aws:ResourceTag/${key}`] = value;
  if (snapshot.Description) context['ebs:Description'] = snapshot.Description;
  if (snapshot.ParentSnapshotId) context['ebs:ParentSnapshot'] = snapshotArn(call, snapshot.ParentSnapshotId);
  context['ebs:VolumeSize'] = String(snapshot.VolumeSize);
  return {
    action: `ebs:${action}`,
    resource: snapshotArn(call, snapshot.SnapshotId),
    resourceAccount: call.account,
    context,
  };
}

export function snapshotArn(call: Call, snapshotId: string): string {
  return formatArn('ec2', call.region, '', `snapshot/${snapshotId}`);
}

/**
 * Has the snapshot's host carry out `request`, with the snapshot's data key when it is encrypted and `needsKey`: KMS is
 * asked each time, for the caller. The caller wipes `digestKey`.
 * @throws {AwsError} what KMS refuses, what the host can't do
 */
export async function askHost<Kind extends BlockRequest['kind']>(
  call: Call,
  broker: BlockBroker,
  snapshot: DirectSnapshot,
  request: Extract<BlockRequest, { kind: Kind }>,
  what: string,
  { needsKey = false, digestKey }: { readonly needsKey?: boolean; readonly digestKey?: Uint8Array | undefined } = {},
) {
  const access = await asking(() =>
    call.invoke<DirectAccess>('ec2', 'OpenDirectSnapshot', { SnapshotId: snapshot.SnapshotId, WithKey: needsKey }),
  );
  try {
    if (access.HostId === null)
      throw new AwsError(
        'InternalServerException',
        `${what} can't be reached at the moment: no host is connected. Try again.`,
        { httpStatus: 503 },
      );
    return await broker.request<Kind>(access.HostId, request, {
      account: call.account,
      ...(access.DataKey ? { dataKey: access.DataKey } : {}),
      ...(digestKey ? { digestKey } : {}),
      cancelled: call.cancelled,
    });
  } catch (error) {
    throw hostFailure(error, what);
  } finally {
    access.DataKey?.fill(0);
  }
}

/** A refusal, as EBS direct words it. */
export function accessDenied(call: Call, denial: Denial): AwsError {
  return new AwsError('AccessDeniedException', denialSentence(call, denial), {
    httpStatus: 403,
    members: { Reason: 'UNAUTHORIZED_ACCOUNT' },
  });
}
