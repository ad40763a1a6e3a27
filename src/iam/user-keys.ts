/** The access keys of users. Source: IAM API reference, CreateAccessKey and its kin. */
import type {
  AccessKeyMetadata,
  CreateAccessKeyRequest,
  CreateAccessKeyResponse,
  DeleteAccessKeyRequest,
  GetAccessKeyLastUsedRequest,
  GetAccessKeyLastUsedResponse,
  ListAccessKeysRequest,
  ListAccessKeysResponse,
  UpdateAccessKeyRequest,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { oneOf, required, text } from '../aws/validate.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { createAccessKey } from './access-keys.ts';
import { check, limitExceeded, noSuchEntity } from './errors.ts';
import { accessTo, existing, iamAccess, type NamedIdentity, tablesOf } from './identities.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { identityArn } from './principals.ts';
import type { IamTables, Identity } from './records.ts';
import { resolveUserOrCaller } from './users.ts';

const keysPerUserMax = 2;
const accessKeyId = text({ min: 16, max: 128, pattern: /[\w]+/ });

/** @param forgetCredentials is called with the id of a key that changed */
export function userKeyOperations(
  rootKey: RootKey,
  forgetCredentials: (accessKeyId?: string) => void,
): readonly Operation[] {
  const create = operation<CreateAccessKeyRequest, CreateAccessKeyResponse, NamedIdentity>({
    name: 'CreateAccessKey',
    effect: 'writes',
    resolve: (call, input) => resolveUserOrCaller(call, input),
    access: (call, _input, subject) => [accessTo(call, 'CreateAccessKey', subject)],
    async handle(call, _input, subject) {
      const user = existing(subject);
      if ((await keysOf(call, user)).length >= keysPerUserMax)
        throw limitExceeded(`Cannot exceed quota for AccessKeysPerUser: ${keysPerUserMax}`);
      const now = call.clock.now();
      const owner = { account: user.account, kind: 'user' as const, identityId: user.id };
      const key = await createAccessKey(call.db, rootKey, owner, now);
      return {
        AccessKey: {
          UserName: user.name,
          AccessKeyId: key.accessKeyId,
          Status: 'Active',
          SecretAccessKey: key.secretAccessKey,
          CreateDate: new Date(now),
        },
      };
    },
    record: (_call, input, output) => ({
      requestParameters: input.UserName ? { userName: input.UserName } : null,
      // Never the secret.
      responseElements: output
        ? {
            accessKey: {
              userName: output.AccessKey!.UserName,
              accessKeyId: output.AccessKey!.AccessKeyId,
              status: output.AccessKey!.Status,
              createDate: output.AccessKey!.CreateDate,
            },
          }
        : null,
    }),
  });

  const update = operation<UpdateAccessKeyRequest, object, NamedIdentity>({
    name: 'UpdateAccessKey',
    effect: 'writes',
    resolve(call, input) {
      check(input, { AccessKeyId: required(accessKeyId), Status: required(oneOf(['Active', 'Inactive'])) });
      return resolveUserOrCaller(call, input);
    },
    access: (call, _input, subject) => [accessTo(call, 'UpdateAccessKey', subject)],
    async handle(call, input, subject) {
      const { numUpdatedRows } = await tablesOf(call)
        .updateTable('access_keys')
        .set({ status: input.Status as 'Active' | 'Inactive' })
        .where('access_key_id', '=', input.AccessKeyId!)
        .where('identity_id', '=', existing(subject).id)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw noSuchKey(input.AccessKeyId!);
      forgetCredentials(input.AccessKeyId);
      return {};
    },
    record: (_call, input) => ({
      requestParameters: {
        userName: input.UserName,
        accessKeyId: input.AccessKeyId ?? null,
        status: input.Status ?? null,
      },
    }),
  });

  const remove = operation<DeleteAccessKeyRequest, object, NamedIdentity>({
    name: 'DeleteAccessKey',
    effect: 'writes',
    resolve(call, input) {
      check(input, { AccessKeyId: required(accessKeyId) });
      return resolveUserOrCaller(call, input);
    },
    access: (call, _input, subject) => [accessTo(call, 'DeleteAccessKey', subject)],
    async handle(call, input, subject) {
      const { numDeletedRows } = await tablesOf(call)
        .deleteFrom('access_keys')
        .where('access_key_id', '=', input.AccessKeyId!)
        .where('identity_id', '=', existing(subject).id)
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw noSuchKey(input.AccessKeyId!);
      forgetCredentials(input.AccessKeyId);
      return {};
    },
    record: (_call, input) => ({
      requestParameters: { userName: input.UserName, accessKeyId: input.AccessKeyId ?? null },
    }),
  });

  return [create, update, remove, listAccessKeys, getAccessKeyLastUsed];
}

const listAccessKeys = operation<ListAccessKeysRequest, ListAccessKeysResponse, NamedIdentity>({
  name: 'ListAccessKeys',
  effect: 'reads',
  resolve(call, input) {
    check(input, pageRules);
    return resolveUserOrCaller(call, input);
  },
  access: (call, _input, subject) => [accessTo(call, 'ListAccessKeys', subject)],
  async handle(call, input, subject) {
    const user = existing(subject);
    const after = pageAfter(input);
    const keys = (await keysOf(call, user)).filter((key) => key.access_key_id > after).slice(0, pageRows(input));
    const { rows, rest } = pageOf(keys, input, (key) => key.access_key_id);
    const metadata = (key: (typeof rows)[number]): AccessKeyMetadata => ({
      UserName: user.name,
      AccessKeyId: key.access_key_id,
      Status: key.status,
      CreateDate: new Date(key.created_at),
    });
    return { AccessKeyMetadata: rows.map(metadata), ...rest };
  },
  record: (_call, input) => ({ requestParameters: input.UserName ? { userName: input.UserName } : null }),
});

type KeyOfUser = { key: IamTables['access_keys']; user: Identity } | undefined;

const getAccessKeyLastUsed = operation<GetAccessKeyLastUsedRequest, GetAccessKeyLastUsedResponse, KeyOfUser>({
  name: 'GetAccessKeyLastUsed',
  effect: 'reads',
  async resolve(call, input) {
    check(input, { AccessKeyId: required(accessKeyId) });
    const iam = tablesOf(call);
    const key = await iam
      .selectFrom('access_keys')
      .selectAll()
      .where('access_key_id', '=', input.AccessKeyId!)
      .where('account', '=', call.account)
      .where('owner', '=', 'user')
      .executeTakeFirst();
    const user =
      key && (await iam.selectFrom('iam_identities').selectAll().where('id', '=', key.identity_id).executeTakeFirst());
    return key && user && { key, user };
  },
  access: (call, _input, found) => [iamAccess(call, 'GetAccessKeyLastUsed', found ? identityArn(found.user) : '*')],
  handle(_call, input, found) {
    if (!found) throw noSuchKey(input.AccessKeyId!);
    const { key, user } = found;
    return {
      UserName: user.name,
      AccessKeyLastUsed: {
        ...(key.last_used_at === null ? {} : { LastUsedDate: new Date(key.last_used_at) }),
        ServiceName: key.last_used_service ?? 'N/A',
        Region: key.last_used_region ?? 'N/A',
      } as GetAccessKeyLastUsedResponse['AccessKeyLastUsed'],
    };
  },
  record: (_call, input) => ({ requestParameters: { accessKeyId: input.AccessKeyId ?? null } }),
});

function keysOf(call: Call, user: Identity) {
  return tablesOf(call)
    .selectFrom('access_keys')
    .select(['access_key_id', 'status', 'created_at'])
    .where('identity_id', '=', user.id)
    .orderBy('access_key_id')
    .execute();
}

const noSuchKey = (id: string) => noSuchEntity(`The Access Key with id ${id} cannot be found.`);
