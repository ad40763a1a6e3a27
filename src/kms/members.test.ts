/** What the API has on many operations, each checked on all that the official schemas list with it. */
import { generateKeyPairSync } from 'node:crypto';
import * as sdk from '@aws-sdk/client-kms';
import { beforeAll, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

let kms: TestKms;
/** An input of each operation that would succeed, were it not for the member that is tested. */
const inputs: Record<string, object> = {};
const Message = Buffer.from('x');

beforeAll(async () => {
  kms = await TestKms.create();
  const key = async (KeySpec: string, KeyUsage: string) => (await kms.key({ KeySpec, KeyUsage })).KeyId as string;
  const { KeyId } = await kms.key();
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
  const grant = { KeyId, GranteePrincipal: 'arn:aws:iam::123456789012:root', Operations: ['Decrypt'] };
  const { GrantId } = await kms.run('CreateGrant', grant);
  const hmac = { KeyId: await key('HMAC_256', 'GENERATE_VERIFY_MAC'), MacAlgorithm: 'HMAC_SHA_256', Message };
  const signer = { KeyId: await key('ECC_NIST_P256', 'SIGN_VERIFY'), SigningAlgorithm: 'ECDSA_SHA_256', Message };
  const agreement = { KeyId: await key('ECC_NIST_P256', 'KEY_AGREEMENT'), KeyAgreementAlgorithm: 'ECDH' };
  const kem = { KeyId: await key('ML_KEM_512', 'ENCAPSULATE_DECAPSULATE'), EncapsulationAlgorithm: 'ML_KEM' };
  const peer = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).publicKey;
  Object.assign(inputs, {
    CreateGrant: grant,
    Decapsulate: {
      ...kem,
      SharedSecretCiphertextBlob: (await kms.run('Encapsulate', kem)).SharedSecretCiphertextBlob,
    },
    Decrypt: { CiphertextBlob },
    DeriveSharedSecret: { ...agreement, PublicKey: peer.export({ type: 'spki', format: 'der' }) },
    DescribeKey: { KeyId },
    Encapsulate: kem,
    Encrypt: { KeyId, Plaintext: Message },
    GenerateDataKey: { KeyId, NumberOfBytes: 16 },
    GenerateDataKeyPair: { KeyId, KeyPairSpec: 'ECC_NIST_P256' },
    GenerateDataKeyPairWithoutPlaintext: { KeyId, KeyPairSpec: 'ECC_NIST_P256' },
    GenerateDataKeyWithoutPlaintext: { KeyId, NumberOfBytes: 16 },
    GenerateMac: hmac,
    GenerateRandom: { NumberOfBytes: 16 },
    GetPublicKey: { KeyId: signer.KeyId },
    ReEncrypt: { CiphertextBlob, DestinationKeyId: KeyId },
    RetireGrant: { KeyId, GrantId },
    RevokeGrant: { KeyId, GrantId },
    Sign: signer,
    Verify: { ...signer, Signature: (await kms.run('Sign', signer)).Signature },
    VerifyMac: { ...hmac, Mac: (await kms.run('GenerateMac', hmac)).Mac },
  });
});

/** The operations whose request has this member. A schema lists the names of its members fifth. */
function operationsWith(member: string): string[] {
  return Object.entries(sdk as unknown as Record<string, unknown>)
    .filter(([name, schema]) => name.endsWith('Request$') && (schema as string[][])[4]!.includes(member))
    .map(([name]) => name.slice(0, -'Request$'.length));
}

describe.each(operationsWith('DryRun'))('%s', (name) => {
  test('tells by DryRun that it would succeed, and does nothing', async () => {
    expect(await kms.fails(name, { ...inputs[name], DryRun: true })).toEqual({
      code: 'DryRunOperationException',
      message: 'The request would have succeeded, but the DryRun option is set.',
    });
    expect(kms.last.record!.requestParameters).toMatchObject({ dryRun: true });
    const { Grants } = await kms.run('ListGrants', { KeyId: (inputs.CreateGrant as { KeyId: string }).KeyId });
    expect(Grants).toHaveLength(1);
  });
});

describe.each(operationsWith('GrantTokens'))('%s', (name) => {
  test('takes grant tokens that are genuine, ten at most', async () => {
    const { GrantToken, GrantId } = await kms.run('CreateGrant', inputs.CreateGrant!);
    await kms.run(name, { ...inputs[name], GrantTokens: [GrantToken] });
    const made = kms.last.record!;
    expect(JSON.stringify(made)).not.toContain(GrantToken);
    expect(await kms.code(name, { ...inputs[name], GrantTokens: ['x'] })).toBe('InvalidGrantTokenException');
    const many = Array.from({ length: 11 }, () => GrantToken);
    expect(await kms.code(name, { ...inputs[name], GrantTokens: many })).toBe('ValidationException');
    await kms.run('RevokeGrant', { KeyId: (inputs.CreateGrant as { KeyId: string }).KeyId, GrantId });
    if (name !== 'CreateGrant') return;
    const { responseElements } = made as { responseElements: { grantId: string; keyId: string } };
    await kms.run('RevokeGrant', { KeyId: responseElements.keyId, GrantId: responseElements.grantId });
  });
});

describe.each(operationsWith('Recipient'))('%s', (name) => {
  test('gives nothing to an enclave, and nothing to anyone else in its place', async () => {
    const Recipient = { KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256', AttestationDocument: Buffer.from('x') };
    for (const recipient of [Recipient, {}, { AttestationDocument: Buffer.from('x') }])
      expect(await kms.fails(name, { ...inputs[name], Recipient: recipient })).toEqual({
        code: 'ValidationException',
        message: 'Recipient: the attestation document is not valid, because this system has no AWS Nitro Enclaves.',
      });
    const other = { ...Recipient, KeyEncryptionAlgorithm: 'NONE' };
    expect(await kms.code(name, { ...inputs[name], Recipient: other })).toBe('ValidationException');
  });
});

test('the official schemas list these members where this test looks for them', () => {
  expect(operationsWith('DryRun').length).toBeGreaterThanOrEqual(16);
  expect(operationsWith('GrantTokens').length).toBeGreaterThanOrEqual(16);
  expect(operationsWith('Recipient')).toContain('Decrypt');
});
