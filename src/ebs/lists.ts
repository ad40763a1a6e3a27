/** ListSnapshotBlocks and ListChangedBlocks. Source: EBS API reference. */
import type {
  ListChangedBlocksRequest,
  ListChangedBlocksResponse,
  ListSnapshotBlocksRequest,
  ListSnapshotBlocksResponse,
} from '@aws-sdk/client-ebs';
import type { Call } from '../aws/call.ts';
import type { DirectSnapshot } from '../aws/direct-snapshots.ts';
import { operation } from '../aws/service.ts';
import type { BlockBroker } from './block-broker.ts';
import { invalid } from './errors.ts';
import { allowOnSnapshot, askHost, blockBytes, findSnapshot, requireCompleted } from './snapshots.ts';
import { type Tokens, tokenLifeMs } from './tokens.ts';

/** Fewer than the first are asked for in vain. Source: EBS user guide, "Frequently asked questions for EBS direct APIs". */
const resultsMin = 100;
const resultsMax = 10_000;

interface Page {
  readonly from: number;
  readonly count: number;
}

export function listOperations(broker: BlockBroker, tokens: Tokens) {
  return [listSnapshotBlocks(broker, tokens), listChangedBlocks(broker, tokens)];
}

function listSnapshotBlocks(broker: BlockBroker, tokens: Tokens) {
  return operation<ListSnapshotBlocksRequest, ListSnapshotBlocksResponse, DirectSnapshot>({
    name: 'ListSnapshotBlocks',
    effect: 'waits',
    readOnly: true,
    recorded: false,
    resolve: (call, input) => findSnapshot(call, input.SnapshotId),
    access: (call, _input, snapshot) => [allowOnSnapshot(call, 'ListSnapshotBlocks', snapshot)],
    async handle(call, input, snapshot) {
      requireCompleted(snapshot);
      const { SnapshotId: snapshotId } = snapshot;
      const page = readPage(call, input, tokens, snapshotId);
      const request = { kind: 'listBlocks', snapshotId, ...page } as const;
      const answer = await askHost(call, broker, snapshot, request, `The list of blocks of ${snapshotId}`);
      const expiresAt = call.clock.now() + tokenLifeMs;
      const subject = { kind: 'block', account: call.account, snapshots: snapshotId } as const;
      return {
        Blocks: answer.indexes.map((index) => ({
          BlockIndex: index,
          BlockToken: tokens.make(subject, index, expiresAt),
        })),
        ...pageEnd(call, tokens, snapshot, snapshotId, expiresAt, answer.next),
      };
    },
  });
}

interface Pair {
  readonly first: DirectSnapshot;
  readonly second: DirectSnapshot;
}

function listChangedBlocks(broker: BlockBroker, tokens: Tokens) {
  return operation<ListChangedBlocksRequest, ListChangedBlocksResponse, Pair>({
    name: 'ListChangedBlocks',
    effect: 'waits',
    readOnly: true,
    recorded: false,
    async resolve(call, input) {
      if (!input.FirstSnapshotId)
        throw invalid('INVALID_PARAMETER_VALUE', 'FirstSnapshotId is missing: SecondSnapshotId is compared with it.');
      return {
        first: await findSnapshot(call, input.FirstSnapshotId),
        second: await findSnapshot(call, input.SecondSnapshotId),
      };
    },
    access: (call, _input, { first, second }) => [
      allowOnSnapshot(call, 'ListChangedBlocks', first),
      allowOnSnapshot(call, 'ListChangedBlocks', second),
    ],
    async handle(call, input, { first, second }) {
      requireCompleted(first);
      requireCompleted(second);
      if (first.Family !== second.Family)
        throw invalid(
          'UNRELATED_SNAPSHOTS',
          `The snapshots '${first.SnapshotId}' and '${second.SnapshotId}' are not of the same volume or lineage.`,
        );
      const both = `${first.SnapshotId},${second.SnapshotId}`;
      const page = readPage(call, input, tokens, both);
      const answer = await askHost(
        call,
        broker,
        second,
        {
          kind: 'listChangedBlocks',
          firstSnapshotId: first.SnapshotId,
          secondSnapshotId: second.SnapshotId,
          ...page,
        },
        `The list of blocks changed between ${first.SnapshotId} and ${second.SnapshotId}`,
      );
      const expiresAt = call.clock.now() + tokenLifeMs;
      const tokenOf = (snapshot: DirectSnapshot, index: number) =>
        tokens.make({ kind: 'block', account: call.account, snapshots: snapshot.SnapshotId }, index, expiresAt);
      return {
        ChangedBlocks: answer.blocks.map(({ index, inFirst, inSecond }) => ({
          BlockIndex: index,
          ...(inFirst ? { FirstBlockToken: tokenOf(first, index) } : {}),
          ...(inSecond ? { SecondBlockToken: tokenOf(second, index) } : {}),
        })),
        ...pageEnd(call, tokens, second, both, expiresAt, answer.next),
      };
    },
  });
}

/** @throws {AwsError} ValidationException */
function readPage(
  call: Call,
  input: { NextToken?: string | undefined; StartingBlockIndex?: number | undefined; MaxResults?: number | undefined },
  tokens: Tokens,
  snapshots: string,
): Page {
  const { MaxResults: results = resultsMax, NextToken: token, StartingBlockIndex: start = 0 } = input;
  if (results < 0 || results > resultsMax)
    throw invalid(
      'INVALID_PARAMETER_VALUE',
      `MaxResults is ${results}; it can be from ${resultsMin} to ${resultsMax}.`,
    );
  const count = Math.max(results, resultsMin);
  if (token !== undefined) {
    const from = tokens.read({ kind: 'page', account: call.account, snapshots }, token, call.clock.now());
    if (from === undefined)
      throw invalid(
        'INVALID_PAGE_TOKEN',
        'The page token is not one that was given out for this list, or has expired.',
      );
    return { from, count };
  }
  if (start < 0) throw invalid('INVALID_PARAMETER_VALUE', `StartingBlockIndex is ${start}; it can't be negative.`);
  return { from: start, count };
}

function pageEnd(
  call: Call,
  tokens: Tokens,
  snapshot: DirectSnapshot,
  snapshots: string,
  expiresAt: number,
  next: number | undefined,
) {
  return {
    ExpiryTime: new Date(expiresAt),
    VolumeSize: snapshot.VolumeSize,
    BlockSize: blockBytes,
    ...(next === undefined
      ? {}
      : { NextToken: tokens.make({ kind: 'page', account: call.account, snapshots }, next, expiresAt) }),
  };
}
