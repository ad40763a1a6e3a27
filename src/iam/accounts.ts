import { randomInt } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { AnyDatabase, Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { type AccessKey, createAccessKey } from './access-keys.ts';
import type { IamTables } from './records.ts';

/** The account of the first administrator. */
export const firstAccount = '123456789012';
const nameLengthMax = 128;

/**
 * CreateAccount (internal): a new account, isolated from every other, and the access key of its root.
 * Only the operator may: the root of the first administrator's account.
 */
export function createAccountOperation(rootKey: RootKey) {
  return operation<{ Name?: string }, { Account: string } & { AccessKeyId: string; SecretAccessKey: string }>({
    name: 'CreateAccount',
    effect: 'writes',
    audience: 'operator',
    access: (call) => [{ action: 'coffer:CreateAccount', resource: '*', resourceAccount: call.account }],
    async handle(call, input) {
      const name = input.Name ?? '';
      if (typeof name !== 'string' || name.length > nameLengthMax)
        throw new AwsError('ValidationException', `Name must be a string of at most ${nameLengthMax} characters.`);
      await requireOperator(call);
      const account = await insertAccount(call.db, await newAccountId(call.db), name, false, call.clock.now());
      const key = await createAccessKey(call.db, rootKey, { account, kind: 'root' }, call.clock.now());
      return { Account: account, AccessKeyId: key.accessKeyId, SecretAccessKey: key.secretAccessKey };
    },
    record: (_call, input, output) => ({
      requestParameters: { name: input.Name ?? null },
      responseElements: output ? { account: output.Account, accessKeyId: output.AccessKeyId } : null,
    }),
  });
}

/** @throws {AwsError} AccessDeniedException unless the caller is the root of the operator's account */
export async function requireOperator(call: Call): Promise<void> {
  const iam: Kysely<IamTables> = call.db;
  const account = await iam
    .selectFrom('accounts')
    .select('operator')
    .where('account', '=', call.account)
    .executeTakeFirst();
  if (call.principal.type === 'Root' && account?.operator === 1) return;
  throw new AwsError(
    'AccessDeniedException',
    `User: ${call.principal.arn} is not the operator of this system; use the credentials of the first administrator.`,
    { httpStatus: 403 },
  );
}

/**
 * Makes sure that the first administrator's account exists, and gives its root an access key where one is asked for.
 * @param given a key that the operator chose: it becomes the root's only one
 * @param makeKey make a new key (the one made before was never written down, or its file is gone)
 * @returns the key that was made
 */
export async function ensureAdministrator(
  db: AnyDatabase,
  rootKey: RootKey,
  nowMs: number,
  { given, makeKey }: { given?: AccessKey; makeKey: boolean },
): Promise<AccessKey | undefined> {
  const iam: Kysely<IamTables> = db;
  const owner = { account: firstAccount, kind: 'root' as const };
  const existing = await iam
    .selectFrom('accounts')
    .select('account')
    .where('account', '=', firstAccount)
    .executeTakeFirst();
  if (!existing) await insertAccount(db, firstAccount, 'administrator', true, nowMs);
  if (given) {
    await iam.deleteFrom('access_keys').where('account', '=', firstAccount).where('owner', '=', 'root').execute();
    await createAccessKey(db, rootKey, owner, nowMs, given);
    return undefined;
  }
  return makeKey ? createAccessKey(db, rootKey, owner, nowMs) : undefined;
}

async function insertAccount(
  db: AnyDatabase,
  account: string,
  name: string,
  operator: boolean,
  nowMs: number,
): Promise<string> {
  const iam: Kysely<IamTables> = db;
  await iam
    .insertInto('accounts')
    .values({ account, name, operator: operator ? 1 : 0, created_at: nowMs })
    .execute();
  return account;
}

async function newAccountId(db: AnyDatabase): Promise<string> {
  const iam: Kysely<IamTables> = db;
  for (;;) {
    const account = String(randomInt(100_000_000_000, 1_000_000_000_000));
    const taken = await iam.selectFrom('accounts').select('account').where('account', '=', account).executeTakeFirst();
    if (!taken) return account;
  }
}
