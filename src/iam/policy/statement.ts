/**
 * Policy documents made ready for evaluation: parsed once, kept with the document they came from.
 * Source: IAM user guide, "IAM JSON policy element reference".
 */
import type { PolicyDocument, PolicyStatement } from '../../aws/service.ts';
import { lowerCaseAscii } from '../../aws/wildcard.ts';
import { type Condition, compileConditions } from './conditions.ts';

export interface Statement {
  readonly sid: string | undefined;
  readonly effect: 'Allow' | 'Deny';
  /** Patterns in lower case: action names match without regard to case. */
  readonly actions: readonly string[] | undefined;
  readonly notActions: readonly string[] | undefined;
  readonly resources: readonly string[] | undefined;
  readonly notResources: readonly string[] | undefined;
  readonly principals: PrincipalElement | undefined;
  readonly notPrincipals: PrincipalElement | undefined;
  readonly conditions: readonly Condition[];
  /** Whether `${…}` stands for a variable: only in documents of version 2012-10-17. */
  readonly hasVariables: boolean;
}

/** The `Principal` element: `*`, or names by kind. */
export interface PrincipalElement {
  readonly anyone: boolean;
  readonly AWS: readonly string[];
  readonly Service: readonly string[];
}

const compiled = new WeakMap<PolicyDocument, readonly Statement[]>();

/** The statements of a document, compiled at its first use. */
export function statementsOf(document: PolicyDocument): readonly Statement[] {
  let statements = compiled.get(document);
  if (!statements) {
    const hasVariables = document.Version === '2012-10-17';
    statements = listOf<PolicyStatement>(document.Statement).map((statement) => compile(statement, hasVariables));
    compiled.set(document, statements);
  }
  return statements;
}

function compile(statement: PolicyStatement, hasVariables: boolean): Statement {
  return {
    sid: statement.Sid,
    effect: statement.Effect,
    actions: lowerCase(statement.Action),
    notActions: lowerCase(statement.NotAction),
    resources: optionalList(statement.Resource),
    notResources: optionalList(statement.NotResource),
    principals: principalElement(statement.Principal),
    notPrincipals: principalElement(statement.NotPrincipal),
    conditions: compileConditions(statement.Condition ?? {}),
    hasVariables,
  };
}

function principalElement(element: unknown): PrincipalElement | undefined {
  if (element === undefined) return undefined;
  if (element === '*') return { anyone: true, AWS: [], Service: [] };
  const kinds = (typeof element === 'object' && element !== null ? element : {}) as Record<string, string | string[]>;
  const AWS = listOf(kinds.AWS);
  return { anyone: AWS.includes('*'), AWS, Service: listOf(kinds.Service) };
}

function lowerCase(element: string | readonly string[] | undefined): readonly string[] | undefined {
  return optionalList(element)?.map((pattern) => lowerCaseAscii(pattern));
}

function optionalList(element: string | readonly string[] | undefined): readonly string[] | undefined {
  return element === undefined ? undefined : listOf(element);
}

function listOf<T>(element: T | readonly T[] | undefined): readonly T[] {
  if (element === undefined) return [];
  return Array.isArray(element) ? element : [element as T];
}
