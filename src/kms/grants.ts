import type {
  CreateGrantRequest,
  CreateGrantResponse,
  GrantListEntry,
  ListGrantsRequest,
  ListGrantsResponse,
  ListRetirableGrantsRequest,
  RevokeGrantRequest,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { isUniqueId } from '../aws/policy-principals.ts';
import { operation } from '../aws/service.ts';
import { boolean, required, structure, validate } from '../aws/validate.ts';
import { accountAccess, type Conditions, constraintConditions, keyAccess, requireSeen } from './access.ts';
import { grantIdText, keyIdText, markerText, pageLimit, principalText, servicePrincipalText } from './constraints.ts';
import { findGrants, type GrantRow, grantConstraints } from './grant-lookup.ts';
import { retireGrant } from './grant-retirement.ts';
import {
  checkGrant,
  checkGrantRequest,
  checkOneOf,
  checkPrincipal,
  createGrantInput,
  isWithin,
} from './grant-rules.ts';
import { checkGrantId, deleteGrant, insertGrant, newGrantRow, requireGrant, sameGrant } from './grant-store.ts';
import { newGrantToken } from './grant-tokens.ts';
import { findKey, type KeySubject } from './identifiers.ts';
import { checkGrantTokens, keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireEnabled } from './key-states.ts';
import { type KeyStore, keyArn } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import { arnsOf, namesInGrants } from './principals.ts';
import type { KmsTables } from './records.ts';
import { keyResource, lowerCamel, parameters } from './trail.ts';

const pageSizes = { default: 50, max: 100 };

const createGrant = (store: KeyStore) =>
  operation<CreateGrantRequest, CreateGrantResponse, KeySubject>({
    name: 'CreateGrant',
    effect: 'writes',
    resolve(call, input) {
      validate(input, createGrantInput);
      checkGrantRequest(input);
      checkGrantTokens(call, store, input.GrantTokens);
      return findKey(call, store, input.KeyId!, { aliases: false, otherAccounts: true });
    },
    access: (call, input, subject) => [
      {
        ...keyAccess(call, subject, 'CreateGrant', createGrantConditions(call, input)),
        // Whoever may create grants by a grant can only pass on what that grant gives.
        grants: async () =>
          (await findGrants(call, subject.key, 'CreateGrant')).filter((grant) => isWithin(input, grant)),
      },
    ],
    async handle(call, input, subject) {
      const { key } = subject;
      requireSeen(call, subject, 'CreateGrant');
      requireEnabled(key);
      checkGrant(input, key);
      stopIfDryRun(input);
      const row = await newGrantRow(call, input, key);
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
        ...parameters(input, recordedMembers),
        ...(typeof input.GranteePrincipal === 'string'
          ? { granteePrincipal: recordedPrincipal(input.GranteePrincipal) }
          : {}),
        ...(input.Constraints ? { constraints: recordedConstraints(input.Constraints) } : {}),
      },
      responseElements: output && subject ? { grantId: output.GrantId, keyId: subject.key.arn } : null,
      resources: subject ? [keyResource(subject.key)] : [],
    }),
  });

const recordedMembers = [
  'KeyId',
  'Operations',
  'Name',
  'DryRun',
  'RetiringPrincipal',
  'GranteeServicePrincipal',
  'RetiringServicePrincipal',
];

const listGrants = (store: KeyStore) =>
  keyOperation<ListGrantsRequest, ListGrantsResponse>(store, {
    name: 'ListGrants',
    effect: 'reads',
    otherAccounts: true,
    input: structure({
      KeyId: required(keyIdText),
      Limit: pageLimit,
      Marker: markerText,
      GrantId: grantIdText,
      GranteePrincipal: principalText,
      GranteeServicePrincipal: servicePrincipalText,
    }),
    check(input) {
      checkOneOf(input, ['GranteePrincipal', 'GranteeServicePrincipal']);
      if (input.GrantId) checkGrantId(input.GrantId);
    },
    conditions: forAwsResource,
    parameters: ['KeyId', 'GrantId', 'GranteePrincipal', 'GranteeServicePrincipal', 'Limit', 'Marker'],
    async handle(call, input, key) {
      const grantee =
        input.GranteePrincipal ?? serviceOf(call, 'GranteeServicePrincipal', input.GranteeServicePrincipal);
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
      if (grantee) query = query.where('grantee', 'in', await namesInGrants(call, grantee));
      return grantPage(call, list, page, await query.execute());
    },
  });

const listRetirableGrantsInput = structure({
  Limit: pageLimit,
  Marker: markerText,
  RetiringPrincipal: principalText,
  RetiringServicePrincipal: servicePrincipalText,
});

const listRetirableGrants = operation<ListRetirableGrantsRequest, ListGrantsResponse>({
  name: 'ListRetirableGrants',
  effect: 'reads',
  resolve(_call, input) {
    validate(input, listRetirableGrantsInput);
    checkOneOf(input, ['RetiringPrincipal', 'RetiringServicePrincipal']);
    if (input.RetiringPrincipal) checkPrincipal(input.RetiringPrincipal);
    else if (!input.RetiringServicePrincipal)
      throw new AwsError(
        'ValidationException',
        "1 validation error detected: Value null at 'retiringPrincipal' failed to satisfy constraint: Member must not be null",
      );
    return undefined;
  },
  // Its resource is the principal that it asks about (API_ListRetirableGrants).
  access: (call, input) => [accountAccess(call, 'ListRetirableGrants', input.RetiringPrincipal)],
  async handle(call, input) {
    const retiring =
      input.RetiringPrincipal ?? serviceOf(call, 'RetiringServicePrincipal', input.RetiringServicePrincipal)!;
    const list = `retirable ${retiring}`;
    const page = pageOf(list, input, pageSizes);
    const kms: Kysely<KmsTables> = call.db;
    let query = kms
      .selectFrom('kms_grants')
      .selectAll()
      .where('retiring', 'in', await namesInGrants(call, retiring))
      .where('region', '=', call.region)
      .where('grant_id', '>', page.after)
      .orderBy('grant_id')
      .limit(page.size + 1);
    // Of another account's principals, only what concerns the keys of the caller's own.
    if (accountOf(retiring) !== call.account) query = query.where('account', '=', call.account);
    return grantPage(call, list, page, await query.execute());
  },
  record: (_call, input) => ({
    requestParameters: parameters(input, ['RetiringPrincipal', 'RetiringServicePrincipal', 'Limit', 'Marker']),
    resources: [],
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
      checkGrantId(input.GrantId!);
      return findKey(call, store, input.KeyId!, { aliases: false, otherAccounts: true });
    },
    access: (call, _input, subject) => [keyAccess(call, subject, 'RevokeGrant', forAwsResource(call))],
    async handle(call, input, subject) {
      const { key } = subject;
      requireSeen(call, subject, 'RevokeGrant');
      const grant = await requireGrant(call, key, input.GrantId!);
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
  return {
    ...forAwsResource(call),
    'kms:GrantOperations': input.Operations!,
    ...(input.GranteePrincipal ? { 'kms:GranteePrincipal': input.GranteePrincipal } : {}),
    ...(input.GranteeServicePrincipal ? { 'kms:GranteeServicePrincipal': input.GranteeServicePrincipal } : {}),
    ...(input.RetiringPrincipal ? { 'kms:RetiringPrincipal': input.RetiringPrincipal } : {}),
    ...(input.RetiringServicePrincipal ? { 'kms:RetiringServicePrincipal': input.RetiringServicePrincipal } : {}),
    ...constraintConditions(input.Constraints),
  };
}

/**
 * The service that a filter names, which only that service itself may use.
 * @throws {AwsError} ValidationException
 */
function serviceOf(call: Call, member: string, service: string | undefined): string | undefined {
  if (service && (call.principal.type !== 'AWSService' || call.via !== service))
    throw new AwsError('ValidationException', `${member} can be used by the service principal ${service} only.`);
  return service;
}

async function grantPage(
  call: Call,
  list: string,
  page: { after: string; size: number },
  rows: readonly GrantRow[],
): Promise<ListGrantsResponse> {
  const { items, end } = pageResult(list, page, rows, (row) => row.grant_id);
  const arns = await arnsOf(
    call,
    items.flatMap((row) => [row.grantee, row.retiring]),
  );
  const named = (name: string) => arns[name] ?? name;
  return {
    Grants: items.map((row) =>
      grantEntry({ ...row, grantee: named(row.grantee), retiring: row.retiring && named(row.retiring) }),
    ),
    ...end,
  };
}

/** @param row its principals named by ARN, as far as they are there */
function grantEntry(row: GrantRow): GrantListEntry {
  const constraints = grantConstraints(row);
  return {
    KeyId: keyArn(row),
    GrantId: row.grant_id,
    Name: row.name,
    CreationDate: new Date(row.created_at),
    ...(isService(row.grantee) ? { GranteeServicePrincipal: row.grantee } : { GranteePrincipal: row.grantee }),
    ...(row.retiring && !isService(row.retiring) ? { RetiringPrincipal: row.retiring } : {}),
    ...(row.retiring && isService(row.retiring) ? { RetiringServicePrincipal: row.retiring } : {}),
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

const isService = (principal: string) => !principal.startsWith('arn:') && !isUniqueId(principal);
const accountOf = (principal: string) => /^arn:[^:]*:[^:]*:[^:]*:(\d{12}):/.exec(principal)?.[1];
