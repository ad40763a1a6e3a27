/** What a caller must be allowed to do with a key, for the pipeline to decide. */
import type { Call } from '../aws/call.ts';
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
  { key, alias }: KeySubject,
  action: string,
  conditions: Conditions = {},
): AccessRequest {
  return {
    action: `kms:${action}`,
    resource: key.arn,
    resourceAccount: key.account,
    resourcePolicy: key.policyDocument,
    ...(key.managed_alias ? { onlyVia: managingService(key) } : {}),
    grants: () => findGrants(call, key),
    context: { ...key.conditions, ...(alias ? { 'kms:RequestAlias': alias } : {}), ...conditions },
  };
}

/** Access to an action that is about no key, or about an alias: only identity policies decide. */
export function accountAccess(call: Call, action: string, resource = '*', conditions: Conditions = {}): AccessRequest {
  return { action: `kms:${action}`, resource, resourceAccount: call.account, context: conditions };
}

/** The condition keys of an encryption context. Source: KMS developer guide, `kms:EncryptionContext:context-key`. */
export function contextConditions(context: Readonly<Record<string, string>> | undefined): Conditions {
  if (!context) return {};
  const conditions: Record<string, string | readonly string[]> = {};
  const keys = Object.keys(context);
  for (const key of keys) conditions[`kms:EncryptionContext:${key}`] = context[key]!;
  if (keys.length > 0) conditions['kms:EncryptionContextKeys'] = keys;
  return conditions;
}

export function accessDenied(call: Call, { request, reason }: Pick<Denial, 'request' | 'reason'>): AwsError {
  return new AwsError(
    'AccessDeniedException',
    `User: ${call.principal.arn} is not authorized to perform: ${request.action} on resource: ${request.resource} because ${reason}`,
  );
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
