/**
 * Known answers: keys, messages and results that others have published, so that what is computed here is not only right by
 * its own measure. Sources stand beside the figures. (The whole of Project Wycheproof's cases for these algorithms was run
 * against Verify, VerifyMac, DeriveSharedSecret and Decrypt as well; they are too much to keep here.)
 *
 * What is post-quantum Debian 12's OpenSSL, 3.0, does not know. So the public keys that published seeds give are held against
 * their published digests, and known-answers.json has what @noble/post-quantum 0.7.1 made from the same seeds, without
 * randomness: its signatures of `the message` and their μ, and secrets that it encapsulated, from 32 bytes of 07.
 */
import { createHash, createPrivateKey, createPublicKey, hash, type webcrypto } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import answers from './known-answers.json' with { type: 'json' };
import { TestKms } from './testing.ts';

let kms: TestKms;
beforeAll(async () => {
  kms = await TestKms.create();
});

const hex = (text: string) => Buffer.from(text, 'hex');
const base64url = (text: string) => hex(text).toString('base64url');
const spki = (jwk: webcrypto.JsonWebKey) =>
  createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'der' });
const pkcs8 = (jwk: webcrypto.JsonWebKey) =>
  createPrivateKey({ key: jwk, format: 'jwk' }).export({ type: 'pkcs8', format: 'der' });

/** A key with this material. */
async function keyOf(KeySpec: string, KeyUsage: string, secret: Buffer, publicKey?: Buffer): Promise<string> {
  const { KeyId } = await kms.key({ KeySpec, KeyUsage });
  await kms.replaceMaterial(KeyId, secret, publicKey);
  return KeyId;
}

/** A DER signature of two numbers, given as hexadecimal digits. */
function ecdsaSignature(r: string, s: string): Buffer {
  const number = (digits: string) => {
    const bytes = hex(digits.padStart(digits.length + (digits.length % 2), '0'));
    const start = bytes.findIndex((byte) => byte !== 0);
    const body = bytes[start]! >= 0x80 ? Buffer.concat([Buffer.of(0), bytes.subarray(start)]) : bytes.subarray(start);
    return Buffer.concat([Buffer.of(2, body.length), body]);
  };
  const both = Buffer.concat([number(r), number(s)]);
  return Buffer.concat([both.length < 128 ? Buffer.of(0x30, both.length) : Buffer.of(0x30, 0x81, both.length), both]);
}

/** RFC 6979, A.2.5 to A.2.7, message "sample"; Project Wycheproof, ecdsa_secp256k1_sha256_test.json, case 2. */
const ecdsa = [
  {
    spec: 'ECC_NIST_P256',
    crv: 'P-256',
    bits: 256,
    message: Buffer.from('sample'),
    x: '60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6',
    y: '7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299',
    r: 'efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716',
    s: 'f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8',
  },
  {
    spec: 'ECC_NIST_P384',
    crv: 'P-384',
    bits: 384,
    message: Buffer.from('sample'),
    x: 'ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13',
    y: '8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720',
    r: '94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46',
    s: '99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8',
  },
  {
    spec: 'ECC_NIST_P521',
    crv: 'P-521',
    bits: 512,
    message: Buffer.from('sample'),
    x: '01894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4',
    y: '00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5',
    r: '00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa',
    s: '00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a',
  },
  {
    spec: 'ECC_SECG_P256K1',
    crv: 'secp256k1',
    bits: 256,
    message: hex('4d7367'),
    x: '782c8ed17e3b2a783b5464f33b09652a71c678e05ec51e84e2bcfc663a3de963',
    y: 'af9acb4280b8c7f7c42f4ef9aba6245ec1ec1712fd38a0fa96418d8cd6aa6152',
    r: '109cd8ae0374358984a8249c0a843628f2835ffad1df1a9a69aa2fe72355545c',
    s: 'ac6f00daf53bd8b1e34da329359b6e08019c5b037fed79ee383ae39f85a159c6',
  },
];

test.each(ecdsa)('ECDSA $crv', async ({ spec, crv, bits, message, x, y, r, s }) => {
  const publicKey = spki({ kty: 'EC', crv, x: base64url(x), y: base64url(y) });
  const KeyId = await keyOf(spec, 'SIGN_VERIFY', Buffer.alloc(32), publicKey);
  const input = { KeyId, SigningAlgorithm: `ECDSA_SHA_${bits}`, Signature: ecdsaSignature(r, s) };
  const digest = hash(`sha${bits}`, message, 'buffer');
  for (const signed of [{ Message: message }, { Message: digest, MessageType: 'DIGEST' }]) {
    expect(await kms.run('Verify', { ...input, ...signed })).toMatchObject({ SignatureValid: true });
    const swapped = { ...input, ...signed, Signature: ecdsaSignature(s, r) };
    expect(await kms.code('Verify', swapped)).toBe('KMSInvalidSignatureException');
  }
});

/** Project Wycheproof, rsa_signature_2048_sha256_test.json and rsa_pss_2048_sha256_mgf1_32_test.json, case 2 of each. */
const rsa = {
  modulus:
    'a2b451a07d0aa5f96e455671513550514a8a5b462ebef717094fa1fee82224e637f9746d3f7cafd31878d80325b6ef5a1700f65903b469429e89d6eac8845097' +
    'b5ab393189db92512ed8a7711a1253facd20f79c15e8247f3d3e42e46e48c98e254a2fe9765313a03eff8f17e1a029397a1fa26a8dce26f490ed81299615d981' +
    '4c22da610428e09c7d9658594266f5c021d0fceca08d945a12be82de4d1ece6b4c03145b5d3495d4ed5411eb878daf05fd7afc3e09ada0f1126422f590975a19' +
    '69816f48698bcbba1b4d9cae79d460d8f9f85e7975005d9bc22c4e5ac0f7c1a45d12569a62807d3b9a02e5a530e773066f453d1f5b4c2e9cf7820283f742b9d5',
  message: Buffer.alloc(20),
  signatures: {
    RSASSA_PKCS1_V1_5_SHA_256:
      '8a1b220cb2ab415dc760eb7f5bb10335a3cca269d7dbbf7d0962ba79f9cf7b43a5fc09c99a1584f07403473d6c189a836897a5b6f8ea9fa22d601e6ba5f7411f' +
      'e27c638b81b1a22363583a80fce8c7df3e40fb51bd0e60d0a6653f79f3bcb7ec3e9dc14cfb5b31ab1735bca692d50ac03f979dda92747c6430f8045efa3513ba' +
      '6e0ce3e9e35570e1c30c8ebe589b44192e1344ca83dfa576fc6fdc7bf1cd7cee875b001c8c02ce8d602769e4bd9d241c4857182a0089a8b67644e73eef105c55' +
      '0efa47a40874289395ac0c4e02fd4ba98e130a4c2d1b95521c6af4a002ac3bdc6e52122ae4c08cc3da1c896e059acbddec574ac0432f6103dd97273d8803c102',
    RSASSA_PSS_SHA_256:
      '0658c68fe0895646056d9bca422a64fe48813b4e14f0c8c4122e56d345b6813dc6286ffde014617e351c7af0a0d2c0f285def79cb734e1e055a25fa6fddc1c07' +
      'da17b4b235c637413b1849c24311fa72331f4c0458c364a4916de8619b884d7e37288fad12926fc091f4851686a04fd0a504dbce3db370663a6ea6128fea86c2' +
      'ca94c63e0d34d7f2c845b5d71d9a5e544451f524a451acb85c49bba7864e0a34a48613a819caf3dfd0d510c940f1df21c3373915be1f3509a557fa4d5a4e9f27' +
      '3e85467961133e2482c0907386454228fb0246638616fc31bbb6fa7c2361b8035994eec69a923f4c0bb0ba8696dfe8b1400c2398d7b343fdf498b1116c8de602',
  },
};

test.each(Object.entries(rsa.signatures))('%s', async (SigningAlgorithm, signature) => {
  const publicKey = spki({ kty: 'RSA', n: base64url(rsa.modulus), e: 'AQAB' });
  const KeyId = await keyOf('RSA_2048', 'SIGN_VERIFY', Buffer.alloc(32), publicKey);
  const input = { KeyId, SigningAlgorithm, Signature: hex(signature) };
  const digest = hash('sha256', rsa.message, 'buffer');
  for (const signed of [{ Message: rsa.message }, { Message: digest, MessageType: 'DIGEST' }]) {
    expect(await kms.run('Verify', { ...input, ...signed })).toMatchObject({ SignatureValid: true });
    const [other] = Object.keys(rsa.signatures).filter((name) => name !== SigningAlgorithm);
    expect(await kms.code('Verify', { ...input, ...signed, SigningAlgorithm: other })).toBe(
      'KMSInvalidSignatureException',
    );
  }
});

test('Ed25519: RFC 8032, section 7.1, test 2', async () => {
  const publicKey = '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c';
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: base64url(publicKey) };
  const d = base64url('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb');
  const KeyId = await keyOf('ECC_NIST_EDWARDS25519', 'SIGN_VERIFY', pkcs8({ ...jwk, d }), spki(jwk));
  const input = { KeyId, Message: Buffer.of(0x72), SigningAlgorithm: 'ED25519_SHA_512' };
  const Signature = hex(
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  );
  expect((await kms.run('Sign', input)).Signature).toEqual(Signature);
  expect(await kms.run('Verify', { ...input, Signature })).toMatchObject({ SignatureValid: true });
});

/** RFC 4231, test case 2. */
test.each([
  ['224', 'a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44'],
  ['256', '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
  ['384', 'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649'],
  [
    '512',
    '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737',
  ],
])('HMAC_SHA_%s', async (bits, mac) => {
  const KeyId = await keyOf(`HMAC_${bits}`, 'GENERATE_VERIFY_MAC', Buffer.from('Jefe'));
  const input = { KeyId, MacAlgorithm: `HMAC_SHA_${bits}`, Message: Buffer.from('what do ya want for nothing?') };
  expect((await kms.run('GenerateMac', input)).Mac).toEqual(hex(mac));
  expect(await kms.run('VerifyMac', { ...input, Mac: hex(mac) })).toMatchObject({ MacValid: true });
});

/** NIST CAVP, "ECC CDH Primitive", KAS_ECC_CDH_PrimitiveTest.txt, COUNT = 0. P-256 is in shared-secrets.test.ts. */
const agreements = [
  {
    spec: 'ECC_NIST_P384',
    crv: 'P-384',
    curve: 'secp384r1',
    d: '3cc3122a68f0d95027ad38c067916ba0eb8c38894d22e1b15618b6818a661774ad463b205da88cf699ab4d43c9cf98a1',
    x: 'a7c76b970c3b5fe8b05d2838ae04ab47697b9eaf52e764592efda27fe7513272734466b400091adbf2d68c58e0c50066',
    y: 'ac68f19f2e1cb879aed43a9969b91a0839c4c38a49749b661efedf243451915ed0905a32b060992b468c64766fc8437a',
    secret: '5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f40ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1',
  },
  {
    spec: 'ECC_NIST_P521',
    crv: 'P-521',
    curve: 'secp521r1',
    d: '017eecc07ab4b329068fba65e56a1f8890aa935e57134ae0ffcce802735151f4eac6564f6ee9974c5e6887a1fefee5743ae2241bfeb95d5ce31ddcb6f9edb4d6fc47',
    x: '00685a48e86c79f0f0875f7bc18d25eb5fc8c0b07e5da4f4370f3a9490340854334b1e1b87fa395464c60626124a4e70d0f785601d37c09870ebf176666877a2046d',
    y: '01ba52c56fc8776d9e8f5db4f0cc27636d0b741bbe05400697942e80b739884a83bde99e0f6716939e632bc8986fa18dccd443a348b6c3e522497955a4f3c302f676',
    secret:
      '005fc70477c3e63bc3954bd0df3ea0d1f41ee21746ed95fc5e1fdf90930d5e136672d72cc770742d1711c3c3a4c334a0ad9759436a4d3c5bf6e74b9578fac148c831',
  },
];

test.each(agreements)('ECDH $crv', async ({ spec, crv, curve, d, x, y, secret }) => {
  const { createECDH } = await import('node:crypto');
  const ecdh = createECDH(curve);
  ecdh.setPrivateKey(hex(d));
  const point = ecdh.getPublicKey();
  const length = (point.length - 1) / 2;
  const own = {
    kty: 'EC',
    crv,
    x: point.subarray(1, 1 + length).toString('base64url'),
    y: point.subarray(1 + length).toString('base64url'),
  };
  const KeyId = await keyOf(spec, 'KEY_AGREEMENT', pkcs8({ ...own, d: base64url(d) }), spki(own));
  const PublicKey = spki({ kty: 'EC', crv, x: base64url(x), y: base64url(y) });
  const answer = await kms.run('DeriveSharedSecret', { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey });
  expect(answer.SharedSecret.toString('hex')).toBe(secret);
});

describe('ML-DSA: Project Wycheproof, mldsa_…_sign_seed_test.json, first group', () => {
  /** The last arc of the object identifier 2.16.840.1.101.3.4.3.x, and the SHA-256 of the public key. */
  test.each([
    ['ML_DSA_44', 17, 'd87f8ca136ac1aa55e2d6c4521680efb3a378cbb9bc0bfb446e9c60893931ea3'],
    ['ML_DSA_65', 18, 'b7acce2ddb11f8cc1aa46e2bafac6eacfa2b732ef192bd636ad8d3a56d649c66'],
    ['ML_DSA_87', 19, 'd43128fa8a8c785c1d44c9e7db538dbf9dd88fe6c8ad911a344bcec1017c6d54'],
  ] as const)('%s: the public key that a seed gives', async (spec, arc, digest) => {
    const seed = Buffer.alloc(32, 0x2a);
    const algorithm = Buffer.concat([hex('300b06096086480165030403'), Buffer.of(arc)]);
    const secret = Buffer.concat([hex('3034020100'), algorithm, hex('04228020'), seed]);
    const key = createPublicKey(createPrivateKey({ key: secret, format: 'der', type: 'pkcs8' }));
    const publicKey = key.export({ type: 'spki', format: 'der' });
    const raw = publicKey.subarray(publicKey.indexOf(algorithm) + algorithm.length + 5);
    expect(createHash('sha256').update(raw).digest('hex')).toBe(digest);
    // What is signed with the seed is valid by that public key.
    const KeyId = await keyOf(spec, 'SIGN_VERIFY', secret, publicKey);
    const input = { KeyId, SigningAlgorithm: 'ML_DSA_SHAKE_256', Message: Buffer.from('the message') };
    const { Signature } = await kms.run('Sign', input);
    expect(await kms.run('Verify', { ...input, Signature })).toMatchObject({ SignatureValid: true });
    const { mu, signature } = answers.signatures[spec];
    const theirs = { KeyId, SigningAlgorithm: 'ML_DSA_SHAKE_256', Signature: Buffer.from(signature, 'base64') };
    const represented = { Message: Buffer.from(mu, 'base64'), MessageType: 'EXTERNAL_MU' };
    for (const signed of [{ Message: input.Message }, represented])
      expect(await kms.run('Verify', { ...theirs, ...signed })).toMatchObject({ SignatureValid: true });
    expect(await kms.code('Verify', { ...theirs, Message: represented.Message })).toBe('KMSInvalidSignatureException');
    Signature[0] ^= 1;
    expect(await kms.code('Verify', { ...input, Signature })).toBe('KMSInvalidSignatureException');
  });
});

/** The last arc of the object identifier 2.16.840.1.101.3.4.4.x. */
test.each([
  ['ML_KEM_512', 1],
  ['ML_KEM_768', 2],
  ['ML_KEM_1024', 3],
] as const)('%s: the secret that another encapsulated', async (spec, arc) => {
  const algorithm = Buffer.concat([hex('300b06096086480165030404'), Buffer.of(arc)]);
  const secret = Buffer.concat([hex('3054020100'), algorithm, hex('04428040'), Buffer.alloc(64, 0x2a)]);
  const KeyId = await keyOf(spec, 'ENCAPSULATE_DECAPSULATE', secret);
  const answer = await kms.run('Decapsulate', {
    KeyId,
    EncapsulationAlgorithm: 'ML_KEM',
    SharedSecretCiphertextBlob: Buffer.from(answers.encapsulated[spec].ciphertext, 'base64'),
  });
  expect(answer.SharedSecret.toString('base64')).toBe(answers.encapsulated[spec].secret);
});
