/** The snapshot that a request is about, and leave to use it. Source: service authorization reference, "Amazon EBS". */
import { formatArn } from '../aws/arn.ts';
import type { BlockRequest } from '../aws/block-protocol.ts';
import type { Call } from '../aws/call.ts';
import { denialSentence } from '../aws/denial.ts';
import type { DirectSnapshot, DirectSnapshotKey } from '../aws/direct-snapshots.ts';
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
  return asking(() => call.invoke<DirectSnapshot>('ec2', 'FindDirectSnapshot', { SnapshotId: snapshotId }));
}

/** @throws {AwsError} ValidationException unless the snapshot is complete */
export function requireCompleted(snapshot: DirectSnapshot): void {
  if (snapshot.state !== 'completed')
    throw invalid(
      'INVALID_SNAPSHOT_ID',
      `The snapshot '${snapshot.snapshotId}' is in the '${snapshot.state}' state; only a completed one can be read.`,
    );
}

/** @throws {AwsError} unless the snapshot is one that the caller started and has not completed */
export function requireUpload(call: Call, snapshot: DirectSnapshot): void {
  if (snapshot.ownerId !== call.account) throw snapshotNotFound(snapshot.snapshotId);
  if (!snapshot.isUpload || snapshot.state !== 'pending')
    throw invalid(
      'INVALID_SNAPSHOT_ID',
      `The snapshot '${snapshot.snapshotId}' is in the '${snapshot.state}' state and was ${snapshot.isUpload ? '' : 'not '}made by StartSnapshot; only one that was and is pending can be written.`,
    );
}

/** @throws {AwsError} ValidationException */
export function requireIndex(index: number | undefined, snapshot: DirectSnapshot): asserts index is number {
  const count = snapshot.sizeGib * blocksPerGib;
  if (index === undefined || index < 0 || index >= count)
    throw invalid('INVALID_BLOCK', `Block index ${index} is outside of the snapshot, which has ${count} blocks.`);
}

/** Leave to do `action` on a snapshot. Its ARN has no account, so that a shared one is authorized like one's own. */
export function allowOnSnapshot(call: Call, action: string, snapshot: DirectSnapshot): AccessRequest {
  const context: Record<string, string | readonly string[]> = {};
  for (const [key, value] of Object.entries(snapshot.tags)) context[`aws:ResourceTag/${key}`] = value;
  if (snapshot.description) context['ebs:Description'] = snapshot.description;
  if (snapshot.parentSnapshotId) context['ebs:ParentSnapshot'] = snapshotArn(call, snapshot.parentSnapshotId);
  context['ebs:VolumeSize'] = String(snapshot.sizeGib);
  return {
    action: `ebs:${action}`,
    resource: snapshotArn(call, snapshot.snapshotId),
    resourceAccount: call.account,
    context,
  };
}

export function snapshotArn(call: Call, snapshotId: string): string {
  return formatArn('ec2', call.region, '', `snapshot/${snapshotId}`);
}

/**
 * Has the snapshot's host carry out `request`, with the snapshot's data key when it is encrypted and `needsKey`: KMS is
 * asked each time, for the caller.
 * @throws {AwsError} what KMS refuses, what the host can't do
 */
export async function askHost<Kind extends BlockRequest['kind']>(
  call: Call,
  broker: BlockBroker,
  snapshot: DirectSnapshot,
  request: Extract<BlockRequest, { kind: Kind }>,
  what: string,
  { needsKey = false } = {},
) {
  if (!snapshot.hostId)
    throw new AwsError(
      'InternalServerException',
      `${what} can't be reached at the moment: no host is connected. Try again.`,
      { httpStatus: 503 },
    );
  const key =
    needsKey && snapshot.isEncrypted
      ? await asking(() =>
          call.invoke<DirectSnapshotKey>('ec2', 'UseDirectSnapshotKey', { SnapshotId: snapshot.snapshotId }),
        )
      : undefined;
  try {
    return await broker.request<Kind>(snapshot.hostId, request, {
      ...(key ? { dataKey: key.dataKey } : {}),
      cancelled: call.cancelled,
    });
  } catch (error) {
    throw hostFailure(error, what);
  } finally {
    key?.dataKey.fill(0);
  }
}

/** A refusal, as EBS direct words it. */
export function accessDenied(call: Call, denial: Denial): AwsError {
  return new AwsError('AccessDeniedException', denialSentence(call, denial), {
    httpStatus: 403,
    members: { Reason: 'UNAUTHORIZED_ACCOUNT' },
  });
}
