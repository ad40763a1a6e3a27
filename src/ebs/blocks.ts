/** GetSnapshotBlock and PutSnapshotBlock. Source: EBS API reference. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type {
  GetSnapshotBlockRequest,
  GetSnapshotBlockResponse,
  PutSnapshotBlockRequest,
  PutSnapshotBlockResponse,
} from '@aws-sdk/client-ebs';
import type { DirectSnapshot } from '../aws/direct-snapshots.ts';
import { operation } from '../aws/service.ts';
import { sealDigest } from '../crypto/block-digest.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { Activity } from './activity.ts';
import type { BlockBroker } from './block-broker.ts';
import { digestKeyOf } from './digests.ts';
import { invalid } from './errors.ts';
import {
  allowOnSnapshot,
  askHost,
  blockBytes,
  findSnapshot,
  requireCompleted,
  requireIndex,
  requireOpen,
} from './snapshots.ts';
import type { Tokens } from './tokens.ts';

export function blockOperations(broker: BlockBroker, tokens: Tokens, rootKey: RootKey) {
  return [getSnapshotBlock(broker, tokens), putSnapshotBlock(broker, rootKey)];
}

function getSnapshotBlock(broker: BlockBroker, tokens: Tokens) {
  return operation<GetSnapshotBlockRequest, GetSnapshotBlockResponse, DirectSnapshot>({
    name: 'GetSnapshotBlock',
    effect: 'waits',
    readOnly: true,
    recorded: false,
    resolve: (call, input) => findSnapshot(call, input.SnapshotId),
    access: (call, _input, snapshot) => [allowOnSnapshot(call, 'GetSnapshotBlock', snapshot)],
    async handle(call, { BlockIndex: index, BlockToken: token }, snapshot) {
      requireCompleted(snapshot);
      requireIndex(index, snapshot);
      const { SnapshotId: snapshotId } = snapshot;
      const subject = { kind: 'block', account: call.account, snapshots: snapshotId } as const;
      if (!token || tokens.read(subject, token, call.clock.now()) !== index)
        throw invalid(
          'INVALID_BLOCK_TOKEN',
          `The block token is not one that was given out for block ${index} of '${snapshotId}', or has expired.`,
        );
      const what = `Block ${index} of snapshot '${snapshotId}'`;
      const answer = await askHost(call, broker, snapshot, { kind: 'getBlock', snapshotId, index }, what, {
        needsKey: true,
      });
      return {
        DataLength: blockBytes,
        // The SDK types what a client reads, a stream; the gateway writes bytes.
        BlockData: Buffer.from(answer.data, 'base64') as never,
        Checksum: answer.sha256,
        ChecksumAlgorithm: 'SHA256',
      };
    },
  });
}

function putSnapshotBlock(broker: BlockBroker, rootKey: RootKey) {
  const activity = new Activity();
  return operation<PutSnapshotBlockRequest, PutSnapshotBlockResponse, DirectSnapshot>({
    name: 'PutSnapshotBlock',
    effect: 'waits',
    recorded: false,
    takesUnsignedBody: true,
    resolve: (call, input) => findSnapshot(call, input.SnapshotId),
    access: (call, _input, snapshot) => [allowOnSnapshot(call, 'PutSnapshotBlock', snapshot)],
    async handle(call, input, snapshot) {
      requireOpen(snapshot);
      const { BlockIndex: index } = input;
      requireIndex(index, snapshot);
      const { SnapshotId: snapshotId } = snapshot;
      const data = checkedData(input);
      const sha256 = input.Checksum!;
      const what = `Block ${index} of snapshot '${snapshotId}'`;
      const request = {
        kind: 'putBlock',
        snapshotId,
        index,
        data: data.toString('base64'),
        sha256,
        ...sealedDigest(rootKey, snapshot, index, sha256),
      } as const;
      await askHost(call, broker, snapshot, request, what, { needsKey: true });
      await activity.note(call, snapshotId, input.Progress);
      return { Checksum: sha256, ChecksumAlgorithm: 'SHA256' };
    },
  });
}

function sealedDigest(rootKey: RootKey, snapshot: DirectSnapshot, index: number, sha256: string) {
  const key = digestKeyOf(rootKey, snapshot);
  if (!key) return {};
  try {
    return { sealedSha256: sealDigest(key, index, Buffer.from(sha256, 'base64')).toString('base64') };
  } finally {
    key.fill(0);
  }
}

/** @throws {AwsError} ValidationException unless length and checksum are those of the body */
function checkedData(input: PutSnapshotBlockRequest): Buffer {
  const { DataLength: length, Checksum: checksum, ChecksumAlgorithm: algorithm, Progress: progress } = input;
  if (length !== blockBytes)
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `x-amz-Data-Length is ${length ?? 'missing'}; a block has ${blockBytes} bytes.`,
    );
  if (algorithm !== 'SHA256')
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `x-amz-Checksum-Algorithm is ${algorithm === undefined ? 'missing' : `'${algorithm}'`}; it must be SHA256.`,
    );
  if (progress !== undefined && (progress < 0 || progress > 100))
    throw invalid('INVALID_PARAMETER_VALUE', `x-amz-Progress is ${progress}; it is a percentage.`);
  const data = (input.BlockData as unknown as Buffer | undefined) ?? Buffer.alloc(0);
  if (data.length !== length)
    throw invalid('INVALID_PARAMETER_VALUE', `The body has ${data.length} bytes, not ${length}.`);
  const given = Buffer.from(checksum ?? '', 'base64');
  const actual = createHash('sha256').update(data).digest();
  if (given.length !== actual.length || !timingSafeEqual(given, actual))
    throw invalid('INVALID_PARAMETER_VALUE', `x-amz-Checksum is not the SHA-256 of the block's data.`);
  return data;
}
