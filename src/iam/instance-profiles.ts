/** Instance profiles: the name by which an instance is given a role. Source: IAM API reference, CreateInstanceProfile. */
import type {
  CreateInstanceProfileRequest,
  CreateInstanceProfileResponse,
  GetInstanceProfileResponse,
  InstanceProfile,
  ListInstanceProfilesRequest,
  ListInstanceProfilesResponse,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { required, text } from '../aws/validate.ts';
import { newIamId } from './access-keys.ts';
import { check, deleteConflict, entityAlreadyExists, limitExceeded, noSuchEntity } from './errors.ts';
import {
  accessTo,
  existing,
  findIdentityById,
  iamAccess,
  type NamedIdentity,
  nameOf,
  pathPrefixText,
  pathText,
  resolveIdentity,
  tablesOf,
} from './identities.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import type { IamTables } from './records.ts';
import { currentRole } from './roles.ts';

type Row = IamTables['iam_instance_profiles'];

const profileName = text({ min: 1, max: 128, pattern: /[\w+=,.@-]+/ });
const profilesMax = 1000;

const arnOf = ({ account, path, name }: Pick<Row, 'account' | 'path' | 'name'>) =>
  `arn:aws:iam::${account}:instance-profile${path}${name}`;

const createInstanceProfile = operation<CreateInstanceProfileRequest, CreateInstanceProfileResponse, string>({
  name: 'CreateInstanceProfile',
  effect: 'writes',
  resolve(call, input) {
    check(input, { InstanceProfileName: required(profileName), Path: pathText });
    return arnOf({ account: call.account, path: input.Path ?? '/', name: input.InstanceProfileName! });
  },
  access: (call, _input, arn) => [iamAccess(call, 'CreateInstanceProfile', arn)],
  async handle(call, input) {
    const name = input.InstanceProfileName!;
    const all = await tablesOf(call)
      .selectFrom('iam_instance_profiles')
      .select('name_key')
      .where('account', '=', call.account)
      .execute();
    if (all.some(({ name_key }) => name_key === name.toLowerCase()))
      throw entityAlreadyExists(`Instance Profile ${name} already exists.`);
    if (all.length >= profilesMax)
      throw limitExceeded(`Cannot exceed quota for InstanceProfilesPerAccount: ${profilesMax}`);
    const row: Row = {
      id: newIamId('AIPA'),
      account: call.account,
      name,
      name_key: name.toLowerCase(),
      path: input.Path ?? '/',
      created_at: call.clock.now(),
      role_id: null,
    };
    await tablesOf(call).insertInto('iam_instance_profiles').values(row).execute();
    return { InstanceProfile: await describe(call, row) };
  },
  record: (_call, input, output) => ({
    requestParameters: { instanceProfileName: input.InstanceProfileName ?? null, path: input.Path },
    responseElements: output ? { instanceProfile: { arn: output.InstanceProfile!.Arn } } : null,
  }),
});

const listInstanceProfiles = operation<ListInstanceProfilesRequest, ListInstanceProfilesResponse>({
  name: 'ListInstanceProfiles',
  effect: 'reads',
  resolve: (_call, input) => check(input, { ...pageRules, PathPrefix: pathPrefixText }),
  access: (call) => [iamAccess(call, 'ListInstanceProfiles', `arn:aws:iam::${call.account}:instance-profile/`)],
  async handle(call, input) {
    const all = await tablesOf(call)
      .selectFrom('iam_instance_profiles')
      .selectAll()
      .where('account', '=', call.account)
      .where('name_key', '>', pageAfter(input))
      .orderBy('name_key')
      .execute();
    const wanted = all.filter(({ path }) => path.startsWith(input.PathPrefix ?? '/')).slice(0, pageRows(input));
    const { rows, rest } = pageOf(wanted, input, ({ name_key }) => name_key);
    return { InstanceProfiles: await Promise.all(rows.map((row) => describe(call, row))), ...rest };
  },
});

const listInstanceProfilesForRole = operation<
  ListInstanceProfilesRequest & { RoleName?: string },
  ListInstanceProfilesResponse,
  NamedIdentity
>({
  name: 'ListInstanceProfilesForRole',
  effect: 'reads',
  resolve(call, input) {
    check(input, { ...pageRules, RoleName: required(nameOf('role')) });
    return resolveIdentity(call, 'role', input.RoleName!);
  },
  access: (call, _input, role) => [accessTo(call, 'ListInstanceProfilesForRole', role)],
  async handle(call, input, role) {
    const all = await tablesOf(call)
      .selectFrom('iam_instance_profiles')
      .selectAll()
      .where('role_id', '=', existing(role).id)
      .where('name_key', '>', pageAfter(input))
      .orderBy('name_key')
      .limit(pageRows(input))
      .execute();
    const { rows, rest } = pageOf(all, input, ({ name_key }) => name_key);
    return { InstanceProfiles: await Promise.all(rows.map((row) => describe(call, row))), ...rest };
  },
  record: (_call, input) => ({ requestParameters: { roleName: input.RoleName ?? null } }),
});

interface AboutProfile {
  readonly InstanceProfileName?: string;
  readonly RoleName?: string;
}
interface Subject {
  readonly name: string;
  readonly arn: string;
  readonly row: Row | undefined;
  readonly role: NamedIdentity | undefined;
}

/** An operation on one instance profile, and a role where `withRole`. */
function onProfile<Output>(
  name: string,
  effect: 'reads' | 'writes',
  withRole: boolean,
  handle: (call: Call, row: Row, role: NamedIdentity | undefined) => Promise<Output>,
) {
  return operation<AboutProfile, Output, Subject>({
    name,
    effect,
    async resolve(call, input) {
      const rules = { InstanceProfileName: required(profileName) };
      check(input, withRole ? { ...rules, RoleName: required(nameOf('role')) } : rules);
      const profile = input.InstanceProfileName!;
      const row = await tablesOf(call)
        .selectFrom('iam_instance_profiles')
        .selectAll()
        .where('account', '=', call.account)
        .where('name_key', '=', profile.toLowerCase())
        .executeTakeFirst();
      const arn = arnOf(row ?? { account: call.account, path: '/', name: profile });
      const role = withRole ? await resolveIdentity(call, 'role', input.RoleName!) : undefined;
      return { name: profile, arn, row, role };
    },
    access: (call, _input, { arn, role }) => [
      iamAccess(call, name, arn),
      // Who gives a role to instances must be allowed to hand it on.
      ...(role && name.startsWith('Add')
        ? [accessTo(call, 'PassRole', role, { 'iam:PassedToService': 'ec2.amazonaws.com' })]
        : []),
    ],
    handle(call, _input, subject) {
      if (!subject.row) throw noSuchEntity(`Instance Profile ${subject.name} cannot be found.`);
      return handle(call, subject.row, subject.role);
    },
    record: (_call, input) => ({
      requestParameters: { instanceProfileName: input.InstanceProfileName ?? null, roleName: input.RoleName },
    }),
  });
}

const getInstanceProfile = onProfile<GetInstanceProfileResponse>(
  'GetInstanceProfile',
  'reads',
  false,
  async (call, row) => ({ InstanceProfile: await describe(call, row) }),
);

const deleteInstanceProfile = onProfile('DeleteInstanceProfile', 'writes', false, async (call, row) => {
  if (row.role_id) throw deleteConflict('Cannot delete entity, must remove roles from instance profile first.');
  await tablesOf(call).deleteFrom('iam_instance_profiles').where('id', '=', row.id).execute();
  return {};
});

const addRole = onProfile('AddRoleToInstanceProfile', 'writes', true, async (call, row, role) => {
  const { id } = existing(role!);
  if (row.role_id) throw limitExceeded('Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1');
  await setRole(call, row, id);
  return {};
});

const removeRole = onProfile('RemoveRoleFromInstanceProfile', 'writes', true, async (call, row, role) => {
  const { id, name } = existing(role!);
  if (row.role_id !== id) throw noSuchEntity(`Role ${name} cannot be found in instance profile ${row.name}.`);
  await setRole(call, row, null);
  return {};
});

export const instanceProfileOperations: readonly Operation[] = [
  createInstanceProfile,
  getInstanceProfile,
  listInstanceProfiles,
  listInstanceProfilesForRole,
  addRole,
  removeRole,
  deleteInstanceProfile,
];

async function setRole(call: Call, { id }: Row, roleId: string | null): Promise<void> {
  await tablesOf(call).updateTable('iam_instance_profiles').set({ role_id: roleId }).where('id', '=', id).execute();
}

async function describe(call: Call, row: Row): Promise<InstanceProfile> {
  const role = row.role_id ? await findIdentityById(call.db, row.role_id) : undefined;
  return {
    Path: row.path,
    InstanceProfileName: row.name,
    InstanceProfileId: row.id,
    Arn: arnOf(row),
    CreateDate: new Date(row.created_at),
    Roles: role ? [await currentRole(call, role)] : [],
  };
}
