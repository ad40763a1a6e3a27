/** Grants as rows: made, found, ended. */
import { randomBytes } from 'node:crypto';
import type { CreateGrantRequest, GrantConstraints } from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { GrantRow } from './grant-lookup.ts';
import { type Key, newRevision } from './key-store.ts';
import { grantPrincipal } from './principals.ts';
import type { KmsTables } from './records.ts';

/** Grants on one key. Source: KMS developer guide, "Grants per KMS key". */
const grantsMax = 50_000;

/** @throws {AwsError} InvalidArnException when a principal is not there */
export async function newGrantRow(call: Call, input: CreateGrantRequest, key: Key): Promise<GrantRow> {
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset, SourceArn } = input.Constraints ?? {};
  const retiring = input.RetiringPrincipal ?? input.RetiringServicePrincipal;
  const constraints: GrantConstraints = {
    ...(equals ? { EncryptionContextEquals: sorted(equals) } : {}),
    ...(subset ? { EncryptionContextSubset: sorted(subset) } : {}),
    ...(SourceArn ? { SourceArn } : {}),
  };
  return {
    grant_id: randomBytes(32).toString('hex'),
    key_id: key.key_id,
    region: key.region,
    account: key.account,
    grantee: await grantPrincipal(call, (input.GranteePrincipal ?? input.GranteeServicePrincipal)!),
    retiring: retiring === undefined ? null : await grantPrincipal(call, retiring),
    operations: JSON.stringify([...new Set(input.Operations)]),
    constraints: equals || subset || SourceArn ? JSON.stringify(constraints) : null,
    name: input.Name ?? '',
    created_at: call.clock.now(),
    issuing_account: call.account,
    created_via: call.via ?? null,
  };
}

const sorted = (context: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(context).sort(([a], [b]) => (a < b ? -1 : 1)));

/** The id of a grant that has the same name and says the same: a repeated request finds what the first one made. */
export async function sameGrant(call: Call, row: GrantRow): Promise<string | undefined> {
  const kms: Kysely<KmsTables> = call.db;
  const named = await kms
    .selectFrom('kms_grants')
    .selectAll()
    .where('key_id', '=', row.key_id)
    .where('region', '=', row.region)
    .where('name', '=', row.name)
    .where('grantee', '=', row.grantee)
    .execute();
  const operationSet = (grant: GrantRow) => (JSON.parse(grant.operations) as string[]).sort().join();
  return named.find(
    (grant) =>
      grant.retiring === row.retiring &&
      grant.constraints === row.constraints &&
      operationSet(grant) === operationSet(row),
  )?.grant_id;
}

export async function insertGrant(call: Call, key: Key, row: GrantRow): Promise<void> {
  const kms: Kysely<KmsTables> = call.db;
  // Grants are counted with the key: there may be too many to count them each time.
  const counted = await kms
    .updateTable('kms_keys')
    .set((eb) => ({ grant_count: eb('grant_count', '+', 1), revision: newRevision() }))
    .where('key_id', '=', key.key_id)
    .where('region', '=', key.region)
    .where((eb) => eb.or([eb('grant_count', '<', grantsMax), eb('key_manager', '=', 'AWS')]))
    .executeTakeFirst();
  if (counted.numUpdatedRows === 0n)
    throw new AwsError('LimitExceededException', `${key.arn} has the maximum of ${grantsMax} grants.`);
  await kms.insertInto('kms_grants').values(row).execute();
}

export async function deleteGrant(call: Call, key: Key, grant: GrantRow): Promise<void> {
  const kms: Kysely<KmsTables> = call.db;
  await kms.deleteFrom('kms_grants').where('grant_id', '=', grant.grant_id).execute();
  await kms
    .updateTable('kms_keys')
    .set((eb) => ({ grant_count: eb('grant_count', '-', 1), revision: newRevision() }))
    .where('key_id', '=', key.key_id)
    .where('region', '=', key.region)
    .execute();
}

/** @throws {AwsError} InvalidGrantIdException */
export function checkGrantId(grantId: string): void {
  if (!/^[0-9a-f]{64}$/.test(grantId)) throw new AwsError('InvalidGrantIdException', `Invalid grant ID '${grantId}'`);
}

/** @param grantId as `checkGrantId` has it */
export async function findGrant(call: Call, key: Key, grantId: string): Promise<GrantRow | undefined> {
  const kms: Kysely<KmsTables> = call.db;
  return kms
    .selectFrom('kms_grants')
    .selectAll()
    .where('grant_id', '=', grantId)
    .where('key_id', '=', key.key_id)
    .where('region', '=', key.region)
    .executeTakeFirst();
}

/** @throws {AwsError} NotFoundException */
export async function requireGrant(call: Call, key: Key, grantId: string): Promise<GrantRow> {
  const grant = await findGrant(call, key, grantId);
  if (!grant) throw grantNotFound(key, grantId);
  return grant;
}

export function grantNotFound(key: Key, grantId: string): AwsError {
  return new AwsError('NotFoundException', `Grant ${grantId} on ${key.arn} is not found.`);
}
