/** Sign, Verify and GetPublicKey, against `node:crypto` and against OpenSSL's command line. */
import { createHash, createPublicKey, hash, type KeyObject } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { Openssl } from './testing-openssl.ts';

let kms: TestKms;
const openssl = new Openssl();
const keys = new Map<string, { KeyId: string; Arn: string }>();

const digestOf = { 256: 'sha256', 384: 'sha384', 512: 'sha512' } as const;
const rsaAlgorithms = ['RSASSA_PSS_SHA_', 'RSASSA_PKCS1_V1_5_SHA_'].flatMap((name) =>
  ([256, 384, 512] as const).map((bits) => [`${name}${bits}`, digestOf[bits]] as const),
);
/** Every spec with every algorithm that hashes the message first. */
const hashing: ReadonlyArray<readonly [spec: string, algorithm: string, digest: string]> = [
  ...['RSA_2048', 'RSA_3072', 'RSA_4096'].flatMap((spec) => rsaAlgorithms.map((pair) => [spec, ...pair] as const)),
  ['ECC_NIST_P256', 'ECDSA_SHA_256', 'sha256'],
  ['ECC_NIST_P384', 'ECDSA_SHA_384', 'sha384'],
  ['ECC_NIST_P521', 'ECDSA_SHA_512', 'sha512'],
  ['ECC_SECG_P256K1', 'ECDSA_SHA_256', 'sha256'],
];
const mlDsa = { ML_DSA_44: 1312, ML_DSA_65: 1952, ML_DSA_87: 2592 } as const;
const Message = Buffer.from('the message');

beforeAll(async () => {
  kms = await TestKms.create();
  for (const KeySpec of new Set([...hashing.map(([spec]) => spec), 'ECC_NIST_EDWARDS25519', ...Object.keys(mlDsa)]))
    keys.set(KeySpec, await kms.key({ KeySpec, KeyUsage: 'SIGN_VERIFY' }));
});
afterAll(() => openssl.remove());

async function publicKeyOf(spec: string): Promise<KeyObject> {
  const { PublicKey } = await kms.run('GetPublicKey', { KeyId: keys.get(spec)!.KeyId });
  return createPublicKey({ key: PublicKey, format: 'der', type: 'spki' });
}

const paddingOptions = (algorithm: string) =>
  algorithm.startsWith('RSASSA_PSS') ? ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest'] : [];

describe.each(hashing)('%s %s', (spec, SigningAlgorithm, digest) => {
  const input = () => ({ KeyId: keys.get(spec)!.KeyId, Message, SigningAlgorithm });
  const hashed = () => ({ ...input(), Message: hash(digest, Message, 'buffer'), MessageType: 'DIGEST' });

  test('a message and its digest are the same to Sign and Verify', async () => {
    for (const signed of [input(), { ...input(), MessageType: 'RAW' }, hashed()]) {
      const { Signature, ...answer } = await kms.run('Sign', signed);
      expect(answer).toEqual({ KeyId: keys.get(spec)!.Arn, SigningAlgorithm });
      for (const verified of [input(), hashed()])
        expect(await kms.run('Verify', { ...verified, Signature })).toEqual({ ...answer, SignatureValid: true });
    }
  });

  test('the openssl command takes what Sign makes', async () => {
    const key = openssl.file('public.pem', (await publicKeyOf(spec)).export({ format: 'pem', type: 'spki' }));
    const message = openssl.file('message', Message);
    for (const signed of [input(), hashed()]) {
      const signature = openssl.file('signature', (await kms.run('Sign', signed)).Signature);
      const options = [`-${digest}`, '-verify', key, '-signature', signature, ...paddingOptions(SigningAlgorithm)];
      expect(openssl.run('dgst', ...options, message)).toContain('Verified OK');
    }
  });

  test('a signature over anything else is not valid', async () => {
    const { Signature } = await kms.run('Sign', input());
    const changed = Buffer.from(Signature);
    changed[changed.length - 1]! ^= 1;
    const wrong = [
      { ...input(), Signature: changed },
      { ...input(), Signature: Signature.subarray(0, -1) },
      { ...input(), Signature: Buffer.concat([Signature, Buffer.of(0)]) },
      { ...input(), Signature: Buffer.alloc(Signature.length) },
      { ...input(), Signature, Message: Buffer.from('another message') },
      { ...hashed(), Signature: changed },
      { ...hashed(), Signature: Buffer.of(1) },
      { ...hashed(), Signature, Message: hash(digest, 'another message', 'buffer') },
      // The digest taken for a message is hashed once more.
      { ...hashed(), Signature, MessageType: 'RAW' },
    ];
    for (const verified of wrong)
      expect(await kms.fails('Verify', verified)).toEqual({ code: 'KMSInvalidSignatureException', message: '' });
  });

  test('a digest has exactly the length of the algorithm’s', async () => {
    const length = hash(digest, '', 'buffer').length;
    for (const wrong of [1, 20, length - 1, length + 1, 32, 48, 64].filter((bytes) => bytes !== length))
      for (const name of ['Sign', 'Verify'])
        expect(
          await kms.fails(name, { ...hashed(), Message: Buffer.alloc(wrong, 1), Signature: Buffer.of(1) }),
        ).toEqual({
          code: 'ValidationException',
          message: `Digest is invalid length for algorithm ${SigningAlgorithm}.`,
        });
  });
});

describe('keys whose private half the openssl command has', () => {
  test.each([
    ['RSA_2048', 'RSASSA_PSS_SHA_256', 'sha256', ['rsa', '-pkeyopt', 'rsa_keygen_bits:2048']],
    ['RSA_2048', 'RSASSA_PKCS1_V1_5_SHA_512', 'sha512', ['rsa', '-pkeyopt', 'rsa_keygen_bits:2048']],
    ['RSA_3072', 'RSASSA_PSS_SHA_384', 'sha384', ['rsa', '-pkeyopt', 'rsa_keygen_bits:3072']],
    ['RSA_4096', 'RSASSA_PKCS1_V1_5_SHA_256', 'sha256', ['rsa', '-pkeyopt', 'rsa_keygen_bits:4096']],
    ['ECC_NIST_P256', 'ECDSA_SHA_256', 'sha256', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']],
    ['ECC_NIST_P384', 'ECDSA_SHA_384', 'sha384', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']],
    ['ECC_NIST_P521', 'ECDSA_SHA_512', 'sha512', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-521']],
    ['ECC_SECG_P256K1', 'ECDSA_SHA_256', 'sha256', ['ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1']],
  ])('%s %s: signed there, verified here', async (KeySpec, SigningAlgorithm, digest, parameters) => {
    const { KeyId } = await kms.key({ KeySpec, KeyUsage: 'SIGN_VERIFY' });
    const { secret, publicKey } = openssl.keyPair('-algorithm', ...parameters);
    await kms.replaceMaterial(KeyId, secret, publicKey);
    const [key, message, signature] = [
      openssl.file('private.der'),
      openssl.file('message', Message),
      openssl.file('s'),
    ];
    const options = ['-keyform', 'DER', '-sign', key, '-out', signature, ...paddingOptions(SigningAlgorithm)];
    openssl.run('dgst', `-${digest}`, ...options, message);
    const input = { KeyId, SigningAlgorithm, Signature: openssl.read('s') };
    expect(await kms.run('Verify', { ...input, Message })).toMatchObject({ SignatureValid: true });
    const Digest = hash(digest, Message, 'buffer');
    expect(await kms.run('Verify', { ...input, Message: Digest, MessageType: 'DIGEST' })).toMatchObject({
      SignatureValid: true,
    });
  });

  test('ECC_NIST_EDWARDS25519 ED25519_SHA_512: both ways', async () => {
    const input = { SigningAlgorithm: 'ED25519_SHA_512', Message };
    const { KeyId } = await kms.key({ KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' });
    const message = openssl.file('message', Message);
    const key = openssl.file('public.der', (await kms.run('GetPublicKey', { KeyId })).PublicKey);
    const signature = openssl.file('signature', (await kms.run('Sign', { ...input, KeyId })).Signature);
    const verify = ['-verify', '-pubin', '-inkey', key, '-keyform', 'DER', '-rawin', '-in', message];
    expect(openssl.run('pkeyutl', ...verify, '-sigfile', signature)).toContain('Signature Verified Successfully');

    const { secret, publicKey } = openssl.keyPair('-algorithm', 'ed25519');
    await kms.replaceMaterial(KeyId, secret, publicKey);
    const sign = ['-sign', '-inkey', openssl.file('private.der'), '-keyform', 'DER', '-rawin', '-in', message];
    openssl.run('pkeyutl', ...sign, '-out', signature);
    expect(await kms.run('Verify', { ...input, KeyId, Signature: openssl.read('signature') })).toMatchObject({
      SignatureValid: true,
    });
  });
});

describe('ECC_NIST_EDWARDS25519', () => {
  const input = (more: object) => ({ KeyId: keys.get('ECC_NIST_EDWARDS25519')!.KeyId, Message, ...more });

  test('signs a message as it is', async () => {
    const raw = input({ SigningAlgorithm: 'ED25519_SHA_512' });
    const { Signature } = await kms.run('Sign', raw);
    expect(Signature).toHaveLength(64);
    expect(await kms.run('Verify', { ...raw, Signature })).toMatchObject({ SignatureValid: true });
    expect(await kms.code('Verify', { ...raw, Message: Buffer.from('x'), Signature })).toBe(
      'KMSInvalidSignatureException',
    );
  });

  test('hashes the digest once more for ED25519_PH_SHA_512, which is no ED25519_SHA_512', async () => {
    const digest = hash('sha512', Message, 'buffer');
    const prehashed = input({ SigningAlgorithm: 'ED25519_PH_SHA_512', MessageType: 'DIGEST', Message: digest });
    const { Signature } = await kms.run('Sign', prehashed);
    expect(await kms.run('Verify', { ...prehashed, Signature })).toMatchObject({ SignatureValid: true });
    for (const other of [
      { ...prehashed, Message: hash('sha512', 'x', 'buffer') },
      { ...prehashed, SigningAlgorithm: 'ED25519_SHA_512', MessageType: 'RAW' },
    ])
      expect(await kms.code('Verify', { ...other, Signature })).toBe('KMSInvalidSignatureException');
  });

  test('wants for each algorithm its one message type', async () => {
    const refused = (SigningAlgorithm: string, MessageType: string) =>
      kms.fails('Sign', input({ SigningAlgorithm, MessageType, Message: Buffer.alloc(64) }));
    for (const [algorithm, type] of [
      ['ED25519_SHA_512', 'DIGEST'],
      ['ED25519_PH_SHA_512', 'RAW'],
      ['ED25519_PH_SHA_512', 'EXTERNAL_MU'],
    ] as const)
      expect(await refused(algorithm, type)).toEqual({
        code: 'ValidationException',
        message: `Message type ${type} is incompatible with algorithm ${algorithm}.`,
      });
    expect(
      await kms.fails('Sign', input({ SigningAlgorithm: 'ED25519_PH_SHA_512', MessageType: 'DIGEST' })),
    ).toMatchObject({ message: 'Digest is invalid length for algorithm ED25519_PH_SHA_512.' });
  });
});

describe.each(Object.entries(mlDsa))('%s', (spec, publicKeyBytes) => {
  const input = (more: object = {}) => ({
    KeyId: keys.get(spec)!.KeyId,
    Message,
    SigningAlgorithm: 'ML_DSA_SHAKE_256',
    ...more,
  });
  /** FIPS 204, algorithms 2 and 7, for an empty context. */
  const externalMu = async () => {
    const shake = (...parts: Uint8Array[]) =>
      parts.reduce((state, part) => state.update(part), createHash('shake256', { outputLength: 64 })).digest();
    const encoded = (await publicKeyOf(spec)).export({ format: 'der', type: 'spki' });
    return shake(shake(encoded.subarray(encoded.length - publicKeyBytes)), Buffer.of(0, 0), Message);
  };

  test('a message and its μ are the same to Sign and Verify', async () => {
    const mu = { MessageType: 'EXTERNAL_MU', Message: await externalMu() };
    for (const signed of [input(), input(mu)]) {
      const { Signature } = await kms.run('Sign', signed);
      for (const verified of [input(), input(mu)])
        expect(await kms.run('Verify', { ...verified, Signature })).toMatchObject({ SignatureValid: true });
      expect(await kms.code('Verify', { ...input({ Message: Buffer.from('x') }), Signature })).toBe(
        'KMSInvalidSignatureException',
      );
    }
  });

  test('takes no digest, and no μ of another length', async () => {
    expect(await kms.fails('Sign', input({ MessageType: 'DIGEST', Message: Buffer.alloc(64) }))).toEqual({
      code: 'ValidationException',
      message: `Message type DIGEST is incompatible with key spec ${spec}.`,
    });
    expect(await kms.code('Sign', input({ MessageType: 'EXTERNAL_MU' }))).toBe('ValidationException');
  });
});

test('Ed25519ph gives the signature of RFC 8032, section 7.3', async () => {
  const { preparedSignatures } = await import('../crypto/prepared-signatures.ts');
  const seed = '833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42';
  const privateKey = Buffer.from(`302e020100300506032b657004220420${seed}`, 'hex');
  expect(preparedSignatures()!.sign(privateKey, { kind: 'ed25519ph' }, Buffer.from('abc')).toString('hex')).toBe(
    '98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41' +
      '31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406',
  );
});

test('messages have 1 to 4096 bytes', async () => {
  const { KeyId } = keys.get('ECC_NIST_P256')!;
  const input = { KeyId, SigningAlgorithm: 'ECDSA_SHA_256' };
  const long = { ...input, Message: Buffer.alloc(4096) };
  const { Signature } = await kms.run('Sign', long);
  await kms.run('Verify', { ...long, Signature });
  const constraint = "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have";
  for (const name of ['Sign', 'Verify']) {
    expect(await kms.fails(name, { ...input, Signature, Message: Buffer.alloc(4097) })).toEqual({
      code: 'ValidationException',
      message: `${constraint} length less than or equal to 4096`,
    });
    expect(await kms.fails(name, { ...input, Signature, Message: Buffer.alloc(0) })).toEqual({
      code: 'ValidationException',
      message: `${constraint} length greater than or equal to 1`,
    });
    expect(await kms.code(name, { ...input, Signature })).toBe('ValidationException');
    expect(await kms.code(name, { KeyId, Message, Signature })).toBe('ValidationException');
    expect(await kms.code(name, { ...long, Signature, SigningAlgorithm: 'MD5' })).toBe('ValidationException');
  }
  expect(await kms.code('Verify', { ...long, Signature: Buffer.alloc(6145) })).toBe('ValidationException');
});

test('keys and algorithms that don’t go together are named', async () => {
  const encryption = await kms.key();
  const mac = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
  for (const name of ['Sign', 'Verify']) {
    const input = { Message, SigningAlgorithm: 'ECDSA_SHA_256', Signature: Buffer.of(1) };
    for (const [{ KeyId, Arn }, usage] of [
      [encryption, 'ENCRYPT_DECRYPT'],
      [mac, 'GENERATE_VERIFY_MAC'],
    ])
      expect(await kms.fails(name, { ...input, KeyId })).toEqual({
        code: 'InvalidKeyUsageException',
        message: `${Arn} key usage is ${usage} which is not valid for ${name}.`,
      });
    for (const [spec, algorithm] of [
      ['ECC_NIST_P384', 'ECDSA_SHA_256'],
      ['RSA_2048', 'SM2DSA'],
      ['ML_DSA_44', 'ED25519_SHA_512'],
    ] as const)
      expect(await kms.fails(name, { ...input, KeyId: keys.get(spec)!.KeyId, SigningAlgorithm: algorithm })).toEqual({
        code: 'InvalidKeyUsageException',
        message: `Algorithm ${algorithm} is incompatible with key spec ${spec}.`,
      });
  }
});

test('Sign and Verify are decided by algorithm and message type, and recorded without message or signature', async () => {
  const { KeyId, Arn } = await kms.key({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
  await kms.run('CreateAlias', { AliasName: 'alias/signer', TargetKeyId: KeyId });
  const input = { KeyId: 'alias/signer', Message, SigningAlgorithm: 'ECDSA_SHA_256' };
  const { Signature } = await kms.run('Sign', input);
  for (const name of ['Sign', 'Verify']) {
    await kms.run(name, { ...input, Signature });
    expect(kms.last.access).toMatchObject([
      {
        action: `kms:${name}`,
        resource: Arn,
        context: {
          'kms:SigningAlgorithm': 'ECDSA_SHA_256',
          'kms:MessageType': 'RAW',
          'kms:RequestAlias': 'alias/signer',
          'kms:KeySpec': 'ECC_NIST_P256',
          'kms:KeyUsage': 'SIGN_VERIFY',
        },
      },
    ]);
    expect(kms.last.record).toEqual({
      requestParameters: { keyId: 'alias/signer', messageType: 'RAW', signingAlgorithm: 'ECDSA_SHA_256' },
      responseElements: undefined,
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    });
    expect(kms.kms.operations[name]!.readOnly).toBe(true);
    expect(await kms.code(name, { ...input, Signature, DryRun: true })).toBe('DryRunOperationException');
  }
  await kms.run('DisableKey', { KeyId });
  for (const name of ['Sign', 'Verify'])
    expect(await kms.fails(name, { ...input, Signature, DryRun: true })).toEqual({
      code: 'DisabledException',
      message: `${Arn} is disabled.`,
    });
});

describe('GetPublicKey', () => {
  test('gives the key with what it is for', async () => {
    const { KeyId, Arn } = keys.get('ECC_SECG_P256K1')!;
    const { PublicKey, ...answer } = await kms.run('GetPublicKey', { KeyId });
    expect(answer).toEqual({
      KeyId: Arn,
      CustomerMasterKeySpec: 'ECC_SECG_P256K1',
      KeySpec: 'ECC_SECG_P256K1',
      KeyUsage: 'SIGN_VERIFY',
      SigningAlgorithms: ['ECDSA_SHA_256'],
    });
    expect((await publicKeyOf('ECC_SECG_P256K1')).asymmetricKeyDetails).toEqual({ namedCurve: 'secp256k1' });
    expect(PublicKey).toHaveLength(88);
    const rsa = await kms.key({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
    expect(await kms.run('GetPublicKey', { KeyId: rsa.Arn })).toMatchObject({
      KeyUsage: 'ENCRYPT_DECRYPT',
      EncryptionAlgorithms: ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'],
    });
    const agreement = await kms.key({ KeySpec: 'ECC_NIST_P384', KeyUsage: 'KEY_AGREEMENT' });
    expect(await kms.run('GetPublicKey', { KeyId: agreement.KeyId })).toMatchObject({
      KeyAgreementAlgorithms: ['ECDH'],
    });
  });

  test('is refused for keys without a public half, and for keys that will be deleted', async () => {
    for (const input of [{}, { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' }])
      expect(await kms.code('GetPublicKey', { KeyId: (await kms.key(input)).KeyId })).toBe(
        'UnsupportedOperationException',
      );
    const { KeyId } = await kms.key({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
    await kms.run('DisableKey', { KeyId });
    await kms.run('GetPublicKey', { KeyId });
    await kms.run('ScheduleKeyDeletion', { KeyId });
    expect(await kms.code('GetPublicKey', { KeyId })).toBe('KMSInvalidStateException');
    const imported = await kms.key({ KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY', Origin: 'EXTERNAL' });
    expect(await kms.code('GetPublicKey', { KeyId: imported.KeyId })).toBe('KMSInvalidStateException');
  });
});
