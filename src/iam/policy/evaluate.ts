/**
 * What one policy says about one request: allow, deny, or nothing.
 * Source: IAM user guide, "Policy evaluation logic".
 */
import type { Principal } from '../../aws/call.ts';
import type { AccessRequest, PolicyDocument } from '../../aws/service.ts';
import { matchesWildcard } from '../wildcard.ts';
import { meetsConditions } from './conditions.ts';
import type { RequestContext } from './context.ts';
import { type PrincipalElement, type Statement, statementsOf } from './statement.ts';
import { literally, resolveVariables } from './variables.ts';

/** How a resource policy names the caller, which decides what else has to agree. */
export type Naming = 'nobody' | 'anyone' | 'account' | 'principal';

export interface Verdict {
  readonly effect: 'allow' | 'deny' | 'silent';
  /** For an allow of a resource policy: the closest way in which an allowing statement names the caller. */
  readonly naming: Naming;
  /** The statement that decided, when it has a Sid. */
  readonly sid?: string;
}

const silent: Verdict = { effect: 'silent', naming: 'nobody' };
const closeness: readonly Naming[] = ['nobody', 'anyone', 'account', 'principal'];

/** Evaluates an identity policy, boundary or session policy: its statements are about whoever has it. */
export function evaluateIdentityPolicy(
  document: PolicyDocument,
  request: AccessRequest,
  context: RequestContext,
): Verdict {
  return evaluate(document, request, context, () => 'principal');
}

/** Evaluates a policy on the resource: its statements name principals. */
export function evaluateResourcePolicy(
  document: PolicyDocument,
  principal: Principal,
  request: AccessRequest,
  context: RequestContext,
): Verdict {
  return evaluate(document, request, context, (statement) => namingOf(statement, principal));
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
    if (verdict.effect === 'silent' || closeness.indexOf(named) > closeness.indexOf(verdict.naming))
      verdict = { effect: 'allow', naming: named, sid: statement.sid };
  }
  return verdict;
}

function covers(statement: Statement, request: AccessRequest, context: RequestContext): boolean {
  return (
    coversAction(statement, request.action.toLowerCase()) &&
    coversResource(statement, request.resource, context) &&
    meetsConditions(statement.conditions, context, statement.hasVariables, statement.effect === 'Deny')
  );
}

function coversAction(statement: Statement, action: string): boolean {
  if (statement.notActions) return !statement.notActions.some((pattern) => matchesWildcard(pattern, action));
  return statement.actions?.some((pattern) => matchesWildcard(pattern, action)) ?? false;
}

function coversResource(statement: Statement, resource: string, context: RequestContext): boolean {
  const matches = (pattern: string) => {
    const resolved = statement.hasVariables ? resolveVariables(pattern, context) : pattern;
    return resolved !== undefined && matchesWildcard(resolved, literally(resource));
  };
  if (statement.notResources) return !statement.notResources.some(matches);
  return statement.resources?.some(matches) ?? false;
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

function isNamed(element: PrincipalElement, principal: Principal): Naming {
  const names = principalNames(principal);
  if (element.AWS.some((name) => names.includes(name))) return 'principal';
  const { account } = principal;
  const rootArn = `:iam::${account}:root`;
  if (element.AWS.some((name) => name === account || (name.startsWith('arn:aws') && name.endsWith(rootArn))))
    return 'account';
  return element.anyone ? 'anyone' : 'nobody';
}

/** The ARNs by which a policy may name the caller: its own, and for a session that of the role behind it. */
function principalNames(principal: Principal): readonly string[] {
  return principal.sessionIssuer ? [principal.arn, principal.sessionIssuer.arn] : [principal.arn];
}
