/** Groups and who is in them. Source: IAM API reference, CreateGroup and its kin. */
import type {
  AddUserToGroupRequest,
  CreateGroupRequest,
  CreateGroupResponse,
  DeleteGroupRequest,
  GetGroupRequest,
  GetGroupResponse,
  Group,
  ListGroupsForUserRequest,
  ListGroupsForUserResponse,
  ListGroupsResponse,
  UpdateGroupRequest,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { required } from '../aws/validate.ts';
import { check, deleteConflict, limitExceeded, noSuchEntity } from './errors.ts';
import {
  accessTo,
  accessToRename,
  deleteIdentity,
  existing,
  iamAccess,
  identitiesChanged,
  insertIdentity,
  type NamedIdentity,
  nameOf,
  pathText,
  type Renaming,
  rename,
  resolveIdentity,
  resolveRenaming,
  tablesOf,
} from './identities.ts';
import { listOperation } from './identity-lists.ts';
import { type PageInput, pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { requireNoPolicies } from './policies-of-identities.ts';
import { identityArn } from './principals.ts';
import type { Identity } from './records.ts';
import { describeUser } from './users.ts';

const groupsPerUserMax = 10;
const groupName = nameOf('group');

const createGroup = operation<CreateGroupRequest, CreateGroupResponse, string>({
  name: 'CreateGroup',
  effect: 'writes',
  resolve(call, input) {
    check(input, { GroupName: required(groupName), Path: pathText });
    return identityArn({ account: call.account, kind: 'group', path: input.Path ?? '/', name: input.GroupName! });
  },
  access: (call, _input, arn) => [iamAccess(call, 'CreateGroup', arn)],
  async handle(call, input) {
    const group = await insertIdentity(call, 'group', { name: input.GroupName!, path: input.Path ?? '/' });
    return { Group: describeGroup(group) };
  },
  record: (_call, input, output) => ({
    requestParameters: { groupName: input.GroupName ?? null, path: input.Path },
    responseElements: output
      ? {
          group: {
            path: output.Group!.Path,
            groupName: output.Group!.GroupName,
            groupId: output.Group!.GroupId,
            arn: output.Group!.Arn,
          },
        }
      : null,
  }),
});

const getGroup = operation<GetGroupRequest, GetGroupResponse, NamedIdentity>({
  name: 'GetGroup',
  effect: 'reads',
  resolve(call, input) {
    check(input, { GroupName: required(groupName), ...pageRules });
    return resolveIdentity(call, 'group', input.GroupName!);
  },
  access: (call, _input, subject) => [accessTo(call, 'GetGroup', subject)],
  async handle(call, input, subject) {
    const group = existing(subject);
    const { rows, rest } = await membershipsOf(call, input, group);
    return { Group: describeGroup(group), Users: rows.map(describeUser), ...rest };
  },
  record: (_call, input) => ({ requestParameters: { groupName: input.GroupName ?? null } }),
});

const listGroups = listOperation(
  'ListGroups',
  'group',
  (rows): Pick<ListGroupsResponse, 'Groups'> => ({
    Groups: rows.map(describeGroup),
  }),
);

const listGroupsForUser = operation<ListGroupsForUserRequest, ListGroupsForUserResponse, NamedIdentity>({
  name: 'ListGroupsForUser',
  effect: 'reads',
  resolve(call, input) {
    check(input, { UserName: required(nameOf('user')), ...pageRules });
    return resolveIdentity(call, 'user', input.UserName!);
  },
  access: (call, _input, subject) => [accessTo(call, 'ListGroupsForUser', subject)],
  async handle(call, input, subject) {
    const { rows, rest } = await membershipsOf(call, input, existing(subject));
    return { Groups: rows.map(describeGroup), ...rest };
  },
  record: (_call, input) => ({ requestParameters: { userName: input.UserName ?? null } }),
});

/** A page of the users of a group, or of the groups of a user. */
async function membershipsOf(call: Call, input: PageInput, { kind, id }: Identity) {
  const [own, other] = kind === 'group' ? (['group_id', 'user_id'] as const) : (['user_id', 'group_id'] as const);
  const found = await tablesOf(call)
    .selectFrom('iam_memberships')
    .innerJoin('iam_identities', 'iam_identities.id', `iam_memberships.${other}`)
    .selectAll('iam_identities')
    .where(own, '=', id)
    .where('name_key', '>', pageAfter(input))
    .orderBy('name_key')
    .limit(pageRows(input))
    .execute();
  return pageOf(found, input, (row) => row.name_key);
}

const updateGroup = operation<UpdateGroupRequest, object, Renaming>({
  name: 'UpdateGroup',
  effect: 'writes',
  resolve(call, input) {
    check(input, { GroupName: required(groupName), NewGroupName: groupName, NewPath: pathText });
    return resolveRenaming(call, 'group', input.GroupName!, { name: input.NewGroupName, path: input.NewPath });
  },
  access: (call, _input, renaming) => accessToRename(call, 'UpdateGroup', renaming),
  async handle(call, _input, renaming) {
    await rename(call, renaming);
    return {};
  },
  record: (_call, input) => ({
    requestParameters: {
      groupName: input.GroupName ?? null,
      newGroupName: input.NewGroupName,
      newPath: input.NewPath,
    },
  }),
});

const deleteGroup = operation<DeleteGroupRequest, object, NamedIdentity>({
  name: 'DeleteGroup',
  effect: 'writes',
  resolve(call, input) {
    check(input, { GroupName: required(groupName) });
    return resolveIdentity(call, 'group', input.GroupName!);
  },
  access: (call, _input, subject) => [accessTo(call, 'DeleteGroup', subject)],
  async handle(call, _input, subject) {
    const group = existing(subject);
    const member = await tablesOf(call)
      .selectFrom('iam_memberships')
      .select('user_id')
      .where('group_id', '=', group.id)
      .limit(1)
      .executeTakeFirst();
    if (member) throw deleteConflict('Cannot delete entity, must remove users from group first.');
    await requireNoPolicies(call, group);
    await deleteIdentity(call, group);
    return {};
  },
  record: (_call, input) => ({ requestParameters: { groupName: input.GroupName ?? null } }),
});

/** AddUserToGroup and RemoveUserFromGroup; both are about the group. */
function membershipOperation(
  name: 'AddUserToGroup' | 'RemoveUserFromGroup',
  change: (call: Call, group: Identity, user: Identity) => Promise<void>,
) {
  return operation<AddUserToGroupRequest, object, { group: NamedIdentity; user: NamedIdentity }>({
    name,
    effect: 'writes',
    async resolve(call, input) {
      check(input, { GroupName: required(groupName), UserName: required(nameOf('user')) });
      const group = await resolveIdentity(call, 'group', input.GroupName!);
      return { group, user: await resolveIdentity(call, 'user', input.UserName!) };
    },
    access: (call, _input, { group }) => [accessTo(call, name, group)],
    async handle(call, _input, { group, user }) {
      await change(call, existing(group), existing(user));
      await identitiesChanged(call);
      return {};
    },
    record: (_call, input) => ({
      requestParameters: { groupName: input.GroupName ?? null, userName: input.UserName ?? null },
    }),
  });
}

const addUserToGroup = membershipOperation('AddUserToGroup', async (call, group, user) => {
  const groups = await tablesOf(call)
    .selectFrom('iam_memberships')
    .select('group_id')
    .where('user_id', '=', user.id)
    .execute();
  if (groups.some(({ group_id }) => group_id === group.id)) return;
  if (groups.length >= groupsPerUserMax)
    throw limitExceeded(`Cannot exceed quota for GroupsPerUser: ${groupsPerUserMax}`);
  await tablesOf(call).insertInto('iam_memberships').values({ group_id: group.id, user_id: user.id }).execute();
});

const removeUserFromGroup = membershipOperation('RemoveUserFromGroup', async (call, group, user) => {
  const { numDeletedRows } = await tablesOf(call)
    .deleteFrom('iam_memberships')
    .where('group_id', '=', group.id)
    .where('user_id', '=', user.id)
    .executeTakeFirst();
  if (numDeletedRows === 0n) throw noSuchEntity(`User ${user.name} not in group ${group.name}`);
});

export const groupOperations: readonly Operation[] = [
  createGroup,
  getGroup,
  listGroups,
  listGroupsForUser,
  updateGroup,
  deleteGroup,
  addUserToGroup,
  removeUserFromGroup,
];

function describeGroup(group: Identity): Group {
  return {
    Path: group.path,
    GroupName: group.name,
    GroupId: group.id,
    Arn: identityArn(group),
    CreateDate: new Date(group.created_at),
  };
}
