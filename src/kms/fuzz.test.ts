import * as sdk from '@aws-sdk/client-kms';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isAwsError } from '../aws/errors.ts';
import { TestKms } from './testing.ts';

/** Values that requests might hold where they should not, beside plausible ones that reach further in. */
function values(known: readonly string[]): fc.Arbitrary<unknown> {
  const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(...known, '', '__proto__', 'alias/aws/ebs'));
  return fc.oneof(
    { weight: 4, arbitrary: text },
    fc.integer({ min: -1, max: 1100 }),
    fc.boolean(),
    fc.constantFrom(null, undefined, Number.NaN, 1e308, -0),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(text, { maxLength: 3 }),
    fc.dictionary(text, text, { maxKeys: 3 }),
    fc.array(fc.record({ TagKey: text, TagValue: text }), { maxLength: 3 }),
    fc.anything({ maxDepth: 2 }),
  );
}

/** The members of an operation's request, which the official schema lists fifth. */
function membersOf(name: string): readonly string[] {
  const schema = (sdk as unknown as Record<string, readonly unknown[]>)[`${name}Request$`]!;
  return schema[4] as readonly string[];
}

test('no input makes an operation fail with anything but an AWS error, or leave a record that can’t be written', async () => {
  const kms = await TestKms.create();
  const key = await kms.key();
  await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: key.KeyId });
  const { GrantId, GrantToken } = await kms.run('CreateGrant', {
    KeyId: key.KeyId,
    GranteePrincipal: 'arn:aws:iam::123456789012:root',
    Operations: ['Decrypt'],
  });
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId: key.KeyId, Plaintext: Buffer.from('x') });
  const known = [
    key.KeyId,
    key.Arn,
    'alias/mine',
    GrantId,
    GrantToken,
    'Decrypt',
    'default',
    'AES_256',
    'HMAC_256',
    'GENERATE_VERIFY_MAC',
    'IGNORE_CIPHERTEXT',
    'arn:aws:iam::123456789012:user/a',
    (await kms.key({ Origin: 'EXTERNAL' })).KeyId,
    (await kms.key({ MultiRegion: true })).KeyId,
    'RSAES_OAEP_SHA_256',
    'KEY_MATERIAL_DOES_NOT_EXPIRE',
    'ALL_KEY_MATERIAL',
    'eu-west-1',
    key.Arn.replace('123456789012', '210987654321'),
    'arn:aws:kms:us-east-1:210987654321:alias/theirs',
    'ec2.amazonaws.com',
    'cks-1234567890abcdef0',
  ];
  const value = fc.oneof({ weight: 9, arbitrary: values(known) }, fc.constant(CiphertextBlob));
  for (const name of Object.keys(kms.kms.operations)) {
    // What services ask of each other is right.
    if (kms.kms.operations[name]!.audience === 'service') continue;
    const model = fc.dictionary(fc.constantFrom(...membersOf(name)), value, { maxKeys: 9 });
    await fc.assert(
      fc.asyncProperty(model, async (input) => {
        try {
          await kms.run(name, input);
        } catch (error) {
          if (!isAwsError(error)) throw error;
          expect(error.fault).toBe('client');
        }
        JSON.stringify(kms.last.record, (_key, item) => (typeof item === 'bigint' ? String(item) : item));
      }),
      { numRuns: 150 },
    );
  }
}, 120_000);
