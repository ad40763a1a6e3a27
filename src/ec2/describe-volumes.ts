/** DescribeVolumes: filters run in the database, so that one page of 100,000 volumes costs what the page costs. */
import { DescribeVolumes$, type DescribeVolumesRequest, type DescribeVolumesResult } from '@aws-sdk/client-ec2';
import { type SqlBool, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { type Filter, literalsOf, matchesFilter } from '../aws/filters.ts';
import { pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { checkVolumeId, volumesNotFound } from './errors.ts';
import { rowsAtOnce } from './filter-effort.ts';
import { listRequest } from './list-request.ts';
import { tables, type VolumeRow } from './records.ts';
import { zonesOf } from './regions.ts';
import {
  always,
  type Condition,
  type Expression,
  flagText,
  never,
  numberText,
  tagMatches,
  textMatches,
  timeText,
} from './sql-text.ts';
import { filterSet, items } from './trail.ts';
import { volumeViews } from './volume-view.ts';

/** Up to so many volumes are looked up one by one rather than found by a walk over all. */
const candidatesMax = 1000;

/** Filter name → the column it looks at, as text. */
const columns = {
  'availability-zone': 'zone',
  encrypted: 'encrypted',
  'multi-attach-enabled': 'multi_attach',
  size: 'size_gib',
  status: 'state',
  'volume-id': 'volume_id',
  'volume-type': 'volume_type',
} as const;
const attachmentColumns = {
  'attachment.delete-on-termination': 'delete_on_termination',
  'attachment.device': 'device',
  'attachment.instance-id': 'instance_id',
  'attachment.status': 'status',
} as const;
const flags = new Set(['encrypted', 'multi-attach-enabled', 'attachment.delete-on-termination']);

const filterNames = new Set([
  ...Object.keys(columns),
  ...Object.keys(attachmentColumns),
  'attachment.attach-time',
  'availability-zone-id',
  'create-time',
  'fast-restored',
  'operator.managed',
  'operator.principal',
  'snapshot-id',
  'tag:',
  'tag-key',
]);

/** Source: EC2 API reference, DescribeVolumes. */
export const describeVolumes = operation<DescribeVolumesRequest, DescribeVolumesResult>({
  name: 'DescribeVolumes',
  schema: DescribeVolumes$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeVolumes')],
  async handle(call, input) {
    const named = {
      ids: input.VolumeIds,
      check: (id: string) => checkVolumeId(id, 'volumes'),
      what: 'volumes',
      parameter: 'volumes',
    };
    const { ids, filters, start, size } = listRequest(input, named, filterNames);
    const end = ids.length > 0 ? undefined : await endOfPage(call, filters, start);
    const rows = ids.length > 0 ? await byIds(call, ids, filters) : await page(call, filters, start, size + 1, { end });
    const shown = rows.slice(0, size);
    const last = rows.length > shown.length ? shown.at(-1)!.seq : end;
    return {
      Volumes: await volumeViews(call, shown),
      ...(last === undefined ? {} : { NextToken: pageToken(last) }),
    };
  },
  record: (_call, input) => ({
    requestParameters: {
      volumeSet: items(input.VolumeIds, (volumeId) => ({ volumeId })) ?? {},
      filterSet: filterSet(input.Filters as never),
      ...(input.MaxResults === undefined ? {} : { maxResults: input.MaxResults }),
    },
    responseElements: null,
  }),
});

/** All of these volumes that pass the filters, in the order of their creation; one unknown id fails the whole batch. */
async function byIds(call: Call, ids: readonly string[], filters: readonly Filter[]): Promise<VolumeRow[]> {
  const found = await page(call, [], 0, ids.length, { ids });
  if (found.length < ids.length) {
    const present = new Set(found.map((row) => row.volume_id));
    throw volumesNotFound(ids.filter((id) => !present.has(id)));
  }
  return filters.length === 0 ? found : page(call, filters, 0, ids.length, { ids });
}

/** The last volume after `start` that a request may look at, or undefined when it may look at all of them. */
async function endOfPage(call: Call, filters: readonly Filter[], start: number): Promise<number | undefined> {
  const rows = rowsAtOnce(filters);
  if (rows === undefined) return undefined;
  const last = await tables(call)
    .selectFrom('ec2_volumes')
    .select('seq')
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('seq', '>', start)
    .orderBy('seq')
    .offset(rows - 1)
    .limit(1)
    .executeTakeFirst();
  return last?.seq;
}

/** Up to `limit` volumes after `start` that pass the filters; none after `end`, of `ids` only, when those are given. */
async function page(
  call: Call,
  filters: readonly Filter[],
  start: number,
  limit: number,
  { ids, end }: { readonly ids?: readonly string[]; readonly end?: number | undefined },
): Promise<VolumeRow[]> {
  const candidates = ids ?? (end === undefined ? await narrowed(call, filters) : undefined);
  let query = tables(call).selectFrom('ec2_volumes').selectAll();
  for (const filter of filters) query = query.where(condition(call, filter));
  if (end !== undefined) query = query.where('seq', '<=', end);
  if (!candidates) {
    query = query.where('account', '=', call.account).where('region', '=', call.region).where('seq', '>', start);
    return query.orderBy('seq').limit(limit).execute();
  }
  if (candidates.length === 0) return [];
  // By id alone: asked for account or order too, the database would walk all of the account's volumes instead.
  const rows = await query.where('volume_id', 'in', candidates as string[]).execute();
  return rows
    .filter((row) => row.account === call.account && row.region === call.region && row.seq > start)
    .sort((a, b) => a.seq - b.seq)
    .slice(0, limit);
}

/**
 * The few volumes that a filter on tags, attachments or ids leaves, when there is one that leaves few: then those are
 * looked up instead of searching all.
 */
async function narrowed(call: Call, filters: readonly Filter[]): Promise<readonly string[] | undefined> {
  for (const filter of filters) {
    const literals = literalsOf(filter);
    if (filter.name === 'volume-id' && literals.length === filter.values.length) return literals;
    const inner = tagMatches(filter) ?? attachmentCondition(filter);
    if (!inner) continue;
    const table = tagMatches(filter) ? sql`ec2_tags t` : sql`ec2_attachments a`;
    const id = tagMatches(filter) ? sql.ref('t.resource_id') : sql.ref('a.volume_id');
    const { rows } = await sql<{ id: string }>`select distinct ${id} as id from ${table}
      where account = ${call.account} and region = ${call.region} and ${inner} limit ${candidatesMax + 1}`.execute(
      tables(call),
    );
    if (rows.length <= candidatesMax) return rows.map((row) => row.id);
  }
  return undefined;
}

function condition(call: Call, filter: Filter): Condition {
  const { name } = filter;
  if (name in columns) {
    const column = sql.ref(`ec2_volumes.${columns[name as keyof typeof columns]}`);
    return textMatches(filter, textOf(name, column));
  }
  const ofAttachment = attachmentCondition(filter);
  if (ofAttachment) return ofAttachments(ofAttachment);
  const ofTag = tagMatches(filter);
  if (ofTag) return ofTags(ofTag);
  switch (name) {
    case 'create-time':
      return textMatches(filter, timeText(sql.ref('ec2_volumes.created_at')));
    case 'availability-zone-id': {
      const zones = zonesOf(call.region).filter((zone) => matchesFilter(filter, zone.id));
      return zones.length === 0 ? never : sql`ec2_volumes.zone in (${sql.join(zones.map((zone) => zone.name))})`;
    }
    case 'snapshot-id':
      return textMatches(filter, sql`coalesce(ec2_volumes.snapshot_id, '')`);
    // No volume is restored beforehand or belongs to a service.
    case 'fast-restored':
    case 'operator.managed':
      return matchesFilter(filter, 'false') ? always : never;
    default:
      return never;
  }
}

/** A filter on attachments as a condition on `ec2_attachments a`. */
function attachmentCondition(filter: Filter): Condition | undefined {
  if (filter.name === 'attachment.attach-time') return textMatches(filter, timeText(sql.ref('a.attached_at')));
  const column = attachmentColumns[filter.name as keyof typeof attachmentColumns];
  return column && textMatches(filter, textOf(filter.name, sql.ref(`a.${column}`)));
}

// Asked of each volume by itself, so that a page costs what the volumes cost that it looks at.
function ofAttachments(inner: Condition): Condition {
  return sql<SqlBool>`exists (select 1 from ec2_attachments a where a.volume_id = ec2_volumes.volume_id and ${inner})`;
}

function ofTags(inner: Condition): Condition {
  return sql<SqlBool>`exists (select 1 from ec2_tags t where t.resource_id = ec2_volumes.volume_id and ${inner})`;
}

function textOf(name: string, column: Expression): Expression {
  if (flags.has(name)) return flagText(column);
  return name === 'size' ? numberText(column) : column;
}
