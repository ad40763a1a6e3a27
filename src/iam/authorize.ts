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
import { lowerCaseAscii } from '../aws/wildcard.ts';
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
  // Credentials can outlive whom they were made for, who then has nothing, not even what policies elsewhere gave.
  if (permissions && 'isGone' in permissions) {
    const { grants: _, resourcePolicy: __, ...rest } = request;
    return decide(call, rest, permissions);
  }
  return decide(call, request, permissions ?? unlimited);
}

const unlimited: Permissions = { identity: [], boundary: undefined, session: undefined, tags: {} };

/**
 * The decision, given the caller's own policies.
 * @param context what conditions are compared with, where it isn't what the call and the request say (a simulation)
 */
export async function decide(
  call: Call,
  request: AccessRequest,
  permissions: Permissions,
  context: RequestContext = lazyContext(call, request, permissions.tags),
): Promise<Denial | undefined> {
  const { principal } = call;
  // The rule for AWS managed keys is `onlyVia`; their policy says the same in conditions.
  const byResource: Verdict | undefined =
    request.resourcePolicy && request.onlyVia === undefined
      ? evaluateResourcePolicy(request.resourcePolicy, principal, request, context, permissions.boundary !== undefined)
      : undefined;
  const own = (documents: readonly PolicyDocument[]) => effectOf(documents, request, context);
  const side: Side = {
    byResource,
    identity: principal.type === 'Root' ? 'allow' : own(permissions.identity),
    boundary: permissions.boundary ? own([permissions.boundary]) : 'allow',
    session: permissions.session ? own(permissions.session) : 'allow',
  };
  if (request.resourceAccount !== principal.account) return decideAcrossAccounts(call, request, side);
  const denying = denyingPolicy(request, side);
  if (denying) return { request, explicit: true, reason: `an explicit deny in ${denying}` };
  const refusal = refusalOf(call, request, side);
  if (refusal === undefined) return undefined;
  // Grants cost a look-up, and for an account's root they hardly ever decide: they come last.
  const grants = matchingGrants(await request.grants?.(), call, request);
  if (grants.some((grant) => isWithinLimits(grant, call, side))) return undefined;
  // One that is to the caller's account, or its role, is kept from it by its own side.
  return { request, explicit: false, reason: (grants.length > 0 && identityRefusal(request, side)) || refusal };
}

/**
 * Across accounts the resource's side must agree, by its policy or a grant, and then the caller's: its identity policy, for
 * which a grant stands in as well. What the resource's side refuses is refused in one way, whatever its reason, so that
 * nobody learns about resources that are closed to them: not even whether they exist.
 * Source: KMS developer guide, "Allowing users in other accounts to use a KMS key".
 */
async function decideAcrossAccounts(call: Call, request: AccessRequest, side: Side): Promise<Denial | undefined> {
  const hidden: Denial = {
    request,
    explicit: false,
    reason: none(resourcePolicyOf(request), request),
    isHidden: true,
  };
  if (side.byResource?.effect === 'deny') return hidden;
  const isAllowedByPolicy = side.byResource?.effect === 'allow';
  const denying = denyingPolicy(request, side);
  const refusal = identityRefusal(request, side);
  if (isAllowedByPolicy && !denying && !refusal) return undefined;
  const grants = matchingGrants(await request.grants?.(), call, request);
  if (!isAllowedByPolicy && grants.length === 0) return hidden;
  if (denying) return { request, explicit: true, reason: `an explicit deny in ${denying}` };
  if (grants.some((grant) => isWithinLimits(grant, call, side))) return undefined;
  return { request, explicit: false, reason: refusal ?? hidden.reason };
}

/** What each kind of policy says of one request. Where there is no boundary or session policy, it allows. */
interface Side {
  readonly byResource: Verdict | undefined;
  readonly identity: Verdict['effect'];
  readonly boundary: Verdict['effect'];
  readonly session: Verdict['effect'];
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

/** The kind of policy that denies the request explicitly, if one does. */
function denyingPolicy(request: AccessRequest, { byResource, identity, boundary, session }: Side): string | undefined {
  if (byResource?.effect === 'deny') return isTrust(request) ? 'the role trust policy' : 'a resource-based policy';
  if (identity === 'deny') return 'an identity-based policy';
  if (boundary === 'deny') return 'a permissions boundary';
  if (session === 'deny') return 'a session policy';
  return undefined;
}

/** Why the call would be refused if there were no grants; undefined when it is allowed without any. */
function refusalOf(call: Call, request: AccessRequest, side: Side): string | undefined {
  const limit = limitRefusal(request, side);
  const byIdentity = identityRefusal(request, side);
  if (request.onlyVia) {
    // Through its service the key is open to everyone of the account; what is open directly, to those who may.
    if (call.via === request.onlyVia) return limit;
    if (openOnManagedKeys.test(request.action)) return byIdentity;
    return `the key is managed by AWS and may be used through ${request.onlyVia} only`;
  }
  if (!request.resourcePolicy) return byIdentity;
  if (side.byResource?.effect !== 'allow') return none(resourcePolicyOf(request), request);
  switch (side.byResource.naming) {
    case 'account':
      return byIdentity;
    case 'role':
      return limit;
    default:
      // Named itself, or as anyone, the caller needs nothing more. Source: IAM user guide, "Policy evaluation logic", on
      // resource-based policies; "AWS JSON policy elements: Principal", on the wildcard and on role principals.
      return undefined;
  }
}

const none = (kind: string, request: AccessRequest) => `no ${kind} allows the ${request.action} action`;

/** The policies on roles are the only ones that speak of STS. */
const isTrust = ({ action }: AccessRequest) => action.startsWith('sts:');
const resourcePolicyOf = (request: AccessRequest) => (isTrust(request) ? 'role trust policy' : 'resource-based policy');

/** What keeps the caller from using what its identity policies, or a policy that names its role, allow. */
function limitRefusal(request: AccessRequest, side: Side): string | undefined {
  if (side.boundary !== 'allow') return none('permissions boundary', request);
  return side.session !== 'allow' ? none('session policy', request) : undefined;
}

/** What is missing on the caller's own side. */
function identityRefusal(request: AccessRequest, side: Side): string | undefined {
  return side.identity === 'allow' ? limitRefusal(request, side) : none('identity-based policy', request);
}

/** The request's context, made when a condition or a variable first asks for it: most policies have neither. */
function lazyContext(call: Call, request: AccessRequest, tags: PrincipalTags): RequestContext {
  let context: RequestContext | undefined;
  const made = () => (context ??= requestContext(call, request, tags));
  return { get: (key) => made().get(key), isMultivalued: (key) => made().isMultivalued(key) };
}

/** The grants that give the caller, or its account, what it asks for. */
function matchingGrants(
  grants: readonly GrantStatement[] | undefined,
  { principal }: Call,
  request: AccessRequest,
): readonly GrantStatement[] {
  if (!grants?.length) return [];
  const operation = request.action.slice(request.action.indexOf(':') + 1);
  const { arn, principalId, sessionIssuer } = principal;
  const names = [arn, principalId, sessionIssuer?.arn, sessionIssuer?.principalId, rootArn(principal)];
  return grants.filter(
    (grant) =>
      names.includes(grant.granteePrincipal) &&
      grant.operations.includes(operation) &&
      meetsConstraints(grant, operation, request),
  );
}

/**
 * A grant to a user or session allows by itself, one to a role within the limits of the session, one to an account what the
 * account's identity policies pass on.
 */
function isWithinLimits(grant: GrantStatement, { principal }: Call, side: Side): boolean {
  if (grant.granteePrincipal === rootArn(principal) && principal.type !== 'Root')
    return side.identity === 'allow' && side.boundary === 'allow' && side.session === 'allow';
  return side.session === 'allow' && (side.boundary === 'allow' || principal.sessionIssuer === undefined);
}

const rootArn = ({ account }: Call['principal']) => `arn:aws:iam::${account}:root`;

/** Operations without an encryption context; with CreateGrant the context is that of the constraint asked for. */
const withoutContext = ['DescribeKey', 'RetireGrant'];

/** Source: KMS API reference, GrantConstraints. */
function meetsConstraints(grant: GrantStatement, operation: string, request: AccessRequest): boolean {
  // Which resource a service acts for only services can say; nobody else's request meets the constraint.
  if (grant.sourceArn !== undefined && operation !== 'RetireGrant') {
    if (request.context?.['aws:SourceArn'] !== grant.sourceArn) return false;
  }
  const { encryptionContextEquals: equals, encryptionContextSubset: subset } = grant;
  const wanted = equals ?? subset;
  if (!wanted || withoutContext.includes(operation)) return true;
  return meetsContext(Object.entries(wanted), encryptionContextOf(request), equals !== undefined);
}

type Pairs = ReadonlyArray<readonly [key: string, value: string]>;

/**
 * Whether an encryption context has the pairs wanted (and no others, when it must be equal). Keys are compared without
 * regard to case and values with it; where several keys of the request differ only in case, all of them must be as wanted.
 */
function meetsContext(wanted: Pairs, actual: Pairs, mustBeEqual: boolean): boolean {
  const isKey = (a: Pairs[number], b: Pairs[number]) => lowerCaseAscii(a[0]) === lowerCaseAscii(b[0]);
  const isPair = (a: Pairs[number], b: Pairs[number]) => isKey(a, b) && a[1] === b[1];
  if (mustBeEqual && wanted.length !== actual.length) return false;
  return (
    wanted.every((pair) => actual.some((other) => isPair(pair, other))) &&
    actual.every(
      (pair) => wanted.some((other) => isPair(pair, other)) || !wanted.some((other) => isKey(pair, other)),
    ) &&
    (!mustBeEqual || actual.every((pair) => wanted.some((other) => isKey(pair, other))))
  );
}

function encryptionContextOf(request: AccessRequest): Pairs {
  const prefix = 'kms:EncryptionContext:';
  return Object.entries(request.context ?? {}).flatMap(([key, value]) =>
    key.startsWith(prefix) && typeof value === 'string' ? [[key.slice(prefix.length), value] as const] : [],
  );
}
