import { beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

const day = 86_400_000;
const Plaintext = Buffer.from('a secret');
let kms: TestKms;

beforeEach(async () => {
  kms = await TestKms.create();
});

const status = (KeyId: string) => kms.run('GetKeyRotationStatus', { KeyId });
const rotations = async (KeyId: string, input = {}) =>
  (await kms.run('ListKeyRotations', { KeyId, ...input })).Rotations;
const encrypt = async (KeyId: string) => (await kms.run('Encrypt', { KeyId, Plaintext })).CiphertextBlob as Buffer;
const current = async (KeyId: string) => (await kms.run('DescribeKey', { KeyId })).KeyMetadata.CurrentKeyMaterialId;

describe('automatic rotation', () => {
  test('has a period, which is a year if none is named', async () => {
    const { KeyId, Arn } = await kms.key();
    expect(await status(KeyId)).toEqual({ KeyId: Arn, KeyRotationEnabled: false });
    await kms.run('EnableKeyRotation', { KeyId });
    expect(kms.last.record).toMatchObject({ requestParameters: { keyId: KeyId }, responseElements: { keyId: Arn } });
    const now = kms.clock.now();
    expect(await status(KeyId)).toEqual({
      KeyId: Arn,
      KeyRotationEnabled: true,
      RotationPeriodInDays: 365,
      NextRotationDate: new Date(now + 365 * day),
    });
    kms.clock.advance(10 * day);
    await kms.run('EnableKeyRotation', { KeyId });
    expect((await status(KeyId)).NextRotationDate).toEqual(new Date(now + 365 * day));
    await kms.run('EnableKeyRotation', { KeyId, RotationPeriodInDays: 90 });
    expect(await status(KeyId)).toMatchObject({
      RotationPeriodInDays: 90,
      NextRotationDate: new Date(now + 100 * day),
    });
    await kms.run('DisableKeyRotation', { KeyId });
    expect(await status(KeyId)).toEqual({ KeyId: Arn, KeyRotationEnabled: false });
  });

  test('the period is checked, and policies see it', async () => {
    const { KeyId } = await kms.key();
    for (const RotationPeriodInDays of [89, 2561, 0])
      expect(await kms.code('EnableKeyRotation', { KeyId, RotationPeriodInDays })).toBe('ValidationException');
    await kms.run('EnableKeyRotation', { KeyId, RotationPeriodInDays: 2560 });
    expect(kms.last.access[0]!.context).toMatchObject({ 'kms:RotationPeriodInDays': '2560' });
  });

  test('comes when it is due: new material encrypts, and what is older decrypts for ever', async () => {
    const { KeyId, Arn, CurrentKeyMaterialId: first } = await kms.key({}, { region: 'eu-west-1' });
    const at = { region: 'eu-west-1' };
    const old = (await kms.run('Encrypt', { KeyId, Plaintext }, at)).CiphertextBlob;
    await kms.run('EnableKeyRotation', { KeyId, RotationPeriodInDays: 90 }, at);
    kms.clock.advance(90 * day - 1);
    await kms.housekeeping();
    expect(kms.events).toEqual([]);
    kms.clock.advance(1);
    const rotatedAt = new Date(kms.clock.now());
    await kms.housekeeping();
    await kms.housekeeping();
    expect(kms.events).toEqual([
      {
        source: 'aws.kms',
        detailType: 'KMS CMK Rotation',
        resources: [Arn],
        detail: { 'key-id': KeyId },
        account: '123456789012',
        region: 'eu-west-1',
      },
    ]);
    const { Rotations } = await kms.run('ListKeyRotations', { KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' }, at);
    const second = (await kms.run('DescribeKey', { KeyId }, at)).KeyMetadata.CurrentKeyMaterialId;
    expect(second).not.toBe(first);
    expect(Rotations).toEqual([
      { KeyId, KeyMaterialId: first, KeyMaterialState: 'NON_CURRENT' },
      { KeyId, KeyMaterialId: second, KeyMaterialState: 'CURRENT', RotationDate: rotatedAt, RotationType: 'AUTOMATIC' },
    ]);
    const young = (await kms.run('GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 8 }, at)).CiphertextBlob;
    expect(await kms.run('Decrypt', { CiphertextBlob: old }, at)).toMatchObject({ Plaintext, KeyMaterialId: first });
    expect(kms.last.record?.additionalEventData).toEqual({ keyMaterialId: first });
    expect(await kms.run('Decrypt', { CiphertextBlob: young }, at)).toMatchObject({ KeyMaterialId: second });
    const moved = await kms.run('ReEncrypt', { CiphertextBlob: old, DestinationKeyId: KeyId }, at);
    expect(moved).toMatchObject({ SourceKeyMaterialId: first, DestinationKeyMaterialId: second });
    expect((await kms.run('GetKeyRotationStatus', { KeyId }, at)).NextRotationDate).toEqual(
      new Date(rotatedAt.getTime() + 90 * day),
    );
  });

  test('a disabled key rotates when it is enabled again, one to be deleted does not', async () => {
    const { KeyId } = await kms.key();
    const { KeyId: doomed } = await kms.key();
    for (const id of [KeyId, doomed]) await kms.run('EnableKeyRotation', { KeyId: id, RotationPeriodInDays: 90 });
    const first = await current(KeyId);
    await kms.run('DisableKey', { KeyId });
    kms.clock.advance(300 * day);
    await kms.run('ScheduleKeyDeletion', { KeyId: doomed });
    await kms.housekeeping();
    expect(kms.events).toEqual([]);
    expect((await status(KeyId)).KeyRotationEnabled).toBe(true);
    expect((await status(doomed)).KeyRotationEnabled).toBe(false);
    await kms.run('EnableKey', { KeyId });
    await kms.housekeeping();
    expect(await current(KeyId)).not.toBe(first);
    expect((await status(KeyId)).NextRotationDate).toEqual(new Date(kms.clock.now() + 90 * day));
    await kms.run('CancelKeyDeletion', { KeyId: doomed });
    expect((await status(doomed)).KeyRotationEnabled).toBe(true);
  });

  test('AWS managed keys rotate each year by themselves, and nobody else rotates them', async () => {
    const { KeyId } = (await kms.run('DescribeKey', { KeyId: 'alias/aws/ebs' })).KeyMetadata;
    const now = kms.clock.now();
    expect(await status(KeyId)).toMatchObject({
      KeyRotationEnabled: true,
      NextRotationDate: new Date(now + 365 * day),
    });
    for (const name of ['EnableKeyRotation', 'DisableKeyRotation', 'RotateKeyOnDemand'])
      expect(await kms.code(name, { KeyId })).toBe('AccessDeniedException');
    kms.clock.advance(365 * day);
    await kms.housekeeping();
    expect(await rotations(KeyId)).toMatchObject([{ RotationType: 'AUTOMATIC' }]);
  });

  test('the trail shows it as the service’s own doing', async () => {
    const { KeyId, Arn, CurrentKeyMaterialId } = await kms.key();
    await kms.run('EnableKeyRotation', { KeyId });
    kms.clock.advance(365 * day);
    await kms.run('RotateKey', { KeyId, RotationType: 'AUTOMATIC' });
    expect(kms.last.record).toEqual({
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
      serviceEventDetails: {
        rotationType: 'AUTOMATIC',
        keyOrigin: 'AWS_KMS',
        previousKeyMaterialId: CurrentKeyMaterialId,
        currentKeyMaterialId: await current(KeyId),
        keyId: KeyId,
      },
    });
    // It is not due any more.
    await kms.run('RotateKey', { KeyId, RotationType: 'AUTOMATIC' });
    expect(await rotations(KeyId)).toHaveLength(1);
  });
});

describe('on demand', () => {
  test('a key rotates at once, its schedule stays, and its first ciphertext decrypts after 25 rotations', async () => {
    const { KeyId, Arn } = await kms.key();
    await kms.run('EnableKeyRotation', { KeyId });
    const { NextRotationDate } = await status(KeyId);
    const first = await encrypt(KeyId);
    for (let i = 0; i < 25; i++) {
      kms.clock.advance(1000);
      expect(await kms.run('RotateKeyOnDemand', { KeyId })).toEqual({ KeyId: Arn });
    }
    expect(await kms.fails('RotateKeyOnDemand', { KeyId })).toEqual({
      code: 'LimitExceededException',
      message:
        'The on-demand rotations limit has been reached for the given keyId. ' +
        `No more on-demand rotations can be performed for this key: ${Arn}`,
    });
    expect((await kms.run('Decrypt', { CiphertextBlob: first })).Plaintext).toEqual(Plaintext);
    expect((await kms.run('Decrypt', { CiphertextBlob: await encrypt(KeyId) })).KeyMaterialId).toBe(
      await current(KeyId),
    );
    expect(new Set((await rotations(KeyId)).map((item: { KeyMaterialId: string }) => item.KeyMaterialId)).size).toBe(
      25,
    );
    expect((await status(KeyId)).NextRotationDate).toEqual(NextRotationDate);
    expect(kms.events).toHaveLength(25);
  });

  test('not within 20 minutes of an automatic rotation', async () => {
    const { KeyId } = await kms.key();
    await kms.run('EnableKeyRotation', { KeyId, RotationPeriodInDays: 90 });
    kms.clock.advance(90 * day - 20 * 60_000);
    expect(await kms.code('RotateKeyOnDemand', { KeyId })).toBe('ConflictException');
    await kms.run('DisableKeyRotation', { KeyId });
    await kms.run('RotateKeyOnDemand', { KeyId });
  });
});

test('rotations are listed page by page, the first material only when asked for', async () => {
  const { KeyId } = await kms.key();
  expect(await kms.run('ListKeyRotations', { KeyId })).toEqual({ Rotations: [], Truncated: false });
  for (let i = 0; i < 4; i++) await kms.run('RotateKeyOnDemand', { KeyId });
  const all = await rotations(KeyId, { IncludeKeyMaterial: 'ALL_KEY_MATERIAL' });
  expect(all).toHaveLength(5);
  const seen = [];
  let Marker: string | undefined;
  do {
    const input = { KeyId, Limit: 2, IncludeKeyMaterial: 'ALL_KEY_MATERIAL', Marker };
    const page = await kms.run('ListKeyRotations', input);
    seen.push(...page.Rotations);
    Marker = page.NextMarker;
    if (Marker) expect(await kms.code('ListKeyRotations', { KeyId, Marker })).toBe('InvalidMarkerException');
  } while (Marker);
  expect(seen).toEqual(all);
});

test('which keys rotate, and in which states', async () => {
  const names = ['EnableKeyRotation', 'DisableKeyRotation', 'RotateKeyOnDemand'];
  const { KeyId: mac } = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
  const { KeyId: external, Arn } = await kms.key({ Origin: 'EXTERNAL' });
  for (const name of [...names, 'ListKeyRotations'])
    expect(await kms.code(name, { KeyId: mac })).toBe('UnsupportedOperationException');
  expect((await status(mac)).KeyRotationEnabled).toBe(false);
  const originRefused = (arn: string) => ({
    code: 'UnsupportedOperationException',
    message: `${arn} origin is EXTERNAL which is not valid for this operation.`,
  });
  for (const name of ['EnableKeyRotation', 'DisableKeyRotation'])
    expect(await kms.fails(name, { KeyId: external })).toEqual(originRefused(Arn));
  expect(await status(external)).toEqual({ KeyId: Arn, KeyRotationEnabled: false });
  const signing = await kms.key({ Origin: 'EXTERNAL', KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' });
  expect(await kms.fails('GetKeyRotationStatus', { KeyId: signing.KeyId })).toEqual(originRefused(signing.Arn));
  const { KeyId } = await kms.key();
  await kms.run('DisableKey', { KeyId });
  for (const name of names) expect(await kms.code(name, { KeyId })).toBe('DisabledException');
  await kms.run('ScheduleKeyDeletion', { KeyId });
  for (const name of names) expect(await kms.code(name, { KeyId })).toBe('KMSInvalidStateException');
});
