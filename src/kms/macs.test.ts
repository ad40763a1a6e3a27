import { createHmac } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

const Message = Buffer.from('the message');
const specs = [
  ['HMAC_224', 'HMAC_SHA_224', 28],
  ['HMAC_256', 'HMAC_SHA_256', 32],
  ['HMAC_384', 'HMAC_SHA_384', 48],
  ['HMAC_512', 'HMAC_SHA_512', 64],
] as const;
const newKey = (KeySpec: string) => kms.key({ KeySpec, KeyUsage: 'GENERATE_VERIFY_MAC' });

describe.each(specs)('%s', (spec, MacAlgorithm, length) => {
  test('verifies what it generated, and nothing else', async () => {
    const { KeyId, Arn } = await newKey(spec);
    const { Mac, ...answer } = await kms.run('GenerateMac', { KeyId, Message, MacAlgorithm });
    expect(answer).toEqual({ KeyId: Arn, MacAlgorithm });
    expect(Mac).toHaveLength(length);
    const input = { KeyId, Message, MacAlgorithm, Mac };
    expect(await kms.run('VerifyMac', input)).toEqual({ KeyId: Arn, MacValid: true, MacAlgorithm });
    const changed = Buffer.from(Mac);
    changed[0]! ^= 1;
    for (const wrong of [
      { Mac: changed },
      { Mac: Mac.subarray(1) },
      { Mac: Buffer.concat([Mac, Buffer.of(0)]) },
      { Message: Buffer.from('another message') },
      { KeyId: (await newKey(spec)).KeyId },
    ])
      expect(await kms.fails('VerifyMac', { ...input, ...wrong })).toEqual({
        code: 'KMSInvalidMacException',
        message: '',
      });
  });

  test('is the HMAC of RFC 2104', async () => {
    const { KeyId } = await newKey(spec);
    const material = Buffer.alloc(length, 7);
    await kms.replaceMaterial(KeyId, material);
    const expected = createHmac(`sha${length * 8}`, material)
      .update(Message)
      .digest();
    expect((await kms.run('GenerateMac', { KeyId, Message, MacAlgorithm })).Mac).toEqual(expected);
  });
});

test('HMAC_SHA_256 gives the value of RFC 4231, test case 6', async () => {
  const { KeyId } = await newKey('HMAC_256');
  await kms.replaceMaterial(KeyId, Buffer.alloc(131, 0xaa));
  const Mac = Buffer.from('60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54', 'hex');
  const text = 'Test Using Larger Than Block-Size Key - Hash Key First';
  const input = { KeyId, Message: Buffer.from(text), MacAlgorithm: 'HMAC_SHA_256' };
  expect((await kms.run('GenerateMac', input)).Mac).toEqual(Mac);
  expect(await kms.run('VerifyMac', { ...input, Mac })).toMatchObject({ MacValid: true });
});

test('what does not go together is refused by name', async () => {
  const { KeyId, Arn } = await newKey('HMAC_256');
  const signing = await kms.key({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
  for (const name of ['GenerateMac', 'VerifyMac']) {
    const input = { KeyId, Message, MacAlgorithm: 'HMAC_SHA_256', Mac: Buffer.of(1) };
    expect(await kms.fails(name, { ...input, MacAlgorithm: 'HMAC_SHA_512' })).toEqual({
      code: 'InvalidKeyUsageException',
      message: 'Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.',
    });
    expect(await kms.fails(name, { ...input, KeyId: signing.KeyId })).toEqual({
      code: 'InvalidKeyUsageException',
      message: `${signing.Arn} key usage is SIGN_VERIFY which is not valid for ${name}.`,
    });
    expect(await kms.fails(name, { ...input, MacAlgorithm: 'HMAC_MD5' })).toMatchObject({
      code: 'ValidationException',
      message: expect.stringContaining("Value 'HMAC_MD5' at 'macAlgorithm' failed to satisfy constraint"),
    });
    for (const length of [0, 4097])
      expect(await kms.code(name, { ...input, Message: Buffer.alloc(length) })).toBe('ValidationException');
    expect(await kms.code(name, { ...input, DryRun: true })).toBe('DryRunOperationException');
  }
  await kms.run('DisableKey', { KeyId });
  expect(await kms.fails('GenerateMac', { KeyId, Message, MacAlgorithm: 'HMAC_SHA_256', DryRun: true })).toEqual({
    code: 'DisabledException',
    message: `${Arn} is disabled.`,
  });
});

test('the algorithm decides about access, and is all that is recorded', async () => {
  const { KeyId, Arn } = await newKey('HMAC_384');
  await kms.run('GenerateMac', { KeyId, Message, MacAlgorithm: 'HMAC_SHA_384' });
  expect(kms.last.access).toMatchObject([
    { action: 'kms:GenerateMac', resource: Arn, context: { 'kms:MacAlgorithm': 'HMAC_SHA_384' } },
  ]);
  expect(kms.last.record).toEqual({
    requestParameters: { keyId: KeyId, macAlgorithm: 'HMAC_SHA_384' },
    responseElements: undefined,
    resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
  });
});
