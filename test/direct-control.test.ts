/** EBS direct in the control plane: what becomes of a request when the snapshot ends under it, and how many may be begun. */
import { hash } from 'node:crypto';
import { expect, test } from 'vitest';
import type { BlockRequest, TakeBlockRequestsResponse } from '../src/aws/block-protocol.ts';
import { SealedBoxKey } from '../src/crypto/sealed-box.ts';
import { hostPrincipal } from '../src/iam/principals.ts';
import { eachInItsWorld, until } from './support/snapshots.ts';
import { account, type Caller, otherAccount, stranger } from './support/world.ts';

const w = eachInItsWorld();
const asHost: Caller = { principal: hostPrincipal(account, 'local', 'AKIAHOST'), audience: 'host' };

/** As if each snapshot had two blocks, and more on another page. */
const answers: { readonly [Kind in BlockRequest['kind']]?: object } = {
  listBlocks: { indexes: [0, 1], next: 5 },
  listChangedBlocks: { blocks: [{ index: 0, inFirst: true, inSecond: true }], next: 5 },
  getBlock: { data: 'AAAA', sha256: 'x' },
  completeUpload: { blocks: 0, fullBytes: 0, storedBytes: 0 },
};

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
        const answer = answers[request.kind] ?? {};
        await world.call('coffer-host', 'AnswerBlockRequest', { ...session, requestId, answer }, asHost);
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

test('StartSnapshot without any host is to be tried again, and begins nothing', async () => {
  const { world, host } = w.current;
  await host.stop();
  world.clock.advance(24 * 3600_000);
  await expect(start()).rejects.toMatchObject({ code: 'InternalServerException', httpStatus: 503 });
  expect(await w.current.found({ OwnerIds: ['self'] })).toEqual([]);
});

test('what StartSnapshot began before its client or the server went away is taken up when it is asked again', async () => {
  const { world } = w.current;
  const gone = new AbortController();
  const input = { ClientToken: 'once' };
  // No host takes requests for blocks yet.
  const first = start(input, { cancelled: gone.signal }).catch((error) => error);
  await until(async () => (await w.current.found({ OwnerIds: ['self'] })).length === 1);
  gone.abort();
  expect(await first).toBeInstanceOf(Error);
  const [begun] = await w.current.found({ OwnerIds: ['self'] });
  await using host = blockHost();
  expect(await start(input)).toBe(begun);
  expect(host.seen).toMatchObject([{ kind: 'startUpload', snapshotId: begun }]);
  expect((await w.current.describe(begun!)).State).toBe('pending');
  // As often as one likes; when there is nothing to begin any more, no host is asked.
  expect(await start(input)).toBe(begun);
  await world.call('ebs', 'CompleteSnapshot', { SnapshotId: begun, ChangedBlocksCount: 0 });
  const asked = host.seen.length;
  expect(await start(input)).toBe(begun);
  await world.ec2('DeleteSnapshot', { SnapshotId: begun });
  expect(await start(input)).toBe(begun);
  expect(host.seen).toHaveLength(asked);
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

test('to another account, and in another region, a snapshot is what does not exist', async () => {
  const { world } = w.current;
  await using host = blockHost();
  const stored = await w.current.stored();
  const open = await start();
  const data = Buffer.alloc(512 * 1024);
  const block = { BlockIndex: 0, BlockData: data, DataLength: data.length, ChecksumAlgorithm: 'SHA256' };
  const { Blocks } = await world.call('ebs', 'ListSnapshotBlocks', { SnapshotId: stored });
  const BlockToken = Blocks[0].BlockToken;
  const requests = (SnapshotId: string, own: string): ReadonlyArray<[string, object]> => [
    ['ListSnapshotBlocks', { SnapshotId }],
    ['ListChangedBlocks', { FirstSnapshotId: SnapshotId, SecondSnapshotId: own }],
    ['ListChangedBlocks', { FirstSnapshotId: own, SecondSnapshotId: SnapshotId }],
    ['GetSnapshotBlock', { SnapshotId, BlockIndex: 0, BlockToken }],
    ['PutSnapshotBlock', { ...block, SnapshotId, Checksum: hash('sha256', data, 'base64') }],
    ['CompleteSnapshot', { SnapshotId, ChangedBlocksCount: 0 }],
    ['StartSnapshot', { VolumeSize: 1, ParentSnapshotId: SnapshotId }],
  ];
  const outcome = (work: Promise<unknown>) =>
    work.then(
      () => 'succeeded',
      (error) => `${error.code} ${error.httpStatus} ${JSON.stringify(error.members)}: ${error.message}`,
    );
  const nowhere = 'snap-00000000000000000';
  for (const caller of [stranger, { region: 'eu-west-1' }]) {
    const own = await w.current.stored({}, caller);
    const before = host.seen.length;
    for (const theirs of [stored, open])
      for (const [index, [operation, input]] of requests(theirs, own).entries()) {
        const there = await outcome(world.call('ebs', operation, input, caller));
        const missing = await outcome(world.call('ebs', operation, requests(nowhere, own)[index]![1], caller));
        expect(there.replaceAll(theirs, nowhere)).toBe(missing);
        expect(there).toMatch(/^ResourceNotFoundException 404 /);
      }
    expect(host.seen).toHaveLength(before);
  }
});

test('tokens are good for the account and the list that they were given out for, as long as that may read the snapshot', async () => {
  const { world } = w.current;
  await using _host = blockHost();
  const volume = await w.current.volume();
  const [first, second] = [await w.current.snapshot(volume), await w.current.snapshot(volume)];
  const share = (change: string) =>
    Promise.all(
      [first, second].map((SnapshotId) =>
        world.ec2('ModifySnapshotAttribute', {
          SnapshotId,
          CreateVolumePermission: { [change]: [{ UserId: otherAccount }] },
        }),
      ),
    );
  const list = (SnapshotId: string, caller: Caller = {}, more = {}) =>
    world.call('ebs', 'ListSnapshotBlocks', { SnapshotId, ...more }, caller);
  const changed = (caller: Caller = {}, more = {}) =>
    world.call('ebs', 'ListChangedBlocks', { FirstSnapshotId: first, SecondSnapshotId: second, ...more }, caller);
  const get = (SnapshotId: string, BlockToken: string, caller: Caller = {}, BlockIndex = 0) =>
    world.call('ebs', 'GetSnapshotBlock', { SnapshotId, BlockIndex, BlockToken }, caller);
  const [badToken, badPage] = ['INVALID_BLOCK_TOKEN', 'INVALID_PAGE_TOKEN'].map((Reason) => ({
    code: 'ValidationException',
    members: { Reason },
  }));
  await share('Add');
  const mine = await list(first);
  const theirs = await list(first, stranger);
  const pair = await changed(stranger);
  const [block, page] = [theirs.Blocks[0].BlockToken, theirs.NextToken];
  await get(first, block, stranger);
  await get(second, pair.ChangedBlocks[0].SecondBlockToken, stranger);
  await expect(get(first, mine.Blocks[0].BlockToken, stranger)).rejects.toMatchObject(badToken!);
  await expect(get(first, block)).rejects.toMatchObject(badToken!);
  await expect(get(first, block, stranger, 1)).rejects.toMatchObject(badToken!);
  await expect(get(second, block, stranger)).rejects.toMatchObject(badToken!);
  await expect(get(first, page, stranger, 5)).rejects.toMatchObject(badToken!);
  await expect(list(first, {}, { NextToken: page })).rejects.toMatchObject(badPage!);
  await expect(list(second, stranger, { NextToken: page })).rejects.toMatchObject(badPage!);
  await expect(list(first, stranger, { NextToken: block })).rejects.toMatchObject(badPage!);
  await expect(changed(stranger, { NextToken: page })).rejects.toMatchObject(badPage!);
  await expect(changed({}, { NextToken: pair.NextToken })).rejects.toMatchObject(badPage!);
  await share('Remove');
  const gone = { code: 'ResourceNotFoundException' };
  await expect(get(first, block, stranger)).rejects.toMatchObject(gone);
  await expect(list(first, stranger, { NextToken: page })).rejects.toMatchObject(gone);
  await expect(changed(stranger, { NextToken: pair.NextToken })).rejects.toMatchObject(gone);
  await share('Add');
  await get(first, block, stranger);
  world.clock.advance(7 * 24 * 3600_000);
  await expect(get(first, block, stranger)).rejects.toMatchObject(badToken!);
  await world.ec2('DeleteSnapshot', { SnapshotId: first });
  await expect(get(first, mine.Blocks[0].BlockToken)).rejects.toMatchObject(gone);
});
