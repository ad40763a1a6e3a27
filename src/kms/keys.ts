import type {
  DescribeKeyRequest,
  DescribeKeyResponse,
  DisableKeyRequest,
  EnableKeyRequest,
  ListKeysRequest,
  ListKeysResponse,
  UpdateKeyDescriptionRequest,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import { operation } from '../aws/service.ts';
import { required, structure, validate } from '../aws/validate.ts';
import { accountAccess } from './access.ts';
import { descriptionText, grantTokenList, keyIdText, markerText, pageLimit } from './constraints.ts';
import { keyMetadata } from './key-metadata.ts';
import { keyOperation } from './key-operation.ts';
import { requireMaterial, requireNotPendingDeletion } from './key-states.ts';
import { type KeyStore, keyArn } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import type { KmsTables } from './records.ts';
import { parameters } from './trail.ts';

const onlyKeyId = structure({ KeyId: required(keyIdText) });

export const keyOperations = (store: KeyStore) => [
  keyOperation<DescribeKeyRequest, DescribeKeyResponse>(store, {
    name: 'DescribeKey',
    effect: 'reads',
    usesKey: true,
    input: structure({ KeyId: required(keyIdText), GrantTokens: grantTokenList }),
    parameters: ['KeyId'],
    handle: (_call, _input, key) => ({ KeyMetadata: keyMetadata(key) }),
  }),
  keyOperation<EnableKeyRequest, object>(store, {
    name: 'EnableKey',
    effect: 'writes',
    changesKey: true,
    input: onlyKeyId,
    parameters: ['KeyId'],
    async handle(call, _input, key) {
      requireNotPendingDeletion(key);
      requireMaterial(key);
      if (key.state !== 'Enabled') await store.update(call.db, key, { state: 'Enabled' });
      return {};
    },
  }),
  keyOperation<DisableKeyRequest, object>(store, {
    name: 'DisableKey',
    effect: 'writes',
    changesKey: true,
    input: onlyKeyId,
    parameters: ['KeyId'],
    async handle(call, _input, key) {
      requireNotPendingDeletion(key);
      requireMaterial(key);
      if (key.state !== 'Disabled') await store.update(call.db, key, { state: 'Disabled' });
      return {};
    },
  }),
  keyOperation<UpdateKeyDescriptionRequest, object>(store, {
    name: 'UpdateKeyDescription',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), Description: required(descriptionText) }),
    parameters: ['KeyId', 'Description'],
    async handle(call, input, key) {
      requireNotPendingDeletion(key);
      await store.update(call.db, key, { description: input.Description! });
      return {};
    },
  }),
  listKeys,
];

const listKeysInput = structure({ Limit: pageLimit, Marker: markerText });

const listKeys = operation<ListKeysRequest, ListKeysResponse>({
  name: 'ListKeys',
  effect: 'reads',
  resolve: (_call, input) => validate(input, listKeysInput) as undefined,
  access: (call) => [accountAccess(call, 'ListKeys')],
  async handle(call, input) {
    const page = pageOf('keys', input, { default: 100, max: 1000 });
    const kms: Kysely<KmsTables> = call.db;
    const rows = await kms
      .selectFrom('kms_keys')
      .select(['key_id', 'region', 'account'])
      .where('account', '=', call.account)
      .where('region', '=', call.region)
      .where('key_id', '>', page.after)
      .orderBy('key_id')
      .limit(page.size + 1)
      .execute();
    const { items, end } = pageResult('keys', page, rows, (row) => row.key_id);
    return { Keys: items.map((row) => ({ KeyId: row.key_id, KeyArn: keyArn(row) })), ...end };
  },
  record: (_call, input) => ({ requestParameters: parameters(input, ['Limit', 'Marker']), resources: [] }),
});
