/** Importing key material: OpenSSL's command line makes it, wraps it, and checks what the key service does with it. */
import { createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { importing, never } from './testing-import.ts';
import { Openssl } from './testing-openssl.ts';

const day = 86_400_000;
const Message = Buffer.from('the message');
let kms: TestKms;
let openssl: Openssl;
const { wrapped, importInto, newKey, describeKey } = importing(() => ({ kms, openssl }));

beforeAll(() => {
  openssl = new Openssl();
});
afterAll(() => openssl?.remove());
beforeEach(async () => {
  kms = await TestKms.create();
});

describe('what is imported is the key', () => {
  test.each([
    ['RSAES_OAEP_SHA_1', 'RSA_2048'],
    ['RSAES_OAEP_SHA_256', 'RSA_3072'],
    ['RSAES_OAEP_SHA_256', 'RSA_4096'],
  ])('symmetric, wrapped with %s and %s: its ciphertexts open outside', async (algorithm, spec) => {
    const { KeyId, Arn } = await newKey();
    const material = randomBytes(32);
    const input = { KeyId, ...(await wrapped(KeyId, material, { algorithm, spec })), ...never };
    const imported = await kms.run('ImportKeyMaterial', input);
    expect(imported).toEqual({ KeyId: Arn, KeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(await describeKey(KeyId)).toMatchObject({
      KeyState: 'Enabled',
      ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
      CurrentKeyMaterialId: imported.KeyMaterialId,
    });
    const { CiphertextBlob: blob } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
    const key = Buffer.from(hkdfSync('sha256', material, blob.subarray(33, 65), 'coffer kms v1', 32));
    const decipher = createDecipheriv('aes-256-gcm', key, blob.subarray(65, 77));
    decipher.setAAD(blob.subarray(0, 77)).setAuthTag(blob.subarray(-16));
    expect(Buffer.concat([decipher.update(blob.subarray(77, -16)), decipher.final()])).toEqual(Message);
  });

  test.each([
    [224, 28],
    [256, 32],
    [384, 48],
    [512, 64],
  ])('HMAC_%i gives the codes that OpenSSL gives', async (bits, bytes) => {
    const { KeyId, Arn } = await newKey({ KeySpec: `HMAC_${bits}`, KeyUsage: 'GENERATE_VERIFY_MAC' });
    const material = randomBytes(bytes);
    expect(await importInto(KeyId, material)).toEqual({ KeyId: Arn });
    const { Mac } = await kms.run('GenerateMac', { KeyId, Message, MacAlgorithm: `HMAC_SHA_${bits}` });
    const hexKey = `hexkey:${material.toString('hex')}`;
    const file = openssl.file('message', Message);
    const printed = openssl.run('dgst', `-sha${bits}`, '-mac', 'HMAC', '-macopt', hexKey, '-r', file);
    expect(printed.split(' ')[0]).toBe(Mac.toString('hex'));
  });

  test.each([
    ['ECC_NIST_P256', 'RSAES_OAEP_SHA_1', 'RSA_2048', 'P-256', 'ECDSA_SHA_256'],
    ['ECC_NIST_P384', 'RSAES_OAEP_SHA_256', 'RSA_2048', 'P-384', 'ECDSA_SHA_384'],
    ['ECC_NIST_P521', 'RSAES_OAEP_SHA_256', 'RSA_3072', 'P-521', 'ECDSA_SHA_512'],
    ['ECC_NIST_P521', 'RSA_AES_KEY_WRAP_SHA_1', 'RSA_2048', 'P-521', 'ECDSA_SHA_512'],
    ['ECC_SECG_P256K1', 'RSA_AES_KEY_WRAP_SHA_256', 'RSA_2048', 'secp256k1', 'ECDSA_SHA_256'],
  ])('%s, wrapped with %s and %s, signs what OpenSSL verifies', async (KeySpec, algorithm, spec, curve, signing) => {
    const { KeyId } = await newKey({ KeySpec, KeyUsage: 'SIGN_VERIFY' });
    const pair = openssl.keyPair('-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`);
    await kms.run('ImportKeyMaterial', {
      KeyId,
      ...(await wrapped(KeyId, pair.secret, { algorithm, spec })),
      ...never,
    });
    await expectVerified(KeyId, signing, pair.publicKey, `-sha${signing.slice(-3)}`);
  });

  test('ECC_NIST_EDWARDS25519', async () => {
    const { KeyId } = await newKey({ KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' });
    const pair = openssl.keyPair('-algorithm', 'ED25519');
    await importInto(KeyId, pair.secret);
    const { Signature } = await kms.run('Sign', { KeyId, Message, SigningAlgorithm: 'ED25519_SHA_512' });
    const [key, signature] = [openssl.file('public.der', pair.publicKey), openssl.file('sig', Signature)];
    const file = openssl.file('message', Message);
    const input = ['-pubin', '-inkey', key, '-keyform', 'DER', '-rawin', '-in', file, '-sigfile', signature];
    expect(openssl.run('pkeyutl', '-verify', ...input)).toContain('Verified Successfully');
  });

  test.each([
    ['RSA_2048', 'RSA_AES_KEY_WRAP_SHA_1', 2048],
    ['RSA_3072', 'RSA_AES_KEY_WRAP_SHA_256', 3072],
    ['RSA_4096', 'RSA_AES_KEY_WRAP_SHA_256', 4096],
  ])('%s, wrapped with %s, signs what OpenSSL verifies', async (KeySpec, algorithm, bits) => {
    const { KeyId } = await newKey({ KeySpec, KeyUsage: 'SIGN_VERIFY' });
    const pair = openssl.keyPair('-algorithm', 'RSA', '-pkeyopt', `rsa_keygen_bits:${bits}`);
    await kms.run('ImportKeyMaterial', { KeyId, ...(await wrapped(KeyId, pair.secret, { algorithm })), ...never });
    await expectVerified(KeyId, 'RSASSA_PKCS1_V1_5_SHA_256', pair.publicKey, '-sha256');
  });

  async function expectVerified(KeyId: string, SigningAlgorithm: string, publicKey: Buffer, digest: string) {
    expect((await kms.run('GetPublicKey', { KeyId })).PublicKey).toEqual(publicKey);
    const { Signature } = await kms.run('Sign', { KeyId, Message, SigningAlgorithm });
    const [key, signature] = [openssl.file('public.der', publicKey), openssl.file('sig', Signature)];
    const file = openssl.file('message', Message);
    const printed = openssl.run('dgst', digest, '-verify', key, '-keyform', 'DER', '-signature', signature, file);
    expect(printed).toContain('Verified OK');
  }
});

describe('GetParametersForImport', () => {
  test('answers with a public key and a token, good for 24 hours', async () => {
    const { KeyId, Arn } = await newKey();
    const input = { KeyId, WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_3072' };
    const answer = await kms.run('GetParametersForImport', input);
    expect(answer).toMatchObject({ KeyId: Arn, ParametersValidTo: new Date(kms.clock.now() + day) });
    const printed = openssl.run(
      'pkey',
      '-pubin',
      '-inform',
      'DER',
      '-in',
      openssl.file('p', answer.PublicKey),
      '-text',
    );
    expect(printed).toContain('(3072 bit)');
    expect(kms.last).toMatchObject({
      access: [{ context: { 'kms:WrappingAlgorithm': 'RSAES_OAEP_SHA_256', 'kms:WrappingKeySpec': 'RSA_3072' } }],
      record: {
        requestParameters: { keyId: KeyId, wrappingAlgorithm: 'RSAES_OAEP_SHA_256', wrappingKeySpec: 'RSA_3072' },
      },
    });
    expect(kms.kms.operations.GetParametersForImport!.readOnly).toBe(true);
  });

  test('which algorithm may wrap what', async () => {
    const code = async (KeySpec: string, KeyUsage: string, WrappingAlgorithm: string, WrappingKeySpec = 'RSA_2048') => {
      const { KeyId } = await newKey({ KeySpec, KeyUsage });
      return kms.code('GetParametersForImport', { KeyId, WrappingAlgorithm, WrappingKeySpec });
    };
    const unsupported = 'UnsupportedOperationException';
    expect(await code('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', 'RSAES_PKCS1_V1_5')).toBe(unsupported);
    expect(await code('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', 'SM2PKE', 'SM2')).toBe(unsupported);
    expect(await code('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', 'RSA_AES_KEY_WRAP_SHA_256')).toBe(unsupported);
    expect(await code('HMAC_256', 'GENERATE_VERIFY_MAC', 'RSA_AES_KEY_WRAP_SHA_1')).toBe(unsupported);
    expect(await code('RSA_2048', 'SIGN_VERIFY', 'RSAES_OAEP_SHA_256')).toBe(unsupported);
    expect(await code('ECC_NIST_P521', 'SIGN_VERIFY', 'RSAES_OAEP_SHA_1')).toBe(unsupported);
    expect(await code('HMAC_256', 'GENERATE_VERIFY_MAC', 'ROT13')).toBe('ValidationException');
  });

  test('is for keys that wait for material, or have it', async () => {
    const own = await kms.key();
    const input = { WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_2048' };
    expect(await kms.fails('GetParametersForImport', { ...input, KeyId: own.KeyId })).toEqual({
      code: 'UnsupportedOperationException',
      message: `${own.Arn} origin is AWS_KMS which is not valid for this operation.`,
    });
    const { KeyId } = await newKey();
    await kms.run('ScheduleKeyDeletion', { KeyId });
    expect(await kms.code('GetParametersForImport', { ...input, KeyId })).toBe('KMSInvalidStateException');
  });

  test('a key has no more than 100 tokens at a time, and what is over is destroyed', async () => {
    const { KeyId } = await newKey();
    const { EncryptedKeyMaterial: _, ...parameters } = await wrapped(KeyId, randomBytes(32));
    await kms.database.run(async (db) => {
      const row = await db.selectFrom('kms_wrapping_keys').selectAll().executeTakeFirstOrThrow();
      for (let i = 1; i < 100; i++)
        await db
          .insertInto('kms_wrapping_keys')
          .values({ ...row, wrapping_id: `other ${i}` })
          .execute();
    });
    const input = { KeyId, WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_2048' };
    expect(await kms.code('GetParametersForImport', input)).toBe('LimitExceededException');
    kms.clock.advance(day);
    await kms.housekeeping();
    expect(await kms.database.run((db) => db.selectFrom('kms_wrapping_keys').selectAll().execute())).toEqual([]);
    const late = { KeyId, ...parameters, EncryptedKeyMaterial: randomBytes(256), ...never };
    expect(await kms.code('ImportKeyMaterial', late)).toBe('ExpiredImportTokenException');
  });
});

describe('ImportKeyMaterial refuses', () => {
  test('tokens that are not genuine, not the key’s, too old, or used', async () => {
    const { KeyId } = await newKey();
    const { KeyId: other } = await newKey();
    const material = randomBytes(32);
    const parameters = await wrapped(KeyId, material);
    const code = (input: object, at = {}) =>
      kms.code('ImportKeyMaterial', { KeyId, ...parameters, ...never, ...input }, at);
    expect(await code({ KeyId: other })).toBe('InvalidImportTokenException');
    const damaged = Buffer.from(parameters.ImportToken);
    damaged[20]! ^= 1;
    for (const ImportToken of [damaged, randomBytes(100)])
      expect(await code({ ImportToken })).toBe('InvalidImportTokenException');
    kms.clock.advance(day - 1000);
    const inTime = await wrapped(KeyId, material);
    kms.clock.advance(1000);
    expect(await code({})).toBe('ExpiredImportTokenException');
    await kms.run('ImportKeyMaterial', { KeyId, ...inTime, ...never });
    expect(await code(inTime)).toBe('InvalidImportTokenException');
    expect(await kms.database.run((db) => db.selectFrom('kms_wrapping_keys').selectAll().execute())).toHaveLength(1);
  });

  test('what was wrapped in another way; and the token stays good', async () => {
    const { KeyId } = await newKey();
    const { KeyId: ec } = await newKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
    const code = async (id: string, algorithm: string, EncryptedKeyMaterial: (key: Buffer) => Buffer) => {
      const input = { KeyId: id, WrappingAlgorithm: algorithm, WrappingKeySpec: 'RSA_2048' };
      const { PublicKey, ImportToken } = await kms.run('GetParametersForImport', input);
      const request = { KeyId: id, ImportToken, EncryptedKeyMaterial: EncryptedKeyMaterial(PublicKey), ...never };
      return kms.code('ImportKeyMaterial', request);
    };
    const material = randomBytes(32);
    const as = (algorithm: string) => (key: Buffer) => openssl.wrap(algorithm, key, material);
    const invalid = 'InvalidCiphertextException';
    expect(await code(KeyId, 'RSAES_OAEP_SHA_256', as('RSAES_OAEP_SHA_1'))).toBe(invalid);
    expect(await code(KeyId, 'RSAES_OAEP_SHA_256', as('RSA_AES_KEY_WRAP_SHA_256'))).toBe(invalid);
    expect(await code(KeyId, 'RSAES_OAEP_SHA_256', () => randomBytes(256))).toBe(invalid);
    expect(await code(ec, 'RSA_AES_KEY_WRAP_SHA_256', as('RSAES_OAEP_SHA_256'))).toBe(invalid);
    expect(await code(ec, 'RSA_AES_KEY_WRAP_SHA_256', as('RSA_AES_KEY_WRAP_SHA_1'))).toBe(invalid);
    for (const cut of [256, 257, 264, 272, -8, -1])
      expect(
        await code(ec, 'RSA_AES_KEY_WRAP_SHA_256', (key) => as('RSA_AES_KEY_WRAP_SHA_256')(key).subarray(0, cut)),
      ).toBe(invalid);
    const flipped = (at: number) => (key: Buffer) => {
      const bytes = as('RSA_AES_KEY_WRAP_SHA_256')(key);
      bytes[at]! ^= 1;
      return bytes;
    };
    for (const at of [0, 255, 256, 295]) expect(await code(ec, 'RSA_AES_KEY_WRAP_SHA_256', flipped(at))).toBe(invalid);
    const good = await wrapped(KeyId, material);
    const bad = { KeyId, ...good, EncryptedKeyMaterial: randomBytes(256), ...never };
    expect(await kms.code('ImportKeyMaterial', bad)).toBe(invalid);
    await kms.run('ImportKeyMaterial', { KeyId, ...good, ...never });
  });

  test('material that is not for the key spec', async () => {
    const ec = (curve: string) => openssl.keyPair('-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`).secret;
    const rsa = (...more: string[]) =>
      openssl.keyPair('-algorithm', 'RSA', ...more.flatMap((o) => ['-pkeyopt', o])).secret;
    const [p256, another] = [ec('P-256'), ec('P-256')];
    const mixed = Buffer.concat([p256.subarray(0, -64), another.subarray(-64)]);
    const cases: [string, string, Uint8Array][] = [
      ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', randomBytes(16)],
      ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', randomBytes(33)],
      ['HMAC_384', 'GENERATE_VERIFY_MAC', randomBytes(32)],
      ['ECC_NIST_P256', 'SIGN_VERIFY', ec('secp256k1')],
      ['ECC_NIST_P256', 'SIGN_VERIFY', mixed],
      ['ECC_NIST_P256', 'SIGN_VERIFY', randomBytes(32)],
      ['ECC_NIST_EDWARDS25519', 'SIGN_VERIFY', p256],
      ['RSA_2048', 'SIGN_VERIFY', rsa('rsa_keygen_bits:3072')],
      ['RSA_2048', 'SIGN_VERIFY', rsa('rsa_keygen_bits:2048', 'rsa_keygen_pubexp:3')],
      ['RSA_2048', 'SIGN_VERIFY', p256],
    ];
    for (const [KeySpec, KeyUsage, material] of cases) {
      const { KeyId } = await newKey({ KeySpec, KeyUsage });
      const algorithm = KeySpec.startsWith('RSA') ? 'RSA_AES_KEY_WRAP_SHA_256' : 'RSAES_OAEP_SHA_256';
      const input = { KeyId, ...(await wrapped(KeyId, material, { algorithm })), ...never };
      expect(await kms.code('ImportKeyMaterial', input), KeySpec).toBe('IncorrectKeyMaterialException');
      expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
    }
  });

  test('members that do not go together', async () => {
    const { KeyId } = await newKey();
    const { KeyId: mac } = await newKey({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    const blobs = { ImportToken: randomBytes(90), EncryptedKeyMaterial: randomBytes(256) };
    const fails = (input: object) => kms.fails('ImportKeyMaterial', { KeyId, ...blobs, ...input });
    expect(await fails({})).toEqual({
      code: 'ValidationException',
      message: 'A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES',
    });
    const now = kms.clock.now();
    const KeyMaterialId = 'a'.repeat(64);
    for (const input of [
      { ...never, ValidTo: new Date(now + day) },
      { ValidTo: new Date(now) },
      { ValidTo: new Date(now + 365 * day + 1000) },
      { ...never, KeyMaterialId, ImportType: 'NEW_KEY_MATERIAL' },
      { ...never, KeyMaterialId: 'x' },
      { ...never, KeyMaterialDescription: 'what?' },
      { ...never, KeyId: mac, ImportType: 'NEW_KEY_MATERIAL' },
      { ...never, KeyId: mac, KeyMaterialDescription: 'mine' },
    ])
      expect((await fails(input)).code, JSON.stringify(input)).toBe('ValidationException');
    expect((await fails({ ValidTo: 'tomorrow' })).code).toBe('SerializationException');
    const own = await kms.key();
    expect((await fails({ ...never, KeyId: own.KeyId })).code).toBe('UnsupportedOperationException');
    await kms.run('ScheduleKeyDeletion', { KeyId });
    expect((await fails(never)).code).toBe('KMSInvalidStateException');
  });
});

test('an import is recorded without material, and policies see when it ends', async () => {
  const { KeyId, Arn } = await newKey();
  const ValidTo = new Date(kms.clock.now() + 365 * day);
  const { KeyMaterialId } = await importInto(KeyId, randomBytes(32), { ValidTo, KeyMaterialDescription: 'first' });
  expect(kms.last.access[0]!.context).toMatchObject({
    'kms:ExpirationModel': 'KEY_MATERIAL_EXPIRES',
    'kms:ValidTo': ValidTo.toISOString().replace('.000', ''),
  });
  expect(kms.last.record).toEqual({
    requestParameters: {
      keyId: KeyId,
      expirationModel: 'KEY_MATERIAL_EXPIRES',
      validTo: 'Jan 2, 2027, 3:04:05 AM',
      keyMaterialDescription: 'first',
    },
    responseElements: { keyId: Arn, keyMaterialId: KeyMaterialId },
    resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
  });
});
