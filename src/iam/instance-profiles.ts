/** Instance profiles: the name by which an instance is given a role. Source: IAM API reference, CreateInstanceProfile. */
import type {
  CreateInstanceProfileRequest,
  CreateInstanceProfileResponse,
  GetInstanceProfileResponse,
  InstanceProfile,
  ListInstanceProfilesRequest,
  ListInstanceProfilesResponse,
  Tag,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type AccessRequest, betweenServices, type Operation, operation } from '../aws/service.ts';
import { required, text } from '../aws/validate.ts';
import { newIamId } from './access-keys.ts';
import { check, deleteConflict, entityAlreadyExists, limitExceeded, noSuchEntity } from './errors.ts';
import {
  accessTo,
  type Conditions,
  existing,
  findIdentityById,
  iamAccess,
  type NamedIdentity,
  nameOf,
  type PlainTag,
  pathPrefixText,
  pathText,
  putTags,
  recordedTags,
  requestTags,
  resolveIdentity,
  tablesOf,
  tagListRule,
  tagsOf,
} from './identities.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import type { IamTables } from './records.ts';
import { currentRole } from './roles.ts';

type Row = IamTables['iam_instance_profiles'];

export const profileName = text({ min: 1, max: 128, pattern: /[\w+=,.@-]+/ });
const profilesMax = 1000;

const arnOf = ({ account, path, name }: Pick<Row, 'account' | 'path' | 'name'>) =>
  `arn:aws:iam::${account}:instance-profile${path}${name}`;

const createInstanceProfile = operation<CreateInstanceProfileRequest, CreateInstanceProfileResponse, string>({
  name: 'CreateInstanceProfile',
  effect: 'writes',
  resolve(call, input) {
    check(input, { InstanceProfileName: required(profileName), Path: pathText, Tags: tagListRule });
    return arnOf({ account: call.account, path: input.Path ?? '/', name: input.InstanceProfileName! });
  },
  access: (call, input, arn) => [
    iamAccess(call, 'CreateInstanceProfile', arn, requestTags(input.Tags)),
    ...(input.Tags?.length ? [iamAccess(call, 'TagInstanceProfile', arn, requestTags(input.Tags))] : []),
  ],
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
    await putTags(call, row.id, input.Tags ?? []);
    return { InstanceProfile: { ...(await describe(call, row)), ...shownTags(input.Tags) } };
  },
  record: (_call, input, output) => ({
    requestParameters: {
      instanceProfileName: input.InstanceProfileName ?? null,
      path: input.Path,
      tags: recordedTags(input.Tags),
    },
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

/** An instance profile that a request names: as it is, or as it would be if it existed. */
export interface NamedProfile {
  readonly name: string;
  readonly arn: string;
  readonly row: Row | undefined;
  readonly tags: readonly PlainTag[];
}
interface Subject extends NamedProfile {
  readonly role: NamedIdentity | undefined;
}

/** Looks up an instance profile of the caller's account by its name. */
export async function resolveProfile(call: Call, name: string): Promise<NamedProfile> {
  const row = await tablesOf(call)
    .selectFrom('iam_instance_profiles')
    .selectAll()
    .where('account', '=', call.account)
    .where('name_key', '=', name.toLowerCase())
    .executeTakeFirst();
  const arn = arnOf(row ?? { account: call.account, path: '/', name });
  return { name, arn, row, tags: row ? await tagsOf(call, row.id) : [] };
}

/** Leave to do `action` to an instance profile, for whose tags IAM has no condition key of its own. */
export function accessToProfile(
  call: Call,
  action: string,
  { arn, tags }: Pick<NamedProfile, 'arn' | 'tags'>,
  context: Conditions = {},
): AccessRequest {
  const ofResource = Object.fromEntries(tags.map(({ Key, Value }) => [`aws:ResourceTag/${Key}`, Value]));
  return iamAccess(call, action, arn, { ...ofResource, ...context });
}

/** @throws {AwsError} NoSuchEntity */
export function existingProfile({ name, row }: NamedProfile): Row {
  if (!row) throw noSuchEntity(`Instance Profile ${name} cannot be found.`);
  return row;
}

/** An operation on one instance profile, and a role where `withRole`. */
function onProfile<Output>(
  name: string,
  effect: 'reads' | 'writes',
  withRole: boolean,
  handle: (call: Call, row: Row, subject: Subject) => Promise<Output>,
) {
  return operation<AboutProfile, Output, Subject>({
    name,
    effect,
    async resolve(call, input) {
      const rules = { InstanceProfileName: required(profileName) };
      check(input, withRole ? { ...rules, RoleName: required(nameOf('role')) } : rules);
      const role = withRole ? await resolveIdentity(call, 'role', input.RoleName!) : undefined;
      return { ...(await resolveProfile(call, input.InstanceProfileName!)), role };
    },
    access: (call, _input, { arn, tags, role }) => [
      accessToProfile(call, name, { arn, tags }),
      // Who gives a role to instances must be allowed to hand it on.
      ...(role && name.startsWith('Add') ? [accessToPass(call, role)] : []),
    ],
    handle: (call, _input, subject) => handle(call, existingProfile(subject), subject),
    record: (_call, input) => ({
      requestParameters: { instanceProfileName: input.InstanceProfileName ?? null, roleName: input.RoleName },
    }),
  });
}

const getInstanceProfile = onProfile<GetInstanceProfileResponse>(
  'GetInstanceProfile',
  'reads',
  false,
  async (call, row, { tags }) => ({ InstanceProfile: { ...(await describe(call, row)), ...shownTags(tags) } }),
);

const deleteInstanceProfile = onProfile('DeleteInstanceProfile', 'writes', false, async (call, row) => {
  if (row.role_id) throw deleteConflict('Cannot delete entity, must remove roles from instance profile first.');
  await tablesOf(call).deleteFrom('iam_tags').where('resource_id', '=', row.id).execute();
  await tablesOf(call).deleteFrom('iam_instance_profiles').where('id', '=', row.id).execute();
  return {};
});

const addRole = onProfile('AddRoleToInstanceProfile', 'writes', true, async (call, row, { role }) => {
  const { id } = existing(role!);
  if (row.role_id) throw limitExceeded('Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1');
  await setRole(call, row, id);
  return {};
});

const removeRole = onProfile('RemoveRoleFromInstanceProfile', 'writes', true, async (call, row, { role }) => {
  const { id, name } = existing(role!);
  if (row.role_id !== id) throw noSuchEntity(`Role ${name} cannot be found in instance profile ${row.name}.`);
  await setRole(call, row, null);
  return {};
});

/** DescribeInstanceProfile (internal, for EC2): a profile by its name, and the leave that it takes to hand its role on. */
export const describeInstanceProfile = operation<
  { Name: string },
  { Profile?: { Arn: string; Id: string; PassRole?: AccessRequest } }
>({
  name: 'DescribeInstanceProfile',
  effect: 'reads',
  ...betweenServices,
  async handle(call, { Name }) {
    const { row, arn } = await resolveProfile(call, Name);
    if (!row || row.name !== Name) return {};
    const found = row.role_id ? await findIdentityById(call.db, row.role_id) : undefined;
    const role = found && (await resolveIdentity(call, 'role', found.name));
    return { Profile: { Arn: arn, Id: row.id, ...(role ? { PassRole: accessToPass(call, role) } : {}) } };
  },
});

/** Leave to hand a role on to instances. */
const accessToPass = (call: Call, role: NamedIdentity) =>
  accessTo(call, 'PassRole', role, { 'iam:PassedToService': 'ec2.amazonaws.com' });

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

const shownTags = (tags: readonly Tag[] | undefined) => (tags?.length ? { Tags: [...tags] } : {});

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
