import type { Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { type AccessKey, createAccessKey } from './access-keys.ts';
import { firstAccount, requireOperator } from './accounts.ts';
import type { IamTables } from './records.ts';

/** Makes a new access key for a host, which replaces those it had. */
export async function replaceHostKey(
  db: AnyDatabase,
  rootKey: RootKey,
  hostId: string,
  nowMs: number,
): Promise<AccessKey> {
  const iam: Kysely<IamTables> = db;
  await iam.deleteFrom('access_keys').where('owner', '=', 'host').where('host_id', '=', hostId).execute();
  return createAccessKey(db, rootKey, { account: firstAccount, kind: 'host', hostId }, nowMs);
}

/**
 * CreateHostCredentials (internal): the access key with which a further machine's host signs in. Only the operator may.
 */
export function createHostCredentials(rootKey: RootKey, forget: () => void) {
  return operation<{ HostId: string }, { HostId: string; AccessKeyId: string; SecretAccessKey: string }>({
    name: 'CreateHostCredentials',
    effect: 'writes',
    audience: 'operator',
    access: (call) => [{ action: 'coffer:CreateHostCredentials', resource: '*', resourceAccount: call.account }],
    async handle(call, { HostId }) {
      if (typeof HostId !== 'string' || !/^[a-z0-9][a-z0-9-]{0,62}$/.test(HostId))
        throw new AwsError('ValidationException', 'HostId must be 1 to 63 lower-case letters, digits and hyphens.');
      await requireOperator(call);
      const key = await replaceHostKey(call.db, rootKey, HostId, call.clock.now());
      forget();
      return { HostId, AccessKeyId: key.accessKeyId, SecretAccessKey: key.secretAccessKey };
    },
    record: (_call, { HostId }, output) => ({
      requestParameters: { hostId: HostId ?? null },
      responseElements: output ? { hostId: output.HostId, accessKeyId: output.AccessKeyId } : null,
    }),
  });
}
