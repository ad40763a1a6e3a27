/** Roles, and temporary credentials through the front door: SDK clients, a real server, real session tokens. */

import * as iam from '@aws-sdk/client-iam';
import { CreateUserCommand, IAMClient } from '@aws-sdk/client-iam';
import { CreateKeyCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';
import {
  AssumeRoleCommand,
  type Credentials,
  GetAccessKeyInfoCommand,
  GetCallerIdentityCommand,
  GetSessionTokenCommand,
  STSClient,
} from '@aws-sdk/client-sts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client } from './support/client.ts';
import { startServer, type TestServer } from './support/server.ts';
import { newUser } from './support/users.ts';

const account = '123456789012';
let server: TestServer;
let root: IAMClient;
let alice: Client;
let keyArn: string;

const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const allow = (Action: string | string[], Resource = '*', more = {}) => ({
  Effect: 'Allow',
  Action,
  Resource,
  ...more,
});
const trust = (AWS: string, more = {}) =>
  policy({ Effect: 'Allow', Principal: { AWS }, Action: ['sts:AssumeRole', 'sts:TagSession'], ...more });
const aliceArn = `arn:aws:iam::${account}:user/alice`;

beforeAll(async () => {
  server = await startServer({ args: ['--no-host'] });
  root = server.sdk(IAMClient);
  keyArn = (await server.sdk(KMSClient).send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  alice = await newUser(server, 'alice');
  await role('worker', trust(aliceArn), allow('kms:Encrypt', '*'));
});
afterAll(() => server.stop());

async function role(RoleName: string, document: string, ...statements: object[]): Promise<void> {
  await root.send(new iam.CreateRoleCommand({ RoleName, AssumeRolePolicyDocument: document, Path: '/jobs/' }));
  if (statements.length > 0)
    await root.send(new iam.PutRolePolicyCommand({ RoleName, PolicyName: 'p', PolicyDocument: policy(...statements) }));
}
const assume = async (RoleName: string, more = {}, who: Client = alice) =>
  who.sdk(STSClient).send(
    new AssumeRoleCommand({
      RoleArn: `arn:aws:iam::${account}:role/jobs/${RoleName}`,
      RoleSessionName: 'job-1',
      ...more,
    }),
  );
const as = (credentials: Credentials | undefined): Client =>
  server.as({
    accessKeyId: credentials!.AccessKeyId!,
    secretAccessKey: credentials!.SecretAccessKey!,
    sessionToken: credentials!.SessionToken!,
  });
const encrypt = (who: Client) =>
  who.sdk(KMSClient).send(new EncryptCommand({ KeyId: keyArn, Plaintext: Buffer.from('x') }));

describe('AssumeRole', () => {
  it("gives a session of the role, with the role's permissions and none of the caller's", async () => {
    await expect(encrypt(alice)).rejects.toThrow('no identity-based policy');
    const answer = await assume('worker');
    expect(answer.AssumedRoleUser!.Arn).toBe(`arn:aws:sts::${account}:assumed-role/worker/job-1`);
    expect(answer.AssumedRoleUser!.AssumedRoleId).toMatch(/^AROA[A-Z2-7]{16}:job-1$/);
    const session = as(answer.Credentials);
    expect(await session.sdk(STSClient).send(new GetCallerIdentityCommand())).toMatchObject({
      Arn: `arn:aws:sts::${account}:assumed-role/worker/job-1`,
      UserId: answer.AssumedRoleUser!.AssumedRoleId,
    });
    await encrypt(session);
    await expect(session.sdk(IAMClient).send(new iam.ListUsersCommand())).rejects.toMatchObject({
      name: 'AccessDenied',
      message: expect.stringContaining('no identity-based policy allows the iam:ListUsers action'),
    });
  });

  it('is refused to whom the trust policy does not let in, and for roles that are not there, in the same words', async () => {
    await root.send(new CreateUserCommand({ UserName: 'bob' }));
    await role('closed', trust(`arn:aws:iam::${account}:user/bob`));
    for (const name of ['closed', 'nosuch'])
      await expect(assume(name)).rejects.toMatchObject({
        name: 'AccessDenied',
        message: `User: ${aliceArn} is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::${account}:role/jobs/${name} because no role trust policy allows the sts:AssumeRole action`,
      });
    await expect(assume('worker', {}, server)).rejects.toThrow('Roles may not be assumed by root accounts.');
  });

  it('needs an identity policy too where the trust policy names the account', async () => {
    await role('shared', trust(account));
    await expect(assume('shared')).rejects.toThrow('no identity-based policy allows the sts:AssumeRole action');
    const give = { UserName: 'alice', PolicyName: 'assume' };
    await root.send(new iam.PutUserPolicyCommand({ ...give, PolicyDocument: policy(allow('sts:AssumeRole')) }));
    await assume('shared');
    await root.send(new iam.DeleteUserPolicyCommand(give));
  });

  it('keeps a session within its session policies', async () => {
    const within = async (more: object) => encrypt(as((await assume('worker', more)).Credentials));
    await within({ Policy: policy(allow('kms:Encrypt')) });
    await expect(within({ Policy: policy(allow('kms:Decrypt')) })).rejects.toThrow(
      'no session policy allows the kms:Encrypt',
    );
    const deny = { ...allow('kms:Encrypt'), Effect: 'Deny' };
    await expect(within({ Policy: policy(allow('*'), deny) })).rejects.toThrow('explicit deny in a session policy');
    const administrator = [{ arn: 'arn:aws:iam::aws:policy/AdministratorAccess' }];
    await within({ PolicyArns: administrator });
    await expect(within({ PolicyArns: [{ arn: 'arn:aws:iam::aws:policy/IAMFullAccess' }] })).rejects.toThrow(
      'no session policy',
    );
    // A session policy gives nothing that the role does not have.
    const session = as((await assume('worker', { PolicyArns: administrator })).Credentials);
    await expect(session.sdk(IAMClient).send(new iam.ListUsersCommand())).rejects.toThrow('no identity-based policy');
  });

  it('has the external id and the tags of the session as conditions', async () => {
    await role(
      'tagged',
      trust(aliceArn, { Condition: { StringEquals: { 'sts:ExternalId': 'secret-7' } } }),
      allow('kms:Encrypt', '*', { Condition: { StringEquals: { 'aws:PrincipalTag/team': 'storage' } } }),
    );
    await expect(assume('tagged')).rejects.toThrow('is not authorized to perform: sts:AssumeRole');
    const ExternalId = 'secret-7';
    await expect(encrypt(as((await assume('tagged', { ExternalId })).Credentials))).rejects.toThrow(
      'no identity-based',
    );
    await encrypt(as((await assume('tagged', { ExternalId, Tags: [{ Key: 'team', Value: 'storage' }] })).Credentials));
  });

  it('ends with what was taken from the role, or the role itself', async () => {
    await role('brief', trust(aliceArn), allow('kms:Encrypt'));
    const session = as((await assume('brief')).Credentials);
    await encrypt(session);
    const bound = { RoleName: 'brief', PermissionsBoundary: 'arn:aws:iam::aws:policy/IAMFullAccess' };
    await root.send(new iam.PutRolePermissionsBoundaryCommand(bound));
    await expect(encrypt(session)).rejects.toThrow('no permissions boundary allows the kms:Encrypt action');
    await root.send(new iam.DeleteRolePermissionsBoundaryCommand({ RoleName: 'brief' }));
    await encrypt(session);
    await expect(root.send(new iam.DeleteRoleCommand({ RoleName: 'brief' }))).rejects.toMatchObject({
      name: 'DeleteConflictException',
    });
    await root.send(new iam.DeleteRolePolicyCommand({ RoleName: 'brief', PolicyName: 'p' }));
    await root.send(new iam.DeleteRoleCommand({ RoleName: 'brief' }));
    await role('brief', trust(aliceArn), allow('kms:Encrypt'));
    await expect(encrypt(session)).rejects.toThrow('no identity-based policy');
  });

  it("refuses sessions longer than the role's, and a forged or foreign token", async () => {
    await expect(assume('worker', { DurationSeconds: 7200 })).rejects.toThrow('exceeds the MaxSessionDuration');
    const [one, two] = [await assume('worker'), await assume('worker')];
    const mixed = as({ ...one.Credentials!, SessionToken: two.Credentials!.SessionToken });
    await expect(encrypt(mixed)).rejects.toThrow(/security token/);
  });
});

describe('roles', () => {
  it('read back what was put into them', async () => {
    const { Role } = await root.send(new iam.GetRoleCommand({ RoleName: 'worker' }));
    expect(Role).toMatchObject({ RoleName: 'worker', Path: '/jobs/', MaxSessionDuration: 3600 });
    expect(decodeURIComponent(Role!.AssumeRolePolicyDocument!)).toBe(trust(aliceArn));
    const Description = 'Does the work.';
    const updated = await root.send(new iam.UpdateRoleDescriptionCommand({ RoleName: 'worker', Description }));
    expect(updated.Role).toMatchObject({ RoleName: 'worker', Description });
    expect((await root.send(new iam.GetRoleCommand({ RoleName: 'worker' }))).Role!.Description).toBe(Description);
    const listed = async (PathPrefix: string) =>
      (await root.send(new iam.ListRolesCommand({ PathPrefix }))).Roles!.map((each) => each.RoleName);
    expect(await listed('/jobs/')).toContain('worker');
    expect(await listed('/other/')).toEqual([]);
  });
  it('refuse trust policies that name nobody or a resource', async () => {
    const update = (PolicyDocument: string) =>
      root.send(new iam.UpdateAssumeRolePolicyCommand({ RoleName: 'worker', PolicyDocument }));
    for (const document of [
      policy(allow('sts:AssumeRole')),
      trust('alice'),
      '{}',
      trust(aliceArn, { Action: 'kms:Encrypt' }),
    ])
      await expect(update(document)).rejects.toMatchObject({ name: 'MalformedPolicyDocumentException' });
    await assume('worker');
  });
});

describe('access keys', () => {
  it('work until they are made inactive or deleted, and know when they were used', async () => {
    const { AccessKey } = await root.send(new iam.CreateAccessKeyCommand({ UserName: 'alice' }));
    const { AccessKeyId, SecretAccessKey } = AccessKey!;
    const who = server.as({ accessKeyId: AccessKeyId!, secretAccessKey: SecretAccessKey! });
    const ask = () => who.sdk(STSClient).send(new GetCallerIdentityCommand());
    expect((await ask()).Arn).toBe(aliceArn);
    const owner = await server.sdk(STSClient).send(new GetAccessKeyInfoCommand({ AccessKeyId }));
    expect(owner.Account).toBe(account);
    await expect(encrypt(who)).rejects.toThrow();
    const used = await root.send(new iam.GetAccessKeyLastUsedCommand({ AccessKeyId }));
    expect(used).toMatchObject({ UserName: 'alice', AccessKeyLastUsed: { ServiceName: 'kms', Region: 'us-east-1' } });
    const set = (Status: 'Active' | 'Inactive') =>
      root.send(new iam.UpdateAccessKeyCommand({ UserName: 'alice', AccessKeyId, Status }));
    await set('Inactive');
    await expect(ask()).rejects.toMatchObject({ name: 'InvalidClientTokenId' });
    await set('Active');
    await ask();
    await root.send(new iam.DeleteAccessKeyCommand({ UserName: 'alice', AccessKeyId }));
    await expect(ask()).rejects.toMatchObject({ name: 'InvalidClientTokenId' });
  });

  it('give a session of the user itself', async () => {
    const { Credentials } = await alice.sdk(STSClient).send(new GetSessionTokenCommand());
    const session = as(Credentials);
    expect((await session.sdk(STSClient).send(new GetCallerIdentityCommand())).Arn).toBe(aliceArn);
    await expect(encrypt(session)).rejects.toThrow('no identity-based policy');
    await expect(session.sdk(STSClient).send(new GetSessionTokenCommand())).rejects.toThrow(
      'Cannot call GetSessionToken',
    );
  });
});
