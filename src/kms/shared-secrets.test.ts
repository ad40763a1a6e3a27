import { createECDH, createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { Openssl } from './testing-openssl.ts';

let kms: TestKms;
const openssl = new Openssl();
beforeEach(async () => {
  kms = await TestKms.create();
});
afterAll(() => openssl.remove());

const KeyAgreementAlgorithm = 'ECDH';
const specs = [
  ['ECC_NIST_P256', 'prime256v1', 32],
  ['ECC_NIST_P384', 'secp384r1', 48],
  ['ECC_NIST_P521', 'secp521r1', 66],
] as const;
const newKey = (KeySpec: string) => kms.key({ KeySpec, KeyUsage: 'KEY_AGREEMENT' });
const publicKeyOf = async (KeyId: string): Promise<Buffer> => (await kms.run('GetPublicKey', { KeyId })).PublicKey;
const peer = (namedCurve: string) => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
  return { privateKey, PublicKey: publicKey.export({ format: 'der', type: 'spki' }) };
};

describe.each(specs)('%s', (spec, curve, length) => {
  test('two keys derive the same secret, each from the other’s public half', async () => {
    const [a, b] = [await newKey(spec), await newKey(spec)];
    const answer = await kms.run('DeriveSharedSecret', {
      KeyId: a.KeyId,
      KeyAgreementAlgorithm,
      PublicKey: await publicKeyOf(b.KeyId),
    });
    expect(answer).toEqual({
      KeyId: a.Arn,
      KeyAgreementAlgorithm,
      KeyOrigin: 'AWS_KMS',
      SharedSecret: expect.any(Buffer),
    });
    expect(answer.SharedSecret).toHaveLength(length);
    const PublicKey = await publicKeyOf(a.KeyId);
    const other = await kms.run('DeriveSharedSecret', { KeyId: b.KeyId, KeyAgreementAlgorithm, PublicKey });
    expect(other.SharedSecret).toEqual(answer.SharedSecret);
  });

  test('the openssl command derives it too', async () => {
    const { KeyId } = await newKey(spec);
    const { publicKey } = openssl.keyPair('-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`);
    const ours = openssl.file('ours.der', await publicKeyOf(KeyId));
    const secret = ['-inkey', openssl.file('private.der'), '-keyform', 'DER', '-out', openssl.file('secret')];
    openssl.run('pkeyutl', '-derive', ...secret, '-peerkey', ours, '-peerform', 'DER');
    const input = { KeyId, KeyAgreementAlgorithm, PublicKey: publicKey };
    expect((await kms.run('DeriveSharedSecret', input)).SharedSecret).toEqual(openssl.read('secret'));
  });
});

test('P-256 gives the value of NIST’s CAVS 14.1 ECC CDH vectors, count 0', async () => {
  const { KeyId } = await newKey('ECC_NIST_P256');
  const ours = createECDH('prime256v1');
  ours.setPrivateKey('7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534', 'hex');
  const point = ours.getPublicKey();
  const coordinates = (x: Buffer, y: Buffer) => ({
    kty: 'EC',
    crv: 'P-256',
    x: x.toString('base64url'),
    y: y.toString('base64url'),
  });
  const jwk = { ...coordinates(point.subarray(1, 33), point.subarray(33)), d: ours.getPrivateKey('base64url') };
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' });
  await kms.replaceMaterial(KeyId, privateKey.export({ format: 'der', type: 'pkcs8' }));
  const theirs = createPublicKey({
    key: coordinates(
      Buffer.from('700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287', 'hex'),
      Buffer.from('db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac', 'hex'),
    ),
    format: 'jwk',
  });
  const PublicKey = theirs.export({ format: 'der', type: 'spki' });
  const { SharedSecret } = await kms.run('DeriveSharedSecret', { KeyId, KeyAgreementAlgorithm, PublicKey });
  expect(SharedSecret.toString('hex')).toBe('46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b');
});

test('public keys that are no point of the key’s curve are refused', async () => {
  const { KeyId } = await newKey('ECC_NIST_P256');
  const good = peer('prime256v1');
  const offCurve = Buffer.from(good.PublicKey);
  offCurve[offCurve.length - 1]! ^= 1;
  const infinity = Buffer.concat([good.PublicKey.subarray(0, -65), Buffer.of(0)]);
  infinity[1]! -= 64;
  infinity[infinity.length - 3]! -= 64;
  // Even the right curve is to be named: its parameters are not for the other side to say.
  const explicit = (namedCurve: string) =>
    generateKeyPairSync('ec', { namedCurve, paramEncoding: 'explicit' }).publicKey.export({
      format: 'der',
      type: 'spki',
    });
  for (const PublicKey of [
    peer('secp384r1').PublicKey,
    peer('secp256k1').PublicKey,
    explicit('secp256k1'),
    explicit('prime256v1'),
    generateKeyPairSync('x25519').publicKey.export({ format: 'der', type: 'spki' }),
    generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'der', type: 'spki' }),
    offCurve,
    infinity,
    good.PublicKey.subarray(0, -1),
    good.PublicKey.subarray(-65),
    Buffer.from(good.PublicKey.toString('base64')),
  ])
    expect(await kms.fails('DeriveSharedSecret', { KeyId, KeyAgreementAlgorithm, PublicKey })).toMatchObject({
      code: 'ValidationException',
      message: expect.stringContaining('key spec ECC_NIST_P256'),
    });
  const { SharedSecret } = await kms.run('DeriveSharedSecret', {
    KeyId,
    KeyAgreementAlgorithm,
    PublicKey: good.PublicKey,
  });
  const publicKey = createPublicKey({ key: await publicKeyOf(KeyId), format: 'der', type: 'spki' });
  expect(SharedSecret).toEqual(diffieHellman({ privateKey: good.privateKey, publicKey }));
});

test('other keys, other states and dry runs are answered by name', async () => {
  const { PublicKey } = peer('prime256v1');
  const signing = await kms.key({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
  const input = { KeyAgreementAlgorithm, PublicKey };
  expect(await kms.fails('DeriveSharedSecret', { ...input, KeyId: signing.KeyId })).toEqual({
    code: 'InvalidKeyUsageException',
    message: `${signing.Arn} key usage is SIGN_VERIFY which is not valid for DeriveSharedSecret.`,
  });
  const { KeyId, Arn } = await newKey('ECC_NIST_P256');
  expect(await kms.code('DeriveSharedSecret', { ...input, KeyId, DryRun: true })).toBe('DryRunOperationException');
  expect(await kms.code('DeriveSharedSecret', { ...input, KeyId, KeyAgreementAlgorithm: 'DH' })).toBe(
    'ValidationException',
  );
  await kms.run('DisableKey', { KeyId });
  expect(await kms.fails('DeriveSharedSecret', { ...input, KeyId, DryRun: true })).toEqual({
    code: 'DisabledException',
    message: `${Arn} is disabled.`,
  });
});

test('the algorithm decides about access, and is recorded', async () => {
  const { KeyId, Arn } = await newKey('ECC_NIST_P521');
  await kms.run('DeriveSharedSecret', { KeyId, KeyAgreementAlgorithm, PublicKey: peer('secp521r1').PublicKey });
  expect(kms.last.access).toMatchObject([
    { action: 'kms:DeriveSharedSecret', resource: Arn, context: { 'kms:KeyAgreementAlgorithm': 'ECDH' } },
  ]);
  expect(kms.last.record).toEqual({
    requestParameters: { keyId: KeyId, keyAgreementAlgorithm: 'ECDH' },
    responseElements: undefined,
    resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
  });
});
