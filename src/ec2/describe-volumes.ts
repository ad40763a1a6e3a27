/** DescribeVolumes: filters run in the database, so that one page of 100,000 volumes costs what the page costs. */
import { DescribeVolumes$, type DescribeVolumesRequest, type DescribeVolumesResult } from '@aws-sdk/client-ec2';
import { type SqlBool, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Filter, matchesFilter, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart, pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { checkVolumeId, invalidCombination, stopIfDryRun, volumesNotFound } from './errors.ts';
import { tables, type VolumeRow } from './records.ts';
import { zonesOf } from './regions.ts';
import {
  always,
  type Condition,
  type Expression,
  flagText,
  never,
  numberText,
  textMatches,
  timeText,
} from './sql-text.ts';
import { filterSet, items } from './trail.ts';
import { volumeViews } from './volume-view.ts';

const volumeIdsMax = 1000;
const pageSizeMax = 1000;

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
    const ids = [...new Set((input.VolumeIds ?? []).map((id) => checkVolumeId(id, 'volumes')))];
    if (ids.length > volumeIdsMax)
      throw new AwsError('RequestLimitExceeded', `One request can name ${volumeIdsMax} volumes, not ${ids.length}.`);
    if (ids.length > 0 && input.MaxResults !== undefined)
      throw invalidCombination('The parameter volumes cannot be used with the parameter maxResults');
    const filters = parseFilters(input.Filters, filterNames);
    const start = pageStart(input.NextToken);
    const size = pageSize(input.MaxResults, 5, pageSizeMax);
    stopIfDryRun(input);
    const rows = ids.length > 0 ? await byIds(call, ids, filters) : await page(call, filters, start, size + 1);
    const shown = ids.length > 0 ? rows : rows.slice(0, size);
    return {
      Volumes: await volumeViews(call, shown),
      ...(rows.length > shown.length ? { NextToken: pageToken(shown.at(-1)!.seq) } : {}),
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
  const found = await tables(call)
    .selectFrom('ec2_volumes')
    .select('volume_id')
    .where('volume_id', 'in', ids as string[])
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .execute();
  if (found.length < ids.length) {
    const present = new Set(found.map((row) => row.volume_id));
    throw volumesNotFound(ids.filter((id) => !present.has(id)));
  }
  return page(call, filters, 0, ids.length, ids);
}

/** Up to `limit` volumes after `start` that pass the filters. */
async function page(
  call: Call,
  filters: readonly Filter[],
  start: number,
  limit: number,
  ids?: readonly string[],
): Promise<VolumeRow[]> {
  let query = tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('seq', '>', start);
  if (ids) query = query.where('volume_id', 'in', ids as string[]);
  for (const filter of filters) query = query.where(condition(call, filter));
  return query.orderBy('seq').limit(limit).execute();
}

function condition(call: Call, filter: Filter): Condition {
  const { name } = filter;
  if (name in columns) {
    const column = sql.ref(`ec2_volumes.${columns[name as keyof typeof columns]}`);
    return textMatches(filter, textOf(name, column));
  }
  if (name in attachmentColumns) {
    const column = sql.ref(`a.${attachmentColumns[name as keyof typeof attachmentColumns]}`);
    return ofAttachments(call, textMatches(filter, textOf(name, column)));
  }
  if (name.startsWith('tag:'))
    return ofTags(call, sql<SqlBool>`t.key = ${name.slice(4)} and ${textMatches(filter, sql.ref('t.value'))}`);
  switch (name) {
    case 'attachment.attach-time':
      return ofAttachments(call, textMatches(filter, timeText(sql.ref('a.attached_at'))));
    case 'create-time':
      return textMatches(filter, timeText(sql.ref('ec2_volumes.created_at')));
    case 'availability-zone-id': {
      const zones = zonesOf(call.region).filter((zone) => matchesFilter(filter, zone.id));
      return zones.length === 0 ? never : sql`ec2_volumes.zone in (${sql.join(zones.map((zone) => zone.name))})`;
    }
    case 'tag-key':
      return ofTags(call, textMatches(filter, sql.ref('t.key')));
    // No volume comes from a snapshot or belongs to a service.
    case 'snapshot-id':
      return matchesFilter(filter, '') ? always : never;
    case 'fast-restored':
    case 'operator.managed':
      return matchesFilter(filter, 'false') ? always : never;
    default:
      return never;
  }
}

function ofAttachments(call: Call, inner: Condition): Condition {
  return sql<SqlBool>`ec2_volumes.volume_id in (select a.volume_id from ec2_attachments a
    where a.account = ${call.account} and a.region = ${call.region} and ${inner})`;
}

function ofTags(call: Call, inner: Condition): Condition {
  return sql<SqlBool>`ec2_volumes.volume_id in (select t.resource_id from ec2_tags t
    where t.account = ${call.account} and t.region = ${call.region} and ${inner})`;
}

function textOf(name: string, column: Expression): Expression {
  if (flags.has(name)) return flagText(column);
  return name === 'size' ? numberText(column) : column;
}
