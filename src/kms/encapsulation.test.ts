import { createPublicKey, encapsulate } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

const algorithm = { EncapsulationAlgorithm: 'ML_KEM' };
const newKey = (KeySpec: string) => kms.key({ KeySpec, KeyUsage: 'ENCAPSULATE_DECAPSULATE' });

describe.each([
  ['ML_KEM_512', 768],
  ['ML_KEM_768', 1088],
  ['ML_KEM_1024', 1568],
])('%s', (spec, length) => {
  test('decapsulates what was encapsulated, here or outside with the public key', async () => {
    const { KeyId, Arn } = await newKey(spec);
    const { SharedSecret, SharedSecretCiphertextBlob, ...rest } = await kms.run('Encapsulate', { KeyId, ...algorithm });
    expect(rest).toEqual({ KeyId: Arn, ...algorithm });
    expect([SharedSecret.length, SharedSecretCiphertextBlob.length]).toEqual([32, length]);
    const input = { KeyId, ...algorithm, SharedSecretCiphertextBlob };
    expect(await kms.run('Decapsulate', input)).toEqual({ KeyId: Arn, ...algorithm, SharedSecret });

    const { PublicKey, EncapsulationAlgorithms } = await kms.run('GetPublicKey', { KeyId });
    expect(EncapsulationAlgorithms).toEqual(['ML_KEM']);
    const outside = encapsulate(createPublicKey({ key: PublicKey, format: 'der', type: 'spki' }));
    const opened = await kms.run('Decapsulate', { ...input, SharedSecretCiphertextBlob: outside.ciphertext });
    expect(opened.SharedSecret).toEqual(outside.sharedKey);
  });

  test('rejects a changed ciphertext without a word, and one of another length by name', async () => {
    const { KeyId } = await newKey(spec);
    const { SharedSecret, SharedSecretCiphertextBlob } = await kms.run('Encapsulate', { KeyId, ...algorithm });
    const changed = Buffer.from(SharedSecretCiphertextBlob);
    changed[0]! ^= 1;
    const input = { KeyId, ...algorithm, SharedSecretCiphertextBlob: changed };
    const other = await kms.run('Decapsulate', input);
    expect(other.SharedSecret).toHaveLength(32);
    expect(other.SharedSecret).not.toEqual(SharedSecret);
    for (const blob of [changed.subarray(1), Buffer.concat([changed, Buffer.of(0)])])
      expect(await kms.fails('Decapsulate', { ...input, SharedSecretCiphertextBlob: blob })).toEqual({
        code: 'InvalidCiphertextException',
        message: '',
      });
  });
});

test('other keys, states and dry runs are answered by name; the algorithm decides and is recorded', async () => {
  const signing = await kms.key({ KeySpec: 'ML_DSA_44', KeyUsage: 'SIGN_VERIFY' });
  const { KeyId, Arn } = await newKey('ML_KEM_512');
  for (const name of ['Encapsulate', 'Decapsulate']) {
    const input = { KeyId, ...algorithm, SharedSecretCiphertextBlob: Buffer.alloc(768) };
    await kms.run(name, input);
    expect(kms.last.access).toMatchObject([
      { action: `kms:${name}`, resource: Arn, context: { 'kms:EncapsulationAlgorithm': 'ML_KEM' } },
    ]);
    expect(kms.last.record).toEqual({
      requestParameters: { keyId: KeyId, encapsulationAlgorithm: 'ML_KEM' },
      responseElements: undefined,
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    });
    expect(await kms.code(name, { ...input, DryRun: true })).toBe('DryRunOperationException');
    expect(await kms.fails(name, { ...input, KeyId: signing.KeyId })).toEqual({
      code: 'InvalidKeyUsageException',
      message: `${signing.Arn} key usage is SIGN_VERIFY which is not valid for ${name}.`,
    });
    expect(await kms.code(name, { ...input, EncapsulationAlgorithm: 'RSA' })).toBe('ValidationException');
  }
  await kms.run('DisableKey', { KeyId });
  expect(await kms.fails('Encapsulate', { KeyId, ...algorithm, DryRun: true })).toEqual({
    code: 'DisabledException',
    message: `${Arn} is disabled.`,
  });
});
