import type { GrantConstraints } from '@aws-sdk/client-kms';
import { type Selectable, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import type { GrantStatement } from '../aws/service.ts';
import { isCurrent, type Key } from './key-store.ts';
import { prepared } from './prepared.ts';
import type { KmsTables } from './records.ts';

export type GrantRow = Selectable<KmsTables['kms_grants']>;

/**
 * A grant's grantee is the caller, the role behind a session, or the caller's account: the first two by unique id, or by ARN
 * where there is none.
 */
const grantsOfGrantee = prepared((db) =>
  db
    .selectFrom('kms_grants')
    .select(['grant_id', 'grantee', 'operations', 'constraints'])
    .where('key_id', '=', '')
    .where('region', '=', '')
    .where('grantee', 'in', ['', '', '', '', ''])
    // Written into the SQL: for a limit that is a parameter SQLite plans the query anew each time.
    .limit(sql.lit(grantsConsideredMax)),
);

/** A caller with more grants than this on one key is judged by some of them; the order is the database's. */
const grantsConsideredMax = 50_000;

/**
 * What was looked up of a key's grants, by grantee. Making or ending a grant changes the key's revision, so that the key is
 * read anew, and this goes with the one that was read before.
 */
const lookedUp = new WeakMap<Key, Map<string, readonly GrantStatement[]>>();
/** Callers whose grants on one key are remembered, and grants of one caller: there may be 50,000. */
const rememberedMax = 256;

/** The grants on a key that give `operation` to the caller or its account. */
export async function findGrants(call: Call, key: Key, operation: string): Promise<readonly GrantStatement[]> {
  const { arn, principalId, sessionIssuer, account } = call.principal;
  const grantees = [
    arn,
    principalId,
    sessionIssuer?.arn ?? arn,
    sessionIssuer?.principalId ?? principalId,
    `arn:aws:iam::${account}:root`,
  ];
  const grants = await grantsTo(call, key, grantees);
  return grants.filter(({ operations }) => operations.includes(operation));
}

async function grantsTo(call: Call, key: Key, grantees: readonly string[]): Promise<readonly GrantStatement[]> {
  const name = grantees.join(' ');
  const remembered = lookedUp.get(key);
  const known = remembered?.get(name);
  if (known) return known;
  const rows = await grantsOfGrantee(call.db, [key.key_id, key.region, ...grantees]);
  const grants = rows.map(grantStatement);
  // Worth while only for a key that stays in memory. A grant that was made or ended since it was read may yet be undone.
  if (!remembered) lookedUp.set(key, new Map());
  else if (grants.length <= rememberedMax && (await isCurrent(call.db, key))) {
    if (remembered.size >= rememberedMax) remembered.clear();
    remembered.set(name, grants);
  }
  return grants;
}

function grantStatement(row: Pick<GrantRow, 'grant_id' | 'grantee' | 'operations' | 'constraints'>): GrantStatement {
  const constraints = grantConstraints(row);
  return {
    grantId: row.grant_id,
    granteePrincipal: row.grantee,
    operations: JSON.parse(row.operations) as string[],
    ...(constraints?.EncryptionContextEquals ? { encryptionContextEquals: constraints.EncryptionContextEquals } : {}),
    ...(constraints?.EncryptionContextSubset ? { encryptionContextSubset: constraints.EncryptionContextSubset } : {}),
    ...(constraints?.SourceArn ? { sourceArn: constraints.SourceArn } : {}),
  };
}

export function grantConstraints(row: Pick<GrantRow, 'constraints'>): GrantConstraints | undefined {
  return row.constraints ? (JSON.parse(row.constraints) as GrantConstraints) : undefined;
}
