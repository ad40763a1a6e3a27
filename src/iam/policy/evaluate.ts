/**
 * What one policy says about one request: allow, deny, or nothing.
 * Source: IAM user guide, "Policy evaluation logic".
 */
import type { Principal } from '../../aws/call.ts';
import { isUniqueId } from '../../aws/policy-principals.ts';
import type { AccessRequest, PolicyDocument } from '../../aws/service.ts';
import { lowerCaseAscii, matchesArn, matchesWildcard } from '../../aws/wildcard.ts';
import { meetsConditions } from './conditions.ts';
import type { RequestContext } from './context.ts';
import { type PrincipalElement, type Statement, statementsOf } from './statement.ts';
import { literally, resolveVariables, withAnyValues } from './variables.ts';

/**
 * How a resource policy names the caller, which decides what else has to agree: naming the account leaves the decision to
 * its identity policies, naming the role behind a session allows within the limits of the session, naming the caller
 * itself or anyone allows by itself.
 */
export type Naming = 'nobody' | 'account' | 'role' | 'anyone' | 'principal';

export interface Verdict {
  readonly effect: 'allow' | 'deny' | 'silent';
  /** For an allow of a resource policy: how the allowing statement that leaves the least open names the caller. */
  readonly naming: Naming;
  /** The statement that decided, when it has a Sid. */
  readonly sid?: string;
}

const silent: Verdict = { effect: 'silent', naming: 'nobody' };
const strength: readonly Naming[] = ['nobody', 'account', 'role', 'anyone', 'principal'];

/** Evaluates an identity policy, boundary or session policy: its statements are about whoever has it. */
export function evaluateIdentityPolicy(
  document: PolicyDocument,
  request: AccessRequest,
  context: RequestContext,
): Verdict {
  return evaluate(document, request, context, () => 'principal');
}

/**
 * Evaluates a policy on the resource: its statements name principals.
 * @param hasBoundary whether the caller has a permissions boundary: a Deny with NotPrincipal then applies to it whomever it
 *   names (IAM user guide, "Permissions boundaries for IAM entities")
 */
export function evaluateResourcePolicy(
  document: PolicyDocument,
  principal: Principal,
  request: AccessRequest,
  context: RequestContext,
  hasBoundary = false,
): Verdict {
  return evaluate(document, request, context, (statement) =>
    hasBoundary && statement.notPrincipals && statement.effect === 'Deny' ? 'anyone' : namingOf(statement, principal),
  );
}

function evaluate(
  document: PolicyDocument,
  request: AccessRequest,
  context: RequestContext,
  naming: (statement: Statement) => Naming,
): Verdict {
  let verdict = silent;
  for (const statement of statementsOf(document)) {
    const named = naming(statement);
    if (named === 'nobody' || !covers(statement, request, context)) continue;
    if (statement.effect === 'Deny') return { effect: 'deny', naming: named, sid: statement.sid };
    if (verdict.effect === 'silent' || strength.indexOf(named) > strength.indexOf(verdict.naming))
      verdict = { effect: 'allow', naming: named, sid: statement.sid };
  }
  return verdict;
}

function covers(statement: Statement, request: AccessRequest, context: RequestContext): boolean {
  return (
    coversAction(statement, lowerCaseAscii(request.action)) &&
    coversResource(statement, request.resource, context) &&
    meetsConditions(statement.conditions, context, statement.hasVariables, statement.effect === 'Deny')
  );
}

function coversAction(statement: Statement, action: string): boolean {
  if (statement.notActions) return !statement.notActions.some((pattern) => matchesWildcard(pattern, action));
  return statement.actions?.some((pattern) => matchesWildcard(pattern, action)) ?? false;
}

function coversResource(statement: Statement, resource: string, context: RequestContext): boolean {
  const resolved = (pattern: string) => (statement.hasVariables ? resolveVariables(pattern, context) : pattern);
  const matches = (pattern: string | undefined) => pattern !== undefined && matchesArn(pattern, literally(resource));
  // Which resources a variable without a value leaves out can't be known: an Allow covers none of them, a Deny all.
  const mayMatch = (pattern: string) =>
    matches(resolved(pattern) ?? (statement.effect === 'Allow' ? withAnyValues(pattern) : undefined));
  if (statement.notResources) return !statement.notResources.some(mayMatch);
  return statement.resources?.some((pattern) => matches(resolved(pattern))) ?? false;
}

function namingOf(statement: Statement, principal: Principal): Naming {
  if (statement.notPrincipals) {
    const named = isNamed(statement.notPrincipals, principal);
    // Naming an account leaves out its root; users and roles of it are denied unless they are named as well.
    const isDenied = named === 'account' && principal.type !== 'Root' && statement.effect === 'Deny';
    return named === 'nobody' || isDenied ? 'anyone' : 'nobody';
  }
  return statement.principals ? isNamed(statement.principals, principal) : 'nobody';
}

/** By ARN, or by unique id; other ids (an account's number) a policy means otherwise. */
function isNamed(element: PrincipalElement, principal: Principal): Naming {
  const { account, arn, principalId, sessionIssuer } = principal;
  if (element.AWS.some((name) => name === arn || (name === principalId && isUniqueId(name)))) return 'principal';
  if (element.anyone) return 'anyone';
  if (sessionIssuer && element.AWS.some((name) => isRole(name, sessionIssuer))) return 'role';
  const rootArn = `:iam::${account}:root`;
  const isAccount = (name: string) => name === account || (name.startsWith('arn:aws') && name.endsWith(rootArn));
  return element.AWS.some(isAccount) ? 'account' : 'nobody';
}

const isRole = (name: string, role: NonNullable<Principal['sessionIssuer']>) =>
  name === role.arn || (name === role.principalId && isUniqueId(name));
