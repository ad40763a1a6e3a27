import type { GrantConstraints } from '@aws-sdk/client-kms';
import { type Selectable, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import type { GrantStatement } from '../aws/service.ts';
import type { Key } from './key-store.ts';
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

/** The grants on a key that give `operation` to the caller or its account. */
export async function findGrants(call: Call, key: Key, operation: string): Promise<readonly GrantStatement[]> {
  const { arn, principalId, sessionIssuer, account } = call.principal;
  const rows = await grantsOfGrantee(call.db, [
    key.key_id,
    key.region,
    arn,
    principalId,
    sessionIssuer?.arn ?? arn,
    sessionIssuer?.principalId ?? principalId,
    `arn:aws:iam::${account}:root`,
  ]);
  return rows.filter((row) => row.operations.includes(`"${operation}"`)).map(grantStatement);
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
