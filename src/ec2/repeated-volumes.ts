/**
 * A request to make a volume that comes again with the same token. It gets what it made at first, whatever became meanwhile
 * of what that was made from: the snapshot may be deleted, a setting changed.
 */
import type { Volume } from '@aws-sdk/client-ec2';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import type { AccessRequest } from '../aws/service.ts';
import { allow, allowTagsOnCreate, requestTagContext, volumeContext } from './access.ts';
import { earlierResult, tokenMismatch } from './client-tokens.ts';
import { tables, type VolumeRow } from './records.ts';
import { snapshotArn } from './snapshot-access.ts';
import type { Tags } from './tag-store.ts';
import { volumeViews } from './volume-view.ts';

interface Request {
  readonly ClientToken?: string | undefined;
  readonly KmsKeyId?: string | undefined;
  readonly VolumeInitializationRate?: number | undefined;
}

/**
 * The volume that an earlier request with this token made, or undefined for a token that is new here.
 * @throws {AwsError} IdempotentParameterMismatch for other parameters, or once that volume is gone
 */
export async function madeEarlier(call: Call, operation: string, input: Request): Promise<VolumeRow | undefined> {
  const volumeId = await earlierResult(call, operation, input);
  if (volumeId === undefined) return undefined;
  const volume = await tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('state', '!=', 'deleting')
    .executeTakeFirst();
  if (!volume) throw tokenMismatch(input.ClientToken!);
  return volume;
}

/** Leave to ask again: what the first request needed, without what it was made from. */
export function allowAgain(
  call: Call,
  operation: string,
  input: Request,
  volume: VolumeRow,
  tags: Tags,
): AccessRequest[] {
  const arn = formatArn('ec2', call.region, call.account, 'volume/*');
  const parent = volume.snapshot_id === null ? undefined : { region: volume.region, snapshot_id: volume.snapshot_id };
  return [
    allow(call, operation, arn, {
      ...volumeContext({ ...volume, key_arn: input.KmsKeyId, initialization_rate: input.VolumeInitializationRate }),
      ...(parent ? { 'ec2:ParentSnapshot': snapshotArn(parent) } : {}),
      ...requestTagContext(tags),
    }),
    ...allowTagsOnCreate(call, operation, arn, tags),
  ];
}

export async function viewAgain(call: Call, volume: VolumeRow): Promise<Volume> {
  return (await volumeViews(call, [volume]))[0]!;
}
