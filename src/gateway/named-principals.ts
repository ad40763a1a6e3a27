/**
 * Brings up to date what was put before unique ids were kept: trust policies, key policies and grants that know users and
 * roles by ARN alone, and so would mean whoever takes such a name later. Whom they name gets the id that it has now, and a
 * name that nobody has an id that nobody will ever have. Tables of two services are in it, so it is neither's.
 */
import { type Kysely, sql } from 'kysely';
import { hasUniqueId, type PrincipalIds, principalsIn } from '../aws/policy-principals.ts';
import type { PolicyDocument } from '../aws/service.ts';
import type { Migration } from '../database/migrations.ts';
import { newIamId } from '../iam/access-keys.ts';

export const namedPrincipals: Migration = {
  id: 'coffer-001-named-principals',
  async up(db) {
    const idOf = principalIds(db);
    const idsIn = async (policy: string): Promise<string> => {
      const ids: Record<string, string> = {};
      for (const name of principalsIn(JSON.parse(policy) as PolicyDocument))
        if (hasUniqueId(name)) ids[name] = await idOf(name);
      return JSON.stringify(ids satisfies PrincipalIds);
    };
    const roles = await sql<{ id: string; trust_policy: string }>`select id, trust_policy from iam_identities
      where trust_policy is not null and trusted_ids is null`.execute(db);
    for (const { id, trust_policy } of roles.rows)
      await sql`update iam_identities set trusted_ids = ${await idsIn(trust_policy)} where id = ${id}`.execute(db);
    const keys = await sql<{ key_id: string; region: string; policy: string }>`select key_id, region, policy
      from kms_keys where principals is null and key_manager = 'CUSTOMER'`.execute(db);
    for (const { key_id, region, policy } of keys.rows) {
      const principals = await idsIn(policy);
      if (principals !== '{}')
        await sql`update kms_keys set principals = ${principals} where key_id = ${key_id} and region = ${region}`.execute(
          db,
        );
    }
    for (const column of ['grantee', 'retiring']) {
      const named = sql.ref(column);
      const arns = await sql<{ arn: string }>`select distinct ${named} as arn from kms_grants
        where ${named} like 'arn:%'`.execute(db);
      for (const { arn } of arns.rows)
        if (hasUniqueId(arn))
          await sql`update kms_grants set ${named} = ${await idOf(arn)} where ${named} = ${arn}`.execute(db);
    }
  },
};

/** Finds the unique id of who has an ARN, or makes one up: the same for the same ARN. */
// biome-ignore lint/suspicious/noExplicitAny: a migration knows no tables.
function principalIds(db: Kysely<any>): (arn: string) => Promise<string> {
  const known = new Map<string, string>();
  return async (arn) => {
    const id = known.get(arn) ?? (await lookUp(arn));
    known.set(arn, id);
    return id;
  };

  async function lookUp(arn: string): Promise<string> {
    const [, account, resource] = /^arn:[^:]*:(?:iam|sts)::(\d{12}):(.+)$/.exec(arn)!;
    const parts = resource!.split('/');
    const isSession = parts[0] === 'assumed-role';
    const kind = parts[0] === 'user' ? 'user' : 'role';
    const name = isSession ? parts[1]! : parts.at(-1)!;
    const path = `/${parts
      .slice(1, -1)
      .map((part) => `${part}/`)
      .join('')}`;
    const found = await sql<{ id: string; path: string }>`select id, path from iam_identities
      where account = ${account} and kind = ${kind} and name = ${name}`.execute(db);
    const identity = found.rows.find((row) => isSession || row.path === path);
    const id = identity?.id ?? newIamId(kind === 'user' ? 'AIDA' : 'AROA');
    return isSession ? `${id}:${parts[2]}` : id;
  }
}
