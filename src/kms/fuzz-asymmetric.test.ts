/** Well-formed requests that put any key to any use with any bytes: the cryptography itself must fail in AWS's words. */
import {
  EncryptionAlgorithmSpec,
  KeySpec,
  type KeyUsageType,
  MacAlgorithmSpec,
  MessageType,
  SigningAlgorithmSpec,
} from '@aws-sdk/client-kms';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isAwsError } from '../aws/errors.ts';
import { TestKms } from './testing.ts';

const usages: readonly KeyUsageType[] = [
  'ENCRYPT_DECRYPT',
  'SIGN_VERIFY',
  'GENERATE_VERIFY_MAC',
  'KEY_AGREEMENT',
  'ENCAPSULATE_DECAPSULATE',
];

/** A key of every spec and usage that go together; RSA in its shortest size only. */
async function everyKey(kms: TestKms): Promise<Array<{ KeyId: string; KeySpec: string; KeyUsage: string }>> {
  const keys = [];
  for (const spec of Object.values(KeySpec).filter((name) => !/RSA_[34]|SM2/.test(name)))
    for (const usage of usages) {
      const key = await kms.key({ KeySpec: spec, KeyUsage: usage }).catch((error) => {
        if (!isAwsError(error, 'ValidationException')) throw error;
      });
      if (key) keys.push(key);
    }
  return keys;
}

test('any key, algorithm and bytes give an answer or an AWS error', async () => {
  const kms = await TestKms.create();
  const keys = await everyKey(kms);
  const encoded: Buffer[] = [];
  for (const { KeyId, KeyUsage } of keys)
    if (KeyUsage === 'KEY_AGREEMENT' || KeyUsage === 'SIGN_VERIFY')
      encoded.push((await kms.run('GetPublicKey', { KeyId })).PublicKey);
  const damaged = fc
    .record({ of: fc.constantFrom(...encoded), at: fc.nat(), to: fc.nat(255), cut: fc.nat(40) })
    .map(({ of, at, to, cut }) => {
      const bytes = Buffer.from(of.subarray(0, cut > 20 ? of.length : of.length - cut));
      bytes[at % bytes.length] = to;
      return bytes;
    });
  const lengths = fc.constantFrom(1, 20, 28, 32, 48, 64, 66, 70, 128, 256, 768, 1088, 1568, 2420, 4096);
  const bytes = fc.oneof(
    lengths.chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
    fc.uint8Array({ minLength: 1, maxLength: 300 }),
    lengths.map((length) => new Uint8Array(length)),
    damaged,
  );
  const request = fc.record({
    key: fc.constantFrom(...keys),
    bytes,
    more: bytes,
    messageType: fc.option(fc.constantFrom(...Object.values(MessageType)), { nil: undefined }),
    signing: fc.constantFrom(...Object.values(SigningAlgorithmSpec)),
    encryption: fc.option(fc.constantFrom(...Object.values(EncryptionAlgorithmSpec)), { nil: undefined }),
    mac: fc.constantFrom(...Object.values(MacAlgorithmSpec)),
    fitting: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(request, async ({ key, bytes, more, messageType, signing, encryption, mac, fitting }) => {
      const KeyId = key.KeyId;
      const { SigningAlgorithms, MacAlgorithms, EncryptionAlgorithms } = (await kms.run('DescribeKey', { KeyId }))
        .KeyMetadata;
      const SigningAlgorithm = (fitting && SigningAlgorithms?.[0]) || signing;
      const MacAlgorithm = (fitting && MacAlgorithms?.[0]) || mac;
      const EncryptionAlgorithm = (fitting && EncryptionAlgorithms?.[0]) || encryption;
      const signed = { KeyId, Message: bytes, MessageType: messageType, SigningAlgorithm };
      const calls: Array<[string, object]> = [
        ['Sign', signed],
        ['Verify', { ...signed, Signature: more }],
        ['GenerateMac', { KeyId, Message: bytes, MacAlgorithm }],
        ['VerifyMac', { KeyId, Message: bytes, MacAlgorithm, Mac: more }],
        ['Encrypt', { KeyId, Plaintext: bytes, EncryptionAlgorithm }],
        ['Decrypt', { KeyId, CiphertextBlob: bytes, EncryptionAlgorithm }],
        [
          'ReEncrypt',
          {
            SourceKeyId: KeyId,
            SourceEncryptionAlgorithm: EncryptionAlgorithm,
            CiphertextBlob: bytes,
            DestinationKeyId: KeyId,
          },
        ],
        ['DeriveSharedSecret', { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey: bytes }],
        ['Encapsulate', { KeyId, EncapsulationAlgorithm: 'ML_KEM' }],
        ['Decapsulate', { KeyId, EncapsulationAlgorithm: 'ML_KEM', SharedSecretCiphertextBlob: bytes }],
        ['GetPublicKey', { KeyId }],
      ];
      for (const [name, input] of calls)
        try {
          await kms.run(name, input);
        } catch (error) {
          if (!isAwsError(error)) throw error;
          expect(error.fault).toBe('client');
        }
    }),
    { numRuns: 1500 },
  );
}, 120_000);
