/** What a caller must be allowed to do with a key, for the pipeline to decide. */
import type { GrantConstraints } from '@aws-sdk/client-kms';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { AccessRequest, Denial } from '../aws/service.ts';
import { findGrants } from './grant-lookup.ts';
import type { KeySubject } from './identifiers.ts';
import type { Key } from './key-store.ts';
import { managingService } from './managed-keys.ts';

export type Conditions = Readonly<Record<string, string | readonly string[]>>;

/**
 * @param action without the prefix (`Decrypt`)
 * @param conditions policy condition keys of this request, beside those that follow from the key
 */
export function keyAccess(
  call: Call,
  { key, alias, hiddenAs }: KeySubject,
  action: string,
  conditions: Conditions = {},
): AccessRequest {
  return {
    action: `kms:${action}`,
    resource: key.arn,
    resourceAccount: key.account,
    resourcePolicy: key.policyDocument,
    ...(key.managed_alias ? { onlyVia: managingService(key) } : {}),
    ...(hiddenAs ? { hiddenAs } : {}),
    grants: () => findGrants(call, key, action),
    context: { ...key.conditions, ...(alias ? { 'kms:RequestAlias': alias } : {}), ...conditions },
  };
}

/** Access to an action that is about no key, or about an alias: only identity policies decide. */
export function accountAccess(call: Call, action: string, resource = '*', conditions: Conditions = {}): AccessRequest {
  return { action: `kms:${action}`, resource, resourceAccount: call.account, context: conditions };
}

/** The condition keys of a grant's constraints. Source: KMS developer guide, `kms:GrantConstraintType`. */
export function constraintConditions(constraints: GrantConstraints | undefined): Conditions {
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset, SourceArn } = constraints ?? {};
  const types = [
    ...(equals ? ['EncryptionContextEquals'] : []),
    ...(subset ? ['EncryptionContextSubset'] : []),
    ...(SourceArn ? ['SourceArn'] : []),
  ];
  return {
    ...(SourceArn ? { 'kms:GrantConstraintSourceArn': SourceArn } : {}),
    ...(types.length > 0 ? { 'kms:GrantConstraintType': types.length === 1 ? types[0]! : types } : {}),
    ...contextConditions({ ...subset, ...equals }),
  };
}

/** What stands for a key that is yet to be made, where leave is for keys. */
export const newKeyArn = ({ region, account }: Pick<Call, 'region' | 'account'>) =>
  formatArn('kms', region, account, 'key/*');

/** The condition keys of an encryption context. Source: KMS developer guide, `kms:EncryptionContext:context-key`. */
export function contextConditions(context: Readonly<Record<string, string>> | undefined): Conditions {
  if (!context) return {};
  const conditions: Record<string, string | readonly string[]> = {};
  const keys = Object.keys(context);
  for (const key of keys) conditions[`kms:EncryptionContext:${key}`] = context[key]!;
  if (keys.length > 0) conditions['kms:EncryptionContextKeys'] = keys;
  return conditions;
}

/** The refusal of a call. Of another account's key it does not say whether there is one; the words are AWS's own. */
export function accessDenied(call: Call, denial: Pick<Denial, 'request' | 'reason'> & Partial<Denial>): AwsError {
  const { request, isHidden } = denial;
  return new AwsError(
    'AccessDeniedException',
    isHidden
      ? `User: ${call.principal.arn} is not authorized to perform: ${request.action} on ${request.hiddenAs ?? 'this resource'} ` +
          'because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based ' +
          'policy explicitly denies access'
      : denialSentence(call, denial),
  );
}

/**
 * The last guard before a key is used: nothing is done with one that is not there, whoever asks.
 * @throws {AwsError} AccessDeniedException
 */
export function requireSeen(call: Call, subject: KeySubject, action: string): void {
  if (subject.isMissing)
    throw accessDenied(call, { request: keyAccess(call, subject, action), reason: '', isHidden: true });
}

/**
 * AWS managed keys are changed by nobody but the service that owns them, whatever a policy says.
 * @throws {AwsError} AccessDeniedException
 */
export function requireCustomerManaged(call: Call, key: Key, action: string): void {
  if (key.key_manager === 'CUSTOMER') return;
  throw accessDenied(call, {
    request: { action: `kms:${action}`, resource: key.arn, resourceAccount: key.account },
    reason: `it is the AWS managed key ${key.managed_alias}, which only AWS can change`,
  });
}
