/** StartSnapshot and CompleteSnapshot. Source: EBS API reference. */
import { createHash } from 'node:crypto';
import type {
  CompleteSnapshotRequest,
  CompleteSnapshotResponse,
  StartSnapshotRequest,
  StartSnapshotResponse,
} from '@aws-sdk/client-ebs';
import type { Call } from '../aws/call.ts';
import type { BeginDirectSnapshot, DirectSnapshot } from '../aws/direct-snapshots.ts';
import { AwsError } from '../aws/errors.ts';
import { operation, type RecordDetails } from '../aws/service.ts';
import type { BlockBroker } from './block-broker.ts';
import { asking, invalid } from './errors.ts';
import {
  allowOnSnapshot,
  askHost,
  blockBytes,
  blocksPerGib,
  findSnapshot,
  requireCompleted,
  requireUpload,
  snapshotArn,
} from './snapshots.ts';
import { endSnapshot, tables } from './upload-store.ts';

const volumeSizeMaxGib = 65_536;
const timeoutDefaultMinutes = 60;
const timeoutMinMinutes = 10;
const timeoutMaxMinutes = 4320;
const minuteMs = 60_000;

export function uploadOperations(broker: BlockBroker) {
  return [startSnapshot(broker), completeSnapshot(broker)];
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
        ...(parent ? { 'ebs:ParentSnapshot': snapshotArn(call, parent.snapshotId) } : {}),
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
      if (!snapshot) return answer;
      try {
        await askHost(
          call,
          broker,
          snapshot,
          {
            kind: 'startUpload',
            snapshotId: snapshot.snapshotId,
            volumeId: 'vol-ffffffff',
            sizeBytes: input.VolumeSize! * 2 ** 30,
            ...(parent ? { parentSnapshotId: parent.snapshotId } : {}),
          },
          `The snapshot '${snapshot.snapshotId}'`,
        );
      } catch (error) {
        await call.transaction((inside) => undo(inside, input, snapshot.snapshotId));
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
    throw invalid('INVALID_VOLUME_SIZE', `VolumeSize is ${size}; it can be from 1 to ${volumeSizeMaxGib} GiB.`);
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
  for (const { Key: key, Value: value } of tags)
    if (!key || key.length > 127 || (value ?? '').length > 255 || key.startsWith('aws:'))
      throw invalid('INVALID_TAG', `The tag '${key ?? ''}' is not one that a snapshot can have.`);
}

/** @throws {AwsError} ValidationException */
function requireParent(parent: DirectSnapshot, sizeGib: number): void {
  requireCompleted(parent);
  if (sizeGib < parent.sizeGib)
    throw invalid(
      'INVALID_VOLUME_SIZE',
      `VolumeSize is ${sizeGib} GiB, less than the ${parent.sizeGib} GiB of the parent '${parent.snapshotId}'.`,
    );
}

/** The new snapshot's record, or the answer that an earlier request with the same token had. */
async function begin(
  call: Call,
  input: StartSnapshotRequest,
): Promise<{ snapshot?: DirectSnapshot; answer: StartSnapshotResponse }> {
  const { ClientToken: token, ...parameters } = input;
  const digest = createHash('sha256')
    .update(JSON.stringify(Object.entries(parameters).sort()))
    .digest('hex');
  if (token !== undefined) {
    const earlier = await tables(call)
      .selectFrom('ebs_client_tokens')
      .selectAll()
      .where('account', '=', call.account)
      .where('region', '=', call.region)
      .where('token', '=', token)
      .executeTakeFirst();
    if (earlier && earlier.parameters_digest !== digest)
      throw new AwsError(
        'ConflictException',
        `The client token '${token}' was used for a request with other parameters, which made '${earlier.snapshot_id}'.`,
        { httpStatus: 409 },
      );
    if (earlier) return { answer: revived(JSON.parse(earlier.answer)) };
  }
  const snapshot = await asking(() =>
    call.invoke<DirectSnapshot>('ec2', 'BeginDirectSnapshot', {
      VolumeSize: input.VolumeSize!,
      ParentSnapshotId: input.ParentSnapshotId,
      Encrypted: input.Encrypted,
      KmsKeyArn: input.KmsKeyArn,
      Description: input.Description,
      Tags: input.Tags?.map(({ Key, Value }) => ({ Key: Key!, Value: Value ?? '' })),
    } satisfies BeginDirectSnapshot),
  );
  const now = call.clock.now();
  await tables(call)
    .insertInto('ebs_uploads')
    .values({
      snapshot_id: snapshot.snapshotId,
      account: call.account,
      region: call.region,
      timeout_ms: (input.Timeout ?? timeoutDefaultMinutes) * minuteMs,
      active_at: now,
    })
    .execute();
  const answer: StartSnapshotResponse = {
    SnapshotId: snapshot.snapshotId,
    OwnerId: snapshot.ownerId,
    Status: 'pending',
    StartTime: snapshot.startTime,
    VolumeSize: snapshot.sizeGib,
    BlockSize: blockBytes,
    ...(input.Description === undefined ? {} : { Description: input.Description }),
    ...(input.Tags?.length ? { Tags: input.Tags } : {}),
    ...(snapshot.parentSnapshotId ? { ParentSnapshotId: snapshot.parentSnapshotId } : {}),
    ...(snapshot.keyArn ? { KmsKeyArn: snapshot.keyArn } : {}),
    SseType: snapshot.isEncrypted ? 'sse-kms' : 'none',
  };
  if (token !== undefined)
    await tables(call)
      .insertInto('ebs_client_tokens')
      .values({
        account: call.account,
        region: call.region,
        token,
        parameters_digest: digest,
        snapshot_id: snapshot.snapshotId,
        answer: JSON.stringify(answer),
        created_at: now,
      })
      .execute();
  return { snapshot, answer };
}

/** The host could not begin: the request has come to nothing, and its token is free again. */
async function undo(call: Call, input: StartSnapshotRequest, snapshotId: string): Promise<void> {
  await tables(call).deleteFrom('ebs_uploads').where('snapshot_id', '=', snapshotId).execute();
  if (input.ClientToken !== undefined)
    await tables(call)
      .deleteFrom('ebs_client_tokens')
      .where('account', '=', call.account)
      .where('region', '=', call.region)
      .where('token', '=', input.ClientToken)
      .execute();
  await endSnapshot(call.asItself(call.account, call.region), {
    SnapshotId: snapshotId,
    Error: 'No host could begin the snapshot.',
  });
}

function revived(answer: StartSnapshotResponse): StartSnapshotResponse {
  return { ...answer, StartTime: new Date(answer.StartTime!) };
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

function completeSnapshot(broker: BlockBroker) {
  return operation<CompleteSnapshotRequest, CompleteSnapshotResponse, DirectSnapshot>({
    name: 'CompleteSnapshot',
    effect: 'waits',
    resolve: (call, input) => findSnapshot(call, input.SnapshotId),
    access: (call, _input, snapshot) => [allowOnSnapshot(call, 'CompleteSnapshot', snapshot)],
    async handle(call, input, snapshot) {
      const { snapshotId } = snapshot;
      // Asked again because the first answer was lost: it is complete.
      if (snapshot.ownerId === call.account && snapshot.isUpload && snapshot.state === 'completed')
        return { Status: 'completed' };
      requireUpload(call, snapshot);
      checkComplete(input, snapshot);
      const outcome = await askHost(
        call,
        broker,
        snapshot,
        {
          kind: 'completeUpload',
          snapshotId,
          changedBlocks: input.ChangedBlocksCount!,
          ...(input.Checksum ? { checksum: input.Checksum } : {}),
        },
        `The snapshot '${snapshotId}'`,
      );
      await call.transaction(async (inside) => {
        await tables(inside).deleteFrom('ebs_uploads').where('snapshot_id', '=', snapshotId).execute();
        await endSnapshot(inside, { SnapshotId: snapshotId, Outcome: outcome });
      });
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
  if (count === undefined || count < 0 || count > snapshot.sizeGib * blocksPerGib)
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `x-amz-ChangedBlocksCount is ${count}; the snapshot has ${snapshot.sizeGib * blocksPerGib} blocks.`,
    );
  if (checksum === undefined) return;
  if (Buffer.from(checksum, 'base64').length !== 32)
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum is not a SHA-256 digest in base64.');
  if (input.ChecksumAlgorithm !== 'SHA256')
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum needs x-amz-Checksum-Algorithm: SHA256.');
  if (input.ChecksumAggregationMethod !== 'LINEAR')
    throw invalid('INVALID_PARAMETER_VALUE', 'x-amz-Checksum needs x-amz-Checksum-Aggregation-Method: LINEAR.');
}
