import { account, type World } from '../world.ts';
import { type Inputs, type Make, next, nothing, tags } from './inputs.ts';

const iam = (world: World, operation: string, input: object) => world.call('iam', operation, input);
const policyDocument = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: 'ec2:Describe*', Resource: '*' }],
});
const trust = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: account }, Action: 'sts:*' }],
});

async function user(world: World): Promise<string> {
  const UserName = next('user');
  await iam(world, 'CreateUser', { UserName, Tags: tags });
  return UserName;
}
async function role(world: World): Promise<string> {
  const RoleName = next('role');
  await iam(world, 'CreateRole', { RoleName, AssumeRolePolicyDocument: trust, Tags: tags });
  return RoleName;
}
async function group(world: World): Promise<string> {
  const GroupName = next('group');
  await iam(world, 'CreateGroup', { GroupName });
  return GroupName;
}
async function policy(world: World): Promise<string> {
  const { Policy } = await iam(world, 'CreatePolicy', { PolicyName: next('policy'), PolicyDocument: policyDocument });
  return Policy.Arn;
}
async function profile(world: World): Promise<string> {
  const InstanceProfileName = next('profile');
  await iam(world, 'CreateInstanceProfile', { InstanceProfileName, Tags: tags });
  return InstanceProfileName;
}
async function accessKey(world: World) {
  const UserName = await user(world);
  const { AccessKey } = await iam(world, 'CreateAccessKey', { UserName });
  return { UserName, AccessKeyId: AccessKey.AccessKeyId };
}
const makers = { User: user, Role: role, Group: group } as const;
type Kind = keyof typeof makers;
async function withPolicy(world: World, kind: Kind): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world), PolicyName: 'p' };
  await iam(world, `Put${kind}Policy`, { ...named, PolicyDocument: policyDocument });
  return named;
}
async function withAttached(world: World, kind: Kind): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world), PolicyArn: await policy(world) };
  await iam(world, `Attach${kind}Policy`, named);
  return named;
}
async function withBoundary(world: World, kind: 'User' | 'Role'): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world) };
  const PermissionsBoundary = await policy(world);
  await iam(world, `Put${kind}PermissionsBoundary`, { ...named, PermissionsBoundary });
  return named;
}
export async function filledProfile(world: World): Promise<string> {
  const InstanceProfileName = await profile(world);
  await iam(world, 'AddRoleToInstanceProfile', { InstanceProfileName, RoleName: await role(world) });
  return InstanceProfileName;
}

const named =
  (kind: Kind): Make =>
  async (world) => ({ [`${kind}Name`]: await makers[kind](world) });
const ofPolicies = (kind: Kind): Record<string, Make> => ({
  [`Put${kind}Policy`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PolicyName: 'p',
    PolicyDocument: policyDocument,
  }),
  [`Get${kind}Policy`]: (world) => withPolicy(world, kind),
  [`List${kind}Policies`]: named(kind),
  [`Delete${kind}Policy`]: (world) => withPolicy(world, kind),
  [`Attach${kind}Policy`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PolicyArn: await policy(world),
  }),
  [`Detach${kind}Policy`]: (world) => withAttached(world, kind),
  [`ListAttached${kind}Policies`]: named(kind),
});
const ofBoundaries = (kind: 'User' | 'Role'): Record<string, Make> => ({
  [`Put${kind}PermissionsBoundary`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PermissionsBoundary: await policy(world),
  }),
  [`Delete${kind}PermissionsBoundary`]: (world) => withBoundary(world, kind),
});
const ofTags = (kind: 'User' | 'Role'): Record<string, Make> => ({
  [`Tag${kind}`]: async (world) => ({ [`${kind}Name`]: await makers[kind](world), Tags: tags }),
  [`Untag${kind}`]: async (world) => ({ [`${kind}Name`]: await makers[kind](world), TagKeys: ['team'] }),
  [`List${kind}Tags`]: named(kind),
});

export const iamInputs: Inputs = {
  CreateUser: async (world) => ({
    UserName: next('user'),
    Tags: tags,
    PermissionsBoundary: await policy(world),
  }),
  GetUser: named('User'),
  ListUsers: nothing,
  UpdateUser: async (world) => ({ UserName: await user(world), NewUserName: next('user') }),
  DeleteUser: named('User'),
  CreateAccessKey: named('User'),
  UpdateAccessKey: async (world) => ({ ...(await accessKey(world)), Status: 'Inactive' }),
  DeleteAccessKey: accessKey,
  ListAccessKeys: named('User'),
  GetAccessKeyLastUsed: async (world) => ({ AccessKeyId: (await accessKey(world)).AccessKeyId }),
  CreateGroup: () => ({ GroupName: next('group') }),
  GetGroup: named('Group'),
  ListGroups: nothing,
  ListGroupsForUser: named('User'),
  UpdateGroup: async (world) => ({ GroupName: await group(world), NewGroupName: next('group') }),
  DeleteGroup: named('Group'),
  AddUserToGroup: async (world) => ({ GroupName: await group(world), UserName: await user(world) }),
  RemoveUserFromGroup: async (world) => {
    const both = { GroupName: await group(world), UserName: await user(world) };
    await iam(world, 'AddUserToGroup', both);
    return both;
  },
  CreateRole: () => ({ RoleName: next('role'), AssumeRolePolicyDocument: trust, Tags: tags }),
  GetRole: named('Role'),
  ListRoles: nothing,
  UpdateRole: async (world) => ({ RoleName: await role(world), Description: 'x' }),
  UpdateRoleDescription: async (world) => ({ RoleName: await role(world), Description: 'x' }),
  UpdateAssumeRolePolicy: async (world) => ({ RoleName: await role(world), PolicyDocument: trust }),
  DeleteRole: named('Role'),
  CreateInstanceProfile: () => ({ InstanceProfileName: next('profile'), Tags: tags }),
  GetInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world) }),
  ListInstanceProfiles: nothing,
  ListInstanceProfilesForRole: named('Role'),
  AddRoleToInstanceProfile: async (world) => ({
    InstanceProfileName: await profile(world),
    RoleName: await role(world),
  }),
  RemoveRoleFromInstanceProfile: async (world) => {
    const both = { InstanceProfileName: await profile(world), RoleName: await role(world) };
    await iam(world, 'AddRoleToInstanceProfile', both);
    return both;
  },
  DeleteInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world) }),
  ...ofPolicies('User'),
  ...ofPolicies('Group'),
  ...ofPolicies('Role'),
  ...ofBoundaries('User'),
  ...ofBoundaries('Role'),
  ...ofTags('User'),
  ...ofTags('Role'),
  CreatePolicy: () => ({ PolicyName: next('policy'), PolicyDocument: policyDocument }),
  GetPolicy: async (world) => ({ PolicyArn: await policy(world) }),
  ListPolicies: nothing,
  DeletePolicy: async (world) => ({ PolicyArn: await policy(world) }),
  ListEntitiesForPolicy: async (world) => ({ PolicyArn: await policy(world) }),
  CreatePolicyVersion: async (world) => ({ PolicyArn: await policy(world), PolicyDocument: policyDocument }),
  GetPolicyVersion: async (world) => ({ PolicyArn: await policy(world), VersionId: 'v1' }),
  ListPolicyVersions: async (world) => ({ PolicyArn: await policy(world) }),
  SetDefaultPolicyVersion: async (world) => ({ PolicyArn: await policy(world), VersionId: 'v1' }),
  DeletePolicyVersion: async (world) => {
    const PolicyArn = await policy(world);
    await iam(world, 'CreatePolicyVersion', { PolicyArn, PolicyDocument: policyDocument });
    return { PolicyArn, VersionId: 'v2' };
  },
  TagPolicy: async (world) => ({ PolicyArn: await policy(world), Tags: tags }),
  UntagPolicy: async (world) => ({ PolicyArn: await policy(world), TagKeys: ['team'] }),
  ListPolicyTags: async (world) => ({ PolicyArn: await policy(world) }),
  TagInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world), Tags: tags }),
  UntagInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world), TagKeys: ['team'] }),
  ListInstanceProfileTags: async (world) => ({ InstanceProfileName: await profile(world) }),
  SimulatePrincipalPolicy: async (world) => ({
    PolicySourceArn: `arn:aws:iam::${account}:user/${await user(world)}`,
    ActionNames: ['kms:Decrypt'],
  }),
  SimulateCustomPolicy: () => ({ PolicyInputList: [policyDocument], ActionNames: ['kms:Decrypt'] }),
};

export const stsInputs: Inputs = {
  AssumeRole: async (world) => ({
    RoleArn: `arn:aws:iam::${account}:role/${await role(world)}`,
    RoleSessionName: 'monday',
    ExternalId: 'partner',
    Tags: tags,
    TransitiveTagKeys: ['team'],
  }),
  GetAccessKeyInfo: async (world) => ({ AccessKeyId: (await accessKey(world)).AccessKeyId }),
};
