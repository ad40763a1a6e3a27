import { constants, createPublicKey, publicEncrypt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { Openssl } from './testing-openssl.ts';

let kms: TestKms;
const openssl = new Openssl();
const keys = new Map<string, { KeyId: string; Arn: string }>();
const specs = [
  ['RSA_2048', 'RSAES_OAEP_SHA_1', 'sha1', 214],
  ['RSA_2048', 'RSAES_OAEP_SHA_256', 'sha256', 190],
  ['RSA_3072', 'RSAES_OAEP_SHA_1', 'sha1', 342],
  ['RSA_3072', 'RSAES_OAEP_SHA_256', 'sha256', 318],
  ['RSA_4096', 'RSAES_OAEP_SHA_1', 'sha1', 470],
  ['RSA_4096', 'RSAES_OAEP_SHA_256', 'sha256', 446],
] as const;
const invalid = { code: 'InvalidCiphertextException', message: '' };
const bytes = (text: string) => Buffer.from(text);

beforeAll(async () => {
  kms = await TestKms.create();
  for (const [KeySpec] of specs)
    if (!keys.has(KeySpec)) {
      const key = await kms.key({ KeySpec, KeyUsage: 'ENCRYPT_DECRYPT' });
      keys.set(KeySpec, key);
      const { secret, publicKey } = openssl.keyPair(
        '-algorithm',
        'RSA',
        '-pkeyopt',
        `rsa_keygen_bits:${KeySpec.slice(4)}`,
      );
      openssl.file(`${KeySpec}.der`, secret);
      await kms.replaceMaterial(key.KeyId, secret, publicKey);
    }
});
afterAll(() => openssl.remove());

describe.each(specs)('%s %s', (spec, EncryptionAlgorithm, hash, max) => {
  const input = () => ({ KeyId: keys.get(spec)!.KeyId, EncryptionAlgorithm });
  const options = ['rsa_padding_mode:oaep', `rsa_oaep_md:${hash}`, `rsa_mgf1_md:${hash}`].flatMap((option) => [
    '-pkeyopt',
    option,
  ]);

  test('takes as much as the padding leaves, and gives it back', async () => {
    const Plaintext = Buffer.alloc(max, 5);
    const { CiphertextBlob, ...answer } = await kms.run('Encrypt', { ...input(), Plaintext });
    expect(answer).toEqual({ KeyId: keys.get(spec)!.Arn, EncryptionAlgorithm });
    expect(CiphertextBlob).toHaveLength(Number(spec.slice(4)) / 8);
    expect(await kms.run('Decrypt', { ...input(), CiphertextBlob })).toEqual({ ...answer, Plaintext });
    expect(await kms.fails('Encrypt', { ...input(), Plaintext: Buffer.alloc(max + 1) })).toEqual({
      code: 'ValidationException',
      message: `Algorithm ${EncryptionAlgorithm} and key spec ${spec} cannot encrypt data larger than ${max} bytes.`,
    });
  });

  test('the openssl command decrypts what was encrypted here, and the other way round', async () => {
    const { CiphertextBlob } = await kms.run('Encrypt', { ...input(), Plaintext: bytes('hello') });
    const [key, sealed, opened] = [
      openssl.file(`${spec}.der`),
      openssl.file('sealed', CiphertextBlob),
      openssl.file('o'),
    ];
    openssl.run('pkeyutl', '-decrypt', '-inkey', key, '-keyform', 'DER', '-in', sealed, '-out', opened, ...options);
    expect(openssl.read('o')).toEqual(bytes('hello'));

    const { PublicKey } = await kms.run('GetPublicKey', { KeyId: input().KeyId });
    const publicKey = ['-pubin', '-inkey', openssl.file('public.der', PublicKey), '-keyform', 'DER'];
    openssl.run(
      'pkeyutl',
      '-encrypt',
      ...publicKey,
      '-in',
      openssl.file('plain', 'outside'),
      '-out',
      sealed,
      ...options,
    );
    const decrypted = await kms.run('Decrypt', { ...input(), CiphertextBlob: openssl.read('sealed') });
    expect(decrypted.Plaintext).toEqual(bytes('outside'));
  });

  test('whatever is wrong with a ciphertext, the answer is the same', async () => {
    const { CiphertextBlob } = await kms.run('Encrypt', { ...input(), Plaintext: bytes('x') });
    const changed = Buffer.from(CiphertextBlob);
    changed[9]! ^= 1;
    const other = EncryptionAlgorithm === 'RSAES_OAEP_SHA_1' ? 'RSAES_OAEP_SHA_256' : 'RSAES_OAEP_SHA_1';
    for (const wrong of [
      { CiphertextBlob: changed },
      { CiphertextBlob: CiphertextBlob.subarray(1) },
      { CiphertextBlob: Buffer.concat([CiphertextBlob, Buffer.of(0)]) },
      { CiphertextBlob: Buffer.alloc(CiphertextBlob.length, 0xff) },
      { CiphertextBlob: Buffer.alloc(CiphertextBlob.length) },
      { CiphertextBlob, EncryptionAlgorithm: other },
    ])
      expect(await kms.fails('Decrypt', { ...input(), ...wrong })).toEqual(invalid);
  });
});

test('a ciphertext without its leading zero is none', async () => {
  const input = { KeyId: keys.get('RSA_2048')!.KeyId, EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' };
  let ciphertext: Buffer;
  do {
    ciphertext = (await kms.run('Encrypt', { ...input, Plaintext: bytes('x') })).CiphertextBlob;
  } while (ciphertext[0] !== 0);
  expect((await kms.run('Decrypt', { ...input, CiphertextBlob: ciphertext })).Plaintext).toEqual(bytes('x'));
  expect(await kms.fails('Decrypt', { ...input, CiphertextBlob: ciphertext.subarray(1) })).toEqual(invalid);
});

test('another RSA key does not open it, and no key is found by the ciphertext alone', async () => {
  const { KeyId } = keys.get('RSA_2048')!;
  const other = await kms.key({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
  const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256';
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, EncryptionAlgorithm, Plaintext: bytes('x') });
  expect(await kms.fails('Decrypt', { KeyId: other.KeyId, EncryptionAlgorithm, CiphertextBlob })).toEqual(invalid);
  expect(await kms.code('Decrypt', { EncryptionAlgorithm, CiphertextBlob })).toBe('ValidationException');
  expect(await kms.fails('Decrypt', { CiphertextBlob })).toEqual(invalid);
  expect(await kms.fails('Decrypt', { KeyId, CiphertextBlob })).toEqual({
    code: 'InvalidKeyUsageException',
    message: 'Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.',
  });
});

test('an encryption context goes with symmetric keys only', async () => {
  const { KeyId } = keys.get('RSA_2048')!;
  const more = { KeyId, EncryptionAlgorithm: 'RSAES_OAEP_SHA_1', EncryptionContext: { a: 'b' } };
  const refusal = {
    code: 'ValidationException',
    message: 'EncryptionContext is not supported when encrypting/decrypting with asymmetric CMKs.',
  };
  expect(await kms.fails('Encrypt', { ...more, Plaintext: bytes('x') })).toEqual(refusal);
  expect(await kms.fails('Decrypt', { ...more, CiphertextBlob: Buffer.alloc(256) })).toEqual(refusal);
});

test('SM2 has no keys here', async () => {
  const { KeyId } = keys.get('RSA_2048')!;
  expect(await kms.fails('Encrypt', { KeyId, EncryptionAlgorithm: 'SM2PKE', Plaintext: bytes('x') })).toEqual({
    code: 'InvalidKeyUsageException',
    message: 'Algorithm SM2PKE is incompatible with key spec RSA_2048.',
  });
});

describe('ReEncrypt', () => {
  const rsa = (side: 'Source' | 'Destination') => ({
    [`${side}KeyId`]: keys.get('RSA_2048')!.KeyId,
    [`${side}EncryptionAlgorithm`]: 'RSAES_OAEP_SHA_256',
  });

  test('moves between symmetric and RSA keys', async () => {
    const symmetric = await kms.key();
    const { Arn } = keys.get('RSA_2048')!;
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId: symmetric.KeyId, Plaintext: bytes('x') });
    const there = await kms.run('ReEncrypt', { CiphertextBlob, ...rsa('Destination') });
    expect(there).toMatchObject({
      SourceKeyId: symmetric.Arn,
      SourceKeyMaterialId: symmetric.CurrentKeyMaterialId,
      KeyId: Arn,
      SourceEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      DestinationEncryptionAlgorithm: 'RSAES_OAEP_SHA_256',
    });
    expect(there).not.toHaveProperty('DestinationKeyMaterialId');
    expect(kms.last.access.map((request) => request.context!['kms:EncryptionAlgorithm'])).toEqual([
      'SYMMETRIC_DEFAULT',
      'RSAES_OAEP_SHA_256',
    ]);
    const input = { CiphertextBlob: there.CiphertextBlob, DestinationKeyId: symmetric.KeyId, ...rsa('Source') };
    const back = await kms.run('ReEncrypt', input);
    expect(back).not.toHaveProperty('SourceKeyMaterialId');
    expect((await kms.run('Decrypt', { CiphertextBlob: back.CiphertextBlob })).Plaintext).toEqual(bytes('x'));
  });

  test('does not put more into an RSA ciphertext than fits', async () => {
    const { KeyId } = await kms.key();
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Buffer.alloc(191) });
    expect(await kms.code('ReEncrypt', { CiphertextBlob, ...rsa('Destination') })).toBe('ValidationException');
  });

  test('takes even a ciphertext of nothing', async () => {
    const { KeyId } = await kms.key();
    const { PublicKey } = await kms.run('GetPublicKey', { KeyId: keys.get('RSA_2048')!.KeyId });
    const key = createPublicKey({ key: PublicKey, format: 'der', type: 'spki' });
    const oaep = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const CiphertextBlob = publicEncrypt(oaep, Buffer.alloc(0));
    const moved = await kms.run('ReEncrypt', { CiphertextBlob, DestinationKeyId: KeyId, ...rsa('Source') });
    expect((await kms.run('Decrypt', { CiphertextBlob: moved.CiphertextBlob })).Plaintext).toHaveLength(0);
  });
});

test('a dry run checks all but an ignored ciphertext', async () => {
  const { KeyId } = keys.get('RSA_2048')!;
  const input = { KeyId, EncryptionAlgorithm: 'RSAES_OAEP_SHA_256', DryRun: true };
  expect(await kms.code('Encrypt', { ...input, Plaintext: bytes('x') })).toBe('DryRunOperationException');
  expect(await kms.code('Encrypt', { ...input, Plaintext: Buffer.alloc(200) })).toBe('ValidationException');
  const CiphertextBlob = Buffer.alloc(256, 1);
  expect(await kms.fails('Decrypt', { ...input, CiphertextBlob })).toEqual(invalid);
  const ignoring = { ...input, CiphertextBlob, DryRunModifiers: ['IGNORE_CIPHERTEXT'] };
  expect(await kms.code('Decrypt', ignoring)).toBe('DryRunOperationException');
});

test('the algorithm is recorded, and decides about access', async () => {
  const { KeyId, Arn } = keys.get('RSA_2048')!;
  const EncryptionAlgorithm = 'RSAES_OAEP_SHA_1';
  await kms.run('Encrypt', { KeyId, EncryptionAlgorithm, Plaintext: bytes('x') });
  expect(kms.last.access).toMatchObject([
    { action: 'kms:Encrypt', resource: Arn, context: { 'kms:EncryptionAlgorithm': EncryptionAlgorithm } },
  ]);
  expect(kms.last.record).toMatchObject({
    requestParameters: { keyId: KeyId, encryptionAlgorithm: EncryptionAlgorithm },
  });
});
