/** Users. Source: IAM API reference, CreateUser and its kin. */
import type {
  CreateUserRequest,
  CreateUserResponse,
  DeleteUserRequest,
  GetUserRequest,
  GetUserResponse,
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
  accessToCreate,
  accessToRename,
  arnText,
  deleteIdentity,
  existing,
  iamAccess,
  insertIdentity,
  type NamedIdentity,
  nameOf,
  pathText,
  type Renaming,
  recordedTags,
  rename,
  resolveIdentity,
  resolveNewIdentity,
  resolveRenaming,
  tablesOf,
  tagListRule,
} from './identities.ts';
import { listOperation } from './identity-lists.ts';
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
  resolve(call, input) {
    check(input, {
      UserName: required(userName),
      Path: pathText,
      PermissionsBoundary: arnText,
      Tags: tagListRule,
    });
    return resolveNewIdentity(call, 'user', input.UserName!, input.Path);
  },
  access: (call, input, subject) => accessToCreate(call, 'User', subject, input),
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
      tags: recordedTags(input.Tags),
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

const listUsers = listOperation(
  'ListUsers',
  'user',
  (rows): Pick<ListUsersResponse, 'Users'> => ({
    Users: rows.map(describeUser),
  }),
);

function updateUser(forgetCredentials: () => void) {
  return operation<UpdateUserRequest, object, Renaming>({
    name: 'UpdateUser',
    effect: 'writes',
    resolve(call, input) {
      check(input, { UserName: required(userName), NewUserName: userName, NewPath: pathText });
      return resolveRenaming(call, 'user', input.UserName!, { name: input.NewUserName, path: input.NewPath });
    },
    access: (call, _input, renaming) => accessToRename(call, 'UpdateUser', renaming),
    async handle(call, _input, renaming) {
      await rename(call, renaming);
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
