import type {
  AliasListEntry,
  CreateAliasRequest,
  DeleteAliasRequest,
  ListAliasesRequest,
  ListAliasesResponse,
  UpdateAliasRequest,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { required, structure, validate } from '../aws/validate.ts';
import { accountAccess, keyAccess, requireCustomerManaged, requireSeen } from './access.ts';
import { aliasNameText, keyIdText, markerText, pageLimit } from './constraints.ts';
import { aliasNotFound, findKey, type KeySubject, keyNotFound } from './identifiers.ts';
import { requireNotPendingDeletion } from './key-states.ts';
import { type Key, type KeyStore, managedAliasPrefix } from './key-store.ts';
import { managedAliases } from './managed-keys.ts';
import { pageOf, pageResult } from './markers.ts';
import type { KmsTables } from './records.ts';
import { aliasResource, keyResource, parameters } from './trail.ts';

/** Aliases of one key. Source: KMS developer guide, "Aliases per KMS key". */
const aliasesMax = 50;

const aliasAndTarget = structure({ AliasName: required(aliasNameText), TargetKeyId: required(keyIdText) });
const onlyAlias = structure({ AliasName: required(aliasNameText) });

export const aliasOperations = (store: KeyStore) => [
  operation<CreateAliasRequest, object, KeySubject>({
    name: 'CreateAlias',
    effect: 'writes',
    resolve(call, input) {
      validate(input, aliasAndTarget);
      checkAliasName(input.AliasName!);
      // The pattern lets colons pass, but no name has them. Those that came to be earlier can still be moved and deleted.
      if (input.AliasName!.includes(':'))
        throw new AwsError('ValidationException', `${input.AliasName} contains invalid characters for an alias`);
      return findTarget(call, store, input.TargetKeyId!);
    },
    access: (call, input, subject) => [
      accountAccess(call, 'CreateAlias', aliasArn(call, input.AliasName!)),
      keyAccess(call, subject, 'CreateAlias'),
    ],
    async handle(call, input, subject) {
      const alias = input.AliasName!;
      const { key } = subject;
      requireSeen(call, subject, 'CreateAlias');
      requireCustomerManaged(call, key, 'CreateAlias');
      requireNotPendingDeletion(key);
      if (await targetOf(call, alias))
        throw new AwsError('AlreadyExistsException', `An alias with the name ${aliasArn(call, alias)} already exists`);
      checkAliasCount(key);
      const now = call.clock.now();
      const kms: Kysely<KmsTables> = call.db;
      await kms
        .insertInto('kms_aliases')
        .values({
          account: call.account,
          region: call.region,
          alias_name: alias,
          key_id: key.key_id,
          created_at: now,
          updated_at: now,
        })
        .execute();
      await store.update(call.db, key);
      return {};
    },
    record: (call, input, _output, subject) => ({
      requestParameters: parameters(input, ['AliasName', 'TargetKeyId']),
      resources: subject ? [keyResource(subject.key), aliasResource(call, input.AliasName!)] : [],
    }),
  }),

  operation<UpdateAliasRequest, object, { from: Key; to: KeySubject }>({
    name: 'UpdateAlias',
    effect: 'writes',
    async resolve(call, input) {
      validate(input, aliasAndTarget);
      checkAliasName(input.AliasName!);
      const from = await keyOf(call, store, input.AliasName!);
      return { from, to: await findTarget(call, store, input.TargetKeyId!) };
    },
    access: (call, input, { from, to }) => [
      accountAccess(call, 'UpdateAlias', aliasArn(call, input.AliasName!)),
      keyAccess(call, { key: from }, 'UpdateAlias'),
      keyAccess(call, to, 'UpdateAlias'),
    ],
    async handle(call, input, { from, to: target }) {
      requireSeen(call, target, 'UpdateAlias');
      const { key: to } = target;
      requireCustomerManaged(call, to, 'UpdateAlias');
      requireNotPendingDeletion(to);
      if (from.key_usage !== to.key_usage || isSymmetric(from) !== isSymmetric(to))
        throw new AwsError(
          'ValidationException',
          `Alias ${input.AliasName} cannot be changed from a KMS key with key usage ${from.key_usage} and key spec ` +
            `${from.key_spec} to a KMS key with key usage ${to.key_usage} and key spec ${to.key_spec}. The key usage and ` +
            'key type of the current KMS key and the new KMS key must be the same.',
        );
      if (from.key_id !== to.key_id) checkAliasCount(to);
      const kms: Kysely<KmsTables> = call.db;
      await kms
        .updateTable('kms_aliases')
        .set({ key_id: to.key_id, updated_at: call.clock.now() })
        .where('account', '=', call.account)
        .where('region', '=', call.region)
        .where('alias_name', '=', input.AliasName!)
        .execute();
      await store.update(call.db, from);
      await store.update(call.db, to);
      return {};
    },
    record: (call, input, _output, subject) => ({
      requestParameters: parameters(input, ['AliasName', 'TargetKeyId']),
      resources: subject ? [aliasResource(call, input.AliasName!), keyResource(subject.to.key)] : [],
    }),
  }),

  operation<DeleteAliasRequest, object, Key>({
    name: 'DeleteAlias',
    effect: 'writes',
    resolve(call, input) {
      validate(input, onlyAlias);
      checkAliasName(input.AliasName!);
      return keyOf(call, store, input.AliasName!);
    },
    access: (call, input, key) => [
      accountAccess(call, 'DeleteAlias', aliasArn(call, input.AliasName!)),
      keyAccess(call, { key }, 'DeleteAlias'),
    ],
    async handle(call, input, key) {
      const kms: Kysely<KmsTables> = call.db;
      await kms
        .deleteFrom('kms_aliases')
        .where('account', '=', call.account)
        .where('region', '=', call.region)
        .where('alias_name', '=', input.AliasName!)
        .execute();
      await store.update(call.db, key);
      return {};
    },
    record: (call, input, _output, key) => ({
      requestParameters: parameters(input, ['AliasName']),
      resources: key ? [aliasResource(call, input.AliasName!), keyResource(key)] : [],
    }),
  }),

  operation<ListAliasesRequest, ListAliasesResponse, Key | undefined>({
    name: 'ListAliases',
    effect: 'reads',
    async resolve(call, input) {
      validate(input, structure({ KeyId: keyIdText, Limit: pageLimit, Marker: markerText }));
      if (input.KeyId === undefined || input.KeyId === null) return undefined;
      const { key, isMissing } = await findKey(call, store, input.KeyId, { aliases: false });
      if (isMissing) throw keyNotFound(key.arn);
      return key;
    },
    access: (call) => [accountAccess(call, 'ListAliases')],
    async handle(call, input, key) {
      const list = key ? `aliases ${key.key_id}` : 'aliases';
      const page = pageOf(list, input, { default: 50, max: 100 });
      const rows = await aliasEntries(call, key, page.after, page.size + 1);
      const { items, end } = pageResult(list, page, rows, (entry) => entry.AliasName!);
      return { Aliases: [...items], ...end };
    },
    record: (_call, input, _output, key) => ({
      requestParameters: parameters(input, ['KeyId', 'Limit', 'Marker']),
      resources: key ? [keyResource(key)] : [],
    }),
  }),
];

/** @throws {AwsError} ValidationException, InvalidAliasNameException or NotAuthorizedException */
function checkAliasName(alias: string): void {
  if (!alias.startsWith('alias/'))
    throw new AwsError(
      'ValidationException',
      'Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html',
    );
  if (alias === 'alias/') throw new AwsError('InvalidAliasNameException', 'The alias has no name after "alias/".');
  if (alias.startsWith(managedAliasPrefix))
    throw new AwsError('NotAuthorizedException', `The prefix ${managedAliasPrefix} is reserved for AWS managed keys.`);
}

/** @throws {AwsError} ValidationException for an alias; what `findKey` throws */
function findTarget(call: Call, store: KeyStore, target: string): Promise<KeySubject> {
  if (/^(?:alias\/|arn:[^/]*:alias\/)/.test(target))
    throw new AwsError('ValidationException', 'Aliases must refer to keys. Not aliases');
  return findKey(call, store, target, { aliases: false });
}

/** @throws {AwsError} LimitExceededException */
function checkAliasCount(key: Key): void {
  if (key.aliases.length >= aliasesMax)
    throw new AwsError('LimitExceededException', `${key.arn} has the maximum of ${aliasesMax} aliases.`);
}

async function targetOf(call: Call, alias: string): Promise<string | undefined> {
  const kms: Kysely<KmsTables> = call.db;
  const row = await kms
    .selectFrom('kms_aliases')
    .select('key_id')
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('alias_name', '=', alias)
    .executeTakeFirst();
  return row?.key_id;
}

async function keyOf(call: Call, store: KeyStore, alias: string): Promise<Key> {
  const key = await store.byAlias(call, call.account, call.region, alias);
  if (!key) throw aliasNotFound(aliasArn(call, alias));
  return key;
}

/** The next aliases after `after` in the order of their names; predefined ones are there even before their key is. */
async function aliasEntries(call: Call, key: Key | undefined, after: string, count: number): Promise<AliasListEntry[]> {
  const kms: Kysely<KmsTables> = call.db;
  let named = kms
    .selectFrom('kms_aliases')
    .select(['alias_name', 'key_id', 'created_at', 'updated_at'])
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('alias_name', '>', after)
    .orderBy('alias_name')
    .limit(count);
  if (key) named = named.where('key_id', '=', key.key_id);
  const managed = await kms
    .selectFrom('kms_keys')
    .select(['managed_alias', 'key_id', 'created_at'])
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('managed_alias', 'is not', null)
    .execute();
  const predefined = managedAliases
    .filter((alias) => alias > after)
    .map((alias) => ({ alias, row: managed.find((row) => row.managed_alias === alias) }))
    .filter(({ row }) => !key || row?.key_id === key.key_id)
    .map(({ alias, row }) => entry(call, alias, row?.key_id, row?.created_at, row?.created_at));
  const entries = (await named.execute()).map((row) =>
    entry(call, row.alias_name, row.key_id, row.created_at, row.updated_at),
  );
  return [...entries, ...predefined].sort((a, b) => (a.AliasName! < b.AliasName! ? -1 : 1)).slice(0, count);
}

function entry(call: Call, alias: string, keyId?: string, createdAt?: number, updatedAt?: number): AliasListEntry {
  return {
    AliasName: alias,
    AliasArn: aliasArn(call, alias),
    ...(keyId ? { TargetKeyId: keyId } : {}),
    ...(createdAt ? { CreationDate: new Date(createdAt) } : {}),
    ...(updatedAt ? { LastUpdatedDate: new Date(updatedAt) } : {}),
  };
}

const aliasArn = (call: Call, alias: string) => formatArn('kms', call.region, call.account, alias);
const isSymmetric = (key: Key) => key.key_spec === 'SYMMETRIC_DEFAULT' || key.key_usage === 'GENERATE_VERIFY_MAC';
