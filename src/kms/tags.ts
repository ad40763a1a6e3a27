import type {
  ListResourceTagsRequest,
  ListResourceTagsResponse,
  TagResourceRequest,
  UntagResourceRequest,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import { AwsError } from '../aws/errors.ts';
import { list, required, structure } from '../aws/validate.ts';
import { keyIdText, markerText, pageLimit } from './constraints.ts';
import { keyOperation } from './key-operation.ts';
import { requireNotPendingDeletion } from './key-states.ts';
import type { KeyStore } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import type { KmsTables } from './records.ts';
import { checkTagKeys, checkTags, insertTags, tagConditions, tagKeyText, tagList, tagsMax } from './tag-rules.ts';
import { lowerCamelMembers, parameters } from './trail.ts';

export const tagOperations = (store: KeyStore) => [
  keyOperation<TagResourceRequest, object>(store, {
    name: 'TagResource',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), Tags: required(tagList) }),
    check: (input) => checkTags(input.Tags),
    conditions: (_call, input) => tagConditions(input.Tags),
    parameters: (input) => ({ ...parameters(input, ['KeyId']), tags: lowerCamelMembers(input.Tags) }),
    async handle(call, input, key) {
      requireNotPendingDeletion(key);
      const names = new Set([...Object.keys(key.tags), ...input.Tags!.map((tag) => tag.TagKey)]);
      if (names.size > tagsMax) throw new AwsError('TagException', 'Too many tags');
      await insertTags(call, key, input.Tags!);
      await store.update(call.db, key);
      return {};
    },
  }),
  keyOperation<UntagResourceRequest, object>(store, {
    name: 'UntagResource',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), TagKeys: required(list(tagKeyText)) }),
    check: (input) => checkTagKeys(input.TagKeys!),
    conditions: (_call, input) => ({ 'aws:TagKeys': input.TagKeys! }),
    parameters: ['KeyId', 'TagKeys'],
    async handle(call, input, key) {
      requireNotPendingDeletion(key);
      const gone = input.TagKeys!.filter((name) => Object.hasOwn(key.tags, name));
      if (gone.length === 0) return {};
      const kms: Kysely<KmsTables> = call.db;
      await kms
        .deleteFrom('kms_tags')
        .where('key_id', '=', key.key_id)
        .where('region', '=', key.region)
        .where('tag_key', 'in', gone)
        .execute();
      await store.update(call.db, key);
      return {};
    },
  }),
  keyOperation<ListResourceTagsRequest, ListResourceTagsResponse>(store, {
    name: 'ListResourceTags',
    effect: 'reads',
    input: structure({ KeyId: required(keyIdText), Limit: pageLimit, Marker: markerText }),
    parameters: ['KeyId', 'Limit', 'Marker'],
    handle(_call, input, key) {
      const listName = `tags ${key.key_id}`;
      const page = pageOf(listName, input, { default: 50, max: 50 });
      const rows = Object.entries(key.tags).filter(([name]) => name > page.after);
      const { items, end } = pageResult(listName, page, rows, ([name]) => name);
      return { Tags: items.map(([TagKey, TagValue]) => ({ TagKey, TagValue })), ...end };
    },
  }),
];
