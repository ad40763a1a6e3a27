/** Identities through the pipeline: users, groups, keys and policies as IAM's API has them. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AwsError } from '../src/aws/errors.ts';
import { account, World } from './support/world.ts';

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.close());

const iam = (operation: string, input: object = {}) => world.call('iam', operation, input);

async function codeOf(operation: string, input: object = {}): Promise<string> {
  return (await failure(operation, input)).code;
}
async function failure(operation: string, input: object = {}): Promise<AwsError> {
  const error = await iam(operation, input).then(
    () => undefined,
    (error) => error,
  );
  expect(error, `${operation} succeeded`).toBeInstanceOf(AwsError);
  return error;
}

const allowing = (Action: string, Resource = '*') =>
  JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action, Resource }] });

describe('users', () => {
  it('are made with a path and tags, found without regard to case, and listed by name', async () => {
    const { User } = await iam('CreateUser', { UserName: 'Alice', Path: '/ops/', Tags: [{ Key: 'team', Value: 'a' }] });
    expect(User).toMatchObject({ UserName: 'Alice', Path: '/ops/', Arn: `arn:aws:iam::${account}:user/ops/Alice` });
    expect(User.UserId).toMatch(/^AIDA[A-Z2-7]{16}$/);
    await iam('CreateUser', { UserName: 'bob' });
    expect((await iam('GetUser', { UserName: 'alice' })).User.Tags).toEqual([{ Key: 'team', Value: 'a' }]);
    const names = async (input: object) =>
      (await iam('ListUsers', input)).Users.map((user: { UserName: string }) => user.UserName);
    expect(await names({})).toEqual(['Alice', 'bob']);
    expect(await names({ PathPrefix: '/ops/' })).toEqual(['Alice']);
  });

  it('are listed page by page', async () => {
    for (const UserName of ['c', 'a', 'B']) await iam('CreateUser', { UserName });
    const seen: string[] = [];
    let Marker: string | undefined;
    do {
      const page = await iam('ListUsers', { MaxItems: 2, Marker });
      seen.push(...page.Users.map((user: { UserName: string }) => user.UserName));
      expect(page.IsTruncated).toBe(page.Marker !== undefined);
      Marker = page.Marker;
    } while (Marker);
    expect(seen).toEqual(['a', 'B', 'c']);
  });

  it('are refused twice, with a wrong name, and when they are not there', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const again = await failure('CreateUser', { UserName: 'ALICE' });
    expect(again).toMatchObject({ code: 'EntityAlreadyExists', httpStatus: 409 });
    expect(again.message).toBe('User with name ALICE already exists.');
    expect(await codeOf('CreateUser', { UserName: 'a b' })).toBe('ValidationError');
    expect(await codeOf('CreateUser', { UserName: 'c', Path: 'ops' })).toBe('ValidationError');
    expect(await codeOf('CreateUser', {})).toBe('ValidationError');
    const missing = await failure('GetUser', { UserName: 'carol' });
    expect(missing).toMatchObject({
      code: 'NoSuchEntity',
      httpStatus: 404,
      message: 'The user with name carol cannot be found.',
    });
  });

  it('are renamed, and keep what they have', async () => {
    const { User } = await iam('CreateUser', { UserName: 'alice' });
    await iam('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument: allowing('kms:ListKeys') });
    await iam('UpdateUser', { UserName: 'alice', NewUserName: 'alicia', NewPath: '/x/' });
    const renamed = (await iam('GetUser', { UserName: 'alicia' })).User;
    expect(renamed).toMatchObject({ UserId: User.UserId, Arn: `arn:aws:iam::${account}:user/x/alicia` });
    expect((await iam('ListUserPolicies', { UserName: 'alicia' })).PolicyNames).toEqual(['p']);
    expect(await codeOf('GetUser', { UserName: 'alice' })).toBe('NoSuchEntity');
  });

  it('are deleted only when nothing depends on them', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const { AccessKey } = await iam('CreateAccessKey', { UserName: 'alice' });
    expect((await failure('DeleteUser', { UserName: 'alice' })).message).toMatch(/must delete access keys first/);
    await iam('DeleteAccessKey', { UserName: 'alice', AccessKeyId: AccessKey.AccessKeyId });
    await iam('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument: allowing('kms:ListKeys') });
    expect((await failure('DeleteUser', { UserName: 'alice' })).message).toMatch(/must delete policies first/);
    await iam('DeleteUserPolicy', { UserName: 'alice', PolicyName: 'p' });
    await iam('CreateGroup', { GroupName: 'ops' });
    await iam('AddUserToGroup', { GroupName: 'ops', UserName: 'alice' });
    expect((await failure('DeleteUser', { UserName: 'alice' })).message).toMatch(/must remove users from group first/);
    await iam('RemoveUserFromGroup', { GroupName: 'ops', UserName: 'alice' });
    await iam('DeleteUser', { UserName: 'alice' });
    expect(await codeOf('DeleteUser', { UserName: 'alice' })).toBe('NoSuchEntity');
  });

  it("are each account's own", async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const other = {
      principal: {
        type: 'Root' as const,
        account: '210987654321',
        arn: 'arn:aws:iam::210987654321:root',
        principalId: '210987654321',
      },
    };
    await expect(world.call('iam', 'GetUser', { UserName: 'alice' }, other)).rejects.toMatchObject({
      code: 'NoSuchEntity',
    });
    expect((await world.call('iam', 'ListUsers', {}, other)).Users).toEqual([]);
  });
});

describe('access keys', () => {
  it('are at most two of a user, listed without their secrets, and never in the trail', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const first = (await iam('CreateAccessKey', { UserName: 'alice' })).AccessKey;
    const second = (await iam('CreateAccessKey', { UserName: 'alice' })).AccessKey;
    expect(first.AccessKeyId).toMatch(/^AKIA[A-Z2-7]{16}$/);
    expect(first.SecretAccessKey).toHaveLength(40);
    const third = await failure('CreateAccessKey', { UserName: 'alice' });
    expect(third).toMatchObject({ code: 'LimitExceeded', message: 'Cannot exceed quota for AccessKeysPerUser: 2' });
    const listed = (await iam('ListAccessKeys', { UserName: 'alice' })).AccessKeyMetadata;
    expect(listed.map((key: { AccessKeyId: string }) => key.AccessKeyId).sort()).toEqual(
      [first.AccessKeyId, second.AccessKeyId].sort(),
    );
    expect(JSON.stringify(listed)).not.toContain(first.SecretAccessKey);
    const trail = JSON.stringify(await world.trail());
    expect(trail).toContain(first.AccessKeyId);
    expect(trail).not.toContain(first.SecretAccessKey);
    expect(trail).not.toContain(second.SecretAccessKey);
  });

  it('of one user are not changed in the name of another', async () => {
    for (const UserName of ['alice', 'bob']) await iam('CreateUser', { UserName });
    const { AccessKeyId } = (await iam('CreateAccessKey', { UserName: 'alice' })).AccessKey;
    const wrong = { UserName: 'bob', AccessKeyId };
    expect(await codeOf('UpdateAccessKey', { ...wrong, Status: 'Inactive' })).toBe('NoSuchEntity');
    expect(await codeOf('DeleteAccessKey', wrong)).toBe('NoSuchEntity');
    expect((await iam('ListAccessKeys', { UserName: 'alice' })).AccessKeyMetadata).toMatchObject([
      { Status: 'Active' },
    ]);
  });

  it('say when they were used last', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const { AccessKeyId } = (await iam('CreateAccessKey', { UserName: 'alice' })).AccessKey;
    expect(await iam('GetAccessKeyLastUsed', { AccessKeyId })).toEqual({
      UserName: 'alice',
      AccessKeyLastUsed: { ServiceName: 'N/A', Region: 'N/A' },
    });
    expect(await codeOf('GetAccessKeyLastUsed', { AccessKeyId: 'AKIAIOSFODNN7EXAMPLE' })).toBe('NoSuchEntity');
  });
});

describe('policies', () => {
  const document = allowing('kms:Decrypt');

  it('are written into users and groups, and read back as they were', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    await iam('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument: document });
    const read = await iam('GetUserPolicy', { UserName: 'alice', PolicyName: 'p' });
    expect(read).toMatchObject({ UserName: 'alice', PolicyName: 'p' });
    expect(read.PolicyDocument).not.toContain('{');
    expect(decodeURIComponent(read.PolicyDocument)).toBe(document);
    expect((await failure('GetUserPolicy', { UserName: 'alice', PolicyName: 'q' })).message).toBe(
      'The user policy with name q cannot be found.',
    );
  });

  it.each([
    ['{', 'This policy contains invalid Json'],
    ['[]', 'Syntax errors in policy.'],
    ['{"Version":"2012-10-17"}', 'Syntax errors in policy.'],
    ['{"Version":"2013-10-17","Statement":[]}', 'The policy must contain a valid version string'],
    ['{"Statement":{"Effect":"Allow","Resource":"*"}}', 'Policy statement must contain actions.'],
    ['{"Statement":{"Effect":"Allow","Action":"kms:*"}}', 'Policy statement must contain resources.'],
    [
      '{"Statement":{"Effect":"Allow","Action":"Decrypt","Resource":"*"}}',
      'Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.',
    ],
    [
      '{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"key"}}',
      'Resource key must be in ARN format or "*".',
    ],
    [
      '{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*","Principal":"*"}}',
      'Policy document should not specify a principal.',
    ],
    [
      '{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"StringIs":{"aws:username":"a"}}}}',
      'Invalid Condition type : StringIs',
    ],
    ['{"Statement":[{"Effect":"Deny","Effect":"Allow","Action":"kms:*","Resource":"*"}]}', 'Syntax errors in policy.'],
    [
      '{"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"Bool":{"a:b":"true"},"Bool" : {}}}]}',
      'Syntax errors in policy.',
    ],
    [`${'['.repeat(60_000)}${']'.repeat(60_000)}`, 'Syntax errors in policy.'],
  ])('are refused when malformed: %s', async (PolicyDocument, message) => {
    await iam('CreateUser', { UserName: 'alice' });
    const error = await failure('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument });
    expect(error).toMatchObject({ code: 'MalformedPolicyDocument', message });
    expect((await iam('ListUserPolicies', { UserName: 'alice' })).PolicyNames).toEqual([]);
  });

  it('of a user are at most 2048 characters together, white space not counted', async () => {
    await iam('CreateUser', { UserName: 'alice' });
    const big = allowing('kms:Decrypt', `arn:aws:kms:us-east-1:${account}:key/${'a'.repeat(1200)}`);
    await iam('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument: big + ' '.repeat(3000) });
    expect(await codeOf('PutUserPolicy', { UserName: 'alice', PolicyName: 'q', PolicyDocument: big })).toBe(
      'LimitExceeded',
    );
    expect((await iam('ListUserPolicies', { UserName: 'alice' })).PolicyNames).toEqual(['p']);
  });

  it('that are managed have versions, at most five, one in force', async () => {
    const { Policy } = await iam('CreatePolicy', { PolicyName: 'p', PolicyDocument: document, Path: '/x/' });
    expect(Policy).toMatchObject({
      Arn: `arn:aws:iam::${account}:policy/x/p`,
      DefaultVersionId: 'v1',
      AttachmentCount: 0,
    });
    const PolicyArn = Policy.Arn;
    expect(await codeOf('CreatePolicy', { PolicyName: 'P', PolicyDocument: document })).toBe('EntityAlreadyExists');
    for (let i = 2; i <= 5; i++)
      await iam('CreatePolicyVersion', { PolicyArn, PolicyDocument: document, SetAsDefault: i === 3 });
    expect(await codeOf('CreatePolicyVersion', { PolicyArn, PolicyDocument: document })).toBe('LimitExceeded');
    expect((await iam('GetPolicy', { PolicyArn })).Policy.DefaultVersionId).toBe('v3');
    expect(await codeOf('DeletePolicyVersion', { PolicyArn, VersionId: 'v3' })).toBe('DeleteConflict');
    await iam('DeletePolicyVersion', { PolicyArn, VersionId: 'v5' });
    const made = await iam('CreatePolicyVersion', { PolicyArn, PolicyDocument: document });
    expect(made.PolicyVersion).toMatchObject({ VersionId: 'v6', IsDefaultVersion: false });
    await iam('SetDefaultPolicyVersion', { PolicyArn, VersionId: 'v6' });
    const { PolicyVersion } = await iam('GetPolicyVersion', { PolicyArn, VersionId: 'v6' });
    expect(PolicyVersion.IsDefaultVersion).toBe(true);
    expect(decodeURIComponent(PolicyVersion.Document)).toBe(document);
    expect(await codeOf('DeletePolicy', { PolicyArn })).toBe('DeleteConflict');
  });

  it('that are managed are attached, listed both ways, and not deleted while they are', async () => {
    const PolicyArn = (await iam('CreatePolicy', { PolicyName: 'p', PolicyDocument: document })).Policy.Arn;
    await iam('CreateUser', { UserName: 'alice' });
    await iam('CreateGroup', { GroupName: 'ops' });
    await iam('AttachUserPolicy', { UserName: 'alice', PolicyArn });
    await iam('AttachUserPolicy', { UserName: 'alice', PolicyArn });
    await iam('AttachGroupPolicy', { GroupName: 'ops', PolicyArn });
    expect((await iam('ListAttachedUserPolicies', { UserName: 'alice' })).AttachedPolicies).toEqual([
      { PolicyName: 'p', PolicyArn },
    ]);
    expect(await iam('ListEntitiesForPolicy', { PolicyArn })).toMatchObject({
      PolicyUsers: [{ UserName: 'alice' }],
      PolicyGroups: [{ GroupName: 'ops' }],
    });
    expect((await iam('GetPolicy', { PolicyArn })).Policy.AttachmentCount).toBe(2);
    expect(await codeOf('DeletePolicy', { PolicyArn })).toBe('DeleteConflict');
    await iam('DetachUserPolicy', { UserName: 'alice', PolicyArn });
    expect(await codeOf('DetachUserPolicy', { UserName: 'alice', PolicyArn })).toBe('NoSuchEntity');
    await iam('DetachGroupPolicy', { GroupName: 'ops', PolicyArn });
    await iam('DeletePolicy', { PolicyArn });
    expect(await codeOf('GetPolicy', { PolicyArn })).toBe('NoSuchEntity');
  });

  it("of AWS are there and nobody's to change", async () => {
    const PolicyArn = 'arn:aws:iam::aws:policy/AdministratorAccess';
    await iam('CreateUser', { UserName: 'alice' });
    await iam('AttachUserPolicy', { UserName: 'alice', PolicyArn });
    expect(await codeOf('CreatePolicyVersion', { PolicyArn, PolicyDocument: document })).toBe('NoSuchEntity');
    expect(await codeOf('DeletePolicy', { PolicyArn })).toBe('NoSuchEntity');
  });
});

describe('groups', () => {
  it('have members, and are deleted when they have none', async () => {
    const { Group } = await iam('CreateGroup', { GroupName: 'ops' });
    expect(Group.Arn).toBe(`arn:aws:iam::${account}:group/ops`);
    await iam('CreateUser', { UserName: 'alice' });
    await iam('AddUserToGroup', { GroupName: 'ops', UserName: 'alice' });
    expect((await iam('GetGroup', { GroupName: 'ops' })).Users).toMatchObject([{ UserName: 'alice' }]);
    expect((await iam('ListGroupsForUser', { UserName: 'alice' })).Groups).toMatchObject([{ GroupName: 'ops' }]);
    expect(await codeOf('DeleteGroup', { GroupName: 'ops' })).toBe('DeleteConflict');
    await iam('RemoveUserFromGroup', { GroupName: 'ops', UserName: 'alice' });
    expect(await codeOf('RemoveUserFromGroup', { GroupName: 'ops', UserName: 'alice' })).toBe('NoSuchEntity');
    await iam('DeleteGroup', { GroupName: 'ops' });
  });
});

describe('tags', () => {
  it('are put, changed without regard to case, and taken off', async () => {
    await iam('CreateUser', { UserName: 'alice', Tags: [{ Key: 'Team', Value: 'a' }] });
    await iam('TagUser', {
      UserName: 'alice',
      Tags: [
        { Key: 'team', Value: 'b' },
        { Key: 'x', Value: '' },
      ],
    });
    expect((await iam('ListUserTags', { UserName: 'alice' })).Tags).toEqual([
      { Key: 'team', Value: 'b' },
      { Key: 'x', Value: '' },
    ]);
    await iam('UntagUser', { UserName: 'alice', TagKeys: ['TEAM'] });
    expect((await iam('ListUserTags', { UserName: 'alice' })).Tags).toEqual([{ Key: 'x', Value: '' }]);
    expect(await codeOf('TagUser', { UserName: 'alice', Tags: [{ Key: 'aws:x', Value: '' }] })).toBe('InvalidInput');
  });
});

describe('instance profiles', () => {
  it('have tags, which are theirs alone', async () => {
    const InstanceProfileName = 'tagged';
    const Tags = [{ Key: 'team', Value: 'storage' }];
    const { InstanceProfile } = await iam('CreateInstanceProfile', { InstanceProfileName, Tags });
    expect(InstanceProfile.Tags).toEqual(Tags);
    await iam('TagInstanceProfile', { InstanceProfileName, Tags: [{ Key: 'Team', Value: 'compute' }] });
    await iam('TagInstanceProfile', { InstanceProfileName, Tags: [{ Key: 'cost', Value: '' }] });
    const now = [
      { Key: 'cost', Value: '' },
      { Key: 'Team', Value: 'compute' },
    ];
    expect((await iam('GetInstanceProfile', { InstanceProfileName })).InstanceProfile.Tags).toEqual(now);
    const { Marker } = await iam('ListInstanceProfileTags', { InstanceProfileName, MaxItems: 1 });
    const rest = await iam('ListInstanceProfileTags', { InstanceProfileName, MaxItems: 1, Marker });
    expect(rest).toEqual({ Tags: [now[1]], IsTruncated: false });
    await iam('UntagInstanceProfile', { InstanceProfileName, TagKeys: ['TEAM'] });
    await iam('DeleteInstanceProfile', { InstanceProfileName });
    await iam('CreateInstanceProfile', { InstanceProfileName });
    expect((await iam('ListInstanceProfileTags', { InstanceProfileName })).Tags).toEqual([]);
    expect(await codeOf('TagInstanceProfile', { InstanceProfileName: 'nosuch', Tags })).toBe('NoSuchEntity');
  });

  it('hold one role, which is not deleted meanwhile', async () => {
    const trust = policyOf({ Effect: 'Allow', Principal: { Service: 'ec2.amazonaws.com' }, Action: 'sts:AssumeRole' });
    for (const RoleName of ['web', 'db']) await iam('CreateRole', { RoleName, AssumeRolePolicyDocument: trust });
    const profile = { InstanceProfileName: 'servers' };
    const { InstanceProfile } = await iam('CreateInstanceProfile', profile);
    expect(InstanceProfile.Arn).toBe(`arn:aws:iam::${account}:instance-profile/servers`);
    expect(await codeOf('CreateInstanceProfile', { InstanceProfileName: 'SERVERS' })).toBe('EntityAlreadyExists');
    await iam('AddRoleToInstanceProfile', { ...profile, RoleName: 'web' });
    expect(await codeOf('AddRoleToInstanceProfile', { ...profile, RoleName: 'db' })).toBe('LimitExceeded');
    expect((await iam('GetInstanceProfile', profile)).InstanceProfile.Roles).toMatchObject([{ RoleName: 'web' }]);
    const ofRole = async (RoleName: string) =>
      (await iam('ListInstanceProfilesForRole', { RoleName })).InstanceProfiles;
    expect(await ofRole('web')).toMatchObject([profile]);
    expect(await ofRole('db')).toEqual([]);
    expect(await codeOf('DeleteRole', { RoleName: 'web' })).toBe('DeleteConflict');
    expect(await codeOf('DeleteInstanceProfile', profile)).toBe('DeleteConflict');
    expect(await codeOf('RemoveRoleFromInstanceProfile', { ...profile, RoleName: 'db' })).toBe('NoSuchEntity');
    await iam('RemoveRoleFromInstanceProfile', { ...profile, RoleName: 'web' });
    await iam('DeleteRole', { RoleName: 'web' });
    await iam('DeleteInstanceProfile', profile);
    expect((await iam('ListInstanceProfiles')).InstanceProfiles).toEqual([]);
  });
});

const policyOf = (Statement: object) => JSON.stringify({ Version: '2012-10-17', Statement });
