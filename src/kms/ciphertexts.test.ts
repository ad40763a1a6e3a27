import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { otherAccount, ownKeysOnly, root, TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

const volume = { 'aws:ebs:id': 'vol-0123456789abcdef0' };
const invalid = { code: 'InvalidCiphertextException', message: '' };
const dryRun = {
  code: 'DryRunOperationException',
  message: 'The request would have succeeded, but the DryRun option is set.',
};
const bytes = (text: string) => Buffer.from(text);

describe('Encrypt and Decrypt', () => {
  test('give back what was encrypted, with the key that did it', async () => {
    const { KeyId, Arn, CurrentKeyMaterialId } = await kms.key();
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 4096 }),
        fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), { maxKeys: 4 }),
        async (Plaintext, EncryptionContext) => {
          const encrypted = await kms.run('Encrypt', { KeyId, Plaintext, EncryptionContext });
          expect(encrypted).toMatchObject({ KeyId: Arn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' });
          const { CiphertextBlob } = encrypted;
          expect(await kms.run('Decrypt', { CiphertextBlob, EncryptionContext })).toEqual({
            KeyId: Arn,
            Plaintext: Buffer.from(Plaintext),
            EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
            KeyMaterialId: CurrentKeyMaterialId,
          });
        },
      ),
      { numRuns: 40 },
    );
  });

  test('a blob of 4096 bytes of plaintext still fits where ciphertext is taken', async () => {
    const { KeyId } = await kms.key();
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Buffer.alloc(4096) });
    expect(CiphertextBlob.length).toBeLessThanOrEqual(6144);
    expect(await kms.fails('Encrypt', { KeyId, Plaintext: Buffer.alloc(4097) })).toEqual({
      code: 'ValidationException',
      message:
        "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
    });
  });

  test('whatever is wrong with a ciphertext, the answer is the same', async () => {
    const { KeyId } = await kms.key();
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: bytes('x'), EncryptionContext: volume });
    const good = { CiphertextBlob, EncryptionContext: volume };
    expect((await kms.run('Decrypt', good)).Plaintext).toEqual(bytes('x'));
    const flipped = (at: number) => {
      const blob = Buffer.from(CiphertextBlob);
      blob[at]! ^= 1;
      return { ...good, CiphertextBlob: blob };
    };
    const wrong: object[] = [
      { CiphertextBlob },
      { CiphertextBlob, EncryptionContext: { 'aws:ebs:id': 'vol-0123456789abcdef1' } },
      { CiphertextBlob, EncryptionContext: { ...volume, more: '' } },
      { ...good, CiphertextBlob: CiphertextBlob.subarray(0, -1) },
      { ...good, CiphertextBlob: Buffer.from('nonsense') },
      ...[0, 17, 33, 65, 77, CiphertextBlob.length - 1].map(flipped),
    ];
    for (const input of wrong) expect(await kms.fails('Decrypt', input)).toEqual(invalid);
    for (const input of wrong.slice(3))
      expect(await kms.code('ReEncrypt', { SourceEncryptionContext: volume, DestinationKeyId: KeyId, ...input })).toBe(
        'InvalidCiphertextException',
      );
  });

  test('whatever keeps the caller from the key of a ciphertext, the answer is the same', async () => {
    kms.authorize = ownKeysOnly;
    const { KeyId } = await kms.key();
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: bytes('x') });
    const flipped = Buffer.from(CiphertextBlob);
    flipped[1]! ^= 1;
    const closed = (principal: string) => ({
      code: 'AccessDeniedException',
      message:
        `User: arn:aws:iam::${principal}:root is not authorized to perform: kms:Decrypt on the resource associated with ` +
        'this ciphertext because the resource does not exist in this Region, no resource-based policies allow access, or ' +
        'a resource-based policy explicitly denies access',
    });
    const own = closed('123456789012');
    expect(await kms.fails('Decrypt', { CiphertextBlob: flipped })).toEqual(own);
    expect(await kms.fails('Decrypt', { CiphertextBlob: Buffer.alloc(200, 1) })).toEqual(own);
    expect(await kms.fails('Decrypt', { CiphertextBlob }, { region: 'eu-west-1' })).toEqual(own);
    const stranger = { principal: root(otherAccount) };
    expect(await kms.fails('Decrypt', { CiphertextBlob }, stranger)).toEqual(closed(otherAccount));
    expect(await kms.fails('Decrypt', { CiphertextBlob: flipped }, stranger)).toEqual(closed(otherAccount));
  });

  test('a blob under one key does not open by the name of another', async () => {
    const [a, b] = [await kms.key(), await kms.key()];
    const hmac = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId: a.KeyId, Plaintext: bytes('x') });
    const incorrect = {
      code: 'IncorrectKeyException',
      message: 'The key ID in the request does not identify a CMK that can perform this operation.',
    };
    for (const KeyId of [b.KeyId, hmac.Arn])
      expect(await kms.fails('Decrypt', { CiphertextBlob, KeyId })).toEqual(incorrect);
    expect(await kms.fails('ReEncrypt', { CiphertextBlob, SourceKeyId: b.Arn, DestinationKeyId: a.KeyId })).toEqual(
      incorrect,
    );
    expect((await kms.run('Decrypt', { CiphertextBlob, KeyId: a.Arn })).Plaintext).toEqual(bytes('x'));
    // The same blob, made to name the other key: the key's material and the header both speak against it.
    const forged = Buffer.from(CiphertextBlob);
    Buffer.from(b.KeyId.replaceAll('-', ''), 'hex').copy(forged, 1);
    expect(await kms.fails('Decrypt', { CiphertextBlob: forged })).toEqual(invalid);
  });

  test('refuse algorithms of other keys', async () => {
    const { KeyId } = await kms.key();
    const rsa = await kms.key({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
    expect(
      await kms.fails('Encrypt', { KeyId, Plaintext: bytes('x'), EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' }),
    ).toEqual({
      code: 'InvalidKeyUsageException',
      message: 'Algorithm RSAES_OAEP_SHA_256 is incompatible with key spec SYMMETRIC_DEFAULT.',
    });
    expect(await kms.fails('Encrypt', { KeyId: rsa.KeyId, Plaintext: bytes('x') })).toEqual({
      code: 'InvalidKeyUsageException',
      message: 'Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.',
    });
    const sign = await kms.key({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
    expect(await kms.fails('Encrypt', { KeyId: sign.KeyId, Plaintext: bytes('x') })).toEqual({
      code: 'InvalidKeyUsageException',
      message: `${sign.Arn} key usage is SIGN_VERIFY which is not valid for Encrypt.`,
    });
  });

  test('refuse contexts that are too long, or could be taken for another', async () => {
    const { KeyId } = await kms.key();
    for (const EncryptionContext of [{ a: 'x'.repeat(8192) }, { a: '\ud800' }, { '\udfff': 'a' }])
      expect(await kms.code('Encrypt', { KeyId, Plaintext: bytes('x'), EncryptionContext })).toBe(
        'ValidationException',
      );
  });

  test('refuse to answer an enclave in plaintext', async () => {
    const { KeyId } = await kms.key();
    const Recipient = { KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256', AttestationDocument: bytes('x') };
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: bytes('x') });
    for (const [name, input] of [
      ['Decrypt', { CiphertextBlob }],
      ['GenerateDataKey', { KeyId, NumberOfBytes: 32 }],
      ['GenerateRandom', { NumberOfBytes: 32 }],
    ] as const)
      expect(await kms.code(name, { ...input, Recipient })).toBe('ValidationException');
  });

  test('the pipeline may decide by the encryption context', async () => {
    const { KeyId, Arn } = await kms.key();
    const EncryptionContext = { ...volume, more: 'x' };
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: bytes('x'), EncryptionContext });
    await kms.run('Decrypt', { CiphertextBlob, EncryptionContext });
    expect(kms.last.access).toMatchObject([
      {
        action: 'kms:Decrypt',
        resource: Arn,
        resourceAccount: '123456789012',
        context: {
          'kms:EncryptionContext:aws:ebs:id': 'vol-0123456789abcdef0',
          'kms:EncryptionContext:more': 'x',
          'kms:EncryptionContextKeys': ['aws:ebs:id', 'more'],
          'kms:EncryptionAlgorithm': 'SYMMETRIC_DEFAULT',
          'kms:KeySpec': 'SYMMETRIC_DEFAULT',
          'kms:KeyUsage': 'ENCRYPT_DECRYPT',
          'kms:KeyOrigin': 'AWS_KMS',
        },
      },
    ]);
    expect(kms.last.access[0]!.resourcePolicy).toMatchObject({ Id: 'key-default-1' });
    kms.authorize = (_call, request) => (request.action === 'kms:Decrypt' ? 'nobody may' : undefined);
    expect(await kms.fails('Decrypt', { CiphertextBlob, EncryptionContext })).toEqual({
      code: 'AccessDeniedException',
      message: `User: arn:aws:iam::123456789012:root is not authorized to perform: kms:Decrypt on resource: ${Arn} because nobody may`,
    });
  });
});

describe('ReEncrypt', () => {
  test('moves a ciphertext to another key and context', async () => {
    const [a, b] = [await kms.key(), await kms.key()];
    await kms.run('CreateAlias', { AliasName: 'alias/b', TargetKeyId: b.KeyId });
    const { CiphertextBlob } = await kms.run('Encrypt', {
      KeyId: a.KeyId,
      Plaintext: bytes('x'),
      EncryptionContext: volume,
    });
    const moved = await kms.run('ReEncrypt', {
      CiphertextBlob,
      SourceEncryptionContext: volume,
      DestinationKeyId: 'alias/b',
      DestinationEncryptionContext: { to: 'b' },
    });
    expect(moved).toMatchObject({ SourceKeyId: a.Arn, KeyId: b.Arn, DestinationKeyMaterialId: b.CurrentKeyMaterialId });
    expect(kms.last.access.map((request) => [request.action, request.resource])).toEqual([
      ['kms:ReEncryptFrom', a.Arn],
      ['kms:ReEncryptTo', b.Arn],
    ]);
    expect(kms.last.access[0]!.context).toMatchObject({ 'kms:ReEncryptOnSameKey': 'false' });
    expect(kms.last.record).toEqual({
      requestParameters: {
        sourceEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
        sourceEncryptionContext: volume,
        destinationKeyId: 'alias/b',
        destinationEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
        destinationEncryptionContext: { to: 'b' },
      },
      resources: [a, b].map(({ Arn }) => ({ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' })),
      additionalEventData: {
        sourceKeyMaterialId: a.CurrentKeyMaterialId,
        destinationKeyMaterialId: b.CurrentKeyMaterialId,
      },
    });
    const opened = await kms.run('Decrypt', { CiphertextBlob: moved.CiphertextBlob, EncryptionContext: { to: 'b' } });
    expect(opened).toMatchObject({ KeyId: b.Arn, Plaintext: bytes('x') });
  });
});

test('ReEncrypt wants both keys enabled', async () => {
  const [a, b] = [await kms.key(), await kms.key()];
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId: a.KeyId, Plaintext: bytes('x') });
  const input = { CiphertextBlob, DestinationKeyId: b.KeyId };
  for (const { KeyId, Arn } of [a, b]) {
    await kms.run('DisableKey', { KeyId });
    expect(await kms.fails('ReEncrypt', input)).toEqual({ code: 'DisabledException', message: `${Arn} is disabled.` });
    await kms.run('EnableKey', { KeyId });
  }
  await kms.run('ReEncrypt', input);
});

describe('GenerateDataKey', () => {
  test('gives a key of the size asked for, encrypted too', async () => {
    const { KeyId, Arn } = await kms.key();
    const sizes: Array<[object, number]> = [
      [{ NumberOfBytes: 64 }, 64],
      [{ NumberOfBytes: 1 }, 1],
      [{ NumberOfBytes: 1024 }, 1024],
      [{ KeySpec: 'AES_128' }, 16],
      [{ KeySpec: 'AES_256' }, 32],
    ];
    for (const [size, length] of sizes) {
      const input = { KeyId, EncryptionContext: volume, ...size };
      const both = await kms.run('GenerateDataKey', input);
      expect(both.KeyId).toBe(Arn);
      expect(both.Plaintext).toHaveLength(length);
      const opened = await kms.run('Decrypt', { CiphertextBlob: both.CiphertextBlob, EncryptionContext: volume });
      expect(opened.Plaintext).toEqual(both.Plaintext);
      const without = await kms.run('GenerateDataKeyWithoutPlaintext', input);
      expect(without).not.toHaveProperty('Plaintext');
      const alone = await kms.run('Decrypt', { CiphertextBlob: without.CiphertextBlob, EncryptionContext: volume });
      expect(alone.Plaintext).toHaveLength(length);
    }
  });

  test('wants one size', async () => {
    const { KeyId } = await kms.key();
    for (const size of [
      {},
      { NumberOfBytes: 64, KeySpec: 'AES_256' },
      { NumberOfBytes: 0 },
      { NumberOfBytes: 1025 },
      { KeySpec: 'AES_192' },
    ])
      expect(await kms.code('GenerateDataKeyWithoutPlaintext', { KeyId, ...size })).toBe('ValidationException');
  });

  test('is recorded as CloudTrail documents it, without any key', async () => {
    const { KeyId, Arn, CurrentKeyMaterialId } = await kms.key();
    await kms.run('GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 64, EncryptionContext: volume });
    expect(kms.last.record).toEqual({
      requestParameters: { keyId: KeyId, numberOfBytes: 64, encryptionContext: volume },
      responseElements: undefined,
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
      additionalEventData: { keyMaterialId: CurrentKeyMaterialId },
    });
  });
});

test('GenerateRandom gives bytes of the length asked for', async () => {
  expect((await kms.run('GenerateRandom', { NumberOfBytes: 33 })).Plaintext).toHaveLength(33);
  expect(await kms.fails('GenerateRandom', {})).toEqual({
    code: 'ValidationException',
    message: 'NumberOfBytes is required.',
  });
  expect(await kms.fails('GenerateRandom', { NumberOfBytes: 1025 })).toEqual({
    code: 'ValidationException',
    message:
      "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
  });
});

test('a dry run says that it would have succeeded, or why not', async () => {
  const { KeyId, Arn } = await kms.key();
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: bytes('x') });
  const calls: Array<[string, object]> = [
    ['Encrypt', { KeyId, Plaintext: bytes('x') }],
    ['Decrypt', { CiphertextBlob }],
    ['Decrypt', { KeyId, DryRunModifiers: ['IGNORE_CIPHERTEXT'] }],
    ['ReEncrypt', { CiphertextBlob, DestinationKeyId: KeyId }],
    ['GenerateDataKey', { KeyId, NumberOfBytes: 32 }],
    ['GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 32 }],
    ['CreateGrant', { KeyId, GranteePrincipal: 'arn:aws:iam::123456789012:user/a', Operations: ['Decrypt'] }],
  ];
  for (const [name, input] of calls) expect(await kms.fails(name, { ...input, DryRun: true })).toEqual(dryRun);
  expect((await kms.run('ListGrants', { KeyId })).Grants).toEqual([]);
  expect(await kms.fails('Decrypt', { CiphertextBlob, EncryptionContext: volume, DryRun: true })).toEqual(invalid);
  await kms.run('DisableKey', { KeyId });
  for (const [name, input] of calls)
    expect(await kms.fails(name, { ...input, DryRun: true })).toEqual({
      code: 'DisabledException',
      message: `${Arn} is disabled.`,
    });
});

test('key material is unreadable in the database', async () => {
  const { KeyId } = await kms.key();
  const rows = await kms.database.run((db) => db.selectFrom('kms_material').selectAll().execute());
  const sealed = Buffer.from((rows[0] as { sealed: Uint8Array }).sealed);
  expect(sealed).toHaveLength(1 + 12 + 32 + 16);
  // Bound to its key: another key's row can't take its place.
  const { KeyId: other } = await kms.key();
  await kms.database.run((db) => db.updateTable('kms_material').set({ sealed }).where('key_id', '=', other).execute());
  await expect(kms.run('Encrypt', { KeyId: other, Plaintext: bytes('x') })).rejects.toThrow(/authenticate/);
  await kms.run('Encrypt', { KeyId, Plaintext: bytes('x') });
});
