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

const members: Readonly<Record<string, readonly string[]>> = {
  CreateKey: [
    'Policy',
    'Description',
    'KeyUsage',
    'KeySpec',
    'CustomerMasterKeySpec',
    'Origin',
    'Tags',
    'MultiRegion',
    'BypassPolicyLockoutSafetyCheck',
  ],
  CreateGrant: [
    'KeyId',
    'GranteePrincipal',
    'RetiringPrincipal',
    'Operations',
    'Constraints',
    'GrantTokens',
    'Name',
    'DryRun',
  ],
  RetireGrant: ['KeyId', 'GrantId', 'GrantToken', 'DryRun'],
  RevokeGrant: ['KeyId', 'GrantId', 'DryRun'],
  ListGrants: ['KeyId', 'GrantId', 'GranteePrincipal', 'Limit', 'Marker'],
  ListRetirableGrants: ['RetiringPrincipal', 'Limit', 'Marker'],
  CreateAlias: ['AliasName', 'TargetKeyId'],
  UpdateAlias: ['AliasName', 'TargetKeyId'],
  DeleteAlias: ['AliasName'],
  Encrypt: ['KeyId', 'Plaintext', 'EncryptionContext', 'EncryptionAlgorithm', 'GrantTokens', 'DryRun'],
  Decrypt: [
    'KeyId',
    'CiphertextBlob',
    'EncryptionContext',
    'EncryptionAlgorithm',
    'GrantTokens',
    'DryRun',
    'DryRunModifiers',
  ],
  ReEncrypt: [
    'CiphertextBlob',
    'SourceKeyId',
    'SourceEncryptionContext',
    'DestinationKeyId',
    'DestinationEncryptionContext',
    'DryRun',
    'DryRunModifiers',
  ],
  Sign: ['KeyId', 'Message', 'MessageType', 'SigningAlgorithm', 'GrantTokens', 'DryRun'],
  Verify: ['KeyId', 'Message', 'MessageType', 'SigningAlgorithm', 'Signature', 'GrantTokens', 'DryRun'],
  GenerateMac: ['KeyId', 'Message', 'MacAlgorithm', 'GrantTokens', 'DryRun'],
  VerifyMac: ['KeyId', 'Message', 'MacAlgorithm', 'Mac', 'GrantTokens', 'DryRun'],
  GenerateDataKeyPair: ['KeyId', 'KeyPairSpec', 'EncryptionContext', 'GrantTokens', 'Recipient', 'DryRun'],
  GenerateDataKeyPairWithoutPlaintext: ['KeyId', 'KeyPairSpec', 'EncryptionContext', 'GrantTokens', 'DryRun'],
  DeriveSharedSecret: ['KeyId', 'KeyAgreementAlgorithm', 'PublicKey', 'GrantTokens', 'Recipient', 'DryRun'],
  Encapsulate: ['KeyId', 'EncapsulationAlgorithm', 'GrantTokens', 'DryRun'],
  Decapsulate: ['KeyId', 'EncapsulationAlgorithm', 'SharedSecretCiphertextBlob', 'GrantTokens', 'DryRun'],
  GetParametersForImport: ['KeyId', 'WrappingAlgorithm', 'WrappingKeySpec'],
  ImportKeyMaterial: [
    'KeyId',
    'ImportToken',
    'EncryptedKeyMaterial',
    'ValidTo',
    'ExpirationModel',
    'ImportType',
    'KeyMaterialDescription',
    'KeyMaterialId',
  ],
  DeleteImportedKeyMaterial: ['KeyId', 'KeyMaterialId'],
  EnableKeyRotation: ['KeyId', 'RotationPeriodInDays'],
  ListKeyRotations: ['KeyId', 'IncludeKeyMaterial', 'Limit', 'Marker'],
  ReplicateKey: ['KeyId', 'ReplicaRegion', 'Policy', 'BypassPolicyLockoutSafetyCheck', 'Description', 'Tags'],
  UpdatePrimaryRegion: ['KeyId', 'PrimaryRegion'],
  PutKeyPolicy: ['KeyId', 'PolicyName', 'Policy', 'BypassPolicyLockoutSafetyCheck'],
  TagResource: ['KeyId', 'Tags'],
  UntagResource: ['KeyId', 'TagKeys'],
};
const usual = [
  'KeyId',
  'NumberOfBytes',
  'KeySpec',
  'EncryptionContext',
  'GrantTokens',
  'Limit',
  'Marker',
  'PolicyName',
  'PendingWindowInDays',
  'Description',
  'DryRun',
];

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
  ];
  const value = fc.oneof({ weight: 9, arbitrary: values(known) }, fc.constant(CiphertextBlob));
  for (const name of Object.keys(kms.kms.operations)) {
    // What services ask of each other is right.
    if (kms.kms.operations[name]!.audience === 'service') continue;
    const model = fc.dictionary(fc.constantFrom(...(members[name] ?? usual)), value, { maxKeys: 9 });
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
