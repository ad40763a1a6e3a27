/**
 * Attempts to get further than policies allow, through the front door of a running server. Each must fail closed: refused,
 * and nothing changed.
 */
import { join } from 'node:path';
import {
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteTagsCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  EC2Client,
} from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import * as kms from '@aws-sdk/client-kms';
import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadRootKeyFile } from '../src/crypto/root-key.ts';
import { createSession } from '../src/iam/sessions.ts';
import type { Client } from './support/client.ts';
import { startServer, type TestServer } from './support/server.ts';
import { newUser } from './support/users.ts';
import { zone } from './support/volumes.ts';
import { sendSigned } from './support/wire.ts';

const account = '123456789012';
const Plaintext = Buffer.from('x');
let server: TestServer;
let root: { kms: kms.KMSClient; iam: iam.IAMClient; ec2: EC2Client };
/** May do what each test gives her, and no more. */
let mallory: Client;
/** Somebody else's key, and one that mallory may use. */
let victim: string;
let own: string;

const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const allow = (Action: string | string[], Resource: string | string[] = '*', Condition: object = {}) => ({
  Effect: 'Allow',
  Action,
  Resource,
  Condition,
});
const give = (...statements: object[]) =>
  root.iam.send(
    new iam.PutUserPolicyCommand({ UserName: 'mallory', PolicyName: 'p', PolicyDocument: policy(...statements) }),
  );
const refused = { name: expect.stringMatching(/^(?:AccessDenied(?:Exception)?|UnauthorizedOperation)$/) };
const newKey = async () => (await root.kms.send(new kms.CreateKeyCommand({}))).KeyMetadata!.Arn!;
const encrypt = (KeyId: string, more: object = {}, who = mallory) =>
  who.sdk(kms.KMSClient).send(new kms.EncryptCommand({ KeyId, Plaintext, ...more }));

beforeAll(async () => {
  server = await startServer({ args: ['--no-host'] });
  root = { kms: server.sdk(kms.KMSClient), iam: server.sdk(iam.IAMClient), ec2: server.sdk(EC2Client) };
  mallory = await newUser(server, 'mallory');
  [victim, own] = [await newKey(), await newKey()];
});
afterAll(() => server?.stop());
beforeEach(() => give(allow('none:None')));

describe('EC2 is no deputy for those who may not themselves', () => {
  const volumes = async () => (await root.ec2.send(new DescribeVolumesCommand({}))).Volumes!.length;
  const create = (KmsKeyId: string) =>
    mallory
      .sdk(EC2Client)
      .send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId }));

  it('a volume takes a key that its maker may use', async () => {
    await give(allow('ec2:*'), allow('kms:*', own));
    const before = await volumes();
    await expect(create(victim)).rejects.toMatchObject({
      name: 'UnauthorizedOperation',
      message: expect.stringContaining(`on resource: ${victim} because no identity-based policy allows`),
    });
    expect(await volumes()).toBe(before);
    await create(own);
  });

  it('what is allowed through EC2 is not allowed directly, whatever a request says of itself', async () => {
    const viaEc2 = { StringEquals: { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com' } };
    await give(allow('ec2:*'), allow('kms:*', victim, viaEc2));
    await create(victim);
    await expect(encrypt(victim)).rejects.toMatchObject(refused);
    const forged = {
      'user-agent': 'ec2.amazonaws.com',
      'x-amz-via-service': 'ec2.us-east-1.amazonaws.com',
      'x-amz-source-arn': `arn:aws:ec2:us-east-1:${account}:volume/vol-1`,
      'x-amz-source-account': account,
    };
    const body = JSON.stringify({ KeyId: victim, Plaintext: Plaintext.toString('base64') });
    expect((await sendSigned(mallory, 'kms', { headers: { ...target('Encrypt'), ...forged }, body })).status).toBe(400);
  });

  it('a grant for AWS resources can be made by EC2 alone', async () => {
    await give(allow('kms:CreateGrant', victim, { Bool: { 'kms:GrantIsForAWSResource': 'true' } }));
    const grant = { KeyId: victim, GranteePrincipal: `arn:aws:iam::${account}:user/mallory`, Operations: ['Decrypt'] };
    const send = mallory.sdk(kms.KMSClient).send(new kms.CreateGrantCommand(grant as kms.CreateGrantCommandInput));
    await expect(send).rejects.toMatchObject(refused);
    expect((await root.kms.send(new kms.ListGrantsCommand({ KeyId: victim }))).Grants).toEqual([]);
  });
});

describe("another account's key", () => {
  it('is closed to whoever knows its ARN, and to EC2 for them', async () => {
    const answer = await coffer('CreateAccount', { Name: 'other' });
    const other = server.as({ accessKeyId: answer.AccessKeyId!, secretAccessKey: answer.SecretAccessKey! });
    await expect(encrypt(victim, {}, other)).rejects.toMatchObject(refused);
    const volume = { Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: victim };
    await expect(other.sdk(EC2Client).send(new CreateVolumeCommand(volume))).rejects.toThrow();
    const grant = { KeyId: victim, GranteePrincipal: `arn:aws:iam::${answer.Account}:root` };
    const send = other
      .sdk(kms.KMSClient)
      .send(new kms.CreateGrantCommand({ ...grant, Operations: ['Decrypt'] } as kms.CreateGrantCommandInput));
    await expect(send).rejects.toMatchObject(refused);
    expect((await other.sdk(EC2Client).send(new DescribeVolumesCommand({}))).Volumes).toEqual([]);
  });
});

describe('aliases', () => {
  const alias = async (AliasName: string, TargetKeyId: string) => {
    await root.kms.send(new kms.CreateAliasCommand({ AliasName, TargetKeyId }));
    return AliasName;
  };

  it('cannot be swapped onto a key that is not for the caller, nor away from one', async () => {
    const name = await alias('alias/app', own);
    const theirs = await alias('alias/theirs', victim);
    const aliases = `arn:aws:kms:us-east-1:${account}:alias/*`;
    const onAlias = { 'ForAnyValue:StringEquals': { 'kms:ResourceAliases': 'alias/app' } };
    await give(allow('kms:UpdateAlias', [aliases, own]), allow('kms:Encrypt', '*', onAlias));
    const update = (AliasName: string, TargetKeyId: string) =>
      mallory.sdk(kms.KMSClient).send(new kms.UpdateAliasCommand({ AliasName, TargetKeyId }));
    await encrypt(name);
    await expect(update(name, victim)).rejects.toMatchObject(refused);
    await expect(update(theirs, own)).rejects.toMatchObject(refused);
    const named = await root.kms.send(new kms.DescribeKeyCommand({ KeyId: theirs }));
    expect(named.KeyMetadata!.Arn).toBe(victim);
    await expect(encrypt(victim)).rejects.toMatchObject(refused);
  });

  it('are not what a policy about keys is about', async () => {
    const name = await alias('alias/named', victim);
    await give(allow('kms:*', `arn:aws:kms:us-east-1:${account}:alias/named`));
    await expect(encrypt(name)).rejects.toMatchObject(refused);
  });

  it('that a request must use are not used by naming the key', async () => {
    const name = await alias('alias/required', victim);
    await give(allow('kms:Encrypt', '*', { StringEquals: { 'kms:RequestAlias': name } }));
    await encrypt(name);
    for (const KeyId of [victim, victim.split('/')[1]!]) await expect(encrypt(KeyId)).rejects.toMatchObject(refused);
    await expect(encrypt(victim, { EncryptionContext: { 'kms:RequestAlias': name } })).rejects.toMatchObject(refused);
  });
});

describe('the context of a request', () => {
  it('is not made by what the request carries', async () => {
    await give(
      allow('kms:Encrypt', victim, { StringEquals: { 'aws:PrincipalTag/admin': 'yes' } }),
      allow('kms:Encrypt', victim, { StringEquals: { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com' } }),
      allow('kms:Encrypt', victim, { Bool: { 'aws:ViaAWSService': 'true' } }),
      allow('kms:Encrypt', victim, { IpAddress: { 'aws:SourceIp': '203.0.113.7/32' } }),
      allow('kms:Encrypt', victim, { Bool: { 'aws:SecureTransport': 'true' } }),
    );
    const EncryptionContext = {
      'aws:PrincipalTag/admin': 'yes',
      'kms:ViaService': 'ec2.us-east-1.amazonaws.com',
      'x:aws:ViaAWSService': 'true',
    };
    await expect(encrypt(victim, { EncryptionContext })).rejects.toMatchObject(refused);
    const forwarded = {
      'x-forwarded-for': '203.0.113.7',
      'x-real-ip': '203.0.113.7',
      forwarded: 'for=203.0.113.7;proto=https',
      'x-forwarded-proto': 'https',
      'x-amz-principal-tag-admin': 'yes',
    };
    const body = JSON.stringify({ KeyId: victim, Plaintext: Plaintext.toString('base64') });
    const { status, text } = await sendSigned(mallory, 'kms', {
      headers: { ...target('Encrypt'), ...forwarded },
      body,
    });
    expect(text).toContain('no identity-based policy allows the kms:Encrypt action');
    expect(status).toBe(400);
  });

  it('holds for all keys of an encryption context that differ only in case', async () => {
    await give(allow('kms:Encrypt', victim, { StringEquals: { 'kms:EncryptionContext:tenant': 'mallory' } }));
    await encrypt(victim, { EncryptionContext: { Tenant: 'mallory' } });
    for (const EncryptionContext of [
      { tenant: 'mallory', Tenant: 'alice' },
      { Tenant: 'alice', tenant: 'mallory' },
      { tenant: 'Mallory' },
    ])
      await expect(encrypt(victim, { EncryptionContext })).rejects.toMatchObject(refused);
  });

  it('has no session tags that the role did not let in, and none of AWS', async () => {
    const trusted = { AWS: `arn:aws:iam::${account}:user/mallory` };
    const trust = policy({ Effect: 'Allow', Principal: trusted, Action: 'sts:AssumeRole' });
    await root.iam.send(new iam.CreateRoleCommand({ RoleName: 'tagged', AssumeRolePolicyDocument: trust }));
    const assume = (Tags: Array<{ Key: string; Value: string }>) =>
      mallory.sdk(STSClient).send(
        new AssumeRoleCommand({
          RoleArn: `arn:aws:iam::${account}:role/tagged`,
          RoleSessionName: 'monday',
          Tags,
        }),
      );
    await assume([]);
    await expect(assume([{ Key: 'admin', Value: 'yes' }])).rejects.toThrow(
      'no role trust policy allows the sts:TagSession',
    );
    await expect(assume([{ Key: 'aws:PrincipalTag/admin', Value: 'yes' }])).rejects.toThrow();
  });
});

describe('tags that a policy protects', () => {
  it('are not deleted by a request that names none, and so deletes all', async () => {
    const TagSpecifications = [{ ResourceType: 'volume' as const, Tags: [{ Key: 'owner', Value: 'alice' }] }];
    const make = new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, TagSpecifications });
    const Resources = [(await root.ec2.send(make)).VolumeId!];
    const owner = { 'ForAnyValue:StringEquals': { 'aws:TagKeys': 'owner' } };
    await give(allow('ec2:*'), { ...allow(['ec2:CreateTags', 'ec2:DeleteTags'], '*', owner), Effect: 'Deny' });
    const ec2 = mallory.sdk(EC2Client);
    await ec2.send(new CreateTagsCommand({ Resources, Tags: [{ Key: 'team', Value: 'a' }] }));
    await ec2.send(new DeleteTagsCommand({ Resources, Tags: [{ Key: 'team' }] }));
    for (const Tags of [[{ Key: 'owner' }], [], undefined])
      await expect(ec2.send(new DeleteTagsCommand({ Resources, Tags }))).rejects.toMatchObject(refused);
    const { Volumes } = await root.ec2.send(new DescribeVolumesCommand({ VolumeIds: Resources }));
    expect(Volumes![0]!.Tags).toEqual([{ Key: 'owner', Value: 'alice' }]);
    await root.ec2.send(new DeleteVolumeCommand({ VolumeId: Resources[0] }));
  });
});

describe('a grant token', () => {
  it('gives nothing once its grant has ended, to others, or on another key', async () => {
    const alice = await newUser(server, 'alice');
    const GranteePrincipal = `arn:aws:iam::${account}:user/alice`;
    const grant = { KeyId: victim, GranteePrincipal, Operations: ['Encrypt'] } as kms.CreateGrantCommandInput;
    const { GrantToken, GrantId } = await root.kms.send(new kms.CreateGrantCommand(grant));
    const GrantTokens = [GrantToken!];
    await encrypt(victim, { GrantTokens }, alice);
    await expect(encrypt(victim, { GrantTokens })).rejects.toMatchObject(refused);
    await expect(encrypt(own, { GrantTokens }, alice)).rejects.toMatchObject(refused);
    const retire = mallory.sdk(kms.KMSClient).send(new kms.RetireGrantCommand({ GrantToken }));
    await expect(retire).rejects.toMatchObject(refused);
    await root.kms.send(new kms.RevokeGrantCommand({ KeyId: victim, GrantId }));
    await expect(encrypt(victim, { GrantTokens }, alice)).rejects.toMatchObject(refused);
    const altered = `${GrantToken!.slice(0, -6)}AAAA==`;
    await expect(encrypt(victim, { GrantTokens: [altered] }, alice)).rejects.toThrow();
  });
});

describe('a session', () => {
  it('ends when it ends, though its token and its signature are good', async () => {
    const { User } = await root.iam.send(new iam.GetUserCommand({ UserName: 'mallory' }));
    await give(allow('kms:Encrypt', own));
    const principal = {
      type: 'IAMUser' as const,
      account,
      arn: User!.Arn!,
      principalId: User!.UserId!,
      userName: 'mallory',
    };
    const rootKey = loadRootKeyFile(join(server.dataDir, 'root.key'));
    const session = (endsInMs: number) => {
      const now = Date.now();
      const made = createSession(rootKey, principal, now - 3_600_000, now + endsInMs);
      return server.as({
        accessKeyId: made.AccessKeyId,
        secretAccessKey: made.SecretAccessKey,
        sessionToken: made.SessionToken,
      });
    };
    await encrypt(own, {}, session(60_000));
    await expect(encrypt(own, {}, session(-1))).rejects.toMatchObject({ name: 'ExpiredTokenException' });
    await expect(session(-1).sdk(STSClient).send(new GetCallerIdentityCommand({}))).rejects.toMatchObject({
      name: 'ExpiredToken',
    });
  });
});

describe('wildcards', () => {
  const user = (path: string) => `arn:aws:iam::${account}:user${path}`;

  it('at the end of a resource reach no further than its text', async () => {
    await root.iam.send(new iam.CreateUserCommand({ UserName: 'boss', Path: '/admins/' }));
    await root.iam.send(new iam.CreateUserCommand({ UserName: 'devil' }));
    await give(allow('iam:*', user('/dev/*')), allow('kms:*', `${own}*`));
    const keys = mallory.sdk(iam.IAMClient);
    for (const UserName of ['boss', 'devil', 'mallory'])
      await expect(keys.send(new iam.CreateAccessKeyCommand({ UserName }))).rejects.toMatchObject(refused);
    for (const UserName of ['dev/../boss', '../admins/boss', 'dev/x'])
      await expect(keys.send(new iam.CreateAccessKeyCommand({ UserName })), UserName).rejects.toMatchObject({
        name: 'ValidationError',
      });
    await encrypt(own);
    await expect(encrypt(victim)).rejects.toMatchObject(refused);
  });

  it('at the end of an action allow none that only begins alike in another service', async () => {
    await give(allow(['kms:Describe*', 'ec2:*', 'kms-x:*', 'km:*']));
    await expect(encrypt(victim)).rejects.toMatchObject(refused);
    await mallory.sdk(kms.KMSClient).send(new kms.DescribeKeyCommand({ KeyId: victim }));
  });

  it('are not for principals', async () => {
    for (const AWS of [user('/*'), user('/mal*'), `arn:aws:iam::${account}:*`, 'arn:aws:iam::*:root', '1234*'])
      await expect(
        root.kms.send(
          new kms.PutKeyPolicyCommand({
            KeyId: victim,
            Policy: policy({ ...allow('kms:*'), Principal: { AWS: [`arn:aws:iam::${account}:root`, AWS] } }),
          }),
        ),
        AWS,
      ).rejects.toMatchObject({ name: 'MalformedPolicyDocumentException' });
  });
});

describe('letters that look alike', () => {
  it('are other letters: in names, aliases, tags, actions and contexts', async () => {
    // Cyrillic а, е and о; the Kelvin sign; full-width k; a soft hyphen; a dotless ı.
    const names = ['аlice', 'alicе', 'rооt', 'ad\u00ADmin', 'adm\u0131n'];
    for (const UserName of names)
      await expect(root.iam.send(new iam.CreateUserCommand({ UserName })), UserName).rejects.toMatchObject({
        name: 'ValidationError',
      });
    for (const AliasName of ['alias/аpp', 'alias/\u212Aey', 'alias/a\u200Bpp'])
      await expect(
        root.kms.send(new kms.CreateAliasCommand({ AliasName, TargetKeyId: own })),
        AliasName,
      ).rejects.toMatchObject({ name: 'ValidationException' });
    for (const action of ['\uFF4Bms:Encrypt', '\u212Ams:Encrypt', 'kms:\u0415ncrypt', 'kms:Encrypt\u200B'])
      await expect(give(allow(action)), action).rejects.toMatchObject({
        name: expect.stringMatching(/^(?:MalformedPolicyDocumentException|ValidationError)$/),
      });
    await root.iam.send(new iam.TagUserCommand({ UserName: 'mallory', Tags: [{ Key: 'tеam', Value: 'storage' }] }));
    await give(
      allow('kms:Encrypt', victim, { StringEquals: { 'aws:PrincipalTag/team': 'storage' } }),
      allow('kms:Encrypt', victim, { StringEquals: { 'kms:EncryptionContext:key': 'a' } }),
    );
    await expect(encrypt(victim)).rejects.toMatchObject(refused);
    for (const key of ['\u212Aey', 'kеy', '\uFF4Bey', 'key\u200B'])
      await expect(encrypt(victim, { EncryptionContext: { [key]: 'a' } }), key).rejects.toMatchObject(refused);
    await encrypt(victim, { EncryptionContext: { KEY: 'a' } });
  });
});

const target = (operation: string) => ({
  'content-type': 'application/x-amz-json-1.1',
  'x-amz-target': `TrentService.${operation}`,
});

/** One of the system's own operations, as the administrator. */
async function coffer(operation: string, input: object): Promise<Record<string, string>> {
  const headers = { 'content-type': 'application/json', 'x-amz-target': `Coffer.${operation}` };
  const { status, text } = await sendSigned(server, 'coffer', { headers, body: JSON.stringify(input) });
  expect(status, text).toBe(200);
  return JSON.parse(text);
}
