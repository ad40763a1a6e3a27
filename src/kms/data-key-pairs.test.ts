import { createPrivateKey, createPublicKey } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { DataKeyPairSpec } from '@aws-sdk/client-kms';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { Openssl } from './testing-openssl.ts';

let kms: TestKms;
const openssl = new Openssl();
beforeEach(async () => {
  kms = await TestKms.create();
});
afterAll(() => openssl.remove());

const EncryptionContext = { purpose: 'test' };
/** What OpenSSL calls the keys of each spec. */
const types: Readonly<Record<string, string>> = {
  RSA_2048: 'rsa 2048',
  RSA_3072: 'rsa 3072',
  RSA_4096: 'rsa 4096',
  ECC_NIST_P256: 'ec prime256v1',
  ECC_NIST_P384: 'ec secp384r1',
  ECC_NIST_P521: 'ec secp521r1',
  ECC_SECG_P256K1: 'ec secp256k1',
  ECC_NIST_EDWARDS25519: 'ed25519 ',
  ML_KEM_512: 'ml-kem-512 ',
  ML_KEM_768: 'ml-kem-768 ',
  ML_KEM_1024: 'ml-kem-1024 ',
};

test('every spec of the API is made or refused', () => {
  expect([...Object.keys(types), 'SM2'].sort()).toEqual(Object.values(DataKeyPairSpec).sort());
});

describe.each(Object.entries(types))('%s', (KeyPairSpec, type) => {
  test('gives a pair, and its private half encrypted', async () => {
    const { KeyId, Arn, CurrentKeyMaterialId } = await kms.key();
    const pair = await kms.run('GenerateDataKeyPair', { KeyId, KeyPairSpec, EncryptionContext });
    const { PrivateKeyPlaintext, PrivateKeyCiphertextBlob, PublicKey, ...rest } = pair;
    expect(rest).toEqual({ KeyId: Arn, KeyPairSpec, KeyMaterialId: CurrentKeyMaterialId });
    const privateKey = createPrivateKey({ key: PrivateKeyPlaintext, format: 'der', type: 'pkcs8' });
    const { modulusLength, namedCurve } = privateKey.asymmetricKeyDetails ?? {};
    expect(`${privateKey.asymmetricKeyType} ${modulusLength ?? namedCurve ?? ''}`).toBe(type);
    expect(createPublicKey(privateKey).export({ format: 'der', type: 'spki' })).toEqual(PublicKey);
    expect(PrivateKeyCiphertextBlob.length).toBeLessThanOrEqual(6144);
    const opened = await kms.run('Decrypt', { CiphertextBlob: PrivateKeyCiphertextBlob, EncryptionContext });
    expect(opened.Plaintext).toEqual(PrivateKeyPlaintext);
    expect(await kms.code('Decrypt', { CiphertextBlob: PrivateKeyCiphertextBlob })).toBe('InvalidCiphertextException');
  });
});

test('without plaintext, the private half comes encrypted only', async () => {
  const { KeyId, Arn } = await kms.key();
  const input = { KeyId, KeyPairSpec: 'ECC_NIST_P256', EncryptionContext };
  const pair = await kms.run('GenerateDataKeyPairWithoutPlaintext', input);
  expect(Object.keys(pair).sort()).toEqual([
    'KeyId',
    'KeyMaterialId',
    'KeyPairSpec',
    'PrivateKeyCiphertextBlob',
    'PublicKey',
  ]);
  expect(pair.KeyId).toBe(Arn);
  const opened = await kms.run('Decrypt', { CiphertextBlob: pair.PrivateKeyCiphertextBlob, EncryptionContext });
  const privateKey = createPrivateKey({ key: opened.Plaintext, format: 'der', type: 'pkcs8' });
  expect(createPublicKey(privateKey).export({ format: 'der', type: 'spki' })).toEqual(pair.PublicKey);
});

test('the openssl command takes both halves', async () => {
  const { KeyId } = await kms.key();
  for (const KeyPairSpec of ['RSA_2048', 'ECC_SECG_P256K1']) {
    const pair = await kms.run('GenerateDataKeyPair', { KeyId, KeyPairSpec });
    const secret = openssl.file('secret', pair.PrivateKeyPlaintext);
    openssl.run('pkey', '-in', secret, '-inform', 'DER', '-check', '-noout');
    openssl.run('pkey', '-in', secret, '-inform', 'DER', '-pubout', '-outform', 'DER', '-out', openssl.file('public'));
    expect(openssl.read('public')).toEqual(pair.PublicKey);
  }
});

test.each(['GenerateDataKeyPair', 'GenerateDataKeyPairWithoutPlaintext'])(
  '%s refuses what it can’t do',
  async (name) => {
    const { KeyId, Arn } = await kms.key();
    const input = { KeyId, KeyPairSpec: 'ECC_NIST_P256' };
    expect(await kms.fails(name, { ...input, KeyPairSpec: 'SM2' })).toEqual({
      code: 'UnsupportedOperationException',
      message: 'KeySpec SM2 is not supported in this Region.',
    });
    expect(await kms.code(name, { ...input, KeyPairSpec: 'RSA_1024' })).toBe('ValidationException');
    expect(await kms.code(name, { KeyId })).toBe('ValidationException');
    const rsa = await kms.key({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
    expect(await kms.fails(name, { ...input, KeyId: rsa.KeyId })).toEqual({
      code: 'InvalidKeyUsageException',
      message: `${rsa.Arn} key spec is RSA_2048 which is not valid for ${name}.`,
    });
    expect(await kms.code(name, { ...input, DryRun: true })).toBe('DryRunOperationException');
    await kms.run('DisableKey', { KeyId });
    expect(await kms.fails(name, { ...input, DryRun: true })).toEqual({
      code: 'DisabledException',
      message: `${Arn} is disabled.`,
    });
  },
);

test('a key that was disabled while the pair was made encrypts nothing', async () => {
  const { KeyId, Arn } = await kms.key();
  const pair = kms.run('GenerateDataKeyPair', { KeyId, KeyPairSpec: 'RSA_4096' });
  const refused = expect(pair).rejects.toMatchObject({ code: 'DisabledException', message: `${Arn} is disabled.` });
  // The next transaction after the one in which the request was found to be allowed.
  await kms.run('DisableKey', { KeyId });
  await refused;
});

test('an RSA pair keeps nobody waiting', async () => {
  const { KeyId } = await kms.key();
  const order: string[] = [];
  const pairs = Promise.all(
    Array.from({ length: 3 }, () =>
      kms.run('GenerateDataKeyPair', { KeyId, KeyPairSpec: 'RSA_4096' }).then(() => order.push('pair')),
    ),
  );
  for (let at = 0; at < 5; at++) await kms.run('DescribeKey', { KeyId }).then(() => order.push('key'));
  await pairs;
  expect(order).toHaveLength(8);
  // The first may be made at once, by luck.
  expect(order.at(-1)).toBe('pair');
});

test('more RSA pairs than there are processors are made all the same, one after the other', async () => {
  const { KeyId } = await kms.key();
  const input = { KeyId, KeyPairSpec: 'RSA_2048' };
  const pairs = await Promise.all(
    Array.from({ length: 2 * availableParallelism() }, () => kms.run('GenerateDataKeyPair', input)),
  );
  const distinct = new Set(pairs.map(({ PublicKey }) => PublicKey.toString('hex')));
  expect(distinct.size).toBe(pairs.length);
});

test('spec and context decide about access, and are recorded', async () => {
  const { KeyId, Arn, CurrentKeyMaterialId } = await kms.key();
  await kms.run('GenerateDataKeyPair', { KeyId, KeyPairSpec: 'ECC_NIST_P384', EncryptionContext });
  expect(kms.last.access).toMatchObject([
    {
      action: 'kms:GenerateDataKeyPair',
      resource: Arn,
      context: {
        'kms:DataKeyPairSpec': 'ECC_NIST_P384',
        'kms:EncryptionAlgorithm': 'SYMMETRIC_DEFAULT',
        'kms:EncryptionContext:purpose': 'test',
      },
    },
  ]);
  expect(kms.last.record).toEqual({
    requestParameters: { keyId: KeyId, keyPairSpec: 'ECC_NIST_P384', encryptionContext: EncryptionContext },
    responseElements: undefined,
    resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    additionalEventData: { keyMaterialId: CurrentKeyMaterialId },
  });
  expect(kms.kms.operations.GenerateDataKeyPair!.readOnly).toBe(true);
});
