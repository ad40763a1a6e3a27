import type { GrantConstraints } from '@aws-sdk/client-kms';
import type { Selectable } from 'kysely';
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
    .selectAll()
    .where('key_id', '=', '')
    .where('region', '=', '')
    .where('grantee', 'in', ['', '', '', '', ''])
    .limit(grantsConsideredMax),
);

/** A caller with more grants than this on one key is judged by some of them; the order is the database's. */
const grantsConsideredMax = 50_000;

/** The grants on a key whose grantee is the caller or its account. */
export async function findGrants(call: Call, key: Key): Promise<readonly GrantStatement[]> {
  const { arn, principalId, sessionIssuer, account } = call.principal;
  const rows = await grantsOfGrantee(call.db, [
    key.key_id,
    key.region,
    arn,
    principalId,
    sessionIssuer?.arn ?? arn,
    sessionIssuer?.principalId ?? principalId,
    `arn:aws:iam::${account}:root`,
    grantsConsideredMax,
  ]);
  return rows.map(grantStatement);
}

export function grantStatement(row: GrantRow): GrantStatement {
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

export function grantConstraints(row: GrantRow): GrantConstraints | undefined {
  return row.constraints ? (JSON.parse(row.constraints) as GrantConstraints) : undefined;
}
