import type { Event, LookupEventsCommandInput, LookupEventsCommandOutput } from '@aws-sdk/client-cloudtrail';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Principal } from '../aws/call.ts';
import { ManualClock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import { type Operation, operation, type Service } from '../aws/service.ts';
import { Signals } from '../aws/signals.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { Pipeline } from '../gateway/pipeline.ts';
import { createCloudTrail } from './index.ts';
import type { TrailTables } from './records.ts';

const account = '111122223333';
const other = '444455556666';
const second = 1000;
const day = 24 * 3600 * second;
/** Places in the trail only grow within a process, so each test has times of its own. */
let start = Date.UTC(2026, 0, 31, 12);

let database: SqliteDatabase;
let pipeline: Pipeline;
let clock: ManualClock;
const trail = createCloudTrail();

interface Item {
  readonly shelf: string;
  readonly fail?: boolean;
}

function shopOperation(name: string, effect: 'reads' | 'writes'): Operation {
  return operation<Item, object>({
    name,
    effect,
    access: () => [],
    handle(_call, { shelf, fail }) {
      if (fail) throw new AwsError('OutOfStock', `Nothing left. Shelf: ${shelf}`);
      return {};
    },
    record: (call, { shelf }) => ({
      requestParameters: { shelf },
      resources: [
        { ARN: `arn:aws:shop:us-east-1:${call.account}:shelf/${shelf}`, accountId: call.account, type: 'Shop::Shelf' },
      ],
    }),
  });
}

const shop: Service = {
  name: 'shop',
  eventSource: 'shop.amazonaws.com',
  protocol: 'internalJson',
  operations: { Put: shopOperation('Put', 'writes'), Look: shopOperation('Look', 'reads') },
  catalogue: {},
  migrations: [],
  accessDenied: () => new AwsError('AccessDenied', 'no'),
};

beforeEach(async () => {
  database = new SqliteDatabase(':memory:');
  start += 100 * day;
  clock = new ManualClock(start);
  pipeline = new Pipeline({ database, services: [shop, trail], clock, signals: new Signals() });
  await database.run((db) => migrate(db, trail.migrations));
});
afterEach(() => database.close());

interface By {
  readonly principal?: Principal;
  readonly region?: string;
  readonly userAgent?: string;
}
const rootPrincipal = (of: string, accessKeyId?: string): Principal => ({
  type: 'Root',
  account: of,
  arn: `arn:aws:iam::${of}:root`,
  principalId: of,
  accessKeyId,
});
const root = rootPrincipal(account, 'AKIAROOTROOTROOTROOT');

function execute(service: Service, name: string, input: object, by: By = {}) {
  const { principal = root, region = 'us-east-1', userAgent = 'test' } = by;
  return pipeline.execute({
    service,
    operation: service.operations[name]!,
    input,
    principal,
    audience: 'account',
    region,
    sourceIp: '192.0.2.1',
    isSecure: false,
    userAgent,
    requestId: 'r-1',
    cancelled: new AbortController().signal,
  });
}
const put = (shelf: string, by?: By) => execute(shop, 'Put', { shelf }, by);
const lookup = (input: LookupEventsCommandInput = {}, by?: By) =>
  execute(trail, 'LookupEvents', input, by) as Promise<LookupEventsCommandOutput>;
const by = (AttributeKey: string, AttributeValue: string) =>
  ({ LookupAttributes: [{ AttributeKey, AttributeValue }] }) as LookupEventsCommandInput;
const found = async (attribute: string, value: string) =>
  (await lookup(by(attribute, value))).Events!.map((event) => event.EventName);
const shelfOf = (event: Event) => JSON.parse(event.CloudTrailEvent!).requestParameters.shelf as string;

/** All pages of a lookup. */
async function pages(input: LookupEventsCommandInput): Promise<Event[][]> {
  const all: Event[][] = [];
  for (let NextToken: string | undefined; all.length === 0 || NextToken; ) {
    const page = await lookup({ ...input, NextToken });
    all.push(page.Events!);
    NextToken = page.NextToken;
  }
  return all;
}

describe('LookupEvents', () => {
  it('shows an event in the form of the API, and as its record', async () => {
    await put('a');
    const [event] = (await lookup()).Events!;
    expect(event).toMatchObject({
      EventName: 'Put',
      EventSource: 'shop.amazonaws.com',
      ReadOnly: 'false',
      Username: 'root',
      AccessKeyId: 'AKIAROOTROOTROOTROOT',
      EventTime: new Date(start),
      Resources: [{ ResourceName: `arn:aws:shop:us-east-1:${account}:shelf/a`, ResourceType: 'Shop::Shelf' }],
    });
    expect(JSON.parse(event!.CloudTrailEvent!)).toMatchObject({
      eventID: event!.EventId,
      requestParameters: { shelf: 'a' },
      recipientAccountId: account,
    });
  });

  it('finds by each attribute, and by its value alone', async () => {
    const principal: Principal = {
      type: 'AssumedRole',
      account,
      arn: `arn:aws:sts::${account}:assumed-role/clerk/i-0123456789abcdef0`,
      principalId: 'AROAROLE:i-0123456789abcdef0',
      accessKeyId: 'ASIAHOSTHOSTHOSTHOST',
    };
    await put('a');
    await execute(shop, 'Look', { shelf: 'b' }, { principal });
    const [look, first] = (await lookup()).Events! as [Event, Event];

    expect(await found('EventId', first.EventId!)).toEqual(['Put']);
    expect(await found('EventId', look.EventId!)).toEqual(['Look']);
    expect(
      await found(
        'EventId',
        look.EventId!.replace(/.$/, (last) => (last === '0' ? '1' : '0')),
      ),
    ).toEqual([]);
    expect(await found('EventId', 'no-such-event')).toEqual([]);
    expect(await found('EventName', 'Look')).toEqual(['Look']);
    expect(await found('EventName', 'look')).toEqual([]);
    expect(await found('ReadOnly', 'false')).toEqual(['Put']);
    expect(new Set(await found('ReadOnly', 'true'))).toEqual(new Set(['Look', 'LookupEvents']));
    expect(await found('Username', 'i-0123456789abcdef0')).toEqual(['Look']);
    expect(await found('ResourceType', 'Shop::Shelf')).toEqual(['Look', 'Put']);
    expect(await found('ResourceType', 'Shop')).toEqual([]);
    expect(await found('ResourceName', `arn:aws:shop:us-east-1:${account}:shelf/b`)).toEqual(['Look']);
    expect(await found('ResourceName', 'b')).toEqual([]);
    expect(await found('EventSource', 'shop.amazonaws.com')).toEqual(['Look', 'Put']);
    expect(await found('AccessKeyId', 'ASIAHOSTHOSTHOSTHOST')).toEqual(['Look']);
    expect(await found('AccessKeyId', "' or 1 = 1 --")).toEqual([]);
  });

  it('finds failed calls too, with their error', async () => {
    await expect(execute(shop, 'Put', { shelf: 'a', fail: true })).rejects.toThrow('Nothing left.');
    const [event] = (await lookup(by('EventName', 'Put'))).Events!;
    expect(JSON.parse(event!.CloudTrailEvent!)).toMatchObject({ errorCode: 'OutOfStock', responseElements: null });
  });

  it('shows nobody the events of another account or region', async () => {
    await put('mine');
    await put('elsewhere', { region: 'eu-west-1' });
    await put('theirs', { principal: rootPrincipal(other) });
    const attributes = [
      {},
      by('EventName', 'Put'),
      by('EventSource', 'shop.amazonaws.com'),
      by('ResourceType', 'Shop::Shelf'),
    ];
    for (const input of attributes) {
      const shelves = (await lookup(input)).Events!.filter((event) => event.EventName === 'Put').map(shelfOf);
      expect(shelves).toEqual(['mine']);
    }
    const theirs = (await lookup({}, { principal: rootPrincipal(other) })).Events!;
    expect(await found('EventId', theirs.find((event) => event.EventName === 'Put')!.EventId!)).toEqual([]);
    expect(await found('ResourceName', `arn:aws:shop:us-east-1:${other}:shelf/theirs`)).toEqual([]);
  });

  it('keeps to a range of times, both ends included', async () => {
    for (let i = 0; i < 5; i++) {
      await put(String(i));
      clock.advance(second);
    }
    const between = async (from?: number, until?: number) => {
      const range = {
        ...(from === undefined ? {} : { StartTime: new Date(start + from * second) }),
        ...(until === undefined ? {} : { EndTime: new Date(start + until * second) }),
      };
      return (await lookup({ ...by('EventName', 'Put'), ...range })).Events!.map(shelfOf).join('');
    };
    expect(await between(1, 3)).toBe('321');
    expect(await between(3)).toBe('43');
    expect(await between(undefined, 1)).toBe('10');
    expect(await between(2, 2)).toBe('2');
    expect(await between(10, 20)).toBe('');
    await expect(between(3, 1)).rejects.toMatchObject({ code: 'InvalidTimeRangeException' });
  });

  it('finds an event of the last moment of the second that ends the range', async () => {
    clock.advance(999);
    await put('late');
    const range = { StartTime: new Date(start), EndTime: new Date(start) };
    expect((await lookup({ ...by('EventName', 'Put'), ...range })).Events!.map(shelfOf)).toEqual(['late']);
  });

  it.each([
    ['', {}],
    ['by name', by('EventName', 'Put')],
    ['by type of resource', by('ResourceType', 'Shop::Shelf')],
  ])(
    'pages through sixty events %s one by one, newest first, each once, while new ones come',
    async (_what, filter) => {
      for (let i = 0; i < 60; i++) {
        await put(String(i));
        // Some share a millisecond.
        if (i % 3 === 0) clock.advance(1);
      }
      // The lookups themselves are events as well, newer than the page they are for.
      const all = await pages({ ...filter, MaxResults: 1 });
      expect(all.slice(0, 60).every((page) => page.length === 1)).toBe(true);
      const shelves = all.flat().map(shelfOf);
      expect(shelves).toEqual(Array.from({ length: 60 }, (_, i) => String(59 - i)));
    },
  );

  it('gives fifty events a page when nothing is said, and no token with the last', async () => {
    for (let i = 0; i < 60; i++) await put(String(i));
    const all = await pages(by('EventName', 'Put'));
    expect(all.map((page) => page.length)).toEqual([50, 10]);
    expect(await pages({ ...by('EventName', 'Put'), MaxResults: 30 })).toHaveLength(2);
  });

  it('refuses a token that is not its own, or belongs to other parameters', async () => {
    await put('a');
    await put('b');
    const { NextToken } = await lookup({ ...by('EventName', 'Put'), MaxResults: 1 });
    const refused = { code: 'InvalidNextTokenException' };
    await expect(lookup({ ...by('EventName', 'Look'), NextToken })).rejects.toMatchObject(refused);
    await expect(lookup({ NextToken })).rejects.toMatchObject(refused);
    for (const token of ['x', '', 'bnVsbA', 'W10', 'e30'])
      await expect(lookup({ NextToken: token })).rejects.toMatchObject(refused);
  });

  it('keeps the order of events when the clock goes back', async () => {
    await put('first');
    clock.advance(-60 * second);
    await put('second');
    const events = (await lookup(by('EventName', 'Put'))).Events!;
    expect(events.map(shelfOf)).toEqual(['second', 'first']);
    expect(await found('EventId', events[0]!.EventId!)).toEqual(['Put']);
  });

  it.each([
    [
      'two attributes',
      { LookupAttributes: [...by('EventName', 'a').LookupAttributes!, ...by('EventName', 'b').LookupAttributes!] },
      'InvalidLookupAttributesException',
    ],
    ['an attribute there is not', by('Colour', 'blue'), 'InvalidLookupAttributesException'],
    ['an attribute every object has', by('constructor', 'a'), 'InvalidLookupAttributesException'],
    ['an empty value', by('EventName', ''), 'InvalidLookupAttributesException'],
    ['a value that is too long', by('EventName', 'a'.repeat(2001)), 'InvalidLookupAttributesException'],
    ['a ReadOnly that is neither', by('ReadOnly', 'maybe'), 'InvalidLookupAttributesException'],
    ['no results', { MaxResults: 0 }, 'InvalidMaxResultsException'],
    ['too many results', { MaxResults: 51 }, 'InvalidMaxResultsException'],
  ])('refuses %s', async (_what, input, code) => {
    await expect(lookup(input)).rejects.toMatchObject({ code });
  });
});

describe('records', () => {
  const sizes = () =>
    database.run(async (db) => {
      const { rows } = await sql<{ n: number }>`select length(document) + length(resources) + length(user_name) as n
        from trail_events union all select length(term) from trail_terms`.execute(db);
      return rows.map((row) => row.n);
    });

  it('stay small, whatever the request', async () => {
    const big = 'x'.repeat(1_000_000);
    await put(big);
    await expect(execute(shop, 'Put', { shelf: big, fail: true })).rejects.toThrow('Nothing left.');
    await execute(shop, 'Look', { shelf: 'a' }, { userAgent: big });
    expect(Math.max(...(await sizes()))).toBeLessThan(10_000);
    const [look, failed, first] = (await lookup()).Events!.map((event) => JSON.parse(event.CloudTrailEvent!));
    expect(first).toMatchObject({ requestParameters: null, responseElements: null });
    expect(first.errorCode).toBeUndefined();
    expect(failed).toMatchObject({ requestParameters: null, errorCode: 'OutOfStock' });
    expect(failed.errorMessage).toMatch(/^Nothing left\. Shelf: x+$/);
    expect(look).toMatchObject({ requestParameters: { shelf: 'a' } });
    expect(look.userAgent).toMatch(/^x+$/);
  });

  it('hold what a large request says', async () => {
    const shelf = 'x'.repeat(90_000);
    await put(shelf);
    expect((await lookup()).Events!.map(shelfOf)).toEqual([shelf]);
  });

  it('are written even for an input that no record can hold', async () => {
    let deep: unknown = 'bottom';
    for (let i = 0; i < 100_000; i++) deep = { deep };
    await expect(execute(shop, 'Put', { shelf: deep, fail: true })).rejects.toThrow();
    expect((await lookup()).Events).toMatchObject([{ EventName: 'Put' }]);
  });
});

describe('retention', () => {
  const purge = () => pipeline.housekeeping(trail, 'us-east-1', new AbortController().signal);
  const count = (table: keyof TrailTables) =>
    database.run(async (db) => {
      const { rows } = await sql<{ n: number }>`select count(*) as n from ${sql.table(table)}`.execute(db);
      return rows[0]!.n;
    });

  it('forgets events after ninety days, their terms with them, and nothing younger', async () => {
    await put('old');
    clock.advance(day);
    await put('young');
    clock.advance(89 * day);
    await purge();
    expect([await count('trail_events'), await count('trail_terms')]).toEqual([2, 4]);
    clock.advance(1);
    await purge();
    expect([await count('trail_events'), await count('trail_terms')]).toEqual([1, 2]);
    expect((await lookup(by('EventName', 'Put'))).Events!.map(shelfOf)).toEqual(['young']);
  });

  it('forgets more than one step of them at once', async () => {
    await Promise.all(Array.from({ length: 1100 }, (_, i) => put(String(i))));
    clock.advance(91 * day);
    await purge();
    expect([await count('trail_events'), await count('trail_terms')]).toEqual([0, 0]);
  });

  it('does not show what is older and not purged yet', async () => {
    await put('old');
    clock.advance(91 * day);
    await put('young');
    expect((await lookup(by('EventName', 'Put'))).Events!.map(shelfOf)).toEqual(['young']);
  });
});
