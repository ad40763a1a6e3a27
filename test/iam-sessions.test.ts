/** What sessions hand on to each other, and what their credentials are not good for: a real server, real session tokens. */
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import * as iam from '@aws-sdk/client-iam';
import { KMSClient, ListKeysCommand } from '@aws-sdk/client-kms';
import {
  AssumeRoleCommand,
  type AssumeRoleCommandOutput,
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
const aliceArn = `arn:aws:iam::${account}:user/alice`;
let server: TestServer;
let root: iam.IAMClient;
let alice: Client;

const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const allow = (Action: string | string[], Condition = {}) => ({ Effect: 'Allow', Action, Resource: '*', Condition });
const trust = (AWS: string, Action: string[], Condition = {}) => ({
  Effect: 'Allow',
  Principal: { AWS },
  Action,
  Condition,
});
const everything = ['sts:AssumeRole', 'sts:TagSession', 'sts:SetSourceIdentity'];

async function role(RoleName: string, trusts: object[], ...statements: object[]): Promise<void> {
  await root.send(new iam.CreateRoleCommand({ RoleName, AssumeRolePolicyDocument: policy(...trusts) }));
  if (statements.length > 0)
    await root.send(new iam.PutRolePolicyCommand({ RoleName, PolicyName: 'p', PolicyDocument: policy(...statements) }));
}
const as = (credentials: Credentials | undefined): Client =>
  server.as({
    accessKeyId: credentials!.AccessKeyId!,
    secretAccessKey: credentials!.SecretAccessKey!,
    sessionToken: credentials!.SessionToken!,
  });
const assume = (RoleName: string, who: Client, more = {}): Promise<AssumeRoleCommandOutput> =>
  who
    .sdk(STSClient)
    .send(
      new AssumeRoleCommand({ RoleArn: `arn:aws:iam::${account}:role/${RoleName}`, RoleSessionName: 'job', ...more }),
    );
const session = async (RoleName: string, who: Client, more = {}) => as((await assume(RoleName, who, more)).Credentials);
/** What the trail has of the credentials' calls. */
const recordsOf = async (AttributeValue: string) => {
  const LookupAttributes = [{ AttributeKey: 'AccessKeyId' as const, AttributeValue }];
  const { Events } = await server.sdk(CloudTrailClient).send(new LookupEventsCommand({ LookupAttributes }));
  return Events!.map((event) => JSON.parse(event.CloudTrailEvent!));
};
const listKeys = (who: Client) => who.sdk(KMSClient).send(new ListKeysCommand({}));

beforeAll(async () => {
  server = await startServer({ args: ['--no-host'] });
  root = server.sdk(iam.IAMClient);
  alice = await newUser(server, 'alice');
  await root.send(
    new iam.PutUserPolicyCommand({ UserName: 'alice', PolicyName: 'p', PolicyDocument: policy(allow('*')) }),
  );
  await role('first', [trust(account, everything)], allow('sts:*'));
});
afterAll(() => server?.stop());

describe('tags of a session', () => {
  const team = { Key: 'team', Value: 'storage' };
  const other = { Key: 'other', Value: 'x' };
  const tags = { Tags: [team, other], TransitiveTagKeys: ['Team'] };
  const ofStorage = { StringEquals: { 'aws:PrincipalTag/team': 'storage' } };
  const ofOther = { StringEquals: { 'aws:PrincipalTag/other': 'x' } };

  it('go on to the next session and the one after, if they are transitive', async () => {
    await role('second', [trust(account, everything)], allow('sts:*'), allow('kms:ListKeys', ofStorage));
    await role('third', [trust(account, everything)], allow('kms:ListKeys', ofStorage));
    await role('of-other', [trust(account, everything)], allow('kms:ListKeys', ofOther));
    const { Credentials } = await assume('first', alice, tags);
    const first = as(Credentials);
    const second = await session('second', first);
    await listKeys(second);
    await assume('first', first, { Tags: [other] });
    const [record] = await recordsOf(Credentials!.AccessKeyId!);
    expect(record.requestParameters).toMatchObject({
      incomingTransitiveTags: { team: 'storage' },
      tags: [{ key: 'other', value: 'x' }],
    });
    await listKeys(await session('third', second));
    await expect(listKeys(await session('of-other', first))).rejects.toThrow('no identity-based policy');
    await listKeys(await session('of-other', first, { Tags: [other] }));
  });

  it('can have no other value further on', async () => {
    const first = await session('first', alice, tags);
    for (const Key of ['team', 'TEAM'])
      await expect(assume('first', first, { Tags: [{ Key, Value: 'other' }] })).rejects.toMatchObject({
        name: 'InvalidParameterValue',
        message: expect.stringContaining('conflicts with a transitive tag key from the calling session'),
      });
  });

  it('are transitive only if the request has them', async () => {
    await expect(assume('first', alice, { Tags: [other], TransitiveTagKeys: ['team'] })).rejects.toMatchObject({
      name: 'InvalidParameterValue',
      message: 'The specified transitive tag key must be included in the requested tags.',
    });
  });

  it('are a matter of the next role as well, inherited or not', async () => {
    await role('untagged', [trust(account, ['sts:AssumeRole'])]);
    await role('for-storage', [
      trust(account, ['sts:AssumeRole']),
      trust(account, ['sts:TagSession'], { StringEquals: { 'aws:RequestTag/team': 'storage' } }),
    ]);
    const first = await session('first', alice, tags);
    await expect(assume('untagged', first)).rejects.toThrow('no role trust policy allows the sts:TagSession action');
    await assume('untagged', await session('first', alice, { Tags: [other] }));
    await assume('for-storage', first);
    const elsewhere = await session('first', alice, {
      Tags: [{ Key: 'team', Value: 'sales' }],
      TransitiveTagKeys: ['team'],
    });
    await expect(assume('for-storage', elsewhere)).rejects.toThrow('sts:TagSession');
  });

  it('inherited ones stand in the place of the role’s own', async () => {
    const same = { StringEquals: { 'aws:ResourceTag/team': 'storage' } };
    await role('tagged', [trust(account, ['sts:AssumeRole'], same), trust(account, ['sts:TagSession'])]);
    await root.send(new iam.TagRoleCommand({ RoleName: 'tagged', Tags: [{ Key: 'team', Value: 'sales' }] }));
    await assume('tagged', await session('first', alice, tags));
    await expect(assume('tagged', alice)).rejects.toThrow('no role trust policy allows the sts:AssumeRole action');
  });

  it('must fit into a request, with the policies', async () => {
    const many = (count: number, character: string) =>
      Array.from({ length: count }, (_, index) => ({
        Key: `${index}`.padEnd(128, character),
        Value: character.repeat(256),
      }));
    const { Credentials: fits, PackedPolicySize } = await assume('first', alice, { Tags: many(40, 'a') });
    await as(fits).sdk(STSClient).send(new GetCallerIdentityCommand());
    expect(PackedPolicySize).toBeGreaterThan(50);
    await expect(assume('first', alice, { Tags: many(50, '世') })).rejects.toMatchObject({
      name: 'PackedPolicyTooLargeException',
      message: expect.stringMatching(/consumes \d{3}% of allotted space/),
    });
  });
});

describe('the source identity', () => {
  it('is set with leave, is a condition, and stays what it is from session to session', async () => {
    const isAlice = { StringEquals: { 'sts:SourceIdentity': 'alice' } };
    await role('known', [trust(aliceArn, everything, isAlice)], allow('sts:*'));
    const seen = { StringEquals: { 'aws:SourceIdentity': 'alice' } };
    await role('next', [trust(account, everything)], allow('kms:ListKeys', seen));
    await role('silent', [trust(account, ['sts:AssumeRole'])]);
    await expect(assume('known', alice)).rejects.toThrow('sts:AssumeRole');
    await expect(assume('known', alice, { SourceIdentity: 'bob' })).rejects.toThrow('sts:AssumeRole');
    const { Credentials, SourceIdentity } = await assume('known', alice, { SourceIdentity: 'alice' });
    expect(SourceIdentity).toBe('alice');
    const next = await assume('next', as(Credentials));
    expect(next.SourceIdentity).toBe('alice');
    await listKeys(as(next.Credentials));
    const [record] = await recordsOf(next.Credentials!.AccessKeyId!);
    expect(record.userIdentity.sessionContext).toMatchObject({
      sessionIssuer: { userName: 'next' },
      sourceIdentity: 'alice',
    });
    await expect(assume('next', as(Credentials), { SourceIdentity: 'bob' })).rejects.toMatchObject({
      name: 'ValidationError',
      message: 'The source identity is already set for this assume role session',
    });
    await expect(assume('silent', as(Credentials))).rejects.toThrow('sts:SetSourceIdentity');
    await expect(listKeys(await session('next', alice))).rejects.toThrow('no identity-based policy');
  });
});

it('a session policy that is deleted allows nothing, and what has its ARN later is it', async () => {
  await role('limited', [trust(account, everything)], allow('kms:*'));
  const create = () =>
    root.send(new iam.CreatePolicyCommand({ PolicyName: 'limit', PolicyDocument: policy(allow('kms:ListKeys')) }));
  const arn = (await create()).Policy!.Arn!;
  const limited = await session('limited', alice, { PolicyArns: [{ arn }] });
  await listKeys(limited);
  await root.send(new iam.DeletePolicyCommand({ PolicyArn: arn }));
  await expect(listKeys(limited)).rejects.toThrow('no session policy allows the kms:ListKeys action');
  await create();
  await listKeys(limited);
});

describe('credentials that are temporary', () => {
  it('of a user or of root are not good for IAM, so that nobody makes lasting ones of them', async () => {
    for (const who of [alice, server as Client]) {
      const { Credentials } = await who.sdk(STSClient).send(new GetSessionTokenCommand({}));
      const temporary = as(Credentials);
      await listKeys(temporary);
      const [record] = await recordsOf(Credentials!.AccessKeyId!);
      expect(record.userIdentity.sessionContext.attributes.mfaAuthenticated).toBe('false');
      expect(record.userIdentity.sessionContext.sessionIssuer).toBeUndefined();
      await temporary.sdk(STSClient).send(new GetCallerIdentityCommand());
      for (const attempt of [
        () => temporary.sdk(iam.IAMClient).send(new iam.CreateAccessKeyCommand({ UserName: 'alice' })),
        () => temporary.sdk(iam.IAMClient).send(new iam.ListUsersCommand({})),
        () => temporary.sdk(STSClient).send(new GetAccessKeyInfoCommand({ AccessKeyId: Credentials!.AccessKeyId! })),
      ])
        await expect(attempt()).rejects.toMatchObject({
          name: 'InvalidClientTokenId',
          message: 'The security token included in the request is invalid',
        });
    }
    const { AccessKeyMetadata } = await root.send(new iam.ListAccessKeysCommand({ UserName: 'alice' }));
    expect(AccessKeyMetadata).toHaveLength(1);
    const { Credentials } = await alice.sdk(STSClient).send(new GetSessionTokenCommand({}));
    await assume('first', as(Credentials));
  });

  it('of a user are those of the user by the name that it has now, and end with it', async () => {
    const carol = await newUser(server, 'carol');
    const temporary = as((await carol.sdk(STSClient).send(new GetSessionTokenCommand({}))).Credentials);
    const whoIsIt = async () => (await temporary.sdk(STSClient).send(new GetCallerIdentityCommand({}))).Arn;
    await root.send(new iam.UpdateUserCommand({ UserName: 'carol', NewUserName: 'caroline' }));
    await root.send(new iam.CreateUserCommand({ UserName: 'carol' }));
    expect(await whoIsIt()).toBe(`arn:aws:iam::${account}:user/caroline`);
    const name = { StringEquals: { 'aws:username': 'carol' } };
    await root.send(
      new iam.PutUserPolicyCommand({
        UserName: 'caroline',
        PolicyName: 'p',
        PolicyDocument: policy(allow('kms:ListKeys', name)),
      }),
    );
    await expect(listKeys(temporary)).rejects.toThrow('no identity-based policy');
    await root.send(new iam.DeleteUserPolicyCommand({ UserName: 'caroline', PolicyName: 'p' }));
    await root.send(
      new iam.DeleteAccessKeyCommand({ UserName: 'caroline', AccessKeyId: carol.credentials.accessKeyId }),
    );
    await root.send(new iam.DeleteUserCommand({ UserName: 'caroline' }));
    await expect(whoIsIt()).rejects.toMatchObject({ name: 'InvalidClientTokenId' });
  });

  it('come with no second factor, and are refused to who thinks that they do', async () => {
    const code = { SerialNumber: `arn:aws:iam::${account}:mfa/alice`, TokenCode: '123456' };
    const failed = { name: 'AccessDenied', message: expect.stringMatching(/^MultiFactorAuthentication failed/) };
    await expect(assume('first', alice, code)).rejects.toMatchObject(failed);
    await expect(alice.sdk(STSClient).send(new GetSessionTokenCommand(code))).rejects.toMatchObject(failed);
  });
});
