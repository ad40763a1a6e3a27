/** Who may do what: identity policies, groups, boundaries, key policies and grants decided together. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import { account, World } from './support/world.ts';

let world: World;
let keyArn: string;
beforeEach(async () => {
  world = await World.create();
  keyArn = (await world.kms('CreateKey')).KeyMetadata.Arn;
});
afterEach(() => world.close());

const iam = (operation: string, input: object = {}) => world.call('iam', operation, input);
type Statement = Record<string, unknown>;
const policy = (...Statement: Statement[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const allow = (Action: string | string[], Resource: string = '*', more: Statement = {}) => ({
  Effect: 'Allow',
  Action,
  Resource,
  ...more,
});
const deny = (Action: string) => ({ Effect: 'Deny', Action, Resource: '*' });

async function user(UserName: string, ...statements: Statement[]): Promise<Principal> {
  const { User } = await iam('CreateUser', { UserName });
  if (statements.length > 0) await give(UserName, ...statements);
  return { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: UserName };
}
const give = (UserName: string, ...statements: Statement[]) =>
  iam('PutUserPolicy', { UserName, PolicyName: 'p', PolicyDocument: policy(...statements) });

const keyPolicy = (...statements: Statement[]) =>
  world.kms('PutKeyPolicy', {
    KeyId: keyArn,
    Policy: policy(
      { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:Put*', Resource: '*' },
      ...statements,
    ),
  });
const encrypt = (principal: Principal, KeyId = keyArn) =>
  world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x') }, { principal });
const refused = (call: Promise<unknown>, reason: string | RegExp) =>
  expect(call).rejects.toMatchObject({ code: 'AccessDeniedException', message: expect.stringMatching(reason) });

describe('a user', () => {
  it('may do nothing without a policy, and is told which kind is missing', async () => {
    const alice = await user('alice');
    await expect(encrypt(alice)).rejects.toMatchObject({
      message: `User: arn:aws:iam::${account}:user/alice is not authorized to perform: kms:Encrypt on resource: ${keyArn} because no identity-based policy allows the kms:Encrypt action`,
    });
    await expect(world.ec2('DescribeVolumes', {}, { principal: alice })).rejects.toMatchObject({
      code: 'UnauthorizedOperation',
    });
    await expect(world.call('iam', 'CreateUser', { UserName: 'mallory' }, { principal: alice })).rejects.toMatchObject({
      code: 'AccessDenied',
      message: expect.stringContaining(`iam:CreateUser on resource: arn:aws:iam::${account}:user/mallory`),
    });
    await expect(iam('GetUser', { UserName: 'mallory' })).rejects.toMatchObject({ code: 'NoSuchEntity' });
  });

  it('may do what an inline policy, an attached one, or one of its groups allows, until it is taken away', async () => {
    const alice = await user('alice', allow('kms:Encrypt', keyArn));
    await encrypt(alice);
    await iam('DeleteUserPolicy', { UserName: 'alice', PolicyName: 'p' });
    await refused(encrypt(alice), 'no identity-based policy');

    const document = policy(allow('kms:Encrypt'));
    const { Arn: PolicyArn } = (await iam('CreatePolicy', { PolicyName: 'enc', PolicyDocument: document })).Policy;
    await iam('AttachUserPolicy', { UserName: 'alice', PolicyArn });
    await encrypt(alice);
    await iam('CreatePolicyVersion', { PolicyArn, PolicyDocument: policy(allow('kms:Decrypt')), SetAsDefault: true });
    await refused(encrypt(alice), 'no identity-based policy');
    await iam('SetDefaultPolicyVersion', { PolicyArn, VersionId: 'v1' });
    await encrypt(alice);
    await iam('DetachUserPolicy', { UserName: 'alice', PolicyArn });
    await refused(encrypt(alice), 'no identity-based policy');

    await iam('CreateGroup', { GroupName: 'ops' });
    await iam('AttachGroupPolicy', { GroupName: 'ops', PolicyArn });
    await iam('AddUserToGroup', { GroupName: 'ops', UserName: 'alice' });
    await encrypt(alice);
    await iam('RemoveUserFromGroup', { GroupName: 'ops', UserName: 'alice' });
    await refused(encrypt(alice), 'no identity-based policy');
  });

  it('that is deleted may do nothing, nor does one made anew under its name inherit from it', async () => {
    const alice = await user('alice', allow('kms:Encrypt'));
    await encrypt(alice);
    await iam('DeleteUserPolicy', { UserName: 'alice', PolicyName: 'p' });
    await iam('DeleteUser', { UserName: 'alice' });
    await user('alice', allow('kms:Encrypt'));
    await refused(encrypt(alice), 'no identity-based policy');
  });

  it('keeps its permissions when a change to them fails', async () => {
    const alice = await user('alice', allow('kms:Encrypt'));
    await encrypt(alice);
    await expect(give('alice', allow('Encrypt'))).rejects.toMatchObject({ code: 'MalformedPolicyDocument' });
    const tooLong = allow('kms:Decrypt', `arn:aws:kms:*:*:key/${'a'.repeat(2100)}`);
    await expect(give('alice', tooLong)).rejects.toMatchObject({ code: 'LimitExceeded' });
    await encrypt(alice);
  });

  it('is stopped by an explicit deny anywhere', async () => {
    const alice = await user('alice', allow('*'), deny('kms:Encrypt'));
    await refused(encrypt(alice), 'with an explicit deny in an identity-based policy');
    const own = { Effect: 'Allow', Principal: { AWS: alice.arn }, Action: 'kms:Encrypt', Resource: '*' };
    await keyPolicy(own);
    await refused(encrypt(alice), 'with an explicit deny in an identity-based policy');
    await give('alice', allow('*'));
    await encrypt(alice);
    await keyPolicy(own, { ...own, Effect: 'Deny' });
    await refused(encrypt(alice), 'with an explicit deny in a resource-based policy');
  });

  it('needs no identity policy where the key policy names it, and gets nowhere where that leaves out the account', async () => {
    const alice = await user('alice');
    const bob = await user('bob', allow('kms:*'));
    await keyPolicy({ Effect: 'Allow', Principal: { AWS: alice.arn }, Action: 'kms:Encrypt', Resource: '*' });
    await encrypt(alice);
    await refused(encrypt(bob), 'no resource-based policy allows the kms:Encrypt action');
  });

  it('may use what a grant gives it', async () => {
    const alice = await user('alice');
    const { GrantId } = await world.kms('CreateGrant', {
      KeyId: keyArn,
      GranteePrincipal: alice.arn,
      Operations: ['Encrypt'],
    });
    await encrypt(alice);
    await world.kms('RevokeGrant', { KeyId: keyArn, GrantId });
    await refused(encrypt(alice), 'no identity-based policy');
  });

  it('has conditions and variables of its own: name, tags', async () => {
    const alice = await user(
      'alice',
      allow('kms:Encrypt', '*', { Condition: { StringEquals: { 'aws:PrincipalTag/team': 'storage' } } }),
      allow('iam:GetUser', `arn:aws:iam::${account}:user/\${aws:username}`),
    );
    await refused(encrypt(alice), 'no identity-based policy');
    await iam('TagUser', { UserName: 'alice', Tags: [{ Key: 'team', Value: 'storage' }] });
    await encrypt(alice);
    await iam('UntagUser', { UserName: 'alice', TagKeys: ['team'] });
    await refused(encrypt(alice), 'no identity-based policy');
    expect((await world.call('iam', 'GetUser', {}, { principal: alice })).User.UserName).toBe('alice');
    await user('bob');
    await expect(world.call('iam', 'GetUser', { UserName: 'bob' }, { principal: alice })).rejects.toThrow(
      'iam:GetUser',
    );
  });

  it('never gets past its boundary by identity policies, but by a key policy that names it', async () => {
    const alice = await user('alice', allow('*'));
    const document = policy(allow('kms:Decrypt'));
    const { Arn } = (await iam('CreatePolicy', { PolicyName: 'bound', PolicyDocument: document })).Policy;
    await iam('PutUserPermissionsBoundary', { UserName: 'alice', PermissionsBoundary: Arn });
    await refused(encrypt(alice), 'no permissions boundary allows the kms:Encrypt action');
    expect((await iam('GetUser', { UserName: 'alice' })).User.PermissionsBoundary.PermissionsBoundaryArn).toBe(Arn);
    await expect(iam('DeletePolicy', { PolicyArn: Arn })).rejects.toMatchObject({ code: 'DeleteConflict' });
    await keyPolicy({ Effect: 'Allow', Principal: { AWS: alice.arn }, Action: 'kms:Encrypt', Resource: '*' });
    await encrypt(alice);
    await iam('CreatePolicyVersion', {
      PolicyArn: Arn,
      PolicyDocument: policy(deny('kms:Encrypt')),
      SetAsDefault: true,
    });
    await refused(encrypt(alice), 'with an explicit deny in a permissions boundary');
    await iam('DeleteUserPermissionsBoundary', { UserName: 'alice' });
    await encrypt(alice);
  });

  it("uses the account's AWS managed key through EC2 only", async () => {
    const alice = await user('alice', allow('kms:*'), allow('ec2:*'));
    const { VolumeId } = await world.ec2(
      'CreateVolume',
      { AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true },
      { principal: alice },
    );
    expect(VolumeId).toMatch(/^vol-/);
    await expect(encrypt(alice, 'alias/aws/ebs')).rejects.toMatchObject({ code: 'AccessDeniedException' });
  });
});

describe('SimulatePrincipalPolicy', () => {
  const simulate = async (PolicySourceArn: string, more: object = {}) =>
    (await iam('SimulatePrincipalPolicy', { PolicySourceArn, ActionNames: ['kms:Encrypt', 'kms:Decrypt'], ...more }))
      .EvaluationResults;
  const decisions = (results: Array<{ EvalDecision: string }>) => results.map((result) => result.EvalDecision);

  it('says what would be allowed, by which policy, and which conditions it could not know', async () => {
    const alice = await user(
      'alice',
      allow('kms:Encrypt', '*', { Condition: { StringEquals: { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com' } } }),
      deny('kms:Decrypt'),
    );
    const [first, second] = await simulate(alice.arn);
    expect(first).toMatchObject({ EvalDecision: 'implicitDeny', MissingContextValues: ['kms:ViaService'] });
    expect(second).toMatchObject({
      EvalActionName: 'kms:Decrypt',
      EvalDecision: 'explicitDeny',
      MatchedStatements: [{ SourcePolicyId: 'user_alice_p', SourcePolicyType: 'user' }],
    });
    const ContextEntries = [
      { ContextKeyName: 'kms:ViaService', ContextKeyType: 'string', ContextKeyValues: ['ec2.us-east-1.amazonaws.com'] },
    ];
    expect(decisions(await simulate(alice.arn, { ContextEntries }))).toEqual(['allowed', 'explicitDeny']);
  });

  it('counts groups and boundaries, and pages', async () => {
    const alice = await user('alice');
    await iam('CreateGroup', { GroupName: 'ops' });
    await iam('AttachGroupPolicy', { GroupName: 'ops', PolicyArn: 'arn:aws:iam::aws:policy/AdministratorAccess' });
    expect(decisions(await simulate(alice.arn))).toEqual(['implicitDeny', 'implicitDeny']);
    await iam('AddUserToGroup', { GroupName: 'ops', UserName: 'alice' });
    expect(decisions(await simulate(alice.arn))).toEqual(['allowed', 'allowed']);
    const bounded = { PermissionsBoundaryPolicyInputList: [policy(allow('kms:Encrypt'))] };
    expect(decisions(await simulate(alice.arn, bounded))).toEqual(['allowed', 'implicitDeny']);
    expect(await simulate(alice.arn, { MaxItems: 1 })).toHaveLength(1);
    await expect(simulate(`arn:aws:iam::${account}:user/nobody`)).rejects.toMatchObject({ code: 'NoSuchEntity' });
  });

  it('decides with the policy of a resource as requests are decided', async () => {
    const alice = await user('alice', allow('kms:*'));
    const onKey = (...statements: Statement[]) => ({ ResourceArns: [keyArn], ResourcePolicy: policy(...statements) });
    const to = (AWS: string, statement: Statement) => ({ ...statement, Principal: { AWS } });
    const theAccount = `arn:aws:iam::${account}:root`;
    expect(decisions(await simulate(alice.arn, onKey(to(theAccount, allow('kms:Encrypt')))))).toEqual([
      'allowed',
      'implicitDeny',
    ]);
    expect(
      decisions(await simulate(alice.arn, onKey(to(theAccount, allow('kms:*')), to(alice.arn, deny('kms:Decrypt'))))),
    ).toEqual(['allowed', 'explicitDeny']);
    const { Policy } = await world.kms('GetKeyPolicy', { KeyId: keyArn });
    expect(decisions(await simulate(alice.arn, { ResourceArns: [keyArn], ResourcePolicy: Policy }))).toEqual([
      'allowed',
      'allowed',
    ]);
    const bob = await user('bob');
    const [byKey, not] = await simulate(bob.arn, onKey(to(bob.arn, allow('kms:Encrypt'))));
    expect(byKey).toMatchObject({
      EvalDecision: 'allowed',
      MatchedStatements: [{ SourcePolicyId: 'ResourcePolicy', SourcePolicyType: 'resource' }],
    });
    expect(not).toMatchObject({ EvalDecision: 'implicitDeny', MatchedStatements: [] });
    const asAlice = { ...onKey(to(alice.arn, allow('kms:Encrypt'))), CallerArn: alice.arn };
    expect(decisions(await simulate(bob.arn, asAlice))).toEqual(['allowed', 'implicitDeny']);
  });

  it('asks both sides where the resource is another account’s', async () => {
    const alice = await user('alice', allow('kms:Encrypt'));
    const elsewhere = keyArn.replace(account, '210987654321');
    const ResourcePolicy = policy({ ...allow('kms:*'), Principal: { AWS: account } });
    const results = await simulate(alice.arn, { ResourceArns: [elsewhere], ResourcePolicy });
    expect(decisions(results)).toEqual(['allowed', 'implicitDeny']);
    const owned = { ResourcePolicy: policy({ ...allow('kms:*'), Principal: { AWS: alice.arn } }) };
    expect(decisions(await simulate(alice.arn, { ...owned, ResourceOwner: '210987654321' }))).toEqual([
      'allowed',
      'implicitDeny',
    ]);
    expect(decisions(await simulate(alice.arn, owned))).toEqual(['allowed', 'allowed']);
  });

  it('takes names of actions, ARNs and kinds of keys that there are', async () => {
    const { arn } = await user('alice', allow('*'));
    for (const more of [{ ActionNames: ['Decrypt'] }, { ActionNames: ['kms:*'] }, { ResourceArns: ['key'] }])
      await expect(simulate(arn, more), JSON.stringify(more)).rejects.toMatchObject({ code: 'InvalidInput' });
    const entry = { ContextKeyName: 'aws:username', ContextKeyType: 'words', ContextKeyValues: ['a'] };
    await expect(simulate(arn, { ContextEntries: [entry] })).rejects.toMatchObject({ code: 'ValidationError' });
  });

  it('must know who calls where the policy of a resource is to name the caller', async () => {
    await iam('CreateGroup', { GroupName: 'ops' });
    const ResourcePolicy = policy({ ...allow('kms:*'), Principal: '*' });
    const ops = `arn:aws:iam::${account}:group/ops`;
    const invalid = { code: 'InvalidInput' };
    await expect(simulate(ops, { ResourcePolicy })).rejects.toMatchObject(invalid);
    await expect(simulate(ops, { ResourcePolicy, CallerArn: ops })).rejects.toMatchObject(invalid);
    const CallerArn = `arn:aws:iam::${account}:user/anyone`;
    await expect(simulate(ops, { ResourcePolicy: policy(allow('kms:*')), CallerArn })).rejects.toMatchObject({
      code: 'MalformedPolicyDocument',
    });
    expect(decisions(await simulate(ops, { ResourcePolicy, CallerArn }))).toEqual(['allowed', 'allowed']);
  });
});

describe('nobody gets further', () => {
  const as = (principal: Principal, operation: string, input: object) =>
    world.call('iam', operation, input, { principal });
  const denied = { code: 'AccessDenied' };

  it('by writing a name in another case, or another path', async () => {
    const mallory = await user('mallory', allow('iam:*'), {
      Effect: 'Deny',
      Action: '*',
      Resource: `arn:aws:iam::${account}:user/admins/Boss`,
    });
    await iam('CreateUser', { UserName: 'Boss', Path: '/admins/' });
    for (const UserName of ['Boss', 'BOSS', 'boss'])
      for (const [operation, more] of [
        ['CreateAccessKey', {}],
        ['CreateUser', { Path: '/other/' }],
        ['PutUserPolicy', { PolicyName: 'p', PolicyDocument: policy(allow('*')) }],
      ] as const)
        await expect(as(mallory, operation, { UserName, ...more }), `${operation} ${UserName}`).rejects.toMatchObject(
          denied,
        );
  });

  it('by renaming a user into a place that it may not touch, or out of one', async () => {
    const mallory = await user('mallory', allow('iam:UpdateUser', `arn:aws:iam::${account}:user/low/*`));
    await iam('CreateUser', { UserName: 'pawn', Path: '/low/' });
    await iam('CreateUser', { UserName: 'king', Path: '/high/' });
    await expect(as(mallory, 'UpdateUser', { UserName: 'pawn', NewPath: '/high/' })).rejects.toMatchObject(denied);
    await expect(as(mallory, 'UpdateUser', { UserName: 'king', NewPath: '/low/' })).rejects.toMatchObject(denied);
    await as(mallory, 'UpdateUser', { UserName: 'pawn', NewUserName: 'knight' });
  });

  it('by running an instance with a role that it may not hand on', async () => {
    const mallory = await user('mallory', allow('ec2:*'), allow('iam:AddRoleToInstanceProfile'));
    const trust = { Effect: 'Allow', Principal: { Service: 'ec2.amazonaws.com' }, Action: 'sts:AssumeRole' };
    const AssumeRolePolicyDocument = policy(trust);
    const { Role } = await iam('CreateRole', { RoleName: 'boss', AssumeRolePolicyDocument });
    const profile = { InstanceProfileName: 'servers' };
    const { Arn, InstanceProfileId } = (await iam('CreateInstanceProfile', profile)).InstanceProfile;
    const run = (IamInstanceProfile: object, caller = {}, ClientToken?: string) =>
      world.ec2(
        'RunInstances',
        { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, IamInstanceProfile, ClientToken },
        caller,
      );
    const invalid = { code: 'InvalidParameterValue' };
    await expect(run({ Name: 'servers' })).rejects.toMatchObject({
      ...invalid,
      message: expect.stringContaining('no associated IAM Roles'),
    });
    await expect(as(mallory, 'AddRoleToInstanceProfile', { ...profile, RoleName: 'boss' })).rejects.toMatchObject(
      denied,
    );
    await iam('AddRoleToInstanceProfile', { ...profile, RoleName: 'boss' });
    for (const wrong of [{ Name: 'nosuch' }, { Name: 'SERVERS' }, { Arn: `${Arn}x` }, { Arn: Arn.replace('/', '/a/') }])
      await expect(run(wrong), JSON.stringify(wrong)).rejects.toMatchObject(invalid);
    await expect(run({ Name: 'servers', Arn })).rejects.toMatchObject({ code: 'InvalidParameterCombination' });
    for (const named of [{ Name: 'servers' }, { Arn }])
      await expect(run(named, { principal: mallory })).rejects.toMatchObject({
        code: 'UnauthorizedOperation',
        message: expect.stringContaining(`iam:PassRole on resource: ${Role.Arn} because no identity-based policy`),
      });
    expect((await world.ec2('DescribeInstances')).Reservations).toEqual([]);
    await give('mallory', allow('ec2:*'), allow('iam:PassRole', Role.Arn));
    const { Instances } = await run({ Name: 'servers' }, { principal: mallory });
    expect(Instances[0].IamInstanceProfile).toEqual({ Arn, Id: InstanceProfileId });
    const again = () => run({ Name: 'servers' }, {}, 'once');
    const { ReservationId } = await again();
    await iam('RemoveRoleFromInstanceProfile', { ...profile, RoleName: 'boss' });
    expect((await again()).ReservationId).toBe(ReservationId);
  });

  it('by attaching more than it may hand out, or shedding a boundary', async () => {
    const readOnly = 'arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess';
    const mallory = await user(
      'mallory',
      allow('iam:AttachUserPolicy', '*', { Condition: { ArnEquals: { 'iam:PolicyARN': readOnly } } }),
    );
    const attach = (PolicyArn: string) => as(mallory, 'AttachUserPolicy', { UserName: 'mallory', PolicyArn });
    await expect(attach('arn:aws:iam::aws:policy/AdministratorAccess')).rejects.toMatchObject(denied);
    await attach(readOnly);
    await iam('PutUserPermissionsBoundary', { UserName: 'mallory', PermissionsBoundary: readOnly });
    await expect(as(mallory, 'DeleteUserPermissionsBoundary', { UserName: 'mallory' })).rejects.toMatchObject(denied);
  });
});
