/** StartSnapshot and CompleteSnapshot. Source: EBS API reference. */
import type {
  CompleteSnapshotRequest,
  CompleteSnapshotResponse,
  StartSnapshotRequest,
  StartSnapshotResponse,
} from '@aws-sdk/client-ebs';
import type { Call } from '../aws/call.ts';
import type { DirectSnapshot } from '../aws/direct-snapshots.ts';
import { isAwsError } from '../aws/errors.ts';
import { operation, type RecordDetails } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import type { BlockBroker } from './block-broker.ts';
import { earlierAnswer, forgetAnswer, rememberAnswer } from './client-tokens.ts';
import { digestKeyOf } from './digests.ts';
import { asking, invalid } from './errors.ts';
import {
  allowOnSnapshot,
  askHost,
  blockBytes,
  blocksPerGib,
  findSnapshot,
  requireCompleted,
  requireOpen,
  snapshotArn,
} from './snapshots.ts';

const volumeSizeMaxGib = 65_536;
const timeoutDefaultMinutes = 60;
const timeoutMinMinutes = 10;
const timeoutMaxMinutes = 4320;

export function uploadOperations(broker: BlockBroker, rootKey: RootKey) {
  return [startSnapshot(broker), completeSnapshot(broker, rootKey)];
}

interface Start {
  readonly parent: DirectSnapshot | undefined;
}

function startSnapshot(broker: BlockBroker) {
  return operation<StartSnapshotRequest, StartSnapshotResponse, Start>({
    name: 'StartSnapshot',
    effect: 'waits',
    async resolve(call, input) {
      checkStart(input);
      const parent = input.ParentSnapshotId ? await findSnapshot(call, input.ParentSnapshotId) : undefined;
      return { parent };
    },
    access(call, input, { parent }) {
      const context: Record<string, string | readonly string[]> = {
        'ebs:VolumeSize': String(input.VolumeSize),
        ...(input.Description ? { 'ebs:Description': input.Description } : {}),
        ...(parent ? { 'ebs:ParentSnapshot': snapshotArn(call, parent.SnapshotId) } : {}),
      };
      for (const { Key, Value } of input.Tags ?? []) context[`aws:RequestTag/${Key}`] = Value ?? '';
      if (input.Tags?.length) context['aws:TagKeys'] = input.Tags.map(({ Key }) => Key!);
      const request = {
        action: 'ebs:StartSnapshot',
        resource: snapshotArn(call, '*'),
        resourceAccount: call.account,
        context,
      };
      return parent ? [request, allowOnSnapshot(call, 'StartSnapshot', parent)] : [request];
    },
    async handle(call, input, { parent }) {
      if (parent) requireParent(parent, input.VolumeSize!);
      const { snapshot, answer } = await call.transaction((inside) => begin(inside, input));
      if (!snapshot) {
        await beginAgain(call, broker, answer.SnapshotId!);
        return answer;
      }
      try {
        await askHostToBegin(call, broker, snapshot);
      } catch (error) {
        // Who repeats the request with its token, as the SDKs do, takes up what the client that is gone has begun.
        if (!call.cancelled.aborted || input.ClientToken === undefined)
          await call.transaction((inside) => undo(inside, input, snapshot.SnapshotId));
        throw error;
      }
      return answer;
    },
    record: (_call, input, output): RecordDetails => ({
      requestParameters: {
        volumeSize: input.VolumeSize ?? null,
        ...(input.ParentSnapshotId ? { parentSnapshotId: input.ParentSnapshotId } : {}),
        ...(input.Description ? { description: input.Description } : {}),
        ...(input.Encrypted === undefined ? {} : { encrypted: input.Encrypted }),
        ...(input.KmsKeyArn ? { kmsKeyArn: input.KmsKeyArn } : {}),
        ...(input.ClientToken ? { clientToken: input.ClientToken } : {}),
        ...(input.Timeout ? { timeout: input.Timeout } : {}),
      },
      responseElements: output ? { ...lowered(output) } : null,
      lookupResources: output ? [{ type: 'AWS::EC2::Snapshot', name: output.SnapshotId! }] : [],
    }),
  });
}

/** @throws {AwsError} ValidationException */
function checkStart(input: StartSnapshotRequest): void {
  const { VolumeSize: size, Timeout: timeout, ClientToken: token, Description: description, Tags: tags = [] } = input;
  if (size === undefined || size < 1 || size > volumeSizeMaxGib)
    throw invalid(
      'INVALID_VOLUME_SIZE',
      `VolumeSize is ${size ?? 'missing'}; it can be from 1 to ${volumeSizeMaxGib} GiB.`,
    );
  if (timeout !== undefined && (timeout < timeoutMinMinutes || timeout > timeoutMaxMinutes))
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `Timeout is ${timeout}; it can be from ${timeoutMinMinutes} to ${timeoutMaxMinutes} minutes.`,
    );
  if (token !== undefined && !/^[\S]{1,255}$/.test(token))
    throw invalid('INVALID_PARAMETER_VALUE', 'ClientToken must have 1 to 255 characters, and no blanks.');
  if (description !== undefined && description.length > 255)
    throw invalid('INVALID_PARAMETER_VALUE', `Description has ${description.length} characters; it can have 255.`);
  if (input.ParentSnapshotId && input.Encrypted !== undefined)
    throw invalid('INVALID_PARAMETER_VALUE', "Encrypted can't be given together with ParentSnapshotId.");
  if (input.ParentSnapshotId && input.KmsKeyArn)
    throw invalid('INVALID_PARAMETER_VALUE', "KmsKeyArn can't be given together with ParentSnapshotId.");
  if (tags.length > 50) throw invalid('INVALID_TAG', `There are ${tags.length} tags; a snapshot can have 50.`);
  if (new Set(tags.map(({ Key }) => Key)).size < tags.length)
    throw invalid('INVALID_TAG', 'A tag key can be given only once.');
  for (const { Key: key, Value: value } of tags)
    if (!key || key.length > 127 || (value ?? '').length > 255 || key.startsWith('aws:'))
      throw invalid('INVALID_TAG', `The tag '${key ?? ''}' is not one that a snapshot can have.`);
}

/** @throws {AwsError} ValidationException */
function requireParent(parent: DirectSnapshot, sizeGib: number): void {
  requireCompleted(parent);
  if (sizeGib < parent.VolumeSize)
    throw invalid(
      'INVALID_VOLUME_SIZE',
      `VolumeSize is ${sizeGib} GiB, less than the ${parent.VolumeSize} GiB of the parent '${parent.SnapshotId}'.`,
    );
}

/** The new snapshot's record, or the answer that an earlier request with the same token had. */
async function begin(
  call: Call,
  input: StartSnapshotRequest,
): Promise<{ snapshot?: DirectSnapshot; answer: StartSnapshotResponse }> {
  const earlier = await earlierAnswer(call, input);
  if (earlier) return { answer: earlier };
  const { ClientToken: _, Timeout: timeout = timeoutDefaultMinutes, ...asked } = input;
  const snapshot = await asking(() =>
    call.invoke<DirectSnapshot>('ec2', 'BeginDirectSnapshot', { ...asked, Timeout: timeout }),
  );
  const answer: StartSnapshotResponse = {
    SnapshotId: snapshot.SnapshotId,
    OwnerId: snapshot.OwnerId,
    Status: 'pending',
    StartTime: snapshot.StartTime,
    VolumeSize: snapshot.VolumeSize,
    BlockSize: blockBytes,
    ...(input.Description === undefined ? {} : { Description: input.Description }),
    ...(input.Tags?.length ? { Tags: input.Tags } : {}),
    ...(snapshot.ParentSnapshotId ? { ParentSnapshotId: snapshot.ParentSnapshotId } : {}),
    ...(snapshot.Encryption ? { KmsKeyArn: snapshot.Encryption.KeyArn } : {}),
    SseType: snapshot.Encryption ? 'sse-kms' : 'none',
  };
  await rememberAnswer(call, input, answer);
  return { snapshot, answer };
}

function askHostToBegin(call: Call, broker: BlockBroker, snapshot: DirectSnapshot): Promise<unknown> {
  const { SnapshotId: snapshotId, VolumeId: volumeId, SizeBytes: sizeBytes, ParentSnapshotId: parent } = snapshot;
  const request = {
    kind: 'startUpload',
    snapshotId,
    volumeId,
    sizeBytes,
    ...(parent ? { parentSnapshotId: parent } : {}),
  } as const;
  return askHost(call, broker, snapshot, request, `The snapshot '${snapshotId}'`);
}

/** A request was repeated: the first may have ended, with its process, before a host heard of the snapshot. */
async function beginAgain(call: Call, broker: BlockBroker, snapshotId: string): Promise<void> {
  const snapshot = await openSnapshot(call, snapshotId);
  if (!snapshot) return;
  try {
    await askHostToBegin(call, broker, snapshot);
  } catch (error) {
    // Completed or given up meanwhile: then it had been begun.
    if (await openSnapshot(call, snapshotId)) throw error;
  }
}

/** Undefined for one that is gone, or takes no blocks any more. */
async function openSnapshot(call: Call, snapshotId: string): Promise<DirectSnapshot | undefined> {
  const snapshot = await findSnapshot(call, snapshotId).catch((error) => {
    if (isAwsError(error, 'ResourceNotFoundException')) return undefined;
    throw error;
  });
  return snapshot?.IsOpen ? snapshot : undefined;
}

/** The host could not begin: the request has come to nothing, and its token is free again. */
async function undo(call: Call, input: StartSnapshotRequest, snapshotId: string): Promise<void> {
  await forgetAnswer(call, input);
  await call.invoke('ec2', 'FailDirectSnapshot', { SnapshotId: snapshotId, Message: 'No host could begin it.' });
}

function lowered(output: StartSnapshotResponse): Record<string, unknown> {
  const { SnapshotId, OwnerId, Status, StartTime, VolumeSize, BlockSize, ParentSnapshotId, KmsKeyArn } = output;
  return {
    snapshotId: SnapshotId,
    ownerId: OwnerId,
    status: Status,
    startTime: StartTime?.toISOString(),
    volumeSize: VolumeSize,
    blockSize: BlockSize,
    ...(ParentSnapshotId ? { parentSnapshotId: ParentSnapshotId } : {}),
    ...(KmsKeyArn ? { kmsKeyArn: KmsKeyArn } : {}),
  };
}

function completeSnapshot(broker: BlockBroker, rootKey: RootKey) {
  return operation<CompleteSnapshotRequest, CompleteSnapshotResponse, DirectSnapshot>({
    name: 'CompleteSnapshot',
    effect: 'waits',
    resolve: (call, input) => findSnapshot(call, input.SnapshotId),
    access: (call, _input, snapshot) => [allowOnSnapshot(call, 'CompleteSnapshot', snapshot)],
    async handle(call, input, snapshot) {
      const { SnapshotId: snapshotId } = snapshot;
      // Asked again because the first answer was lost: it is complete.
      if (snapshot.IsOwn && snapshot.IsDirect && snapshot.State === 'completed') return { Status: 'completed' };
      requireOpen(snapshot);
      checkComplete(input, snapshot);
      const request = {
        kind: 'completeUpload',
        snapshotId,
        changedBlocks: input.ChangedBlocksCount!,
        ...(input.Checksum ? { checksum: input.Checksum } : {}),
      } as const;
      const digestKey = input.Checksum ? digestKeyOf(rootKey, snapshot) : undefined;
      const what = `The snapshot '${snapshotId}'`;
      const outcome = await askHost(call, broker, snapshot, request, what, { digestKey }).finally(() =>
        digestKey?.fill(0),
      );
      await asking(() => call.invoke('ec2', 'CompleteDirectSnapshot', { SnapshotId: snapshotId, Outcome: outcome }));
      return { Status: 'completed' };
    },
    record: (_call, input, output): RecordDetails => ({
      requestParameters: {
        snapshotId: input.SnapshotId ?? null,
        changedBlocksCount: input.ChangedBlocksCount ?? null,
        ...(input.Checksum ? { checksum: input.Checksum, checksumAlgorithm: input.ChecksumAlgorithm ?? null } : {}),
      },
      responseElements: output ? { status: output.Status } : null,
      lookupResources: input.SnapshotId ? [{ type: 'AWS::EC2::Snapshot', name: input.SnapshotId }] : [],
    }),
  });
}

/** @throws {AwsError} ValidationException */
function checkComplete(input: CompleteSnapshotRequest, snapshot: DirectSnapshot): void {
  const { ChangedBlocksCount: count, Checksum: checksum } = input;
  if (count === undefined || count < 0 || count > snapshot.VolumeSize * blocksPerGib)
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `x-amz-ChangedBlocksCount is ${count ?? 'missing'}; the snapshot has ${snapshot.VolumeSize * blocksPerGib} blocks.`,
    );
  if (checksum === undefined) return;
  if (Buffer.from(checksum, 'base64').length !== 32)
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum is not a SHA-256 digest in base64.');
  if (input.ChecksumAlgorithm !== 'SHA256')
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum needs x-amz-Checksum-Algorithm: SHA256.');
  if (input.ChecksumAggregationMethod !== 'LINEAR')
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum needs x-amz-Checksum-Aggregation-Method: LINEAR.');
}
