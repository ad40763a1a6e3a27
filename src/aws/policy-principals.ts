/**
 * Users, roles and sessions that a policy on a resource names. A policy means the one that had the name when the policy was
 * put: its unique id (`AIDA…`, `AROA…`, `AROA…:session`) is what is compared, so that nobody comes into permissions by
 * taking the name of somebody who is gone. IAM knows the ids (`iam:ResolvePrincipals`).
 * Source: IAM user guide, "AWS JSON policy elements: Principal", on IAM user and role principals.
 */
import type { PolicyDocument, PolicyStatement } from './service.ts';

/** By name as the policy has it, the unique id. */
export type PrincipalIds = Readonly<Record<string, string>>;

/** Whether a text is the unique id of a user, a role or a role's session. */
export function isUniqueId(text: string): boolean {
  return /^A(?:ID|RO)A[A-Z0-9]{12,124}(?::[\w+=,.@-]+)?$/.test(text);
}

/** Whether an ARN names a user, a role or a role's session, which have unique ids; accounts and services have none. */
export function hasUniqueId(name: string): boolean {
  return /^arn:[^:]*:(?:iam::\d{12}:(?:user|role)\/|sts::\d{12}:assumed-role\/(?!aws:))/.test(name);
}

/** The users, roles and sessions that the document's statements name, by ARN or by unique id. */
export function principalsIn(document: PolicyDocument): readonly string[] {
  const names = statementsOf(document).flatMap(({ Principal, NotPrincipal }) =>
    [Principal, NotPrincipal].flatMap((element) => listOf((element as { AWS?: string | string[] } | undefined)?.AWS)),
  );
  return [...new Set(names)].filter((name) => hasUniqueId(name) || isUniqueId(name));
}

/** The document with other names for some principals. */
export function withPrincipals(document: PolicyDocument, names: PrincipalIds): PolicyDocument {
  if (Object.keys(names).length === 0) return document;
  const rename = (name: string) => (Object.hasOwn(names, name) ? names[name]! : name);
  const element = (value: unknown) => {
    if (typeof value !== 'object' || value === null || !('AWS' in value)) return value;
    const { AWS } = value as { AWS: string | string[] };
    return { ...value, AWS: Array.isArray(AWS) ? AWS.map(rename) : rename(AWS) };
  };
  const statement = (each: PolicyStatement): PolicyStatement => ({
    ...each,
    ...(each.Principal === undefined ? {} : { Principal: element(each.Principal) }),
    ...(each.NotPrincipal === undefined ? {} : { NotPrincipal: element(each.NotPrincipal) }),
  });
  const { Statement } = document;
  return {
    ...document,
    Statement: Array.isArray(Statement) ? Statement.map(statement) : statement(Statement as PolicyStatement),
  };
}

/**
 * A policy as it is shown: as it was put, except for principals that have since been renamed, which have their new ARN, and
 * such as are gone, of which only the id is left.
 * @param arns by unique id, the ARN of those that are there
 */
export function shownPolicy(text: string, ids: PrincipalIds, arns: Readonly<Record<string, string>>): string {
  const changed = Object.entries(ids).flatMap(([name, id]) => {
    const now = arns[id] ?? id;
    return now === name ? [] : [[name, now] as const];
  });
  if (changed.length === 0) return text;
  return JSON.stringify(withPrincipals(JSON.parse(text) as PolicyDocument, Object.fromEntries(changed)), null, 2);
}

function statementsOf({ Statement }: PolicyDocument): readonly PolicyStatement[] {
  return Array.isArray(Statement) ? Statement : Statement === undefined ? [] : [Statement as PolicyStatement];
}

function listOf(value: string | readonly string[] | undefined): readonly string[] {
  return value === undefined ? [] : typeof value === 'string' ? [value] : value;
}
