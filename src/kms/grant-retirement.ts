/** RetireGrant: the grant itself says who may end it. Source: KMS developer guide, "Retiring and revoking grants". */
import type { RetireGrantRequest } from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type AccessRequest, type GrantStatement, operation, type PolicyDocument } from '../aws/service.ts';
import { boolean, structure, text, validate } from '../aws/validate.ts';
import { accessDenied, constraintConditions, keyAccess, requireSeen } from './access.ts';
import { grantIdText, keyIdText } from './constraints.ts';
import { type GrantRow, grantConstraints } from './grant-lookup.ts';
import { checkGrantId, deleteGrant, findGrant, grantNotFound } from './grant-store.ts';
import { openGrantToken } from './grant-tokens.ts';
import { findKey, type KeySubject, missingKey } from './identifiers.ts';
import { stopIfDryRun } from './key-operation.ts';
import type { Key, KeyStore } from './key-store.ts';
import { keyResource, parameters } from './trail.ts';

interface GrantSubject {
  readonly key: KeySubject;
  /** Undefined for a grant on another account's key that is not there, which is refused like one that is not the caller's. */
  readonly grant: GrantRow | undefined;
}

const retireGrantInput = structure({
  GrantToken: text({ min: 1, max: 8192 }),
  KeyId: keyIdText,
  GrantId: grantIdText,
  DryRun: boolean(),
});

export const retireGrant = (store: KeyStore) =>
  operation<RetireGrantRequest, object, GrantSubject>({
    name: 'RetireGrant',
    effect: 'writes',
    resolve(call, input) {
      validate(input, retireGrantInput);
      const byId = Boolean(input.KeyId && input.GrantId);
      if (byId === Boolean(input.GrantToken) || (!byId && (input.KeyId || input.GrantId)))
        throw new AwsError('ValidationException', 'Grant token OR (grant ID, key ID) must be specified');
      return input.GrantToken
        ? grantOfToken(call, store, input.GrantToken)
        : grantOfId(call, store, input.KeyId!, input.GrantId!);
    },
    access: (call, _input, subject) => [retirement(call, subject)],
    async handle(call, input, { key, grant }) {
      requireSeen(call, key, 'RetireGrant');
      if (!grant) throw grantNotFound(key.key, input.GrantId!);
      requireOwnOfService(call, key.key, grant);
      stopIfDryRun(input);
      await deleteGrant(call, key.key, grant);
      return {};
    },
    record: (_call, input, _output, subject) => ({
      // The token is left out: it names a grant, which the record does itself.
      requestParameters: parameters(input, ['KeyId', 'GrantId', 'DryRun']),
      ...(subject?.grant ? { additionalEventData: { grantId: subject.grant.grant_id } } : {}),
      resources: subject ? [keyResource(subject.key.key)] : [],
    }),
  });

/**
 * Who may: those that the grant names, the account of the key and the one in which the grant was made. Accounts pass it on
 * by identity policies. Key policies can't allow it; what they deny is denied.
 */
function retirement(call: Call, { key: subject, grant }: GrantSubject): AccessRequest {
  const conditions = grant ? constraintConditions(grantConstraints(grant)) : {};
  const { onlyVia: _, ...request } = keyAccess(call, subject, 'RetireGrant', conditions);
  return {
    ...request,
    resourcePolicy: denialsOf(subject.key.policyDocument),
    grants: async () => (grant ? retirersOf(grant, subject.key) : []),
  };
}

function retirersOf(grant: GrantRow, key: Key): readonly GrantStatement[] {
  const operations = JSON.parse(grant.operations) as string[];
  const principals = [
    `arn:aws:iam::${key.account}:root`,
    `arn:aws:iam::${grant.issuing_account}:root`,
    ...(grant.retiring ? [grant.retiring] : []),
    ...(operations.includes('RetireGrant') ? [grant.grantee] : []),
  ];
  return principals.map((granteePrincipal) => ({
    grantId: grant.grant_id,
    granteePrincipal,
    operations: ['RetireGrant'],
  }));
}

function denialsOf(policy: PolicyDocument): PolicyDocument {
  const statements = Array.isArray(policy.Statement) ? policy.Statement : [policy.Statement];
  return { ...policy, Statement: statements.filter(({ Effect }) => Effect === 'Deny') };
}

/**
 * A service retires only what it made itself, or what names it.
 * @throws {AwsError} AccessDeniedException
 */
function requireOwnOfService(call: Call, key: Key, grant: GrantRow): void {
  if (call.principal.type !== 'AWSService' || grant.created_via === call.via || grant.retiring === call.via) return;
  throw accessDenied(call, {
    request: { action: 'kms:RetireGrant', resource: key.arn, resourceAccount: key.account },
    reason: `the grant is not one of ${call.via}`,
  });
}

async function grantOfToken(call: Call, store: KeyStore, token: string): Promise<GrantSubject> {
  const { keyId, grantId } = openGrantToken(call, store.rootKey, token);
  const key = await store.byId(call, call.region, keyId);
  const grant = key && (await findGrant(call, key, grantId));
  if (key && (grant || key.account !== call.account)) return { key: { key }, grant };
  // Whose key it was is not known any more; the token says that there was a grant.
  if (!key) return { key: missingKey(call.region, '', keyId), grant: undefined };
  throw grantNotFound(key, grantId);
}

async function grantOfId(call: Call, store: KeyStore, keyId: string, grantId: string): Promise<GrantSubject> {
  checkGrantId(grantId);
  const key = await findKey(call, store, keyId, { aliases: false, otherAccounts: true });
  const grant = key.isMissing ? undefined : await findGrant(call, key.key, grantId);
  if (!grant && key.key.account === call.account) throw grantNotFound(key.key, grantId);
  return { key, grant };
}
