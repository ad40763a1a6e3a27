/** EBS direct in the control plane: what becomes of a request when the snapshot ends under it, and how many may be begun. */
import { hash } from 'node:crypto';
import { expect, test } from 'vitest';
import type { BlockRequest, TakeBlockRequestsResponse } from '../src/aws/block-protocol.ts';
import { SealedBoxKey } from '../src/crypto/sealed-box.ts';
import { hostPrincipal } from '../src/iam/principals.ts';
import { eachInItsWorld } from './support/snapshots.ts';
import { account, type Caller, stranger } from './support/world.ts';

const w = eachInItsWorld();
const asHost: Caller = { principal: hostPrincipal(account, 'local', 'AKIAHOST'), audience: 'host' };

/** Answers every request for blocks, until `stop`. */
function blockHost() {
  const { world } = w.current;
  const seen: BlockRequest[] = [];
  const stop = new AbortController();
  const session = { hostId: 'local', sessionId: 'one', underWay: [] };
  const publicKey = new SealedBoxKey().publicKey.toString('base64');
  const running = (async () => {
    while (!stop.signal.aborted) {
      const { requests }: TakeBlockRequestsResponse = await world.call(
        'coffer-host',
        'TakeBlockRequests',
        { ...session, publicKey, max: 32 },
        { ...asHost, cancelled: stop.signal },
      );
      for (const { requestId, request } of requests) {
        seen.push('data' in request ? { ...request, data: '' } : request);
        await world.call('coffer-host', 'AnswerBlockRequest', { ...session, requestId, answer: {} }, asHost);
      }
    }
  })();
  return {
    seen,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

const start = async (input: object = {}, caller: Caller = {}): Promise<string> =>
  (await w.current.world.call('ebs', 'StartSnapshot', { VolumeSize: 1, ...input }, caller)).SnapshotId;

test('no block of an encrypted snapshot goes to a host without the key, not even when it fails at that very moment', async () => {
  const { world } = w.current;
  await using host = blockHost();
  const data = Buffer.alloc(512 * 1024, 7);
  const block = { BlockIndex: 0, BlockData: data, DataLength: data.length, ChecksumAlgorithm: 'SHA256' };
  for (let turns = 0; turns < 12; turns++) {
    const SnapshotId = await start({ Encrypted: true });
    const putting = world
      .call('ebs', 'PutSnapshotBlock', { ...block, SnapshotId, Checksum: hash('sha256', data, 'base64') })
      .catch((error) => error);
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    await world.database.run((db) =>
      db
        .updateTable('ec2_snapshots')
        .set({ state: 'error', encrypted_data_key: null })
        .where('snapshot_id', '=', SnapshotId)
        .execute(),
    );
    await putting;
  }
  const puts = host.seen.filter(({ kind }) => kind === 'putBlock') as Array<{ dataKey?: string }>;
  expect(puts.filter(({ dataKey }) => !dataKey)).toHaveLength(0);
});

test('an account can have 100 snapshots begun at a time, wherever; the hundred and first is refused', async () => {
  await using host = blockHost();
  const ids = [];
  for (let n = 0; n < 100; n++) ids.push(await start({}, { region: n % 2 ? 'us-east-1' : `here-${n}` }));
  const refusal = { code: 'ServiceQuotaExceededException', members: { Reason: 'DEPENDENCY_SERVICE_QUOTA_EXCEEDED' } };
  await expect(start()).rejects.toMatchObject(refusal);
  await expect(start({}, { region: 'elsewhere-1' })).rejects.toMatchObject(refusal);
  await start({}, stranger);
  await w.current.world.ec2('DeleteSnapshot', { SnapshotId: ids[1] });
  await start();
  expect(host.seen.filter(({ kind }) => kind === 'startUpload')).toHaveLength(102);
});
