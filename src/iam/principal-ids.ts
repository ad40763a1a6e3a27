/**
 * The unique ids of users, roles and sessions, for the services whose policies and grants name them by ARN. Asked by other
 * services through `invoke`; both operations answer with what there is, and leave out the rest.
 */
import type { Call } from '../aws/call.ts';
import { isUniqueId, type PrincipalIds, principalsIn } from '../aws/policy-principals.ts';
import { betweenServices, operation, type PolicyDocument } from '../aws/service.ts';
import { malformedPolicy } from './errors.ts';
import { findIdentityById, tablesOf } from './identities.ts';
import { identityArn } from './principals.ts';
import type { Identity } from './records.ts';

/** ARNs (or unique ids) to unique ids. */
export const resolvePrincipals = operation<{ Names: readonly string[] }, { Ids: PrincipalIds }>({
  name: 'ResolvePrincipals',
  effect: 'reads',
  ...betweenServices,
  handle: async (call, { Names }) => ({ Ids: await idsOf(call, Names) }),
});

/** Unique ids to the ARNs of whoever has them. */
export const describePrincipals = operation<{ Ids: readonly string[] }, { Arns: Readonly<Record<string, string>> }>({
  name: 'DescribePrincipals',
  effect: 'reads',
  ...betweenServices,
  handle: async (call, { Ids }) => ({ Arns: await arnsOf(call, Ids) }),
});

export async function idsOf(call: Call, names: readonly string[]): Promise<PrincipalIds> {
  const ids: Record<string, string> = {};
  for (const name of names) {
    const id = isUniqueId(name) ? await knownId(call, name) : await idOfArn(call, name);
    if (id !== undefined) ids[name] = id;
  }
  return ids;
}

export async function arnsOf(call: Call, ids: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const arns: Record<string, string> = {};
  for (const id of new Set(ids)) {
    const [identityId, session] = id.split(':') as [string, string?];
    const identity = await findIdentityById(call.db, identityId);
    if (identity) arns[id] = session === undefined ? identityArn(identity) : sessionArn(identity, session);
  }
  return arns;
}

/**
 * The ids of those whom a role's trust policy names.
 * @throws {AwsError} MalformedPolicyDocument when one of them is not there
 */
export async function trustedIds(call: Call, document: PolicyDocument): Promise<PrincipalIds> {
  const names = principalsIn(document);
  const ids = await idsOf(call, names);
  const unknown = names.find((name) => !Object.hasOwn(ids, name));
  if (unknown !== undefined) throw malformedPolicy(`Invalid principal in policy: "AWS":"${unknown}"`);
  return ids;
}

export function sessionArn({ account, name }: Pick<Identity, 'account' | 'name'>, session: string): string {
  return `arn:aws:sts::${account}:assumed-role/${name}/${session}`;
}

async function knownId(call: Call, id: string): Promise<string | undefined> {
  return (await findIdentityById(call.db, id.split(':')[0]!)) ? id : undefined;
}

/** Names are compared with their case here, though IAM itself finds them without. */
async function idOfArn(call: Call, arn: string): Promise<string | undefined> {
  const session = /^arn:aws:sts::(\d{12}):assumed-role\/([^/]+)\/([^/]+)$/.exec(arn);
  if (session) {
    const [, account, name, sessionName] = session as unknown as [string, string, string, string];
    const role = await find(call, { account, kind: 'role', name });
    return role && `${role.id}:${sessionName}`;
  }
  const [, account, kind, name] = /^arn:aws:iam::(\d{12}):(user|role)\/(?:.*\/)?([^/]+)$/.exec(arn) ?? [];
  if (!account) return undefined;
  const identity = await find(call, { account, kind: kind as 'user' | 'role', name: name! });
  return identity && identityArn(identity) === arn ? identity.id : undefined;
}

async function find(call: Call, { account, kind, name }: Pick<Identity, 'account' | 'kind' | 'name'>) {
  return tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', account)
    .where('kind', '=', kind)
    .where('name', '=', name)
    .executeTakeFirst();
}
