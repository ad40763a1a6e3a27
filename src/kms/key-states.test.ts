/** Which states an operation works in. Source: KMS developer guide, "Key states of AWS KMS keys", its table. */
import { generateKeyPairSync } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { AwsError } from '../aws/errors.ts';
import { root, TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

const ok = 'works';
const disabled = 'DisabledException';
const invalid = 'KMSInvalidStateException';
const unsupported = 'UnsupportedOperationException';

const Message = Buffer.from('x');
const symmetric = {};
const signing = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' };
const agreeing = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' };
const coding = { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' };
const multiRegion = { MultiRegion: true };
const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const PublicKey = publicKey.export({ type: 'spki', format: 'der' });
const Policy = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: root().arn }, Action: 'kms:*', Resource: '*' }],
});
const Tags = [{ TagKey: 'a', TagValue: 'b' }];

type Case = [name: string, key: object, input: object, disabled: string, deleting: string, importing: string];
const cases: Case[] = [
  ['CancelKeyDeletion', symmetric, {}, invalid, ok, invalid],
  ['CreateGrant', symmetric, { GranteePrincipal: root().arn, Operations: ['Decrypt'] }, disabled, invalid, invalid],
  // A dry run that works says so with an error of its own.
  ['Decrypt', symmetric, { DryRun: true, DryRunModifiers: ['IGNORE_CIPHERTEXT'] }, disabled, invalid, invalid],
  ['DeriveSharedSecret', agreeing, { KeyAgreementAlgorithm: 'ECDH', PublicKey }, disabled, invalid, invalid],
  ['DescribeKey', symmetric, {}, ok, ok, ok],
  ['DisableKey', symmetric, {}, ok, invalid, invalid],
  ['DisableKeyRotation', symmetric, {}, disabled, invalid, unsupported],
  ['EnableKey', symmetric, {}, ok, invalid, invalid],
  ['EnableKeyRotation', symmetric, {}, disabled, invalid, unsupported],
  ['Encrypt', symmetric, { Plaintext: Message }, disabled, invalid, invalid],
  ['GenerateDataKey', symmetric, { NumberOfBytes: 1 }, disabled, invalid, invalid],
  ['GenerateDataKeyPair', symmetric, { KeyPairSpec: 'ECC_NIST_P256' }, disabled, invalid, invalid],
  ['GenerateDataKeyPairWithoutPlaintext', symmetric, { KeyPairSpec: 'ECC_NIST_P256' }, disabled, invalid, invalid],
  ['GenerateDataKeyWithoutPlaintext', symmetric, { NumberOfBytes: 1 }, disabled, invalid, invalid],
  ['GenerateMac', coding, { Message, MacAlgorithm: 'HMAC_SHA_256' }, disabled, invalid, invalid],
  ['GetKeyLastUsage', symmetric, {}, ok, ok, ok],
  ['GetKeyPolicy', symmetric, {}, ok, ok, ok],
  ['GetKeyRotationStatus', symmetric, {}, ok, ok, ok],
  // The table has it that a disabled key gives no public key; AWS gives it.
  ['GetPublicKey', signing, {}, ok, invalid, invalid],
  ['ListAliases', symmetric, {}, ok, ok, ok],
  ['ListGrants', symmetric, {}, ok, ok, ok],
  ['ListKeyPolicies', symmetric, {}, ok, ok, ok],
  ['ListKeyRotations', symmetric, {}, ok, ok, ok],
  ['ListResourceTags', symmetric, {}, ok, ok, ok],
  ['PutKeyPolicy', symmetric, { Policy }, ok, ok, ok],
  ['ReplicateKey', multiRegion, { ReplicaRegion: 'eu-west-1' }, disabled, invalid, invalid],
  ['RotateKeyOnDemand', symmetric, {}, disabled, invalid, invalid],
  ['ScheduleKeyDeletion', symmetric, {}, ok, invalid, ok],
  ['Sign', signing, { Message, SigningAlgorithm: 'ECDSA_SHA_256' }, disabled, invalid, invalid],
  ['TagResource', symmetric, { Tags }, ok, invalid, ok],
  ['UntagResource', symmetric, { TagKeys: ['a'] }, ok, invalid, ok],
  ['UpdateKeyDescription', symmetric, { Description: 'new' }, ok, invalid, ok],
  ['UpdatePrimaryRegion', multiRegion, { PrimaryRegion: 'eu-west-1' }, disabled, invalid, invalid],
  ['Verify', signing, { Message, SigningAlgorithm: 'ECDSA_SHA_256', Signature: Message }, disabled, invalid, invalid],
  ['VerifyMac', coding, { Message, MacAlgorithm: 'HMAC_SHA_256', Mac: Message }, disabled, invalid, invalid],
];

async function outcome(name: string, input: object): Promise<string> {
  try {
    await kms.run(name, input);
    return ok;
  } catch (error) {
    if (error instanceof AwsError) return error.code;
    throw error;
  }
}

const isWorking = (name: string, result: string) =>
  expect(
    [ok, 'DryRunOperationException', 'KMSInvalidSignatureException', 'KMSInvalidMacException', 'NotFoundException'],
    name,
  ).toContain(result);

test.each(cases)('%s', async (name, key, input, whenDisabled, whenDeleting, whenImporting) => {
  const usable = await kms.key(key);
  // Some of it is not right, but nothing is wrong with the state.
  if (whenDisabled === disabled) isWorking(name, await outcome(name, { KeyId: usable.KeyId, ...input }));
  const { KeyId } = await kms.key(key);
  await kms.run('DisableKey', { KeyId });
  expect(await outcome(name, { KeyId, ...input })).toBe(whenDisabled);
  const deleting = await kms.key(key);
  await kms.run('ScheduleKeyDeletion', { KeyId: deleting.KeyId });
  expect(await outcome(name, { KeyId: deleting.KeyId, ...input })).toBe(whenDeleting);
  const importing = await kms.key({ ...key, Origin: 'EXTERNAL' });
  expect(await outcome(name, { KeyId: importing.KeyId, ...input })).toBe(whenImporting);
});

test.each([
  ['CreateAlias', { AliasName: 'alias/new' }],
  ['UpdateAlias', { AliasName: 'alias/old' }],
])('%s: the key that the alias is to point to', async (name, input) => {
  const first = await kms.key();
  await kms.run('CreateAlias', { AliasName: 'alias/old', TargetKeyId: first.KeyId });
  const { KeyId: TargetKeyId } = await kms.key();
  await kms.run('ScheduleKeyDeletion', { KeyId: TargetKeyId });
  expect(await outcome(name, { ...input, TargetKeyId })).toBe(invalid);
  await kms.run('CancelKeyDeletion', { KeyId: TargetKeyId });
  expect(await outcome(name, { ...input, TargetKeyId })).toBe(ok);
  await kms.run('ScheduleKeyDeletion', { KeyId: TargetKeyId });
  // From a key pending deletion an alias can be taken away.
  expect(await outcome('UpdateAlias', { ...input, TargetKeyId: first.KeyId })).toBe(ok);
  expect(await outcome('DeleteAlias', input)).toBe(ok);
});

test('ReEncrypt: the destination key', async () => {
  const { KeyId: source } = await kms.key();
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId: source, Plaintext: Message });
  const { KeyId: DestinationKeyId } = await kms.key();
  await kms.run('DisableKey', { KeyId: DestinationKeyId });
  expect(await outcome('ReEncrypt', { CiphertextBlob, DestinationKeyId })).toBe(disabled);
  await kms.run('ScheduleKeyDeletion', { KeyId: DestinationKeyId });
  expect(await outcome('ReEncrypt', { CiphertextBlob, DestinationKeyId })).toBe(invalid);
  await kms.run('DisableKey', { KeyId: source });
  expect(await outcome('ReEncrypt', { CiphertextBlob, DestinationKeyId: source })).toBe(disabled);
});

test.each(['RevokeGrant', 'RetireGrant'])('%s works in any state', async (name) => {
  const { KeyId } = await kms.key();
  const grant = { KeyId, GranteePrincipal: root().arn, Operations: ['Decrypt'] };
  const ids = [(await kms.run('CreateGrant', grant)).GrantId, (await kms.run('CreateGrant', grant)).GrantId];
  await kms.run('DisableKey', { KeyId });
  expect(await outcome(name, { KeyId, GrantId: ids[0] })).toBe(ok);
  await kms.run('ScheduleKeyDeletion', { KeyId });
  expect(await outcome(name, { KeyId, GrantId: ids[1] })).toBe(ok);
});
