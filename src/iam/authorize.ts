/**
 * The authorize step of the pipeline: may this principal do this to that resource?
 *
 * What it knows today: an account's root may do everything in its account, as far as resource policies leave it to the
 * account; AWS managed keys are used through their service only; an instance's infrastructure role may do what grants
 * give it, and nothing else. A policy condition is not evaluated yet and always counts against the caller: an Allow with
 * one does not allow, a Deny with one denies.
 */
import type { Call, Principal } from '../aws/call.ts';
import type { AccessRequest, Denial, GrantStatement, PolicyDocument, PolicyStatement } from '../aws/service.ts';
import { matchesWildcard } from './wildcard.ts';

/**
 * What an AWS managed key's account may do with it directly, without the key's service: see its metadata, and take back a
 * grant. Source: KMS developer guide, "AWS managed keys", their key policies.
 */
const openOnManagedKeys = /^kms:(Describe|Get|List|RevokeGrant$)/i;

/** Resolves with the reason for a refusal, or undefined when the call is allowed. */
export async function authorize(call: Call, request: AccessRequest): Promise<Denial | undefined> {
  const { principal } = call;
  // Only code of this system acts as a service, and a host's credentials reach only the operations made for hosts.
  if (principal.type === 'AWSService') return undefined;

  const byPolicy = request.resourcePolicy ? evaluatePolicy(request.resourcePolicy, principal, request) : 'silent';
  if (byPolicy === 'deny' && !request.onlyVia)
    return { request, explicit: true, reason: 'of an explicit deny in a resource-based policy' };
  const refusal = refusalOf(call, request, byPolicy);
  // Grants cost a look-up, and for an account's root they hardly ever decide: they come last.
  if (refusal === undefined || allowsByGrant(await request.grants?.(), call, request)) return undefined;
  return { request, explicit: false, reason: refusal };
}

/** Why the call would be refused if there were no grants; undefined when it is allowed without any. */
function refusalOf(call: Call, request: AccessRequest, byPolicy: 'allow' | 'deny' | 'silent'): string | undefined {
  const { principal } = call;
  if (request.resourceAccount !== principal.account)
    return byPolicy === 'allow' ? undefined : 'no resource-based policy allows the action';
  if (principal.type !== 'Root') return 'no grant, resource-based policy or identity-based policy allows the action';
  if (request.onlyVia) {
    if (call.via === request.onlyVia || openOnManagedKeys.test(request.action)) return undefined;
    return `the key is managed by AWS and may be used through ${request.onlyVia} only`;
  }
  if (!request.resourcePolicy || byPolicy === 'allow') return undefined;
  return `no resource-based policy allows the ${request.action} action`;
}

function evaluatePolicy(
  policy: PolicyDocument,
  principal: Principal,
  request: AccessRequest,
): 'allow' | 'deny' | 'silent' {
  let result: 'allow' | 'silent' = 'silent';
  const statements = Array.isArray(policy.Statement) ? policy.Statement : [policy.Statement];
  for (const statement of statements as PolicyStatement[]) {
    if (
      !coversPrincipal(statement, principal) ||
      !coversAction(statement, request.action) ||
      !coversResource(statement, request)
    )
      continue;
    if (statement.Effect === 'Deny') return 'deny';
    if (!statement.Condition) result = 'allow';
  }
  return result;
}

function coversPrincipal(statement: PolicyStatement, principal: Principal): boolean {
  if (statement.NotPrincipal !== undefined) return statement.Effect === 'Deny';
  const named = statement.Principal;
  if (named === '*') return true;
  if (typeof named !== 'object' || named === null) return false;
  const accounts = listOf((named as Record<string, unknown>).AWS);
  return accounts.some(
    (name) =>
      name === '*' ||
      name === principal.arn ||
      // An account as principal stands for its root here; for others it only lets their own policies decide.
      (principal.type === 'Root' && (name === principal.account || name.endsWith(`:iam::${principal.account}:root`))),
  );
}

function coversAction(statement: PolicyStatement, action: string): boolean {
  const matches = (patterns: unknown) =>
    listOf(patterns).some((pattern) => matchesWildcard(pattern.toLowerCase(), action.toLowerCase()));
  return statement.NotAction !== undefined ? !matches(statement.NotAction) : matches(statement.Action);
}

function coversResource(statement: PolicyStatement, request: AccessRequest): boolean {
  const matches = (patterns: unknown) => listOf(patterns).some((pattern) => matchesWildcard(pattern, request.resource));
  return statement.NotResource !== undefined ? !matches(statement.NotResource) : matches(statement.Resource);
}

function allowsByGrant(grants: readonly GrantStatement[] | undefined, call: Call, request: AccessRequest): boolean {
  const operation = request.action.slice(request.action.indexOf(':') + 1);
  return (grants ?? []).some(
    (grant) =>
      grant.granteePrincipal === call.principal.arn &&
      grant.operations.includes(operation) &&
      meetsConstraints(grant, encryptionContextOf(request)),
  );
}

/** Source: KMS API reference, GrantConstraints. */
function meetsConstraints(grant: GrantStatement, context: ReadonlyMap<string, string>): boolean {
  const subset = Object.entries(grant.encryptionContextSubset ?? {});
  if (subset.some(([key, value]) => context.get(key) !== value)) return false;
  if (!grant.encryptionContextEquals) return true;
  const equals = Object.entries(grant.encryptionContextEquals);
  return equals.length === context.size && equals.every(([key, value]) => context.get(key) === value);
}

function encryptionContextOf(request: AccessRequest): Map<string, string> {
  const prefix = 'kms:EncryptionContext:';
  const context = new Map<string, string>();
  for (const [key, value] of Object.entries(request.context ?? {})) {
    if (key.startsWith(prefix) && typeof value === 'string') context.set(key.slice(prefix.length), value);
  }
  return context;
}

function listOf(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}
