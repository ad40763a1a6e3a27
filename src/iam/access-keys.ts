/**
 * Long-term access keys: made here, kept sealed, looked up by the gateway for every signature.
 */
import { randomBytes, randomInt } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { RootKey } from '../crypto/root-key.ts';
import type { IamTables } from './records.ts';

const purpose = 'access-key';
/** AWS ids use these 32 letters and digits. Source: IAM user guide, "IAM identifiers", unique id prefixes. */
const idAlphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

export interface AccessKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** A new id: the four-letter prefix (`AKIA` long-term, `ASIA` temporary, `AIDA` user …) and 16 random characters. */
export function newIamId(prefix: string): string {
  let id = prefix;
  while (id.length < 20) id += idAlphabet[randomInt(idAlphabet.length)];
  return id;
}

/** A new secret access key: 40 characters of base64, 240 random bits. */
export function newSecret(): string {
  return randomBytes(30).toString('base64');
}

/**
 * Keeps an access key.
 * @param given an id and secret chosen outside (COFFER_ADMIN_…); new random ones when absent
 * @throws {AwsError} EntityAlreadyExists when the id is another owner's
 */
export async function createAccessKey(
  db: AnyDatabase,
  rootKey: RootKey,
  owner: { account: string; kind: 'root' | 'host' | 'user'; hostId?: string; identityId?: string },
  nowMs: number,
  given?: AccessKey,
): Promise<AccessKey> {
  const iam: Kysely<IamTables> = db;
  const key = given ?? { accessKeyId: newIamId('AKIA'), secretAccessKey: newSecret() };
  const existing = await iam
    .selectFrom('access_keys')
    .selectAll()
    .where('access_key_id', '=', key.accessKeyId)
    .executeTakeFirst();
  if (existing && (existing.account !== owner.account || existing.owner !== owner.kind))
    throw new AwsError('EntityAlreadyExists', `Access key ${key.accessKeyId} belongs to another principal.`, {
      httpStatus: 409,
    });
  const secret = Buffer.from(key.secretAccessKey, 'utf8');
  const row = {
    access_key_id: key.accessKeyId,
    account: owner.account,
    owner: owner.kind,
    host_id: owner.hostId ?? null,
    sealed_secret: rootKey.seal(purpose, secret, key.accessKeyId),
    status: 'Active' as const,
    created_at: nowMs,
    identity_id: owner.identityId ?? null,
    last_used_at: null,
    last_used_service: null,
    last_used_region: null,
  };
  secret.fill(0);
  await iam.replaceInto('access_keys').values(row).execute();
  return key;
}

/** The row of an access key and its secret, which the caller wipes; undefined when there is none. */
export async function findAccessKey(
  db: AnyDatabase,
  rootKey: RootKey,
  accessKeyId: string,
): Promise<{ row: IamTables['access_keys']; secret: Buffer } | undefined> {
  const iam: Kysely<IamTables> = db;
  const row = await iam
    .selectFrom('access_keys')
    .selectAll()
    .where('access_key_id', '=', accessKeyId)
    .executeTakeFirst();
  return row && { row, secret: rootKey.open(purpose, row.sealed_secret, accessKeyId) };
}

/**
 * Makes sure that the root key is the one that sealed what is in the database.
 * @param path where the root key comes from, for the error's text
 * @throws when it is another one: nothing could be opened with it, and what it sealed would be lost with it
 */
export async function requireOwnRootKey(db: AnyDatabase, rootKey: RootKey, path: string): Promise<void> {
  const iam: Kysely<IamTables> = db;
  const any = await iam.selectFrom('access_keys').select('access_key_id').limit(1).executeTakeFirst();
  if (!any) return;
  try {
    (await findAccessKey(db, rootKey, any.access_key_id))?.secret.fill(0);
  } catch (cause) {
    throw new Error(`the root key ${path} is not the one of this database; restore it from a backup`, { cause });
  }
}
