import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import type { TakeBlockRequestsRequest } from '../aws/block-protocol.ts';
import { SealedBoxKey } from '../crypto/sealed-box.ts';
import { BlockBroker } from './block-broker.ts';

const account = '111122223333';
const cancelled = new AbortController().signal;
const list = { kind: 'listBlocks', snapshotId: 'snap-1', from: 0, count: 1 } as const;
const put = (index: number) => ({ kind: 'putBlock', snapshotId: 'snap-1', index, data: '', sha256: '' }) as const;

/** A process of host `h`. */
function session(broker: BlockBroker, sessionId: string) {
  const key = new SealedBoxKey();
  const take = (waitMs = 1000, more: Partial<TakeBlockRequestsRequest> = {}) =>
    broker.take(
      { hostId: 'h', sessionId, publicKey: key.publicKey.toString('base64'), max: 32, underWay: [], ...more },
      waitMs,
      cancelled,
    );
  return { key, take };
}

test('a request waits for a host, and its answer comes back', async () => {
  const broker = new BlockBroker();
  const host = session(broker, 'one');
  const asked = broker.request('h', list, { account, cancelled });
  const [taken] = await host.take();
  expect(taken!.request).toEqual(list);
  broker.answer('h', taken!.requestId, { indexes: [7] }, undefined);
  expect(await asked).toEqual({ indexes: [7] });
  // Said again, or about nothing, it does no harm.
  broker.answer('h', taken!.requestId, { indexes: [8] }, undefined);
  broker.answer('nobody', 'x', undefined, { code: 'Internal', message: '' });
  expect(await host.take(10)).toEqual([]);
});

test('a host that waits is woken by a request; errors come back as they are', async () => {
  const broker = new BlockBroker();
  const taking = session(broker, 'one').take(10_000);
  const asked = broker.request('h', list, { account, cancelled });
  const [taken] = await taking;
  broker.answer('h', taken!.requestId, undefined, { code: 'Corrupt', message: 'block 1 is damaged' });
  await expect(asked).rejects.toMatchObject({ code: 'Corrupt', message: 'block 1 is damaged' });
});

test('a data key goes to the session that takes it, and to no other', async () => {
  const broker = new BlockBroker();
  const first = session(broker, 'one');
  const dataKey = randomBytes(64);
  const waiting = first.take();
  const get = { kind: 'getBlock', snapshotId: 'snap-1', index: 0 } as const;
  const asked = broker.request('h', get, { account, dataKey, cancelled });
  const [taken] = await waiting.then((some) => (some.length > 0 ? some : first.take()));
  const { dataKey: sealed } = taken!.request as { dataKey: string };
  expect(first.key.open(Buffer.from(sealed, 'base64'), 'snap-1')).toEqual(dataKey);
  // The next process can't open it: whoever waits is told at once.
  const later = broker.request('h', get, { account, dataKey, cancelled });
  const [one, two] = await Promise.allSettled([asked, later, session(broker, 'two').take(10)]);
  expect(one).toMatchObject({ status: 'rejected', reason: { code: 'OtherSession' } });
  expect(two).toMatchObject({ status: 'rejected', reason: { code: 'OtherSession' } });
});

test('what a host took and never got is taken again', async () => {
  const broker = new BlockBroker();
  const host = session(broker, 'one');
  const asked = broker.request('h', list, { account, cancelled });
  const [lost] = await host.take();
  const [again] = await host.take();
  expect(again).toEqual(lost);
  expect(await host.take(10, { underWay: [again!.requestId] })).toEqual([]);
  broker.answer('h', again!.requestId, { indexes: [] }, undefined);
  expect(await asked).toEqual({ indexes: [] });
});

test('only so many blocks go in one answer, only so many requests wait', async () => {
  const broker = new BlockBroker();
  const host = session(broker, 'one');
  const asked = Array.from({ length: 256 }, (_, index) => broker.request('h', put(index), { account, cancelled }));
  await expect(broker.request('h', list, { account, cancelled })).rejects.toMatchObject({ code: 'TooMany' });
  const seen: number[] = [];
  while (seen.length < 256) {
    const taken = await host.take();
    expect(taken.length).toBeLessThanOrEqual(8);
    for (const { requestId, request } of taken) {
      seen.push((request as { index: number }).index);
      broker.answer('h', requestId, {}, undefined);
    }
  }
  await Promise.all(asked);
  expect(seen).toEqual(Array.from({ length: 256 }, (_, index) => index));
});

test('a client that goes takes its request with it', async () => {
  const broker = new BlockBroker();
  const client = new AbortController();
  const asked = broker.request('h', list, { account, cancelled: client.signal });
  client.abort();
  await expect(asked).rejects.toMatchObject({ code: 'Cancelled' });
  expect(await session(broker, 'one').take(10)).toEqual([]);
});

test('what a client asks that has gone already waits for no host', async () => {
  const broker = new BlockBroker();
  const asked = broker.request('h', list, { account, cancelled: AbortSignal.abort() });
  await expect(asked).rejects.toMatchObject({ code: 'Cancelled' });
  expect(await session(broker, 'one').take(1)).toEqual([]);
});

test('accounts take turns: one that asks for everything keeps nobody else waiting, and out of the line', async () => {
  const broker = new BlockBroker();
  const host = session(broker, 'one');
  const ask = (account: string, index: number) => broker.request('h', { ...put(index) }, { account, cancelled });
  const greedy = Array.from({ length: 256 }, (_, index) => ask('greedy', index));
  const outcome = Promise.allSettled(greedy);
  const modest = [ask('modest', 1000), ask('modest', 1001)];
  const other = ask('other', 2000);
  const [taken] = [await host.take()];
  expect(taken.map(({ request }) => (request as { index: number }).index)).toEqual([0, 1000, 2000, 1, 1001, 2, 3, 4]);
  for (const { requestId } of taken) broker.answer('h', requestId, {}, undefined);
  await Promise.all([...modest, other]);
  for (let left = 253 - 5; left > 0; ) {
    const more = await host.take();
    for (const { requestId } of more) broker.answer('h', requestId, {}, undefined);
    left -= more.length;
  }
  const refused = (await outcome).flatMap((one, index) =>
    one.status === 'rejected' ? [[index, one.reason.code]] : [],
  );
  expect(refused).toEqual([253, 254, 255].map((index) => [index, 'TooMany']));
});
