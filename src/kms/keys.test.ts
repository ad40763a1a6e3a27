import { KeySpec, type KeyUsageType } from '@aws-sdk/client-kms';
import { beforeEach, describe, expect, test } from 'vitest';
import { otherAccount, ownKeysOnly, root, TestKms } from './testing.ts';

const day = 86_400_000;
const missing = '11111111-2222-4333-8444-555555555555';
let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

describe('CreateKey', () => {
  test('makes an enabled symmetric key by default', async () => {
    const key = await kms.key();
    expect(key).toEqual({
      AWSAccountId: '123456789012',
      KeyId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      Arn: `arn:aws:kms:us-east-1:123456789012:key/${key.KeyId}`,
      CreationDate: new Date(kms.clock.now()),
      Enabled: true,
      Description: '',
      KeyUsage: 'ENCRYPT_DECRYPT',
      KeyState: 'Enabled',
      Origin: 'AWS_KMS',
      KeyManager: 'CUSTOMER',
      CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
      KeySpec: 'SYMMETRIC_DEFAULT',
      EncryptionAlgorithms: ['SYMMETRIC_DEFAULT'],
      MultiRegion: false,
      CurrentKeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect((await kms.run('DescribeKey', { KeyId: key.KeyId })).KeyMetadata).toEqual(key);
  });

  test('takes the legacy name of the spec, but not both names', async () => {
    expect(await kms.key({ CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT' })).toMatchObject({
      KeySpec: 'SYMMETRIC_DEFAULT',
    });
    const both = { CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT', KeySpec: 'SYMMETRIC_DEFAULT' };
    expect(await kms.fails('CreateKey', both)).toEqual({
      code: 'ValidationException',
      message:
        'You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.',
    });
  });

  const others: ReadonlyArray<[KeySpec, KeyUsageType, object]> = [
    ['RSA_2048', 'ENCRYPT_DECRYPT', { EncryptionAlgorithms: ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] }],
    ['ECC_NIST_P256', 'SIGN_VERIFY', { SigningAlgorithms: ['ECDSA_SHA_256'] }],
    ['ECC_NIST_P384', 'SIGN_VERIFY', { SigningAlgorithms: ['ECDSA_SHA_384'] }],
    ['ECC_NIST_P521', 'KEY_AGREEMENT', { KeyAgreementAlgorithms: ['ECDH'] }],
    ['ECC_SECG_P256K1', 'SIGN_VERIFY', { SigningAlgorithms: ['ECDSA_SHA_256'] }],
    ['ECC_NIST_EDWARDS25519', 'SIGN_VERIFY', { SigningAlgorithms: ['ED25519_PH_SHA_512', 'ED25519_SHA_512'] }],
    ['ML_KEM_768', 'ENCAPSULATE_DECAPSULATE', { EncapsulationAlgorithms: ['ML_KEM'] }],
    ['ML_DSA_65', 'SIGN_VERIFY', { SigningAlgorithms: ['ML_DSA_SHAKE_256'] }],
    ['HMAC_224', 'GENERATE_VERIFY_MAC', { MacAlgorithms: ['HMAC_SHA_224'] }],
    ['HMAC_512', 'GENERATE_VERIFY_MAC', { MacAlgorithms: ['HMAC_SHA_512'] }],
  ];
  for (const [spec, usage, algorithms] of others) {
    test(`makes ${spec} keys, which encrypt no data keys`, async () => {
      const key = await kms.key({ KeySpec: spec, KeyUsage: usage });
      expect(key).toMatchObject({ KeySpec: spec, CustomerMasterKeySpec: spec, KeyUsage: usage, ...algorithms });
      expect(key).not.toHaveProperty('CurrentKeyMaterialId');
      const refused = await kms.fails('GenerateDataKeyWithoutPlaintext', { KeyId: key.KeyId, NumberOfBytes: 64 });
      expect(refused.code).toBe('InvalidKeyUsageException');
      expect(refused.message).toContain(key.Arn);
      expect(await kms.run('GetKeyRotationStatus', { KeyId: key.KeyId })).toMatchObject({ KeyRotationEnabled: false });
    });
  }

  test('wants a usage for other specs, and one that fits', async () => {
    expect(await kms.fails('CreateKey', { KeySpec: 'HMAC_256' })).toEqual({
      code: 'ValidationException',
      message: 'You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.',
    });
    expect(await kms.fails('CreateKey', { KeySpec: 'RSA_2048', KeyUsage: 'KEY_AGREEMENT' })).toEqual({
      code: 'ValidationException',
      message: 'KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048',
    });
    expect(await kms.fails('CreateKey', { KeySpec: 'HMAC_random' })).toMatchObject({
      code: 'ValidationException',
      message: expect.stringContaining(
        "1 validation error detected: Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [",
      ),
    });
  });

  test('knows every key spec of the SDK', async () => {
    for (const spec of Object.values(KeySpec)) {
      const { message } = await kms.fails('CreateKey', { KeySpec: spec, KeyUsage: 'NONE' });
      expect(message).not.toContain("at 'keySpec'");
    }
  });

  test('says what it has not: custom key stores, SM2, imported ML-DSA keys', async () => {
    for (const input of [
      { Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: 'cks-1' },
      { KeySpec: 'SM2', KeyUsage: 'SIGN_VERIFY' },
      { KeySpec: 'ML_DSA_44', KeyUsage: 'SIGN_VERIFY', Origin: 'EXTERNAL' },
    ])
      expect(await kms.code('CreateKey', input)).toBe('UnsupportedOperationException');
  });

  test('a key of origin EXTERNAL waits for its material', async () => {
    const key = await kms.key({ Origin: 'EXTERNAL' });
    expect(key).toMatchObject({ KeyState: 'PendingImport', Enabled: false, Origin: 'EXTERNAL' });
    const pending = { code: 'KMSInvalidStateException', message: `${key.Arn} is pending import.` };
    expect(await kms.fails('Encrypt', { KeyId: key.KeyId, Plaintext: Buffer.from('x') })).toEqual(pending);
    for (const name of ['EnableKey', 'DisableKey'])
      expect(await kms.fails(name, { KeyId: key.KeyId })).toEqual(pending);
    await kms.run('ScheduleKeyDeletion', { KeyId: key.KeyId });
    await kms.run('CancelKeyDeletion', { KeyId: key.KeyId });
    expect((await kms.run('DescribeKey', { KeyId: key.KeyId })).KeyMetadata.KeyState).toBe('PendingImport');
    expect(await kms.run('GetKeyRotationStatus', { KeyId: key.KeyId })).toEqual({
      KeyId: key.Arn,
      KeyRotationEnabled: false,
    });
  });

  test('is recorded with its metadata, in CloudTrail’s words', async () => {
    const key = await kms.key({ Description: 'mine', Tags: [{ TagKey: 'a', TagValue: 'b' }] });
    expect(kms.last.record).toMatchObject({
      requestParameters: {
        bypassPolicyLockoutSafetyCheck: false,
        description: 'mine',
        tags: [{ tagKey: 'a', tagValue: 'b' }],
      },
      responseElements: {
        keyMetadata: {
          AWSAccountId: '123456789012',
          keyId: key.KeyId,
          creationDate: 'Jan 2, 2026, 3:04:05 AM',
          keyState: 'Enabled',
        },
      },
      resources: [{ ARN: key.Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    });
    expect(kms.last.access.map((request) => request.action)).toEqual(['kms:CreateKey', 'kms:TagResource']);
  });
});

describe('naming a key', () => {
  test('works by id, ARN, alias and alias ARN', async () => {
    const key = await kms.key();
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: key.Arn });
    for (const KeyId of [key.KeyId, key.Arn, 'alias/mine', 'arn:aws:kms:us-east-1:123456789012:alias/mine'])
      expect((await kms.run('DescribeKey', { KeyId })).KeyMetadata.KeyId).toBe(key.KeyId);
  });

  test('says exactly what is wrong with a name', async () => {
    const arn = `arn:aws:kms:us-east-1:123456789012:key/${missing}`;
    const cases: Array<[string, string, string]> = [
      [missing, 'NotFoundException', `Key '${arn}' does not exist`],
      [arn, 'NotFoundException', `Key '${arn}' does not exist`],
      ['nonsense', 'NotFoundException', "Invalid keyId 'nonsense'"],
      ['alias/none', 'NotFoundException', 'Alias arn:aws:kms:us-east-1:123456789012:alias/none is not found.'],
      [`arn:aws:kms:eu-west-1:123456789012:key/${missing}`, 'NotFoundException', 'Invalid arn eu-west-1'],
      ['arn:aws:s3:::bucket', 'InvalidArnException', 'Invalid arn arn:aws:s3:::bucket'],
      ['arn:nonsense', 'InvalidArnException', 'Invalid arn arn:nonsense'],
    ];
    for (const [KeyId, code, message] of cases)
      expect(await kms.fails('DescribeKey', { KeyId })).toEqual({ code, message });
  });

  test('refuses aliases where the API does', async () => {
    const key = await kms.key();
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: key.KeyId });
    for (const name of [
      'EnableKey',
      'DisableKey',
      'ScheduleKeyDeletion',
      'GetKeyPolicy',
      'ListGrants',
      'ListResourceTags',
    ])
      expect(await kms.fails(name, { KeyId: 'alias/mine' })).toEqual({
        code: 'InvalidArnException',
        message: 'Key Aliases are not supported for this operation.',
      });
  });

  test('another region’s key does not exist, and another account’s is as closed as one that does not', async () => {
    kms.authorize = ownKeysOnly;
    const key = await kms.key();
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: key.KeyId });
    const other = { principal: root(otherAccount) };
    const elsewhere = { region: 'eu-west-1' };
    const aliasArn = 'arn:aws:kms:us-east-1:123456789012:alias/mine';
    for (const KeyId of [key.KeyId, key.Arn, 'alias/mine', aliasArn])
      expect(await kms.code('DescribeKey', { KeyId }, elsewhere)).toBe('NotFoundException');
    for (const KeyId of [key.KeyId, 'alias/mine'])
      expect(await kms.code('DescribeKey', { KeyId }, other)).toBe('NotFoundException');
    const noKey = key.Arn.replace(/.$/, (last: string) => (last === '0' ? '1' : '0'));
    for (const KeyId of [key.Arn, aliasArn, noKey, `${aliasArn}s`, 'arn:aws:kms:us-east-1:123456789012:alias/aws/ebs'])
      expect(await kms.fails('DescribeKey', { KeyId }, other)).toEqual({
        code: 'AccessDeniedException',
        message:
          `User: arn:aws:iam::${otherAccount}:root is not authorized to perform: kms:DescribeKey on this resource because ` +
          'the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy ' +
          'explicitly denies access',
      });
    expect((await kms.run('ListKeys', {}, other)).Keys).toEqual([]);
    expect((await kms.run('ListKeys', {}, elsewhere)).Keys).toEqual([]);
    // Naming another account's managed key makes none.
    expect((await kms.run('ListKeys')).Keys).toHaveLength(1);
  });
});

describe('key states', () => {
  const use = (KeyId: string): ReadonlyArray<[string, object]> => [
    ['Encrypt', { KeyId, Plaintext: Buffer.from('x') }],
    ['GenerateDataKey', { KeyId, NumberOfBytes: 32 }],
    ['GenerateDataKeyWithoutPlaintext', { KeyId, KeySpec: 'AES_256' }],
    ['CreateGrant', { KeyId, GranteePrincipal: 'arn:aws:iam::123456789012:root', Operations: ['Decrypt'] }],
  ];

  test('a disabled key can’t be used, and can again when enabled', async () => {
    const { KeyId, Arn } = await kms.key();
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Buffer.from('x') });
    await kms.run('DisableKey', { KeyId });
    await kms.run('DisableKey', { KeyId });
    const disabled = { code: 'DisabledException', message: `${Arn} is disabled.` };
    for (const [name, input] of use(KeyId)) expect(await kms.fails(name, input)).toEqual(disabled);
    expect(await kms.fails('Decrypt', { CiphertextBlob })).toEqual(disabled);
    expect(await kms.fails('ReEncrypt', { CiphertextBlob, DestinationKeyId: KeyId })).toEqual(disabled);
    await kms.run('EnableKey', { KeyId });
    expect((await kms.run('Decrypt', { CiphertextBlob })).Plaintext.toString()).toBe('x');
  });

  test('a key pending deletion can be read and taken back, nothing else', async () => {
    const { KeyId, Arn } = await kms.key({ Tags: [{ TagKey: 'a', TagValue: 'b' }] });
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: KeyId });
    const { GrantId } = await kms.run('CreateGrant', use(KeyId)[3]![1]);
    const scheduled = await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 });
    const date = new Date(kms.clock.now() + 7 * day);
    expect(scheduled).toEqual({ KeyId: Arn, DeletionDate: date, KeyState: 'PendingDeletion', PendingWindowInDays: 7 });
    expect(kms.last.record?.responseElements).toEqual({
      keyId: Arn,
      deletionDate: 'Jan 9, 2026, 3:04:05 AM',
      keyState: 'PendingDeletion',
      pendingWindowInDays: 7,
    });
    const refused: ReadonlyArray<[string, object]> = [
      ...use(KeyId),
      ['EnableKey', { KeyId }],
      ['DisableKey', { KeyId }],
      ['ScheduleKeyDeletion', { KeyId }],
      ['UpdateKeyDescription', { KeyId, Description: 'x' }],
      ['TagResource', { KeyId, Tags: [{ TagKey: 'c', TagValue: 'd' }] }],
      ['UntagResource', { KeyId, TagKeys: ['a'] }],
      ['CreateAlias', { AliasName: 'alias/other', TargetKeyId: KeyId }],
    ];
    for (const [name, input] of refused)
      expect(await kms.fails(name, input), name).toEqual({
        code: 'KMSInvalidStateException',
        message: `${Arn} is pending deletion.`,
      });
    expect((await kms.run('DescribeKey', { KeyId: 'alias/mine' })).KeyMetadata).toMatchObject({
      KeyState: 'PendingDeletion',
      Enabled: false,
      DeletionDate: date,
    });
    const reads = ['GetKeyPolicy', 'ListKeyPolicies', 'ListGrants', 'ListResourceTags', 'GetKeyRotationStatus'];
    for (const name of reads) await kms.run(name, { KeyId });
    await kms.run('RevokeGrant', { KeyId, GrantId });
    await kms.run('DeleteAlias', { AliasName: 'alias/mine' });
    expect(await kms.run('CancelKeyDeletion', { KeyId })).toEqual({ KeyId: Arn });
    const { KeyMetadata } = await kms.run('DescribeKey', { KeyId });
    expect(KeyMetadata).toMatchObject({ KeyState: 'Disabled', Enabled: false });
    expect(KeyMetadata).not.toHaveProperty('DeletionDate');
    expect(await kms.fails('CancelKeyDeletion', { KeyId })).toEqual({
      code: 'KMSInvalidStateException',
      message: `${Arn} is not pending deletion.`,
    });
  });

  test('the waiting period is 7 to 30 days, and 30 if none is named', async () => {
    const { KeyId } = await kms.key();
    for (const PendingWindowInDays of [1, 6, 31, 365])
      expect(await kms.code('ScheduleKeyDeletion', { KeyId, PendingWindowInDays })).toBe('ValidationException');
    const { DeletionDate } = await kms.run('ScheduleKeyDeletion', { KeyId });
    expect(DeletionDate.getTime()).toBe(kms.clock.now() + 30 * day);
    expect(kms.last.access[0]!.context).toMatchObject({ 'kms:ScheduleKeyDeletionPendingWindowInDays': '30' });
  });

  test('when its time has come a key is gone with everything that was its', async () => {
    const { KeyId, Arn } = await kms.key({ Tags: [{ TagKey: 'a', TagValue: 'b' }] }, { region: 'eu-west-1' });
    const at = { region: 'eu-west-1' };
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: KeyId }, at);
    await kms.run('CreateGrant', use(KeyId)[3]![1], at);
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Buffer.from('x') }, at);
    await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 }, at);
    kms.clock.advance(7 * day - 1);
    await kms.housekeeping();
    expect((await kms.run('DescribeKey', { KeyId }, at)).KeyMetadata.KeyState).toBe('PendingDeletion');
    expect(kms.events).toEqual([]);
    kms.clock.advance(1);
    await kms.housekeeping();
    expect(await kms.fails('DescribeKey', { KeyId }, at)).toEqual({
      code: 'NotFoundException',
      message: `Key '${Arn}' does not exist`,
    });
    expect(await kms.code('DescribeKey', { KeyId: 'alias/mine' }, at)).toBe('NotFoundException');
    expect(await kms.code('Decrypt', { CiphertextBlob }, at)).toBe('AccessDeniedException');
    expect(kms.events).toEqual([
      {
        source: 'aws.kms',
        detailType: 'KMS CMK Deletion',
        resources: [Arn],
        detail: { 'key-id': KeyId },
        account: '123456789012',
        region: 'eu-west-1',
      },
    ]);
    const left = await kms.database.run(async (db) => {
      const tables = ['kms_keys', 'kms_material', 'kms_aliases', 'kms_tags', 'kms_grants'];
      return Promise.all(tables.map((table) => db.selectFrom(table).selectAll().execute()));
    });
    expect(left.flat()).toEqual([]);
  });

  test('a key whose deletion was cancelled in time stays', async () => {
    const { KeyId } = await kms.key();
    await kms.run('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 });
    kms.clock.advance(7 * day);
    await kms.run('CancelKeyDeletion', { KeyId });
    await kms.housekeeping();
    expect((await kms.run('DescribeKey', { KeyId })).KeyMetadata.KeyState).toBe('Disabled');
  });
});

test('a key that is not due outlives even the order to destroy it', async () => {
  const { KeyId } = await kms.key();
  await kms.run('DeleteKey', { KeyId });
  await kms.run('ScheduleKeyDeletion', { KeyId });
  await kms.run('DeleteKey', { KeyId });
  expect((await kms.run('DescribeKey', { KeyId })).KeyMetadata.KeyState).toBe('PendingDeletion');
  expect(kms.events).toEqual([]);
});

describe('lists', () => {
  test('ListKeys goes through all keys, page by page', async () => {
    const keys = new Set<string>();
    for (let i = 0; i < 7; i++) keys.add((await kms.key()).KeyId);
    const seen: string[] = [];
    let Marker: string | undefined;
    do {
      const page = await kms.run('ListKeys', { Limit: 3, Marker });
      expect(page.Keys.length).toBeLessThanOrEqual(3);
      expect(page.Truncated).toBe(page.NextMarker !== undefined);
      seen.push(...page.Keys.map((key: { KeyId: string }) => key.KeyId));
      Marker = page.NextMarker;
    } while (Marker);
    expect(seen).toHaveLength(7);
    expect(new Set(seen)).toEqual(keys);
  });

  test('a marker of nobody’s, or of another list, is refused', async () => {
    for (let i = 0; i < 2; i++) await kms.key();
    const { NextMarker } = await kms.run('ListKeys', { Limit: 1 });
    for (const Marker of ['x', '####', Buffer.from('["keys"]').toString('base64'), `${NextMarker}=`])
      expect(await kms.code('ListKeys', { Marker })).toBe('InvalidMarkerException');
    expect(await kms.code('ListAliases', { Marker: NextMarker })).toBe('InvalidMarkerException');
    for (const Limit of [0, 1001, -1]) expect(await kms.code('ListKeys', { Limit })).toBe('ValidationException');
  });
});

test('a key made in a call that was undone is not remembered', async () => {
  // As when another service's call, which used alias/aws/ebs for the first time, fails after all.
  const operation = kms.kms.operations.GenerateDataKeyWithoutPlaintext!;
  const input = { KeyId: 'alias/aws/ebs', NumberOfBytes: 32 };
  let lost: Uint8Array | undefined;
  await expect(
    kms.database.run(async (db) => {
      const call = { db, account: '123456789012', region: 'us-east-1', clock: kms.clock, principal: root() } as never;
      const subject = await operation.resolve!(call, input);
      lost = (await operation.handle(call, input, subject)).CiphertextBlob;
      throw new Error('undone');
    }),
  ).rejects.toThrow('undone');
  expect(await kms.code('Decrypt', { CiphertextBlob: lost })).toBe('AccessDeniedException');
  const { CiphertextBlob } = await kms.run('GenerateDataKeyWithoutPlaintext', input);
  expect((await kms.run('Decrypt', { CiphertextBlob })).Plaintext).toHaveLength(32);
});
