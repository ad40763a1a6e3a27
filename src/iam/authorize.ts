/**
 * The authorize step of the pipeline: may this principal do this to that resource?
 *
 * An account's root may do everything that resource policies leave to its account. Everyone else needs an identity policy
 * or a resource policy that names them; an instance's infrastructure role has only what grants give it. An explicit deny
 * anywhere ends the matter. Source: IAM user guide, "Policy evaluation logic"; KMS developer guide, "Key access and
 * permissions".
 */
import type { Call } from '../aws/call.ts';
import type { AccessRequest, Denial, GrantStatement, PolicyDocument } from '../aws/service.ts';
import { type Permissions, permissionsOf, sessionLimits } from './permissions.ts';
import { type PrincipalTags, type RequestContext, requestContext } from './policy/context.ts';
import { evaluateIdentityPolicy, evaluateResourcePolicy, type Verdict } from './policy/evaluate.ts';

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
  const isRoot = principal.type === 'Root';
  const permissions = isRoot
    ? principal.session && { ...unlimited, session: await sessionLimits(call, request.action) }
    : await permissionsOf(call, request.action);
  return decide(call, request, permissions ?? unlimited);
}

const unlimited: Permissions = { identity: [], boundary: undefined, session: undefined, tags: {} };

/** The decision, given the caller's own policies. */
export async function decide(
  call: Call,
  request: AccessRequest,
  permissions: Permissions,
): Promise<Denial | undefined> {
  const { principal } = call;
  const context = lazyContext(call, request, permissions.tags);
  // The rule for AWS managed keys is `onlyVia`; their policy says the same in conditions.
  const byResource: Verdict | undefined =
    request.resourcePolicy && request.onlyVia === undefined
      ? evaluateResourcePolicy(request.resourcePolicy, principal, request, context)
      : undefined;
  const own = (documents: readonly PolicyDocument[]) => effectOf(documents, request, context);
  const side: Side = {
    byResource,
    identity: principal.type === 'Root' ? 'allow' : own(permissions.identity),
    boundary: permissions.boundary ? own([permissions.boundary]) : 'allow',
    session: permissions.session ? own(permissions.session) : 'allow',
    tags: permissions.tags,
  };
  const denying = denyingPolicy(side);
  if (denying) return { request, explicit: true, reason: `of an explicit deny in a${denying}` };
  const refusal = refusalOf(call, request, side);
  // Grants cost a look-up, and for an account's root they hardly ever decide: they come last.
  if (refusal === undefined || allowsByGrant(await request.grants?.(), call, request, side)) return undefined;
  return { request, explicit: false, reason: refusal };
}

/** What each kind of policy says of one request. Where there is no boundary or session policy, it allows. */
interface Side {
  readonly byResource: Verdict | undefined;
  readonly identity: Verdict['effect'];
  readonly boundary: Verdict['effect'];
  readonly session: Verdict['effect'];
  readonly tags: PrincipalTags;
}

function effectOf(documents: readonly PolicyDocument[], request: AccessRequest, context: RequestContext) {
  let effect: Verdict['effect'] = 'silent';
  for (const document of documents) {
    const verdict = evaluateIdentityPolicy(document, request, context).effect;
    if (verdict === 'deny') return 'deny';
    if (verdict === 'allow') effect = 'allow';
  }
  return effect;
}

function denyingPolicy({ byResource, identity, boundary, session }: Side): string | undefined {
  if (byResource?.effect === 'deny') return ' resource-based policy';
  if (identity === 'deny') return 'n identity-based policy';
  if (boundary === 'deny') return ' permissions boundary';
  if (session === 'deny') return ' session policy';
  return undefined;
}

/** Why the call would be refused if there were no grants; undefined when it is allowed without any. */
function refusalOf(call: Call, request: AccessRequest, side: Side): string | undefined {
  const { principal } = call;
  const none = (kind: string) => `no ${kind} allows the ${request.action} action`;
  const isAllowedByResource = side.byResource?.effect === 'allow';
  const limit =
    side.boundary !== 'allow'
      ? none('permissions boundary')
      : side.session !== 'allow'
        ? none('session policy')
        : undefined;
  const byIdentity = side.identity === 'allow' ? limit : none('identity-based policy');
  if (request.resourceAccount !== principal.account) {
    // Across accounts both sides must agree.
    return isAllowedByResource && !request.onlyVia ? byIdentity : none('resource-based policy');
  }
  if (request.onlyVia) {
    // Through its service the key is open to everyone of the account; what is open directly, to those who may.
    if (call.via === request.onlyVia) return limit;
    if (openOnManagedKeys.test(request.action)) return byIdentity;
    return `the key is managed by AWS and may be used through ${request.onlyVia} only`;
  }
  if (!request.resourcePolicy) return byIdentity;
  if (!isAllowedByResource) return none('resource-based policy');
  // A statement for the account leaves the decision to its identity policies; one for the principal or anyone decides.
  if (side.byResource!.naming === 'account') return byIdentity;
  return isBeyondLimits(call, request, side.byResource!, side.tags) ? undefined : limit;
}

/**
 * Whether a resource's policy allows in spite of a boundary or session policy that doesn't: it does when it names the user
 * or the session itself rather than the role. Source: IAM user guide, "Policy evaluation logic", on resource-based policies.
 */
function isBeyondLimits(call: Call, request: AccessRequest, { naming }: Verdict, tags: PrincipalTags): boolean {
  const { principal } = call;
  if (naming !== 'principal') return false;
  if (!principal.sessionIssuer) return true;
  const session = { ...principal, sessionIssuer: undefined };
  const context = lazyContext(call, request, tags);
  return evaluateResourcePolicy(request.resourcePolicy!, session, request, context).naming === 'principal';
}

/** The request's context, made when a condition or a variable first asks for it: most policies have neither. */
function lazyContext(call: Call, request: AccessRequest, tags: PrincipalTags): RequestContext {
  let context: RequestContext | undefined;
  return { get: (key) => (context ??= requestContext(call, request, tags)).get(key) };
}

/** Whether a grant allows: one to a user or session by itself, one to a role within the limits of the session. */
function allowsByGrant(
  grants: readonly GrantStatement[] | undefined,
  { principal }: Call,
  request: AccessRequest,
  side: Side,
): boolean {
  const operation = request.action.slice(request.action.indexOf(':') + 1);
  const isLimited = side.session !== 'allow' || (side.boundary !== 'allow' && principal.sessionIssuer !== undefined);
  return (grants ?? []).some(
    (grant) =>
      (grant.granteePrincipal === principal.arn || grant.granteePrincipal === principal.sessionIssuer?.arn) &&
      !isLimited &&
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
