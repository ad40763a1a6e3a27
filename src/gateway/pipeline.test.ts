import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Call, Principal } from '../aws/call.ts';
import { ManualClock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import { Later, type Operation, operation, type Service } from '../aws/service.ts';
import { Signals } from '../aws/signals.ts';
import { createCloudTrail } from '../cloudtrail/index.ts';
import { DatabaseUnavailable } from '../database/database.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { eventMigrations } from '../events/records.ts';
import { hostPrincipal, rootPrincipal } from '../iam/principals.ts';
import { Pipeline } from './pipeline.ts';
import { waitingPerAccountMax } from './waiting-calls.ts';

const account = '111122223333';
const mine = { action: 'shop:Do', resource: '*', resourceAccount: account };
const event = { source: 'aws.shop', detailType: 'Shop Notification', resources: [], detail: {} };

let database: SqliteDatabase;
let pipeline: Pipeline;
let signals: Signals;
let shop: Service;
const clock = new ManualClock(1_800_000_000_000);

/** What Ponder waits for, and what it was told to drop. */
let thought: PromiseWithResolvers<void>;
let dropped: string[];

const put = (call: Call, item: string) => sql`insert into items values (${item})`.execute(call.db);

const operations: Record<string, Operation> = {
  Put: operation<{ item: string; fail?: boolean }, { item: string }>({
    name: 'Put',
    effect: 'writes',
    access: () => [mine],
    async handle(call, { item, fail }) {
      await put(call, item);
      call.emit(event);
      call.raise('shelf');
      if (fail) throw new AwsError('ShelfBroke', 'The shelf broke.');
      return { item };
    },
    record: (_call, { item }) => ({ requestParameters: { item } }),
  }),
  Order: operation<{ item: string; catches?: boolean; failAfter?: boolean }, object>({
    name: 'Order',
    effect: 'writes',
    access: () => [mine],
    async handle(call, { item, catches, failAfter }) {
      await put(call, 'order');
      try {
        await call.invoke('shop', 'Put', { item, fail: catches });
      } catch (error) {
        if (!catches) throw error;
      }
      if (failAfter) throw new AwsError('OutOfStock', 'Nothing left.');
      return {};
    },
  }),
  Deliver: operation<{ fail?: boolean }, object>({
    name: 'Deliver',
    effect: 'waits',
    access: () => [mine],
    async handle(call, { fail }) {
      await call.transaction((inside) => put(inside, 'parcel'));
      if (fail)
        await call.transaction(async (inside) => {
          await put(inside, 'lost');
          throw new AwsError('Lost', 'Lost on the way.');
        });
      expect(() => call.db).toThrow(/outside a transaction/);
      return {};
    },
  }),
  Errand: operation<object, object>({
    name: 'Errand',
    effect: 'waits',
    access: () => [mine],
    async handle(call) {
      await call.invoke('shop', 'Put', { item: 'bread' });
      await call.invoke('shop', 'Deliver', {});
      const inside = call.transaction((own) => own.invoke('shop', 'Deliver', {}));
      await expect(inside).rejects.toThrow(/can't be invoked inside a transaction/);
      throw new AwsError('Rain', 'Went home.');
    },
  }),
  Unrecordable: operation<{ fail?: boolean }, object>({
    name: 'Unrecordable',
    effect: 'writes',
    access: () => [mine],
    async handle(call, { fail }) {
      await put(call, 'ghost');
      if (fail) throw new AwsError('ShelfBroke', 'The shelf broke.');
      return {};
    },
    record() {
      throw new TypeError('no words');
    },
  }),
  Forbidden: operation({
    name: 'Forbidden',
    effect: 'writes',
    access: () => [{ ...mine, resourceAccount: '999988887777' }],
    handle: (call) => put(call, 'stolen'),
  }),
  Cheer: operation<{ times: number }, object>({
    name: 'Cheer',
    effect: 'writes',
    access: () => [mine],
    handle(call, { times }) {
      for (let i = 0; i < times; i++) call.emit(event);
      return {};
    },
  }),
  Queue: operation<object, object>({
    name: 'Queue',
    effect: 'waits',
    access: () => [mine],
    async handle(call) {
      await call.signals.changed('opened', call.signals.version('opened'), 10_000);
      return {};
    },
  }),
  Ponder: operation<{ item: string }, { item: string }>({
    name: 'Ponder',
    effect: 'reads',
    access: () => [mine],
    handle: (_call, { item }) =>
      new Later(
        async () => {
          await thought.promise;
          if (item === 'stone') throw new AwsError('TooHard', 'It has no answer.');
          return { item };
        },
        () => void dropped.push(item),
      ),
    record: (_call, { item }, output) => ({ requestParameters: { item }, responseElements: output ?? null }),
  }),
  Delegate: operation<{ item: string }, object>({
    name: 'Delegate',
    effect: 'writes',
    access: () => [mine],
    async handle(call, input) {
      const { item } = await call.invoke<{ item: string }>('shop', 'Ponder', input);
      await put(call, item);
      return {};
    },
  }),
  ForHosts: operation({ name: 'ForHosts', effect: 'reads', audience: 'host', access: () => [], handle: () => ({}) }),
  Inner: operation({ name: 'Inner', effect: 'reads', audience: 'service', access: () => [], handle: () => ({}) }),
};

beforeEach(async () => {
  thought = Promise.withResolvers();
  dropped = [];
  database = new SqliteDatabase(':memory:');
  const trail = createCloudTrail();
  await database.run((db) => migrate(db, [...trail.migrations, ...eventMigrations]));
  await database.run((db) => sql`create table items (item text)`.execute(db));
  shop = {
    name: 'shop',
    eventSource: 'shop.amazonaws.com',
    protocol: 'internalJson',
    operations,
    catalogue: {},
    migrations: [],
    accessDenied: (_call, denial) => new AwsError('AccessDenied', denial.reason, { httpStatus: 403 }),
  };
  signals = new Signals();
  pipeline = new Pipeline({ database, services: [shop, trail], clock, signals });
});
afterEach(() => database.close());

const execute = (name: string, input: object = {}, principal: Principal = rootPrincipal(account, 'AKIAEXAMPLE')) =>
  pipeline.execute({
    service: shop,
    operation: operations[name]!,
    input,
    principal,
    audience: principal.type === 'AWSService' ? 'host' : 'account',
    region: 'us-east-1',
    sourceIp: '127.0.0.1',
    isSecure: false,
    userAgent: 'test',
    requestId: 'r-1',
    cancelled: new AbortController().signal,
  });
const items = () =>
  database.run(async (db) =>
    (await sql<{ item: string }>`select item from items`.execute(db)).rows.map((row) => row.item),
  );
const trail = () =>
  database.run(async (db) =>
    (await sql<{ document: string }>`select document from trail_events order by seq`.execute(db)).rows.map(
      (row) => JSON.parse(row.document) as Record<string, unknown>,
    ),
  );
const eventCount = () =>
  database.run(async (db) => (await sql<{ n: number }>`select count(*) as n from bus_events`.execute(db)).rows[0]!.n);

describe('Pipeline', () => {
  it('keeps what a call did, records it and puts its event on the bus', async () => {
    const version = signals.version('shelf');
    expect(await execute('Put', { item: 'apple' })).toEqual({ item: 'apple' });
    expect(await items()).toEqual(['apple']);
    expect(await eventCount()).toBe(1);
    expect(signals.version('shelf')).toBeGreaterThan(version);
    expect(await trail()).toMatchObject([
      {
        eventName: 'Put',
        eventSource: 'shop.amazonaws.com',
        readOnly: false,
        requestID: 'r-1',
        requestParameters: { item: 'apple' },
        eventTime: '2027-01-15T08:00:00Z',
        userIdentity: { type: 'Root', accountId: account, accessKeyId: 'AKIAEXAMPLE' },
      },
    ]);
  });

  it('undoes a call that fails, but keeps its record and its event, and raises no signal', async () => {
    const version = signals.version('shelf');
    await expect(execute('Put', { item: 'apple', fail: true })).rejects.toThrow('The shelf broke.');
    expect(await items()).toEqual([]);
    expect(await eventCount()).toBe(1);
    expect(signals.version('shelf')).toBe(version);
    expect(await trail()).toMatchObject([
      { errorCode: 'ShelfBroke', errorMessage: 'The shelf broke.', responseElements: null },
    ]);
  });

  it('runs a nested call as part of the outer one, and records both as who they were', async () => {
    await execute('Order', { item: 'pear' });
    expect(await items()).toEqual(['order', 'pear']);
    const [inner, outer] = await trail();
    expect(inner).toMatchObject({ eventName: 'Put', sourceIPAddress: 'AWS Internal', userAgent: 'AWS Internal' });
    expect(inner).toMatchObject({ userIdentity: { type: 'Root', invokedBy: 'AWS Internal' } });
    expect(outer).toMatchObject({ eventName: 'Order', sourceIPAddress: '127.0.0.1' });
    expect(inner!.requestID).not.toBe(outer!.requestID);
  });

  it('lets the outer call go on after a nested one failed, without what that one did', async () => {
    await execute('Order', { item: 'pear', catches: true });
    expect(await items()).toEqual(['order']);
  });

  it('undoes nested calls with the outer one, and keeps all their records', async () => {
    await expect(execute('Order', { item: 'pear', failAfter: true })).rejects.toThrow('Nothing left.');
    expect(await items()).toEqual([]);
    expect((await trail()).map((record) => [record.eventName, record.errorCode])).toEqual([
      ['Put', undefined],
      ['Order', 'OutOfStock'],
    ]);
  });

  it('keeps the transactions a waiting call has finished, and undoes only the one that fails', async () => {
    await execute('Deliver');
    await expect(execute('Deliver', { fail: true })).rejects.toThrow('Lost on the way.');
    expect(await items()).toEqual(['parcel', 'parcel']);
    expect((await trail()).map((record) => record.errorCode)).toEqual([undefined, 'Lost']);
  });

  it('lets a waiting call invoke others, each a call of its own that stays done', async () => {
    await expect(execute('Errand')).rejects.toThrow('Went home.');
    expect(await items()).toEqual(['bread', 'parcel']);
    expect((await trail()).map((record) => record.eventName)).toEqual(['Put', 'Deliver', 'Errand']);
  });

  it('undoes what it can not record, and records every failure', async () => {
    await expect(execute('Unrecordable')).rejects.toThrow('no words');
    await expect(execute('Unrecordable', { fail: true })).rejects.toThrow('The shelf broke.');
    expect(await items()).toEqual([]);
    expect((await trail()).map((record) => record.errorCode)).toEqual(['InternalFailure', 'ShelfBroke']);
  });

  it('refuses before the operation runs, and records the refusal', async () => {
    await expect(execute('Forbidden')).rejects.toMatchObject({ code: 'AccessDenied' });
    expect(await items()).toEqual([]);
    expect(await trail()).toMatchObject([{ eventName: 'Forbidden', errorCode: 'AccessDenied' }]);
  });

  it("opens hosts' operations to hosts only, and services' to no one outside", async () => {
    const host = hostPrincipal(account, 'local', 'AKIAHOST');
    await expect(execute('ForHosts')).rejects.toMatchObject({ code: 'AccessDeniedException' });
    expect(await execute('ForHosts', {}, host)).toEqual({});
    await expect(execute('Put', { item: 'x' }, host)).rejects.toMatchObject({ code: 'AccessDeniedException' });
    await expect(execute('Inner')).rejects.toMatchObject({ code: 'AccessDeniedException' });
    await expect(execute('Inner', {}, host)).rejects.toMatchObject({ code: 'AccessDeniedException' });
    expect(await items()).toEqual([]);
    expect((await trail()).map((record) => [record.eventName, record.errorCode])).toEqual([
      ['ForHosts', 'AccessDeniedException'],
      ['ForHosts', undefined],
      ['Put', 'AccessDeniedException'],
      ['Inner', 'AccessDeniedException'],
      ['Inner', 'AccessDeniedException'],
    ]);
  });

  it('lets one account have so many calls that wait, and no more, whatever others do', async () => {
    const waiting = Array.from({ length: waitingPerAccountMax }, () => execute('Queue'));
    await expect(execute('Queue')).rejects.toMatchObject({ code: 'ThrottlingException' });
    expect(await execute('Put', { item: 'apple' })).toEqual({ item: 'apple' });
    const neighbour = execute('Queue', {}, rootPrincipal('999988887777', 'AKIANEIGHBOUR'));
    await database.durable();
    signals.raise('opened');
    await expect(neighbour).rejects.toMatchObject({ code: 'AccessDenied' });
    await Promise.all(waiting);
    const again = execute('Queue');
    await database.durable();
    signals.raise('opened');
    expect(await again).toEqual({});
    expect((await trail()).filter((record) => record.errorCode === 'ThrottlingException')).toHaveLength(1);
  });

  it('lets others have the database while an operation works on its answer, and records it when it is done', async () => {
    const first = execute('Ponder', { item: 'apple' });
    const second = execute('Ponder', { item: 'stone' });
    expect(await execute('Put', { item: 'pear' })).toEqual({ item: 'pear' });
    expect((await trail()).map((record) => record.eventName)).toEqual(['Put']);
    thought.resolve();
    expect(await first).toEqual({ item: 'apple' });
    await expect(second).rejects.toThrow('It has no answer.');
    expect(await trail()).toMatchObject([
      { eventName: 'Put' },
      { eventName: 'Ponder', readOnly: true, responseElements: { item: 'apple' } },
      { eventName: 'Ponder', requestParameters: { item: 'stone' }, errorCode: 'TooHard' },
    ]);
  });

  it('gives no answer that it can not record', async () => {
    const asked = execute('Ponder', { item: 'apple' });
    await execute('Put', { item: 'pear' });
    await database.durable();
    await database.run((db) => sql`alter table trail_events rename to elsewhere`.execute(db));
    await database.durable();
    thought.resolve();
    await expect(asked).rejects.toThrow(DatabaseUnavailable);
    await database.run((db) => sql`alter table elsewhere rename to trail_events`.execute(db));
  });

  it('waits for such an answer inside of another call', async () => {
    thought.resolve();
    expect(await execute('Delegate', { item: 'apple' })).toEqual({});
    await expect(execute('Delegate', { item: 'stone' })).rejects.toThrow('It has no answer.');
    expect(await items()).toEqual(['apple']);
    expect((await trail()).map((record) => [record.eventName, record.errorCode])).toEqual([
      ['Ponder', undefined],
      ['Delegate', undefined],
      ['Ponder', 'TooHard'],
      ['Delegate', 'TooHard'],
    ]);
  });

  it('drops what is too much for one account, and says so', async () => {
    const asked = Array.from({ length: waitingPerAccountMax }, () => execute('Ponder', { item: 'apple' }));
    await execute('Put', { item: 'pear' });
    await expect(execute('Ponder', { item: 'plum' })).rejects.toMatchObject({ code: 'ThrottlingException' });
    expect(dropped).toEqual(['plum']);
    thought.resolve();
    await Promise.all(asked);
    expect(await execute('Ponder', { item: 'plum' })).toEqual({ item: 'plum' });
  });

  it('puts any number of events on the bus', async () => {
    await execute('Cheer', { times: 10_000 });
    expect(await eventCount()).toBe(10_000);
  });

  it('keeps no event or record of a group that could not be written', async () => {
    await database.run((db) => sql`alter table trail_events rename to elsewhere`.execute(db));
    await database.durable();
    await expect(execute('Put', { item: 'apple' })).rejects.toThrow(DatabaseUnavailable);
    await database.run((db) => sql`alter table elsewhere rename to trail_events`.execute(db));
    await execute('Order', { item: 'pear', catches: true });
    expect(await items()).toEqual(['order']);
    expect((await trail()).map((record) => record.eventName)).toEqual(['Put', 'Order']);
    expect(await eventCount()).toBe(1);
  });
});
