/** Asymmetric and HMAC keys through the clients that people have, on a real server; the answers are checked outside of it. */
import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  privateDecrypt,
  publicEncrypt,
  verify,
} from 'node:crypto';
import {
  CreateKeyCommand,
  DecryptCommand,
  DeriveSharedSecretCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateDataKeyPairCommand,
  GenerateDataKeyPairWithoutPlaintextCommand,
  GenerateMacCommand,
  GetPublicKeyCommand,
  type KeySpec,
  type KeyUsageType,
  KMSClient,
  KMSInvalidMacException,
  KMSInvalidSignatureException,
  PutKeyPolicyCommand,
  SignCommand,
  type SigningAlgorithmSpec,
  VerifyCommand,
  VerifyMacCommand,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer } from './support/server.ts';

let server: TestServer;
let kms: KMSClient;

beforeAll(async () => {
  server = await startServer();
  kms = server.sdk(KMSClient);
});
afterAll(() => server?.stop());

async function newKey(spec: KeySpec, usage: KeyUsageType): Promise<{ KeyId: string; Arn: string }> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec: spec, KeyUsage: usage }));
  return { KeyId: KeyMetadata!.KeyId!, Arn: KeyMetadata!.Arn! };
}

async function publicKeyOf(KeyId: string) {
  const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId }));
  return createPublicKey({ key: Buffer.from(PublicKey!), format: 'der', type: 'spki' });
}

const Message = Buffer.from('the message');

describe('with the JavaScript SDK', () => {
  test.each<[KeySpec, SigningAlgorithmSpec, string | undefined]>([
    ['RSA_2048', 'RSASSA_PSS_SHA_256', 'sha256'],
    ['RSA_3072', 'RSASSA_PKCS1_V1_5_SHA_384', 'sha384'],
    ['ECC_NIST_P256', 'ECDSA_SHA_256', 'sha256'],
    ['ECC_NIST_P521', 'ECDSA_SHA_512', 'sha512'],
    ['ECC_SECG_P256K1', 'ECDSA_SHA_256', 'sha256'],
    ['ECC_NIST_EDWARDS25519', 'ED25519_SHA_512', undefined],
    ['ML_DSA_65', 'ML_DSA_SHAKE_256', undefined],
  ])('%s signs with %s what anyone can verify', async (spec, SigningAlgorithm, digest) => {
    const { KeyId, Arn } = await newKey(spec, 'SIGN_VERIFY');
    const padding = SigningAlgorithm.startsWith('RSASSA_PSS') ? { padding: constants.RSA_PKCS1_PSS_PADDING } : {};
    const key = { key: await publicKeyOf(KeyId), ...padding };
    const { Signature, ...answer } = await kms.send(new SignCommand({ KeyId, Message, SigningAlgorithm }));
    expect(answer).toMatchObject({ KeyId: Arn, SigningAlgorithm });
    expect(verify(digest, Message, key, Signature!)).toBe(true);
    const verified = await kms.send(new VerifyCommand({ KeyId, Message, SigningAlgorithm, Signature }));
    expect(verified).toMatchObject({ KeyId: Arn, SigningAlgorithm, SignatureValid: true });
    const another = new VerifyCommand({ KeyId, Message: Buffer.from('x'), SigningAlgorithm, Signature });
    await expect(kms.send(another)).rejects.toBeInstanceOf(KMSInvalidSignatureException);
    if (!digest) return;
    const Digest = hash(digest, Message, 'buffer');
    const input = { KeyId, Message: Digest, MessageType: 'DIGEST', SigningAlgorithm } as const;
    const signed = await kms.send(new SignCommand(input));
    expect(verify(digest, Message, key, signed.Signature!)).toBe(true);
    expect(await kms.send(new VerifyCommand({ ...input, Signature }))).toMatchObject({ SignatureValid: true });
  });

  test('message authentication codes', async () => {
    const { KeyId, Arn } = await newKey('HMAC_512', 'GENERATE_VERIFY_MAC');
    const input = { KeyId, Message, MacAlgorithm: 'HMAC_SHA_512' } as const;
    const { Mac } = await kms.send(new GenerateMacCommand(input));
    expect(Mac).toHaveLength(64);
    expect(await kms.send(new VerifyMacCommand({ ...input, Mac }))).toMatchObject({ KeyId: Arn, MacValid: true });
    const wrong = new VerifyMacCommand({ ...input, Mac: Buffer.alloc(64) });
    await expect(kms.send(wrong)).rejects.toBeInstanceOf(KMSInvalidMacException);
  });

  test('what was encrypted outside with the public key is decrypted inside', async () => {
    const { KeyId } = await newKey('RSA_2048', 'ENCRYPT_DECRYPT');
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256';
    const CiphertextBlob = publicEncrypt({ key: await publicKeyOf(KeyId), oaepHash: 'sha256' }, Message);
    const decrypted = await kms.send(new DecryptCommand({ KeyId, EncryptionAlgorithm, CiphertextBlob }));
    expect(Buffer.from(decrypted.Plaintext!)).toEqual(Message);
    expect(decrypted.EncryptionAlgorithm).toBe(EncryptionAlgorithm);
  });

  test('a data key pair that no one saw opens what its public half sealed', async () => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({}));
    const { KeyId, Arn } = KeyMetadata!;
    const input = { KeyId, KeyPairSpec: 'RSA_2048', EncryptionContext: { a: 'b' } } as const;
    const pair = await kms.send(new GenerateDataKeyPairWithoutPlaintextCommand(input));
    expect(pair).toMatchObject({ KeyId: Arn, KeyPairSpec: 'RSA_2048' });
    const publicKey = createPublicKey({ key: Buffer.from(pair.PublicKey!), format: 'der', type: 'spki' });
    const sealed = publicEncrypt({ key: publicKey, oaepHash: 'sha256' }, Message);
    const CiphertextBlob = pair.PrivateKeyCiphertextBlob;
    const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext: { a: 'b' } }));
    const key = createPrivateKey({ key: Buffer.from(Plaintext!), format: 'der', type: 'pkcs8' });
    expect(privateDecrypt({ key, oaepHash: 'sha256' }, sealed)).toEqual(Message);
    const seen = await kms.send(new GenerateDataKeyPairCommand({ KeyId, KeyPairSpec: 'ECC_NIST_EDWARDS25519' }));
    expect(seen.PrivateKeyPlaintext).toHaveLength(48);
  });

  test('a shared secret is the other side’s', async () => {
    const { KeyId } = await newKey('ECC_NIST_P384', 'KEY_AGREEMENT');
    const theirs = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
    const PublicKey = theirs.publicKey.export({ format: 'der', type: 'spki' });
    const input = { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey } as const;
    const { SharedSecret, KeyOrigin } = await kms.send(new DeriveSharedSecretCommand(input));
    expect(KeyOrigin).toBe('AWS_KMS');
    const expected = diffieHellman({ privateKey: theirs.privateKey, publicKey: await publicKeyOf(KeyId) });
    expect(Buffer.from(SharedSecret!)).toEqual(expected);
  });

  test('SM2 is not in this region', async () => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({}));
    for (const command of [
      new CreateKeyCommand({ KeySpec: 'SM2', KeyUsage: 'SIGN_VERIFY' }),
      new GenerateDataKeyPairCommand({ KeyId: KeyMetadata!.KeyId, KeyPairSpec: 'SM2' }),
    ])
      await expect(kms.send(command as CreateKeyCommand)).rejects.toMatchObject({
        name: 'UnsupportedOperationException',
        message: 'KeySpec SM2 is not supported in this Region.',
      });
  });

  test('RSA pairs that are being made hold up no other call', async () => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({}));
    const { KeyId } = KeyMetadata!;
    const answeredMeanwhile = async () => {
      let isDone = false;
      const pairs = Promise.all(
        [1, 2, 3].map(() => kms.send(new GenerateDataKeyPairCommand({ KeyId, KeyPairSpec: 'RSA_4096' }))),
      ).finally(() => {
        isDone = true;
      });
      let answered = 0;
      for (; !isDone; answered++) await kms.send(new DescribeKeyCommand({ KeyId }));
      await pairs;
      return answered;
    };
    // Primes are sometimes found soon, and the machine may be slow; held up by pairs, it would never be more than four.
    let most = 0;
    for (let attempt = 0; attempt < 5 && most <= 5; attempt++) most = Math.max(most, await answeredMeanwhile());
    expect(most).toBeGreaterThan(5);
  });

  test('a flood of RSA signatures and decryptions holds up no other call, and is recorded whole', async () => {
    const signer = await newKey('RSA_4096', 'SIGN_VERIFY');
    const reader = await newKey('RSA_4096', 'ENCRYPT_DECRYPT');
    const rsa = { KeyId: reader.KeyId, EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' as const };
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ ...rsa, Plaintext: Message }));
    const sign = { KeyId: signer.KeyId, Message, SigningAlgorithm: 'RSASSA_PSS_SHA_512' as const };
    const digest = { ...sign, Message: createHash('sha512').update(Message).digest(), MessageType: 'DIGEST' as const };
    const other = server.sdk(KMSClient);
    const describe = () => other.send(new DescribeKeyCommand({ KeyId: signer.KeyId }));
    await describe();
    const inFlight = async () => {
      const page = await (await fetch(`${server.endpoint}/metrics`)).text();
      return Number(/^coffer_requests_in_flight (\d+)$/m.exec(page)![1]);
    };
    /** How many of so many signatures and decryptions were not answered when what was asked after them all was. */
    const leftWhenAnswered = async (count: number) => {
      let left = 2 * count;
      // A client keeps back what it has no connection for, of which it makes 50.
      const clients = Array.from({ length: count / 16 }, () => server.sdk(KMSClient));
      const flood = Promise.all(
        Array.from({ length: count }, (_, index) => index).flatMap((index) => [
          clients[index >> 4]!.send(new SignCommand(index % 2 === 0 ? sign : digest)).then(() => left--),
          clients[index >> 4]!.send(new DecryptCommand({ ...rsa, CiphertextBlob })).then(() => left--),
        ]),
      );
      // What the server has not read yet is not before what is asked now.
      while (left === 2 * count || (await inFlight()) < left) await new Promise((resolve) => setTimeout(resolve, 1));
      await describe();
      const then = left;
      await flood;
      return then;
    };
    let asked = 0;
    let isBeforeMany = false;
    // A fast machine may be done with a few before anything else can be asked; what is held up comes after all of any number.
    for (let count = 16; !isBeforeMany && count <= 128; count *= 2) {
      isBeforeMany = (await leftWhenAnswered(count)) > count / 2;
      asked += count;
    }
    expect(isBeforeMany).toBe(true);
    for (const [eventName, { Arn }] of [
      ['Sign', signer],
      ['Decrypt', reader],
    ] as const) {
      const attribute = `AttributeKey=ResourceName,AttributeValue=${Arn}`;
      const { Events } = await server.awsCli('cloudtrail', 'lookup-events', '--lookup-attributes', attribute);
      const named = Events.filter((event: { EventName: string }) => event.EventName === eventName);
      expect(named).toHaveLength(asked);
    }
  });

  test('a key policy can hold signers to digests, and to one algorithm', async () => {
    const { KeyId, Arn } = await newKey('RSA_2048', 'SIGN_VERIFY');
    const deny = (key: string, value: string) => ({
      Effect: 'Deny',
      Principal: '*',
      Action: 'kms:Sign',
      Resource: '*',
      Condition: { StringNotEquals: { [key]: value } },
    });
    const account = { Effect: 'Allow', Principal: { AWS: '123456789012' }, Action: 'kms:*', Resource: '*' };
    const denied = [deny('kms:MessageType', 'DIGEST'), deny('kms:SigningAlgorithm', 'RSASSA_PSS_SHA_256')];
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [account, ...denied] });
    await kms.send(new PutKeyPolicyCommand({ KeyId, Policy }));
    const sign = (SigningAlgorithm: SigningAlgorithmSpec, MessageType: 'RAW' | 'DIGEST' | undefined) =>
      kms.send(new SignCommand({ KeyId, Message: Buffer.alloc(32), SigningAlgorithm, MessageType }));
    await sign('RSASSA_PSS_SHA_256', 'DIGEST');
    for (const [algorithm, type] of [
      ['RSASSA_PSS_SHA_256', undefined],
      ['RSASSA_PSS_SHA_256', 'RAW'],
      ['RSASSA_PKCS1_V1_5_SHA_256', 'DIGEST'],
    ] as const)
      await expect(sign(algorithm, type)).rejects.toMatchObject({
        name: 'AccessDeniedException',
        message: expect.stringContaining(`is not authorized to perform: kms:Sign on resource: ${Arn} `),
      });
    const Message = Buffer.alloc(32);
    const { Signature } = await sign('RSASSA_PSS_SHA_256', 'DIGEST');
    await kms.send(
      new VerifyCommand({ KeyId, Message, MessageType: 'DIGEST', Signature, SigningAlgorithm: 'RSASSA_PSS_SHA_256' }),
    );
  });

  test('a signature is recorded, but neither it nor what was signed', async () => {
    const { KeyId, Arn } = await newKey('ECC_NIST_P256', 'SIGN_VERIFY');
    const secret = 'a-message-that-nobody-may-read';
    const input = { KeyId, Message: Buffer.from(secret), SigningAlgorithm: 'ECDSA_SHA_256' } as const;
    const { Signature } = await kms.send(new SignCommand(input));
    const { Events } = await server.awsCli('cloudtrail', 'lookup-events', '--max-results', '50');
    const sign = Events.map((event: { CloudTrailEvent: string }) => event.CloudTrailEvent).find(
      (text: string) => text.includes('"eventName":"Sign"') && text.includes(Arn),
    );
    expect(JSON.parse(sign)).toMatchObject({
      eventSource: 'kms.amazonaws.com',
      readOnly: true,
      requestParameters: { keyId: KeyId, messageType: 'RAW', signingAlgorithm: 'ECDSA_SHA_256' },
      responseElements: null,
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    });
    for (const bytes of [Buffer.from(secret), Buffer.from(Signature!)])
      for (const encoding of ['utf8', 'base64', 'hex'] as const) expect(sign).not.toContain(bytes.toString(encoding));
  });
});

test('with boto3: signatures, codes and ciphertexts, checked with the cryptography package', async () => {
  const answer = await server.boto3(`
try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
except ImportError:
    raise SystemExit('python cryptography is missing: install the package python3-cryptography')
import hashlib
kms = client('kms')
def code(call, **kw):
    try:
        call(**kw)
    except kms.exceptions.ClientError as e:
        return [e.response['Error']['Code'], e.response['Error']['Message']]
def key(spec, usage):
    return kms.create_key(KeySpec=spec, KeyUsage=usage)['KeyMetadata']['KeyId']
def public(k):
    return serialization.load_der_public_key(kms.get_public_key(KeyId=k)['PublicKey'])
m = b'the message'
rsa = key('RSA_2048', 'SIGN_VERIFY')
s = kms.sign(KeyId=rsa, Message=m, SigningAlgorithm='RSASSA_PSS_SHA_512')['Signature']
public(rsa).verify(s, m, padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512())
k1 = key('ECC_SECG_P256K1', 'SIGN_VERIFY')
d = hashlib.sha256(m).digest()
s = kms.sign(KeyId=k1, Message=d, MessageType='DIGEST', SigningAlgorithm='ECDSA_SHA_256')['Signature']
public(k1).verify(s, d, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
box = key('RSA_2048', 'ENCRYPT_DECRYPT')
sealed = public(box).encrypt(m, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
mac = key('HMAC_224', 'GENERATE_VERIFY_MAC')
code224 = kms.generate_mac(KeyId=mac, Message=m, MacAlgorithm='HMAC_SHA_224')['Mac']
pair = kms.generate_data_key_pair(KeyId=kms.create_key()['KeyMetadata']['KeyId'], KeyPairSpec='ECC_NIST_P384')
answer({
  'valid': kms.verify(KeyId=k1, Message=m, Signature=s, SigningAlgorithm='ECDSA_SHA_256')['SignatureValid'],
  'opened': kms.decrypt(KeyId=box, CiphertextBlob=sealed, EncryptionAlgorithm='RSAES_OAEP_SHA_1')['Plaintext'].decode(),
  'mac': kms.verify_mac(KeyId=mac, Message=m, Mac=code224, MacAlgorithm='HMAC_SHA_224')['MacValid'],
  'curve': serialization.load_der_private_key(pair['PrivateKeyPlaintext'], None).curve.name,
  'digest': code(kms.sign, KeyId=k1, Message=m, MessageType='DIGEST', SigningAlgorithm='ECDSA_SHA_256'),
  'invalid': code(kms.verify, KeyId=k1, Message=b'x', Signature=s, SigningAlgorithm='ECDSA_SHA_256'),
  'usage': code(kms.sign, KeyId=k1, Message=m, SigningAlgorithm='RSASSA_PSS_SHA_256'),
})
`);
  expect(answer).toEqual({
    valid: true,
    opened: 'the message',
    mac: true,
    curve: 'secp384r1',
    digest: ['ValidationException', 'Digest is invalid length for algorithm ECDSA_SHA_256.'],
    invalid: ['KMSInvalidSignatureException', ''],
    usage: ['InvalidKeyUsageException', 'Algorithm RSASSA_PSS_SHA_256 is incompatible with key spec ECC_SECG_P256K1.'],
  });
});
