/** CreateTags, DeleteTags and DescribeTags, for volumes, snapshots and instances. */
import {
  CreateTags$,
  type CreateTagsRequest,
  DeleteTags$,
  type DeleteTagsRequest,
  DescribeTags$,
  type DescribeTagsRequest,
  type DescribeTagsResult,
  type TagDescription,
} from '@aws-sdk/client-ec2';
import { type SelectQueryBuilder, type SqlBool, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Filter, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart, pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { tagLimitExceeded, tagsPerResourceMax, validateTags } from '../aws/tags.ts';
import { allow, allowOnInstance, allowOnVolume, requestTagContext } from './access.ts';
import { checkInstanceId, checkSnapshotId, checkVolumeId, missingParameter, stopIfDryRun } from './errors.ts';
import { rowsAtOnce } from './filter-effort.ts';
import { findInstance } from './instance-store.ts';
import { type Ec2Tables, type InstanceRow, tables, type VolumeRow } from './records.ts';
import { allowOnSnapshot } from './snapshot-access.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { findOwnSnapshot } from './snapshot-store.ts';
import { rowOrder, textMatches } from './sql-text.ts';
import { putTags, type Tags, tagsOf } from './tag-store.ts';
import { filterSet, items } from './trail.ts';
import { findVolume } from './volume-store.ts';

const resourcesPerRequestMax = 1000;
const pageSizeMax = 1000;

type Taggable = { readonly id: string; readonly tags: Tags } & (
  | { readonly type: 'volume'; readonly row: VolumeRow }
  | { readonly type: 'instance'; readonly row: InstanceRow }
  | { readonly type: 'snapshot'; readonly row: SnapshotRow }
);

async function findTaggable(call: Call, id: string): Promise<Taggable> {
  if (id.startsWith('vol-')) {
    const row = await findVolume(call, checkVolumeId(id, 'resourceId'));
    return { id, type: 'volume', row, tags: await tagsOf(call, id) };
  }
  if (id.startsWith('i-')) {
    const row = await findInstance(call, checkInstanceId(id, 'resourceId'));
    return { id, type: 'instance', row, tags: await tagsOf(call, id) };
  }
  if (id.startsWith('snap-')) {
    const row = await findOwnSnapshot(call, checkSnapshotId(id, 'resourceId'));
    return { id, type: 'snapshot', row, tags: await tagsOf(call, id) };
  }
  throw new AwsError(
    'InvalidID',
    `The ID '${id}' is not valid: volumes (vol-…), snapshots (snap-…) and instances (i-…) can be tagged.`,
  );
}

async function findAllTaggable(call: Call, input: { readonly Resources?: string[] | undefined }): Promise<Taggable[]> {
  const ids = [...new Set(input.Resources ?? [])];
  if (ids.length === 0) throw missingParameter('resourceIdSet');
  if (ids.length > resourcesPerRequestMax)
    throw new AwsError(
      'RequestLimitExceeded',
      `One request can name ${resourcesPerRequestMax} resources, not ${ids.length}.`,
    );
  const found: Taggable[] = [];
  for (const id of ids) found.push(await findTaggable(call, id));
  return found;
}

function accessTo(action: string) {
  return (call: Call, input: { Tags?: Array<{ Key?: string; Value?: string }> }, resources: Taggable[]) => {
    const named = new Map((input.Tags ?? []).map(({ Key, Value }) => [Key ?? '', Value ?? '']));
    return resources.map((resource) => {
      const request = leave(call, action, resource);
      // A request that deletes every tag is about all that are there: it names them, though it doesn't say their names.
      const tags = named.size > 0 || action === 'CreateTags' ? named : resource.tags;
      return { ...request, context: { ...request.context, ...requestTagContext(tags) } };
    });
  };
}

function leave(call: Call, action: string, resource: Taggable): AccessRequest {
  switch (resource.type) {
    case 'volume':
      return allowOnVolume(call, action, resource.row, resource.tags);
    case 'instance':
      return allowOnInstance(call, action, resource.row, resource.tags);
    case 'snapshot':
      return allowOnSnapshot(call, action, resource.row, resource.tags);
  }
}

export const createTags = operation<CreateTagsRequest, object, Taggable[]>({
  name: 'CreateTags',
  schema: CreateTags$,
  effect: 'writes',
  resolve: findAllTaggable,
  access: accessTo('CreateTags'),
  async handle(call, input, resources) {
    const tags = validateTags(input.Tags ?? []);
    if (tags.size === 0) throw missingParameter('tagSet');
    for (const resource of resources) {
      const names = new Set([...resource.tags.keys(), ...tags.keys()]);
      if (names.size > tagsPerResourceMax) throw tagLimitExceeded();
    }
    stopIfDryRun(input);
    for (const resource of resources) await putTags(call, resource.type, resource.id, tags);
    return {};
  },
  record: tagsRecord,
});

/** A key alone deletes the tag whatever its value; key and value delete it if equal; no tags at all delete every tag. */
export const deleteTags = operation<DeleteTagsRequest, object, Taggable[]>({
  name: 'DeleteTags',
  schema: DeleteTags$,
  effect: 'writes',
  resolve: findAllTaggable,
  access: accessTo('DeleteTags'),
  async handle(call, input, resources) {
    stopIfDryRun(input);
    const ids = resources.map((resource) => resource.id);
    if (!input.Tags || input.Tags.length === 0) {
      await tables(call).deleteFrom('ec2_tags').where('resource_id', 'in', ids).execute();
      return {};
    }
    for (const { Key: key, Value: value } of input.Tags) {
      if (!key) throw missingParameter('key');
      let query = tables(call).deleteFrom('ec2_tags').where('resource_id', 'in', ids).where('key', '=', key);
      if (value !== undefined) query = query.where('value', '=', value);
      await query.execute();
    }
    return {};
  },
  record: tagsRecord,
});

/** Source: EC2 API reference, DescribeTags. */
export const describeTags = operation<DescribeTagsRequest, DescribeTagsResult>({
  name: 'DescribeTags',
  schema: DescribeTags$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeTags')],
  async handle(call, input) {
    const filters = parseFilters(input.Filters, new Set(['key', 'resource-id', 'resource-type', 'tag:', 'value']));
    const start = pageStart(input.NextToken);
    const size = pageSize(input.MaxResults, 5, pageSizeMax);
    stopIfDryRun(input);
    let query = tables(call)
      .selectFrom('ec2_tags')
      .where('account', '=', call.account)
      .where('region', '=', call.region)
      .where(sql<SqlBool>`${rowOrder} > ${start}`)
      .orderBy(rowOrder);
    const end = await endOfPage(query, filters);
    if (end !== undefined) query = query.where(sql<SqlBool>`${rowOrder} <= ${end}`);
    for (const filter of filters) {
      const isTag = filter.name.startsWith('tag:');
      const column = sql.ref(isTag ? 'value' : filter.name.replace('-', '_'));
      if (isTag) query = query.where(sql<SqlBool>`key = ${filter.name.slice(4)}`);
      query = query.where(textMatches(filter, column));
    }
    const rows = await query
      .selectAll()
      .select(sql<number>`${rowOrder}`.as('seq'))
      .limit(size + 1)
      .execute();
    const shown = rows.slice(0, size);
    const last = rows.length > shown.length ? shown.at(-1)!.seq : end;
    return {
      Tags: shown.map((row) => ({
        Key: row.key,
        ResourceId: row.resource_id,
        ResourceType: row.resource_type as TagDescription['ResourceType'],
        Value: row.value,
      })),
      ...(last === undefined ? {} : { NextToken: pageToken(last) }),
    };
  },
  record: (_call, input) => ({
    requestParameters: { filterSet: filterSet(input.Filters as never) },
    responseElements: null,
  }),
});

/** The last of the tags that a request may look at, or undefined when it may look at all that `query` has. */
async function endOfPage<Row>(
  query: SelectQueryBuilder<Ec2Tables, 'ec2_tags', Row>,
  filters: readonly Filter[],
): Promise<number | undefined> {
  const rows = rowsAtOnce(filters);
  if (rows === undefined) return undefined;
  const seq = sql<number>`${rowOrder}`.as('seq');
  const last = await query
    .select(seq)
    .offset(rows - 1)
    .limit(1)
    .executeTakeFirst();
  return last?.seq;
}

const trailTypes: Readonly<Record<string, string>> = { vol: 'AWS::EC2::Volume', snap: 'AWS::EC2::Snapshot' };

function tagsRecord(call: Call, input: CreateTagsRequest | DeleteTagsRequest, output: object | undefined) {
  return {
    requestParameters: {
      resourcesSet: items(input.Resources, (resourceId) => ({ resourceId })) ?? {},
      tagSet: items(input.Tags, ({ Key, Value }) => ({ key: Key, value: Value })) ?? {},
    },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: (input.Resources ?? []).map((name) => ({
      type: trailTypes[name.split('-')[0]!] ?? 'AWS::EC2::Instance',
      name,
    })),
  };
}
