import type {
  CreateGrantRequest,
  CreateGrantResponse,
  GrantListEntry,
  ListGrantsRequest,
  ListGrantsResponse,
  ListRetirableGrantsRequest,
  RetireGrantRequest,
  RevokeGrantRequest,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { boolean, required, structure, text, validate } from '../aws/validate.ts';
import { accountAccess, type Conditions, keyAccess } from './access.ts';
import { grantIdText, keyIdText, markerText, pageLimit, principalText } from './constraints.ts';
import { findGrants, type GrantRow, grantConstraints } from './grant-lookup.ts';
import { checkGrant, checkPrincipal, createGrantInput, isWithin } from './grant-rules.ts';
import {
  checkGrantId,
  deleteGrant,
  type GrantSubject,
  grantOfId,
  insertGrant,
  newGrantRow,
  sameGrant,
} from './grant-store.ts';
import { newGrantToken, openGrantToken } from './grant-tokens.ts';
import { findKey, type KeySubject } from './identifiers.ts';
import { checkGrantTokens, keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireEnabled } from './key-states.ts';
import { type Key, type KeyStore, keyArn } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import type { KmsTables } from './records.ts';
import { keyResource, lowerCamel, parameters } from './trail.ts';

const pageSizes = { default: 50, max: 100 };

const createGrant = (store: KeyStore) =>
  operation<CreateGrantRequest, CreateGrantResponse, KeySubject>({
    name: 'CreateGrant',
    effect: 'writes',
    resolve(call, input) {
      validate(input, createGrantInput);
      checkGrantTokens(call, store, input.GrantTokens);
      return findKey(call, store, input.KeyId!, { aliases: false });
    },
    access: (call, input, subject) => [
      {
        ...keyAccess(call, subject, 'CreateGrant', createGrantConditions(call, input)),
        // Whoever may create grants by a grant can only pass on what that grant gives.
        grants: async () => (await findGrants(call, subject.key)).filter((grant) => isWithin(input, grant)),
      },
    ],
    async handle(call, input, { key }) {
      requireEnabled(key);
      checkGrant(input, key);
      stopIfDryRun(input);
      const row = newGrantRow(call, input, key);
      const existing = input.Name ? await sameGrant(call, row) : undefined;
      const grantId = existing ?? row.grant_id;
      if (!existing) await insertGrant(call, key, row);
      return {
        GrantId: grantId,
        GrantToken: newGrantToken(store.rootKey, { region: key.region, keyId: key.key_id, grantId }),
      };
    },
    record: (_call, input, output, subject) => ({
      requestParameters: {
        ...parameters(input, ['KeyId', 'Operations', 'Name', 'DryRun', 'RetiringPrincipal']),
        ...(typeof input.GranteePrincipal === 'string'
          ? { granteePrincipal: recordedPrincipal(input.GranteePrincipal) }
          : {}),
        ...(input.Constraints ? { constraints: recordedConstraints(input.Constraints) } : {}),
      },
      responseElements: output && subject ? { grantId: output.GrantId, keyId: subject.key.arn } : null,
      resources: subject ? [keyResource(subject.key)] : [],
    }),
  });

const listGrants = (store: KeyStore) =>
  keyOperation<ListGrantsRequest, ListGrantsResponse>(store, {
    name: 'ListGrants',
    effect: 'reads',
    input: structure({
      KeyId: required(keyIdText),
      Limit: pageLimit,
      Marker: markerText,
      GrantId: grantIdText,
      GranteePrincipal: principalText,
    }),
    conditions: forAwsResource,
    parameters: ['KeyId', 'GrantId', 'GranteePrincipal', 'Limit', 'Marker'],
    async handle(call, input, key) {
      if (input.GrantId) checkGrantId(input.GrantId);
      const list = `grants ${key.key_id}`;
      const page = pageOf(list, input, pageSizes);
      const kms: Kysely<KmsTables> = call.db;
      let query = kms
        .selectFrom('kms_grants')
        .selectAll()
        .where('key_id', '=', key.key_id)
        .where('region', '=', key.region)
        .where('grant_id', '>', page.after)
        .orderBy('grant_id')
        .limit(page.size + 1);
      if (input.GrantId) query = query.where('grant_id', '=', input.GrantId);
      if (input.GranteePrincipal) query = query.where('grantee', '=', input.GranteePrincipal);
      return grantPage(list, page, await query.execute());
    },
  });

const listRetirableGrantsInput = structure({
  Limit: pageLimit,
  Marker: markerText,
  RetiringPrincipal: required(principalText),
});

const listRetirableGrants = operation<ListRetirableGrantsRequest, ListGrantsResponse>({
  name: 'ListRetirableGrants',
  effect: 'reads',
  resolve(_call, input) {
    validate(input, listRetirableGrantsInput);
    checkPrincipal(input.RetiringPrincipal!);
    return undefined;
  },
  access: (call) => [accountAccess(call, 'ListRetirableGrants')],
  async handle(call, input) {
    const list = `retirable ${input.RetiringPrincipal}`;
    const page = pageOf(list, input, pageSizes);
    const kms: Kysely<KmsTables> = call.db;
    const rows = await kms
      .selectFrom('kms_grants')
      .selectAll()
      .where('retiring', '=', input.RetiringPrincipal!)
      .where('region', '=', call.region)
      .where('grant_id', '>', page.after)
      // Only grants that the caller's account has to do with: on its keys, or retirable by its principals.
      .where((eb) =>
        eb.or([eb('account', '=', call.account), eb.val(accountOf(input.RetiringPrincipal!) === call.account)]),
      )
      .orderBy('grant_id')
      .limit(page.size + 1)
      .execute();
    return grantPage(list, page, rows);
  },
  record: (_call, input) => ({
    requestParameters: parameters(input, ['RetiringPrincipal', 'Limit', 'Marker']),
    resources: [],
  }),
});

const retireGrantInput = structure({
  GrantToken: text({ min: 1, max: 8192 }),
  KeyId: keyIdText,
  GrantId: grantIdText,
  DryRun: boolean(),
});

const retireGrant = (store: KeyStore) =>
  operation<RetireGrantRequest, object, GrantSubject>({
    name: 'RetireGrant',
    effect: 'writes',
    async resolve(call, input) {
      validate(input, retireGrantInput);
      const byId = Boolean(input.KeyId && input.GrantId);
      if (byId === Boolean(input.GrantToken) || (!byId && (input.KeyId || input.GrantId)))
        throw new AwsError('ValidationException', 'Grant token OR (grant ID, key ID) must be specified');
      return input.GrantToken
        ? grantOfToken(call, store, input.GrantToken)
        : grantOfId(call, await retirableKey(call, store, input.KeyId!, input.GrantId!), input.GrantId!);
    },
    access: (call, _input, { key, grant }) =>
      mayRetire(call, key, grant) ? [] : [keyAccess(call, { key }, 'RetireGrant')],
    async handle(call, input, { key, grant }) {
      stopIfDryRun(input);
      await deleteGrant(call, key, grant);
      return {};
    },
    record: (_call, input, _output, subject) => ({
      // The token is left out: it names a grant, which the record does itself.
      requestParameters: parameters(
        { KeyId: input.KeyId, GrantId: input.GrantId ?? subject?.grant.grant_id, DryRun: input.DryRun },
        ['KeyId', 'GrantId', 'DryRun'],
      ),
      resources: subject ? [keyResource(subject.key)] : [],
    }),
  });

const revokeGrantInput = structure({
  KeyId: required(keyIdText),
  GrantId: required(grantIdText),
  DryRun: boolean(),
});

const revokeGrant = (store: KeyStore) =>
  operation<RevokeGrantRequest, object, KeySubject>({
    name: 'RevokeGrant',
    effect: 'writes',
    resolve(call, input) {
      validate(input, revokeGrantInput);
      return findKey(call, store, input.KeyId!, { aliases: false });
    },
    access: (call, _input, subject) => [keyAccess(call, subject, 'RevokeGrant', forAwsResource(call))],
    async handle(call, input, { key }) {
      const { grant } = await grantOfId(call, key, input.GrantId!);
      stopIfDryRun(input);
      await deleteGrant(call, key, grant);
      return {};
    },
    record: (_call, input, _output, subject) => ({
      requestParameters: parameters(input, ['KeyId', 'GrantId', 'DryRun']),
      responseElements: subject ? { keyId: subject.key.arn } : null,
      resources: subject ? [keyResource(subject.key)] : [],
    }),
  });

export const grantOperations = (store: KeyStore) => [
  createGrant(store),
  listGrants(store),
  listRetirableGrants,
  retireGrant(store),
  revokeGrant(store),
];

function forAwsResource(call: Call): Conditions {
  return { 'kms:GrantIsForAWSResource': String(call.via !== undefined) };
}

function createGrantConditions(call: Call, input: CreateGrantRequest): Conditions {
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset } = input.Constraints ?? {};
  const context = { ...subset, ...equals };
  return {
    ...forAwsResource(call),
    'kms:GrantOperations': input.Operations!,
    'kms:GranteePrincipal': input.GranteePrincipal!,
    ...(input.RetiringPrincipal ? { 'kms:RetiringPrincipal': input.RetiringPrincipal } : {}),
    ...(equals ? { 'kms:GrantConstraintType': 'EncryptionContextEquals' } : {}),
    ...(subset ? { 'kms:GrantConstraintType': 'EncryptionContextSubset' } : {}),
    ...Object.fromEntries(Object.entries(context).map(([key, value]) => [`kms:EncryptionContext:${key}`, value])),
    ...(Object.keys(context).length > 0 ? { 'kms:EncryptionContextKeys': Object.keys(context) } : {}),
  };
}

async function grantOfToken(call: Call, store: KeyStore, token: string): Promise<GrantSubject> {
  const { keyId, grantId } = openGrantToken(call, store.rootKey, token);
  const key = await store.byId(call, call.region, keyId);
  if (!key) throw new AwsError('NotFoundException', `Grant ${grantId} is not found.`);
  const subject = await grantOfId(call, key, grantId);
  if (key.account === call.account || mayRetire(call, key, subject.grant)) return subject;
  throw new AwsError('NotFoundException', `Grant ${grantId} is not found.`);
}

/** The key of a grant to retire: the retiring principal may be of another account than the key. */
async function retirableKey(call: Call, store: KeyStore, identifier: string, grantId: string): Promise<Key> {
  const match = /^arn:[^:]+:kms:([^:]*):(\d{12}):key\/([^/]+)$/.exec(identifier);
  if (match && match[1] === call.region && match[2] !== call.account) {
    const key = await store.byId(call, call.region, match[3]!);
    const foreign =
      key && key.account === match[2] ? await grantOfId(call, key, grantId).catch(() => undefined) : undefined;
    if (key && foreign && mayRetire(call, key, foreign.grant)) return key;
  }
  return (await findKey(call, store, identifier, { aliases: false })).key;
}

/**
 * Whether the grant itself lets the caller retire it: its retiring principal, a grantee with RetireGrant among its
 * operations, the root of the key's account; and the service that made it for someone in that account.
 * Source: API_RetireGrant, KMS developer guide "Retiring and revoking grants".
 */
function mayRetire(call: Call, key: Key, grant: GrantRow): boolean {
  const { arn, sessionIssuer, type, account } = call.principal;
  const isCaller = (principal: string | null) =>
    principal !== null && (principal === arn || principal === sessionIssuer?.arn);
  if (isCaller(grant.retiring)) return true;
  if (isCaller(grant.grantee) && (JSON.parse(grant.operations) as string[]).includes('RetireGrant')) return true;
  if (account !== key.account) return false;
  return type === 'Root' || (grant.created_via !== null && grant.created_via === call.via);
}

function grantPage(list: string, page: { after: string; size: number }, rows: readonly GrantRow[]): ListGrantsResponse {
  const { items, end } = pageResult(list, page, rows, (row) => row.grant_id);
  return { Grants: items.map(grantEntry), ...end };
}

function grantEntry(row: GrantRow): GrantListEntry {
  const constraints = grantConstraints(row);
  return {
    KeyId: keyArn(row),
    GrantId: row.grant_id,
    Name: row.name,
    CreationDate: new Date(row.created_at),
    GranteePrincipal: row.grantee,
    ...(row.retiring ? { RetiringPrincipal: row.retiring } : {}),
    IssuingAccount: `arn:aws:iam::${row.issuing_account}:root`,
    Operations: JSON.parse(row.operations) as GrantListEntry['Operations'],
    ...(constraints ? { Constraints: constraints } : {}),
  };
}

/** The trail shows a host's principal by its id: `111122223333:aws:ec2-infrastructure:i-…`. */
function recordedPrincipal(principal: string): string {
  const match = /^arn:[^:]+:sts::(\d{12}):assumed-role\/(aws:ec2-infrastructure)\/(.+)$/.exec(principal);
  return match ? `${match[1]}:${match[2]}:${match[3]}` : principal;
}

function recordedConstraints(constraints: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(constraints).map(([name, value]) => [lowerCamel(name), value]));
}

const accountOf = (principal: string) => /^arn:[^:]*:[^:]*:[^:]*:(\d{12}):/.exec(principal)?.[1];
