import { account, type World } from '../world.ts';
import { type Inputs, type Make, next, nothing } from './inputs.ts';

const kmsTags = [{ TagKey: 'team', TagValue: 'storage' }];

export async function key(world: World, input: object = {}): Promise<string> {
  return (await world.kms('CreateKey', { Tags: kmsTags, ...input })).KeyMetadata.Arn;
}
async function aliased(world: World, input: object = {}) {
  const KeyId = await key(world, input);
  const AliasName = next('alias/a');
  await world.kms('CreateAlias', { AliasName, TargetKeyId: KeyId });
  return { KeyId, AliasName };
}
async function sealed(world: World) {
  const KeyId = await key(world);
  const EncryptionContext = { app: 'a' };
  const { CiphertextBlob } = await world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x'), EncryptionContext });
  return { KeyId, CiphertextBlob };
}
const signing = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' };
const agreeing = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' };
const encapsulating = { KeySpec: 'ML_KEM_768', KeyUsage: 'ENCAPSULATE_DECAPSULATE' };
const algorithm = { EncapsulationAlgorithm: 'ML_KEM' };
const authenticating = { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' };
const message = { Message: Buffer.from('m'), MessageType: 'RAW', SigningAlgorithm: 'ECDSA_SHA_256' };
const root = `arn:aws:iam::${account}:root`;
async function granted(world: World) {
  const KeyId = await key(world);
  const { GrantId } = await world.kms('CreateGrant', { KeyId, GranteePrincipal: root, Operations: ['Decrypt'] });
  return { KeyId, GrantId };
}

async function aliasOf(world: World): Promise<object> {
  return { KeyId: (await aliased(world)).AliasName };
}

export const ofKey: Make = async (world) => ({ KeyId: await key(world) });

export const kmsInputs: Inputs = {
  CreateKey: () => ({ Tags: kmsTags }),
  DescribeKey: aliasOf,
  EnableKey: ofKey,
  DisableKey: ofKey,
  UpdateKeyDescription: async (world) => ({ KeyId: await key(world), Description: 'x' }),
  ListKeys: nothing,
  ScheduleKeyDeletion: async (world) => ({ KeyId: await key(world), PendingWindowInDays: 7 }),
  CancelKeyDeletion: async (world) => {
    const KeyId = await key(world);
    await world.kms('ScheduleKeyDeletion', { KeyId });
    return { KeyId };
  },
  CreateAlias: async (world) => ({ AliasName: next('alias/a'), TargetKeyId: await key(world) }),
  UpdateAlias: async (world) => ({
    AliasName: (await aliased(world)).AliasName,
    TargetKeyId: await key(world),
  }),
  DeleteAlias: async (world) => ({ AliasName: (await aliased(world)).AliasName }),
  ListAliases: nothing,
  TagResource: async (world) => ({ KeyId: await key(world), Tags: kmsTags }),
  UntagResource: async (world) => ({ KeyId: await key(world), TagKeys: ['team'] }),
  ListResourceTags: ofKey,
  GetKeyPolicy: ofKey,
  PutKeyPolicy: async (world) => {
    const KeyId = await key(world);
    const { Policy } = await world.kms('GetKeyPolicy', { KeyId });
    return { KeyId, Policy, BypassPolicyLockoutSafetyCheck: true };
  },
  ListKeyPolicies: ofKey,
  EnableKeyRotation: async (world) => ({ KeyId: await key(world), RotationPeriodInDays: 180 }),
  DisableKeyRotation: ofKey,
  GetKeyRotationStatus: ofKey,
  RotateKeyOnDemand: ofKey,
  ListKeyRotations: ofKey,
  GetParametersForImport: async (world) => ({
    KeyId: await key(world, { Origin: 'EXTERNAL' }),
    WrappingAlgorithm: 'RSAES_OAEP_SHA_256',
    WrappingKeySpec: 'RSA_2048',
  }),
  ImportKeyMaterial: async (world) => {
    const KeyId = await key(world, { Origin: 'EXTERNAL' });
    const wrapping = { WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_2048' };
    const { ImportToken } = await world.kms('GetParametersForImport', { KeyId, ...wrapping });
    const ValidTo = new Date(world.clock.now() + 86_400_000);
    return { KeyId, ImportToken, EncryptedKeyMaterial: Buffer.alloc(256, 1), ValidTo };
  },
  DeleteImportedKeyMaterial: async (world) => ({ KeyId: await key(world, { Origin: 'EXTERNAL' }) }),
  ReplicateKey: async (world) => ({ KeyId: await key(world, { MultiRegion: true }), ReplicaRegion: 'eu-west-1' }),
  UpdatePrimaryRegion: async (world) => {
    const KeyId = await key(world, { MultiRegion: true });
    await world.kms('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' });
    return { KeyId, PrimaryRegion: 'eu-west-1' };
  },
  Encrypt: async (world) => ({
    KeyId: (await aliased(world)).AliasName,
    Plaintext: Buffer.from('x'),
    EncryptionContext: { app: 'a' },
  }),
  Decrypt: async (world) => ({ ...(await sealed(world)), EncryptionContext: { app: 'a' } }),
  ReEncrypt: async (world) => ({
    CiphertextBlob: (await sealed(world)).CiphertextBlob,
    SourceEncryptionContext: { app: 'a' },
    DestinationKeyId: await key(world),
  }),
  GenerateDataKey: async (world) => ({ KeyId: await key(world), KeySpec: 'AES_256' }),
  GenerateDataKeyWithoutPlaintext: async (world) => ({ KeyId: await key(world), KeySpec: 'AES_256' }),
  GenerateDataKeyPair: async (world) => ({ KeyId: await key(world), KeyPairSpec: 'ECC_NIST_P256' }),
  GenerateDataKeyPairWithoutPlaintext: async (world) => ({ KeyId: await key(world), KeyPairSpec: 'ECC_NIST_P256' }),
  GenerateRandom: () => ({ NumberOfBytes: 8 }),
  GetPublicKey: async (world) => ({ KeyId: await key(world, signing) }),
  Sign: async (world) => ({ KeyId: await key(world, signing), ...message }),
  Verify: async (world) => {
    const KeyId = await key(world, signing);
    const { Signature } = await world.kms('Sign', { KeyId, ...message });
    return { KeyId, ...message, Signature };
  },
  GenerateMac: async (world) => ({
    KeyId: await key(world, authenticating),
    Message: Buffer.from('m'),
    MacAlgorithm: 'HMAC_SHA_256',
  }),
  VerifyMac: async (world) => {
    const KeyId = await key(world, authenticating);
    const about = { KeyId, Message: Buffer.from('m'), MacAlgorithm: 'HMAC_SHA_256' };
    return { ...about, Mac: (await world.kms('GenerateMac', about)).Mac };
  },
  DeriveSharedSecret: async (world) => {
    const [KeyId, other] = [await key(world, agreeing), await key(world, agreeing)];
    const { PublicKey } = await world.kms('GetPublicKey', { KeyId: other });
    return { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey };
  },
  CreateGrant: async (world) => ({
    KeyId: await key(world),
    GranteePrincipal: root,
    RetiringPrincipal: root,
    Operations: ['Decrypt'],
    Constraints: { EncryptionContextSubset: { app: 'a' } },
  }),
  ListGrants: ofKey,
  ListRetirableGrants: () => ({ RetiringPrincipal: root }),
  RetireGrant: granted,
  RevokeGrant: granted,
  GetKeyLastUsage: ofKey,
  Encapsulate: async (world) => ({ KeyId: await key(world, encapsulating), ...algorithm }),
  Decapsulate: async (world) => {
    const KeyId = await key(world, encapsulating);
    const { SharedSecretCiphertextBlob } = await world.kms('Encapsulate', { KeyId, ...algorithm });
    return { KeyId, ...algorithm, SharedSecretCiphertextBlob };
  },
  CreateCustomKeyStore: () => ({ CustomKeyStoreName: 'x' }),
  DescribeCustomKeyStores: nothing,
  ...Object.fromEntries(
    ['ConnectCustomKeyStore', 'DeleteCustomKeyStore', 'DisconnectCustomKeyStore', 'UpdateCustomKeyStore'].map(
      (name) => [name, () => ({ CustomKeyStoreId: 'cks-1234567890abcdef0' })],
    ),
  ),
};
