/**
 * The authorize step of the pipeline: may this principal do this to that resource?
 *
 * An account's root may do everything that resource policies leave to its account. Everyone else needs an identity policy
 * or a resource policy that names them; an instance's infrastructure role has only what grants give it. An explicit deny
 * anywhere ends the matter. Source: IAM user guide, "Policy evaluation logic"; KMS developer guide, "Key access and
 * permissions".
 */
import type { Call } from '../aws/call.ts';
import type { AccessRequest, Denial, GrantStatement } from '../aws/service.ts';
import { type RequestContext, requestContext } from './policy/context.ts';
import { evaluateResourcePolicy, type Verdict } from './policy/evaluate.ts';

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

  const isManaged = request.onlyVia !== undefined;
  // The rule for AWS managed keys is `onlyVia`; their policy says the same in conditions.
  const byResource: Verdict | undefined =
    request.resourcePolicy && !isManaged
      ? evaluateResourcePolicy(request.resourcePolicy, principal, request, lazyContext(call, request))
      : undefined;
  if (byResource?.effect === 'deny')
    return { request, explicit: true, reason: 'of an explicit deny in a resource-based policy' };
  const refusal = refusalOf(call, request, byResource);
  // Grants cost a look-up, and for an account's root they hardly ever decide: they come last.
  if (refusal === undefined || allowsByGrant(await request.grants?.(), call, request)) return undefined;
  return { request, explicit: false, reason: refusal };
}

/** Why the call would be refused if there were no grants; undefined when it is allowed without any. */
function refusalOf(call: Call, request: AccessRequest, byResource: Verdict | undefined): string | undefined {
  const { principal } = call;
  const isAllowedByResource = byResource?.effect === 'allow';
  if (request.resourceAccount !== principal.account) {
    // Across accounts both sides must agree: the resource's policy, and the caller's own account, as its root does.
    return isAllowedByResource && principal.type === 'Root'
      ? undefined
      : 'no resource-based policy of the owner and identity-based policy of the caller allow the action together';
  }
  if (request.onlyVia) {
    if (principal.type === 'Root' && (call.via === request.onlyVia || openOnManagedKeys.test(request.action)))
      return undefined;
    return `the key is managed by AWS and may be used through ${request.onlyVia} only`;
  }
  if (principal.type !== 'Root') {
    // A statement for the account leaves the decision to identity policies; one for the principal or anyone decides.
    return isAllowedByResource && byResource.naming !== 'account'
      ? undefined
      : 'no grant, resource-based policy or identity-based policy allows the action';
  }
  if (!request.resourcePolicy || isAllowedByResource) return undefined;
  return `no resource-based policy allows the ${request.action} action`;
}

/** The request's context, made when a condition or a variable first asks for it: most policies have neither. */
function lazyContext(call: Call, request: AccessRequest): RequestContext {
  let context: RequestContext | undefined;
  return { get: (key) => (context ??= requestContext(call, request)).get(key) };
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
