import { beforeEach, describe, expect, test } from 'vitest';
import { account, otherAccount, root, TestKms } from './testing.ts';

const day = 86_400_000;
const west = { region: 'eu-west-1' };
const north = { region: 'eu-north-1' };
const Plaintext = Buffer.from('a secret');
let kms: TestKms;

beforeEach(async () => {
  kms = await TestKms.create();
});

const arn = (region: string, KeyId: string) => `arn:aws:kms:${region}:${account}:key/${KeyId}`;
const describeKey = async (KeyId: string, at = {}) => (await kms.run('DescribeKey', { KeyId }, at)).KeyMetadata;
const replicate = (KeyId: string, input = {}) =>
  kms.run('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1', ...input });

describe('ReplicateKey', () => {
  test('makes a key with the same id and material in another region', async () => {
    const primary = await kms.key({ MultiRegion: true, Description: 'first' });
    const { KeyId } = primary;
    expect(KeyId).toMatch(/^mrk-[0-9a-f]{32}$/);
    expect(primary.MultiRegionConfiguration).toEqual({
      MultiRegionKeyType: 'PRIMARY',
      PrimaryKey: { Arn: arn('us-east-1', KeyId), Region: 'us-east-1' },
      ReplicaKeys: [],
    });
    const Tags = [{ TagKey: 'a', TagValue: 'b' }];
    const { ReplicaKeyMetadata, ReplicaPolicy, ReplicaTags } = await replicate(KeyId, { Tags, Description: 'second' });
    expect(ReplicaKeyMetadata).toMatchObject({
      KeyId,
      Arn: arn('eu-west-1', KeyId),
      Description: 'second',
      KeyState: 'Enabled',
      MultiRegion: true,
      CurrentKeyMaterialId: primary.CurrentKeyMaterialId,
      MultiRegionConfiguration: {
        MultiRegionKeyType: 'REPLICA',
        PrimaryKey: { Arn: arn('us-east-1', KeyId), Region: 'us-east-1' },
        ReplicaKeys: [{ Arn: arn('eu-west-1', KeyId), Region: 'eu-west-1' }],
      },
    });
    expect(JSON.parse(ReplicaPolicy).Id).toBe('key-default-1');
    expect(ReplicaTags).toEqual(Tags);
    expect(kms.last.record).toMatchObject({
      requestParameters: { keyId: KeyId, replicaRegion: 'eu-west-1', bypassPolicyLockoutSafetyCheck: false },
      responseElements: { replicaKeyMetadata: { multiRegionConfiguration: { multiRegionKeyType: 'REPLICA' } } },
      resources: [{ ARN: arn('us-east-1', KeyId) }],
    });
    expect((await describeKey(KeyId)).MultiRegionConfiguration.ReplicaKeys).toHaveLength(1);
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext, EncryptionContext: { a: 'b' } });
    const opened = await kms.run('Decrypt', { CiphertextBlob, EncryptionContext: { a: 'b' } }, west);
    expect(opened).toMatchObject({ Plaintext, KeyId: arn('eu-west-1', KeyId) });
    expect(await kms.run('Decrypt', { CiphertextBlob, KeyId, EncryptionContext: { a: 'b' } }, west)).toMatchObject({
      Plaintext,
    });
    expect(await kms.code('Decrypt', { CiphertextBlob }, west)).toBe('InvalidCiphertextException');
    const back = (await kms.run('GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 9 }, west)).CiphertextBlob;
    expect((await kms.run('Decrypt', { CiphertextBlob: back })).Plaintext).toHaveLength(9);
    expect(await kms.code('Decrypt', { CiphertextBlob: back }, north)).not.toBe('');
  });

  test('asymmetric and HMAC keys too: what one signs the other verifies', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true, KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
    await replicate(KeyId);
    const input = { KeyId, Message: Plaintext, SigningAlgorithm: 'ECDSA_SHA_256' };
    const { Signature } = await kms.run('Sign', input);
    expect(await kms.run('Verify', { ...input, Signature }, west)).toMatchObject({ SignatureValid: true });
    expect((await kms.run('GetPublicKey', { KeyId }, west)).PublicKey).toEqual(
      (await kms.run('GetPublicKey', { KeyId })).PublicKey,
    );
    const mac = (await kms.key({ MultiRegion: true, KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })).KeyId;
    await replicate(mac);
    const message = { KeyId: mac, Message: Plaintext, MacAlgorithm: 'HMAC_SHA_256' };
    expect((await kms.run('GenerateMac', message, west)).Mac).toEqual((await kms.run('GenerateMac', message)).Mac);
  });

  test('is refused where AWS refuses it', async () => {
    const { KeyId: single } = await kms.key();
    const { KeyId } = await kms.key({ MultiRegion: true });
    const notPrimary = (region: string, id: string) => ({
      code: 'UnsupportedOperationException',
      message: `${arn(region, id)} is not a multi-region primary key.`,
    });
    expect(await kms.fails('ReplicateKey', { KeyId: single, ReplicaRegion: 'eu-west-1' })).toEqual(
      notPrimary('us-east-1', single),
    );
    for (const ReplicaRegion of ['us-east-1', 'eu-west-11', 'cn-north-1', 'Europe'])
      expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion })).toBe('ValidationException');
    await replicate(KeyId);
    expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' })).toBe('AlreadyExistsException');
    expect(await kms.fails('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1' }, west)).toEqual(
      notPrimary('eu-west-1', KeyId),
    );
    await kms.run('DisableKey', { KeyId });
    expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1' })).toBe('DisabledException');
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [] });
    await kms.run('EnableKey', { KeyId });
    expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1', Policy })).toBe(
      'MalformedPolicyDocumentException',
    );
    const foreign = { principal: root(otherAccount) };
    const theirs = { KeyId: arn('us-east-1', KeyId), ReplicaRegion: 'eu-north-1' };
    expect(['AccessDeniedException', 'NotFoundException']).toContain(await kms.code('ReplicateKey', theirs, foreign));
    expect((await describeKey(KeyId)).MultiRegionConfiguration.ReplicaKeys).toHaveLength(1);
  });

  test('policies see both sides of it', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true });
    expect(kms.last.access[0]!.context).toMatchObject({
      'kms:MultiRegion': 'true',
      'kms:MultiRegionKeyType': 'PRIMARY',
    });
    await replicate(KeyId);
    expect(kms.last.access[0]).toMatchObject({
      action: 'kms:ReplicateKey',
      context: {
        'kms:ReplicaRegion': 'eu-west-1',
        'kms:MultiRegion': 'true',
        'kms:MultiRegionKeyType': 'PRIMARY',
      },
    });
    const step = kms.kms.operations.CreateReplicaKey!;
    expect(step).toMatchObject({ eventName: 'CreateKey', audience: 'service' });
    await kms.run(
      'CreateReplicaKey',
      { KeyId, PrimaryRegion: 'us-east-1', Tags: [{ TagKey: 'a', TagValue: 'b' }] },
      north,
    );
    expect(kms.last.access).toMatchObject([
      {
        action: 'kms:CreateKey',
        context: { 'kms:MultiRegionKeyType': 'REPLICA', 'kms:PrimaryRegion': 'us-east-1', 'kms:KeyOrigin': 'AWS_KMS' },
      },
      { action: 'kms:TagResource' },
    ]);
  });
});

test('related keys have policies, tags, aliases, grants and states of their own', async () => {
  const { KeyId } = await kms.key({ MultiRegion: true });
  await replicate(KeyId);
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext });
  await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: KeyId }, west);
  await kms.run('TagResource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] }, west);
  const grant = { KeyId, GranteePrincipal: root().arn, Operations: ['Decrypt'] };
  await kms.run('CreateGrant', grant, west);
  expect((await kms.run('ListAliases', { KeyId })).Aliases).toEqual([]);
  expect((await kms.run('ListResourceTags', { KeyId })).Tags).toEqual([]);
  expect((await kms.run('ListGrants', { KeyId })).Grants).toEqual([]);
  await kms.run('DisableKey', { KeyId }, west);
  expect(await kms.code('Decrypt', { CiphertextBlob }, west)).toBe('DisabledException');
  expect((await kms.run('Decrypt', { CiphertextBlob })).Plaintext).toEqual(Plaintext);
});

test('rotation is set on the primary key and reaches all', async () => {
  const { KeyId } = await kms.key({ MultiRegion: true });
  await replicate(KeyId);
  for (const name of ['EnableKeyRotation', 'DisableKeyRotation', 'RotateKeyOnDemand'])
    expect(await kms.code(name, { KeyId }, west)).toBe('UnsupportedOperationException');
  await kms.run('EnableKeyRotation', { KeyId, RotationPeriodInDays: 100 });
  expect(await kms.run('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1' })).not.toHaveProperty('ReplicaTags');
  const { CiphertextBlob: old } = await kms.run('Encrypt', { KeyId, Plaintext }, west);
  for (const at of [west, north])
    expect(await kms.run('GetKeyRotationStatus', { KeyId }, at)).toMatchObject({
      KeyRotationEnabled: true,
      RotationPeriodInDays: 100,
    });
  kms.clock.advance(100 * day);
  await kms.housekeeping();
  expect(kms.events.map(({ region, detailType }) => [region, detailType])).toEqual([
    ['us-east-1', 'KMS CMK Rotation'],
    ['eu-north-1', 'KMS CMK Rotation'],
    ['eu-west-1', 'KMS CMK Rotation'],
  ]);
  await kms.run('RotateKeyOnDemand', { KeyId });
  const { Rotations } = await kms.run('ListKeyRotations', { KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' });
  expect(Rotations).toHaveLength(3);
  for (const at of [west, north])
    expect(
      (await kms.run('ListKeyRotations', { KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' }, at)).Rotations,
    ).toEqual(Rotations);
  expect((await kms.run('Decrypt', { CiphertextBlob: old }, north)).Plaintext).toEqual(Plaintext);
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext }, north);
  expect(await kms.run('Decrypt', { CiphertextBlob })).toMatchObject({ KeyMaterialId: Rotations[2].KeyMaterialId });
});

describe('UpdatePrimaryRegion', () => {
  test('makes a replica the primary key', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true });
    await replicate(KeyId);
    await kms.run('UpdatePrimaryRegion', { KeyId, PrimaryRegion: 'eu-west-1' });
    expect(kms.last.access[0]).toMatchObject({
      action: 'kms:UpdatePrimaryRegion',
      context: { 'kms:PrimaryRegion': 'eu-west-1' },
    });
    expect((await describeKey(KeyId)).MultiRegionConfiguration).toEqual({
      MultiRegionKeyType: 'REPLICA',
      PrimaryKey: { Arn: arn('eu-west-1', KeyId), Region: 'eu-west-1' },
      ReplicaKeys: [{ Arn: arn('us-east-1', KeyId), Region: 'us-east-1' }],
    });
    await kms.run('EnableKeyRotation', { KeyId }, west);
    await kms.run('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1' }, west);
    expect(kms.kms.operations.PromoteReplicaKey).toMatchObject({
      eventName: 'UpdatePrimaryRegion',
      audience: 'service',
    });
  });

  test('is refused without such a replica, and in states in which keys can’t be used', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true });
    const to = (PrimaryRegion: string, at = {}) => kms.code('UpdatePrimaryRegion', { KeyId, PrimaryRegion }, at);
    expect(await to('eu-west-1')).toBe('NotFoundException');
    await replicate(KeyId);
    expect(await to('us-east-1')).toBe('UnsupportedOperationException');
    expect(await to('us-east-1', west)).toBe('UnsupportedOperationException');
    await kms.run('DisableKey', { KeyId }, west);
    expect(await to('eu-west-1')).toBe('DisabledException');
  });
});

describe('deletion', () => {
  test('of a primary key waits until its last replica is gone', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true });
    await replicate(KeyId);
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext });
    expect(await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 })).toEqual({
      KeyId: arn('us-east-1', KeyId),
      KeyState: 'PendingReplicaDeletion',
      PendingWindowInDays: 7,
    });
    const pending = await describeKey(KeyId);
    expect(pending).toMatchObject({ KeyState: 'PendingReplicaDeletion', PendingDeletionWindowInDays: 7 });
    expect(pending).not.toHaveProperty('DeletionDate');
    expect(await kms.fails('Decrypt', { CiphertextBlob })).toEqual({
      code: 'KMSInvalidStateException',
      message: `${arn('us-east-1', KeyId)} is pending replica deletion.`,
    });
    expect((await kms.run('Decrypt', { CiphertextBlob }, west)).Plaintext).toEqual(Plaintext);
    kms.clock.advance(400 * day);
    await kms.housekeeping();
    expect((await describeKey(KeyId)).KeyState).toBe('PendingReplicaDeletion');
    await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 8 }, west);
    kms.clock.advance(8 * day);
    await kms.housekeeping();
    const last = await describeKey(KeyId);
    expect(last).toMatchObject({ KeyState: 'PendingDeletion', DeletionDate: new Date(kms.clock.now() + 7 * day) });
    expect(last.MultiRegionConfiguration.ReplicaKeys).toEqual([]);
    kms.clock.advance(7 * day);
    await kms.housekeeping();
    expect(await kms.code('DescribeKey', { KeyId })).toBe('NotFoundException');
    const left = await kms.database.run((db) => db.selectFrom('kms_material').selectAll().execute());
    expect(left).toEqual([]);
  });

  test('can be taken back, and a deleted replica can be made again', async () => {
    const { KeyId } = await kms.key({ MultiRegion: true });
    await replicate(KeyId);
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext }, west);
    await kms.run('ScheduleKeyDeletion', { KeyId });
    await kms.run('CancelKeyDeletion', { KeyId });
    expect((await describeKey(KeyId)).KeyState).toBe('Disabled');
    await kms.run('EnableKey', { KeyId });
    await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 }, west);
    expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' })).toBe('AlreadyExistsException');
    kms.clock.advance(7 * day);
    await kms.housekeeping();
    expect((await describeKey(KeyId)).MultiRegionConfiguration.ReplicaKeys).toEqual([]);
    await replicate(KeyId);
    expect((await kms.run('Decrypt', { CiphertextBlob }, west)).Plaintext).toEqual(Plaintext);
  });
});
