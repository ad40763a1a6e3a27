/** Requests that could be read in two ways: what is decided about is what is done, or nothing is. */
import * as iam from '@aws-sdk/client-iam';
import * as kms from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Client } from './support/client.ts';
import { startServer, type TestServer } from './support/server.ts';
import { newUser } from './support/users.ts';
import { sendAltered, sendSigned } from './support/wire.ts';

const account = '123456789012';
let server: TestServer;
let iamOfRoot: iam.IAMClient;
let kmsOfRoot: kms.KMSClient;
/** May do what each test gives her, and no more. */
let mallory: Client;
/** Somebody else's key, and one that mallory may use. */
let victim: string;
let own: string;

const newKey = async () => (await kmsOfRoot.send(new kms.CreateKeyCommand({}))).KeyMetadata!.Arn!;

beforeAll(async () => {
  server = await startServer({ args: ['--no-host'] });
  [iamOfRoot, kmsOfRoot] = [server.sdk(iam.IAMClient), server.sdk(kms.KMSClient)];
  mallory = await newUser(server, 'mallory');
  [victim, own] = [await newKey(), await newKey()];
});
afterAll(() => server?.stop());

const allow = (Action: string, Resource = '*') => ({ Effect: 'Allow', Action, Resource });
const give = (...Statement: object[]) =>
  iamOfRoot.send(
    new iam.PutUserPolicyCommand({
      UserName: 'mallory',
      PolicyName: 'p',
      PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement }),
    }),
  );
const target = (operation: string) => ({
  'content-type': 'application/x-amz-json-1.1',
  'x-amz-target': `TrentService.${operation}`,
});
const form = { 'content-type': 'application/x-www-form-urlencoded' };
const data = Buffer.from('x').toString('base64');
const keysOf = async (UserName: string) =>
  (await iamOfRoot.send(new iam.ListAccessKeysCommand({ UserName }))).AccessKeyMetadata!.length;

test('parameters given twice in JSON are decided about and used alike', async () => {
  await give(allow('kms:Encrypt', own));
  for (const body of [
    `{"KeyId":"${own}","KeyId":"${victim}","Plaintext":"${data}"}`,
    `{"KeyId":"${own}","Plaintext":"${data}","\\u004beyId":"${victim}"}`,
    `{"KeyId":["${own}","${victim}"],"Plaintext":"${data}"}`,
    `{"KeyId":{"0":"${own}"},"Plaintext":"${data}"}`,
    `{"__proto__":{"KeyId":"${victim}"},"Plaintext":"${data}"}`,
  ]) {
    const { status, text } = await sendSigned(mallory, 'kms', { headers: target('Encrypt'), body });
    expect(status, body).toBe(400);
    expect(text).not.toContain('CiphertextBlob');
  }
  const turned = `{"KeyId":"${victim}","KeyId":"${own}","Plaintext":"${data}"}`;
  const answer = await sendSigned(mallory, 'kms', { headers: target('Encrypt'), body: turned });
  expect(JSON.parse(answer.text).KeyId).toBe(own);
});

test('parameters given twice in a form are decided about and used alike', async () => {
  for (const UserName of ['pawn', 'boss']) await iamOfRoot.send(new iam.CreateUserCommand({ UserName }));
  await give(allow('iam:CreateAccessKey', `arn:aws:iam::${account}:user/pawn`));
  const before = await keysOf('boss');
  const create = 'Action=CreateAccessKey&Version=2010-05-08';
  expect((await sendSigned(mallory, 'iam', { headers: form, body: `${create}&UserName=pawn` })).status).toBe(200);
  for (const names of [
    'UserName=pawn&UserName=boss',
    'UserName=boss&UserName=pawn',
    'UserName=pawn&UserName.1=boss',
    'UserName=pawn%00boss',
    'username=pawn&UserName=boss',
    'UserName[]=pawn&UserName=boss',
  ])
    await sendSigned(mallory, 'iam', { headers: form, body: `${create}&${names}` });
  expect(await keysOf('boss')).toBe(before);
});

test('parameters in the query beside the body, or as another operation, change nothing', async () => {
  await give(allow('iam:ListAccessKeys'), allow('iam:GetUser'));
  const before = await keysOf('mallory');
  const list = 'Action=ListAccessKeys&Version=2010-05-08&UserName=mallory';
  expect((await sendSigned(mallory, 'iam', { headers: form, body: list })).status).toBe(200);
  for (const [query, body] of [
    [{ Action: 'CreateAccessKey' }, 'Action=ListAccessKeys&Version=2010-05-08&UserName=mallory'],
    [{ Action: 'ListAccessKeys' }, 'Action=CreateAccessKey&Version=2010-05-08&UserName=mallory'],
    [{}, 'Action=ListAccessKeys&Action=CreateAccessKey&Version=2010-05-08&UserName=mallory'],
    [{}, 'Action=CreateAccessKey&Action=ListAccessKeys&Version=2010-05-08&UserName=mallory'],
  ] as const)
    await sendSigned(mallory, 'iam', {
      headers: { ...form, 'x-http-method-override': 'PUT', 'x-amz-target': 'CreateAccessKey' },
      query,
      body,
    });
  expect(await keysOf('mallory')).toBe(before);
});

test('headers given twice are refused or covered by the signature', async () => {
  await give(allow('kms:DescribeKey', victim));
  const body = JSON.stringify({ KeyId: victim, Plaintext: data });
  const describeKey = target('DescribeKey');
  expect((await sendSigned(mallory, 'kms', { headers: describeKey, body })).status).toBe(200);
  // After signing: the second target is not what was signed.
  for (const extra of [
    ['x-amz-target', 'TrentService.Encrypt'],
    ['X-Amz-Target', 'TrentService.ScheduleKeyDeletion'],
    ['authorization', 'AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/kms/aws4_request'],
    ['x-amz-security-token', 'x'],
    ['host', 'elsewhere'],
  ] as const) {
    const { status, text } = await sendAltered(mallory, 'kms', { headers: describeKey, body }, extra);
    expect(text, extra[0]).not.toContain('CiphertextBlob');
    expect(text, extra[0]).not.toContain('DeletionDate');
    expect([200, 400, 403], `${extra[0]} ${status} ${text}`).toContain(status);
  }
  const { KeyMetadata } = await kmsOfRoot.send(new kms.DescribeKeyCommand({ KeyId: victim }));
  expect(KeyMetadata!.KeyState).toBe('Enabled');
});
