/** DescribeSnapshots: the caller's own, those shared with it, and public ones; filters run in the database. */
import { DescribeSnapshots$, type DescribeSnapshotsRequest, type DescribeSnapshotsResult } from '@aws-sdk/client-ec2';
import { type SqlBool, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Filter, literalsOf, matchesFilter, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart, pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { checkSnapshotId, invalidCombination, snapshotsNotFound, stopIfDryRun } from './errors.ts';
import { rowsAtOnce } from './filter-effort.ts';
import { tables } from './records.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { everybody } from './snapshot-store.ts';
import { snapshotViews } from './snapshot-view.ts';
import { always, type Condition, flagText, never, numberText, tagMatches, textMatches, timeText } from './sql-text.ts';
import { filterSet, items } from './trail.ts';

const snapshotIdsMax = 1000;
const pageSizeMax = 1000;

const column = (name: string) => sql.ref(`ec2_snapshots.${name}`);

/** Filter name → its condition. */
const filters: Readonly<Record<string, (filter: Filter) => Condition>> = {
  description: (filter) => textMatches(filter, column('description')),
  encrypted: (filter) => textMatches(filter, flagText(column('encrypted'))),
  // No snapshot is of AWS.
  'owner-alias': (filter) => (matchesFilter(filter, '') ? always : never),
  'owner-id': (filter) => textMatches(filter, column('account')),
  progress: (filter) => textMatches(filter, sql`${numberText(column('progress'))} || '%'`),
  'snapshot-id': (filter) => textMatches(filter, column('snapshot_id')),
  'start-time': (filter) => textMatches(filter, timeText(column('started_at'))),
  status: (filter) => textMatches(filter, column('state')),
  'storage-tier': (filter) => (matchesFilter(filter, 'standard') ? always : never),
  'transfer-type': (filter) =>
    textMatches(
      filter,
      sql`case when ${column('origin')} <> 'copy' then '' when ${column('completion_minutes')} is null then 'standard' else 'time-based' end`,
    ),
  'volume-id': (filter) => textMatches(filter, column('volume_id')),
  'volume-size': (filter) => textMatches(filter, numberText(column('size_gib'))),
};
const filterNames = new Set([...Object.keys(filters), 'tag:', 'tag-key']);

/** Source: EC2 API reference, DescribeSnapshots. */
export const describeSnapshots = operation<DescribeSnapshotsRequest, DescribeSnapshotsResult>({
  name: 'DescribeSnapshots',
  schema: DescribeSnapshots$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeSnapshots')],
  async handle(call, input) {
    const ids = [...new Set((input.SnapshotIds ?? []).map((id) => checkSnapshotId(id)))];
    if (ids.length > snapshotIdsMax)
      throw new AwsError(
        'RequestLimitExceeded',
        `One request can name ${snapshotIdsMax} snapshots, not ${ids.length}.`,
      );
    // Clients send 0 for "as many as there are".
    const asked = input.MaxResults || undefined;
    if (ids.length > 0 && asked !== undefined)
      throw invalidCombination('The parameter snapshotIdSet cannot be used with the parameter maxResults');
    const parsed = parseFilters(input.Filters, filterNames);
    const conditions = [
      ...parsed.map((filter) => conditionOf(call, filter)),
      ...ownerConditions(call, input.OwnerIds ?? []),
      ...restorableConditions(call, input.RestorableByUserIds ?? []),
    ];
    const start = pageStart(input.NextToken);
    const size = pageSize(asked, 5, pageSizeMax);
    stopIfDryRun(input);
    if (ids.length > 0) await checkAllThere(call, ids);
    const limit = ids.length > 0 ? ids.length : size + 1;
    const candidates = narrowest(ids, parsed);
    const end = candidates.isFew ? undefined : await endOfPage(call, parsed, start);
    const rows = await page(call, conditions, start, limit, { ...candidates, end });
    const shown = ids.length > 0 ? rows : rows.slice(0, size);
    const last = rows.length > shown.length ? shown.at(-1)!.seq : end;
    return {
      Snapshots: await snapshotViews(call, shown),
      ...(last === undefined ? {} : { NextToken: pageToken(last) }),
    };
  },
  record: (_call, input) => ({
    requestParameters: {
      snapshotSet: items(input.SnapshotIds, (snapshotId) => ({ snapshotId })) ?? {},
      ownersSet: items(input.OwnerIds, (owner) => ({ owner })) ?? {},
      filterSet: filterSet(input.Filters as never),
    },
    responseElements: null,
  }),
});

/** @throws {AwsError} InvalidSnapshot.NotFound, naming all that the caller can't see, whether they exist or not */
async function checkAllThere(call: Call, ids: readonly string[]): Promise<void> {
  const rows = await page(call, [], 0, ids.length, { isFew: true, ids });
  const present = new Set(rows.map((row) => row.snapshot_id));
  const missing = ids.filter((id) => !present.has(id));
  if (missing.length > 0) throw snapshotsNotFound(missing);
}

interface Candidates {
  /** Whether it is they that are looked up, rather than all searched. */
  readonly isFew: boolean;
  readonly ids?: readonly string[];
  readonly volumeIds?: readonly string[];
  /** The last snapshot that is looked at, by its sequence number. */
  readonly end?: number | undefined;
}

/** What names few snapshots, if the request does: those are looked up instead of searching all. */
function narrowest(ids: readonly string[], parsed: readonly Filter[]): Candidates {
  if (ids.length > 0) return { isFew: true, ids };
  for (const filter of parsed) {
    const literals = literalsOf(filter);
    if (literals.length < filter.values.length) continue;
    if (filter.name === 'snapshot-id') return { isFew: true, ids: literals };
    if (filter.name === 'volume-id') return { isFew: true, volumeIds: literals };
  }
  return { isFew: false };
}

/** The last snapshot after `start` that a request may look at, or undefined when it may look at all that it can see. */
async function endOfPage(call: Call, filters: readonly Filter[], start: number): Promise<number | undefined> {
  const rows = rowsAtOnce(filters);
  if (rows === undefined) return undefined;
  const after = tables(call)
    .selectFrom('ec2_snapshots')
    .select('seq')
    .where('region', '=', call.region)
    .where('seq', '>', start)
    .orderBy('seq')
    .offset(rows - 1)
    .limit(1);
  const own = await after.where('account', '=', call.account).executeTakeFirst();
  const shared = await after
    .where('account', '!=', call.account)
    .where('snapshot_id', 'in', sharedWithCaller(call))
    .executeTakeFirst();
  const ends = [own, shared].flatMap((row) => (row ? [row.seq] : []));
  return ends.length === 0 ? undefined : Math.min(...ends);
}

/** What other accounts share with the caller. */
function sharedWithCaller(call: Call) {
  return tables(call)
    .selectFrom('ec2_snapshot_permissions')
    .select('ec2_snapshot_permissions.snapshot_id')
    .where('ec2_snapshot_permissions.account', 'in', [call.account, everybody])
    .where('ec2_snapshot_permissions.region', '=', call.region);
}

/** Up to `limit` snapshots after `start` that the caller can see: its own, and those that are shared with it. */
async function page(
  call: Call,
  conditions: readonly Condition[],
  start: number,
  limit: number,
  candidates: Candidates,
): Promise<SnapshotRow[]> {
  let query = tables(call)
    .selectFrom('ec2_snapshots')
    .selectAll()
    .where('region', '=', call.region)
    .where('is_marked', '=', 1)
    .where('origin', '!=', 'internal')
    .where('seq', '>', start);
  for (const condition of conditions) query = query.where(condition);
  if (candidates.ids) query = query.where('snapshot_id', 'in', candidates.ids as string[]);
  if (candidates.end !== undefined) query = query.where('seq', '<=', candidates.end);
  if (candidates.volumeIds) query = query.where('volume_id', 'in', candidates.volumeIds as string[]);
  const ordered = query.orderBy('seq').limit(limit);
  const own = await ordered.where('account', '=', call.account).execute();
  // Apart from the own ones, so that each query has an index that leads it.
  const shared = await ordered
    .where('account', '!=', call.account)
    .where('snapshot_id', 'in', sharedWithCaller(call))
    .execute();
  return [...own, ...shared].sort((a, b) => a.seq - b.seq).slice(0, limit);
}

function conditionOf(call: Call, filter: Filter): Condition {
  const tag = tagMatches(filter);
  if (!tag) return filters[filter.name]!(filter);
  return sql<SqlBool>`exists (select 1 from ec2_tags t where t.resource_id = ec2_snapshots.snapshot_id
    and t.account = ${call.account} and ${tag})`;
}

function checkAccount(id: string): string {
  if (!/^\d{12}$/.test(id)) throw new AwsError('InvalidUserID.Malformed', `Invalid user id: "${id}"`);
  return id;
}

/** `self`, `amazon`, account ids. */
function ownerConditions(call: Call, owners: readonly string[]): Condition[] {
  if (owners.length === 0) return [];
  const accounts = owners
    .filter((owner) => owner !== 'amazon')
    .map((owner) => (owner === 'self' ? call.account : checkAccount(owner)));
  return [accounts.length === 0 ? never : sql<SqlBool>`${column('account')} in (${sql.join(accounts)})`];
}

/** `self`, `all`, account ids: of other accounts only what the caller's own snapshots say. */
function restorableConditions(call: Call, users: readonly string[]): Condition[] {
  if (users.length === 0) return [];
  const sharedWith = (account: string) =>
    sql<SqlBool>`${column('snapshot_id')} in (select p.snapshot_id from ec2_snapshot_permissions p where p.account = ${account})`;
  const parts = users.map((user): Condition => {
    if (user === everybody) return sharedWith(everybody);
    const account = user === 'self' ? call.account : checkAccount(user);
    if (account === call.account) return sql<SqlBool>`(${column('account')} = ${account} or ${sharedWith(account)})`;
    return sql<SqlBool>`(${column('account')} = ${call.account} and ${sharedWith(account)})`;
  });
  return [sql<SqlBool>`(${sql.join(parts, sql` or `)})`];
}
