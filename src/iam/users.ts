/** Users. Source: IAM API reference, CreateUser and its kin. */
import type {
  CreateUserRequest,
  CreateUserResponse,
  DeleteUserRequest,
  GetUserRequest,
  GetUserResponse,
  ListUsersRequest,
  ListUsersResponse,
  UpdateUserRequest,
  User,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { required } from '../aws/validate.ts';
import { boundaryOf, requireBoundary } from './boundaries.ts';
import { check, deleteConflict, validationError } from './errors.ts';
import {
  accessTo,
  arnText,
  deleteIdentity,
  existing,
  iamAccess,
  identitiesChanged,
  insertIdentity,
  type NamedIdentity,
  nameOf,
  pathPrefixText,
  pathText,
  requestTags,
  requireFreeName,
  resolveIdentity,
  tablesOf,
  tagListRule,
} from './identities.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { requireNoPolicies } from './policies-of-identities.ts';
import { identityArn } from './principals.ts';
import type { Identity } from './records.ts';

const userName = nameOf('user');

export function userOperations(forgetCredentials: () => void): readonly Operation[] {
  return [createUser, getUser, listUsers, updateUser(forgetCredentials), deleteUser(forgetCredentials)];
}

const createUser = operation<CreateUserRequest, CreateUserResponse, NamedIdentity>({
  name: 'CreateUser',
  effect: 'writes',
  async resolve(call, input) {
    check(input, {
      UserName: required(userName),
      Path: pathText,
      PermissionsBoundary: arnText,
      Tags: tagListRule,
    });
    const named = await resolveIdentity(call, 'user', input.UserName!);
    if (named.found) return named;
    return {
      ...named,
      arn: identityArn({ account: call.account, kind: 'user', path: input.Path ?? '/', name: named.name }),
    };
  },
  access: (call, input, subject) => [
    accessTo(call, 'CreateUser', subject, {
      ...requestTags(input.Tags),
      ...(input.PermissionsBoundary ? { 'iam:PermissionsBoundary': input.PermissionsBoundary } : {}),
    }),
    ...(input.Tags?.length ? [accessTo(call, 'TagUser', subject, requestTags(input.Tags))] : []),
  ],
  async handle(call, input) {
    await requireBoundary(call, input.PermissionsBoundary);
    const values = { name: input.UserName!, path: input.Path ?? '/', boundary_arn: input.PermissionsBoundary ?? null };
    const user = await insertIdentity(call, 'user', values, input.Tags);
    return { User: { ...describeUser(user), ...(input.Tags?.length ? { Tags: input.Tags } : {}) } };
  },
  record: (_call, input, output) => ({
    requestParameters: {
      userName: input.UserName ?? null,
      path: input.Path,
      permissionsBoundary: input.PermissionsBoundary,
      tags: input.Tags,
    },
    responseElements: output ? { user: recordedUser(output.User!) } : null,
  }),
});

const getUser = operation<GetUserRequest, GetUserResponse, NamedIdentity | undefined>({
  name: 'GetUser',
  effect: 'reads',
  resolve: (call, input) => resolveUserOrCaller(call, input, true),
  access: (call, _input, subject) => [
    subject ? accessTo(call, 'GetUser', subject) : iamAccess(call, 'GetUser', call.principal.arn),
  ],
  async handle(call, _input, subject) {
    if (subject) {
      const user = existing(subject);
      return {
        User: {
          ...describeUser(user),
          ...boundaryOf(user),
          ...(subject.tags.length ? { Tags: [...subject.tags] } : {}),
        },
      };
    }
    const account = await tablesOf(call)
      .selectFrom('accounts')
      .select('created_at')
      .where('account', '=', call.account)
      .executeTakeFirst();
    // The root user has no name.
    const root = { UserId: call.account, Arn: call.principal.arn, CreateDate: new Date(account?.created_at ?? 0) };
    return { User: root as User };
  },
  record: (_call, input) => ({ requestParameters: input.UserName ? { userName: input.UserName } : null }),
});

const listUsers = operation<ListUsersRequest, ListUsersResponse>({
  name: 'ListUsers',
  effect: 'reads',
  resolve: (_call, input) => check(input, { ...pageRules, PathPrefix: pathPrefixText }),
  access: (call) => [iamAccess(call, 'ListUsers', `arn:aws:iam::${call.account}:user/`)],
  async handle(call, input) {
    const { rows, rest } = await listIdentities(call, 'user', input);
    return { Users: rows.map(describeUser), ...rest };
  },
});

/** A page of an account's users, groups or roles, by name. */
export async function listIdentities(
  call: Call,
  kind: Identity['kind'],
  input: { PathPrefix?: string; Marker?: string; MaxItems?: number },
) {
  const rows = await tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', call.account)
    .where('kind', '=', kind)
    .where('name_key', '>', pageAfter(input))
    .where((where) =>
      where(
        where.fn('substr', ['path', where.lit(1), where.val((input.PathPrefix ?? '/').length)]),
        '=',
        input.PathPrefix ?? '/',
      ),
    )
    .orderBy('name_key')
    .limit(pageRows(input))
    .execute();
  return pageOf(rows, input, (row) => row.name_key);
}

function updateUser(forgetCredentials: () => void) {
  return operation<UpdateUserRequest, object, { user: NamedIdentity; renamedArn: string }>({
    name: 'UpdateUser',
    effect: 'writes',
    async resolve(call, input) {
      check(input, { UserName: required(userName), NewUserName: userName, NewPath: pathText });
      const user = await resolveIdentity(call, 'user', input.UserName!);
      const path = input.NewPath ?? user.found?.path ?? '/';
      const name = input.NewUserName ?? user.name;
      return { user, renamedArn: identityArn({ account: call.account, kind: 'user', path, name }) };
    },
    access: (call, _input, { user, renamedArn }) => [
      accessTo(call, 'UpdateUser', user),
      ...(renamedArn === user.arn ? [] : [accessTo(call, 'UpdateUser', { ...user, arn: renamedArn })]),
    ],
    async handle(call, input, { user }) {
      const row = existing(user);
      const name = input.NewUserName ?? row.name;
      await requireFreeName(call, 'user', name, row);
      await tablesOf(call)
        .updateTable('iam_identities')
        .set({ name, name_key: name.toLowerCase(), path: input.NewPath ?? row.path })
        .where('id', '=', row.id)
        .execute();
      await identitiesChanged(call);
      forgetCredentials();
      return {};
    },
    record: (_call, input) => ({
      requestParameters: {
        userName: input.UserName ?? null,
        newUserName: input.NewUserName,
        newPath: input.NewPath,
      },
    }),
  });
}

function deleteUser(forgetCredentials: () => void) {
  return operation<DeleteUserRequest, object, NamedIdentity>({
    name: 'DeleteUser',
    effect: 'writes',
    resolve(call, input) {
      check(input, { UserName: required(userName) });
      return resolveIdentity(call, 'user', input.UserName!);
    },
    access: (call, _input, subject) => [accessTo(call, 'DeleteUser', subject)],
    async handle(call, _input, subject) {
      const user = existing(subject);
      const iam = tablesOf(call);
      const keys = await iam.selectFrom('access_keys').select('status').where('identity_id', '=', user.id).execute();
      if (keys.length > 0) throw deleteConflict('Cannot delete entity, must delete access keys first.');
      const groups = await iam
        .selectFrom('iam_memberships')
        .select('group_id')
        .where('user_id', '=', user.id)
        .execute();
      if (groups.length > 0) throw deleteConflict('Cannot delete entity, must remove users from group first.');
      await requireNoPolicies(call, user);
      await deleteIdentity(call, user);
      forgetCredentials();
      return {};
    },
    record: (_call, input) => ({ requestParameters: { userName: input.UserName ?? null } }),
  });
}

/**
 * The user that a request names or, when it names none, the caller.
 * @param rootIsNobody the account's root gives undefined; otherwise it is an error, as for a session of a role
 * @throws {AwsError} ValidationError
 */
export async function resolveUserOrCaller(
  call: Call,
  input: { UserName?: string },
  rootIsNobody: true,
): Promise<NamedIdentity | undefined>;
export async function resolveUserOrCaller(call: Call, input: { UserName?: string }): Promise<NamedIdentity>;
export async function resolveUserOrCaller(call: Call, input: { UserName?: string }, rootIsNobody = false) {
  check(input, { UserName: userName });
  const { principal } = call;
  const name = input.UserName ?? (principal.type === 'IAMUser' ? principal.userName : undefined);
  if (name !== undefined) return resolveIdentity(call, 'user', name);
  if (principal.type === 'Root' && rootIsNobody) return undefined;
  throw validationError('Must specify userName when calling with non-User credentials');
}

export function describeUser(user: Identity): User {
  return {
    Path: user.path,
    UserName: user.name,
    UserId: user.id,
    Arn: identityArn(user),
    CreateDate: new Date(user.created_at),
  };
}

const recordedUser = (user: User) => ({
  path: user.Path,
  userName: user.UserName,
  userId: user.UserId,
  arn: user.Arn,
  createDate: user.CreateDate,
});
