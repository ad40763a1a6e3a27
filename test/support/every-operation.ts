/**
 * Valid input for every operation of every service, each on resources of its own, so that operations can be asked for one
 * after the other, by whoever is to be asked as.
 */
import { createHash, randomUUID } from 'node:crypto';
import { account, otherAccount, type World, zone } from './world.ts';

type Make = (world: World) => Promise<object> | object;

let count = 0;
const next = (prefix: string) => `${prefix}${++count}`;

const iam = (world: World, operation: string, input: object) => world.call('iam', operation, input);
const policyDocument = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: 'ec2:Describe*', Resource: '*' }],
});
const trust = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: account }, Action: 'sts:*' }],
});
const tags = [{ Key: 'team', Value: 'storage' }];
const kmsTags = [{ TagKey: 'team', TagValue: 'storage' }];

async function key(world: World, input: object = {}): Promise<string> {
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

async function user(world: World): Promise<string> {
  const UserName = next('user');
  await iam(world, 'CreateUser', { UserName, Tags: tags });
  return UserName;
}
async function role(world: World): Promise<string> {
  const RoleName = next('role');
  await iam(world, 'CreateRole', { RoleName, AssumeRolePolicyDocument: trust, Tags: tags });
  return RoleName;
}
async function group(world: World): Promise<string> {
  const GroupName = next('group');
  await iam(world, 'CreateGroup', { GroupName });
  return GroupName;
}
async function policy(world: World): Promise<string> {
  const { Policy } = await iam(world, 'CreatePolicy', { PolicyName: next('policy'), PolicyDocument: policyDocument });
  return Policy.Arn;
}
async function profile(world: World): Promise<string> {
  const InstanceProfileName = next('profile');
  await iam(world, 'CreateInstanceProfile', { InstanceProfileName, Tags: tags });
  return InstanceProfileName;
}
async function accessKey(world: World) {
  const UserName = await user(world);
  const { AccessKey } = await iam(world, 'CreateAccessKey', { UserName });
  return { UserName, AccessKeyId: AccessKey.AccessKeyId };
}
const makers = { User: user, Role: role, Group: group } as const;
type Kind = keyof typeof makers;
async function withPolicy(world: World, kind: Kind): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world), PolicyName: 'p' };
  await iam(world, `Put${kind}Policy`, { ...named, PolicyDocument: policyDocument });
  return named;
}
async function withAttached(world: World, kind: Kind): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world), PolicyArn: await policy(world) };
  await iam(world, `Attach${kind}Policy`, named);
  return named;
}
async function withBoundary(world: World, kind: 'User' | 'Role'): Promise<object> {
  const named = { [`${kind}Name`]: await makers[kind](world) };
  const PermissionsBoundary = await policy(world);
  await iam(world, `Put${kind}PermissionsBoundary`, { ...named, PermissionsBoundary });
  return named;
}

const tagged = (ResourceType: string) => ({ TagSpecifications: [{ ResourceType, Tags: tags }] });
async function volume(world: World, more: object = {}): Promise<string> {
  const input = { Size: 1, AvailabilityZone: zone, ...tagged('volume'), ...more };
  return (await world.ec2('CreateVolume', input)).VolumeId;
}
const launch = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1 };
async function instance(world: World): Promise<string> {
  return (await world.ec2('RunInstances', { ...launch, ...tagged('instance') })).Instances[0].InstanceId;
}
async function filledProfile(world: World): Promise<string> {
  const InstanceProfileName = await profile(world);
  await iam(world, 'AddRoleToInstanceProfile', { InstanceProfileName, RoleName: await role(world) });
  return InstanceProfileName;
}
async function attached(world: World) {
  const [VolumeId, InstanceId] = [await volume(world), await instance(world)];
  await world.ec2('AttachVolume', { VolumeId, InstanceId, Device: '/dev/sdf' });
  return { VolumeId, InstanceId };
}
async function snapshot(world: World): Promise<string> {
  return (await world.ec2('CreateSnapshot', { VolumeId: await volume(world), ...tagged('snapshot') })).SnapshotId;
}

const ofKey: Make = async (world) => ({ KeyId: await key(world) });
const nothing: Make = () => ({});
const named =
  (kind: Kind): Make =>
  async (world) => ({ [`${kind}Name`]: await makers[kind](world) });
const onVolume =
  (more: object = {}): Make =>
  async (world) => ({ VolumeId: await volume(world), ...more });
const onInstances: Make = async (world) => ({ InstanceIds: [await instance(world)] });
const ofPolicies = (kind: Kind): Record<string, Make> => ({
  [`Put${kind}Policy`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PolicyName: 'p',
    PolicyDocument: policyDocument,
  }),
  [`Get${kind}Policy`]: (world) => withPolicy(world, kind),
  [`List${kind}Policies`]: named(kind),
  [`Delete${kind}Policy`]: (world) => withPolicy(world, kind),
  [`Attach${kind}Policy`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PolicyArn: await policy(world),
  }),
  [`Detach${kind}Policy`]: (world) => withAttached(world, kind),
  [`ListAttached${kind}Policies`]: named(kind),
});
const ofBoundaries = (kind: 'User' | 'Role'): Record<string, Make> => ({
  [`Put${kind}PermissionsBoundary`]: async (world) => ({
    [`${kind}Name`]: await makers[kind](world),
    PermissionsBoundary: await policy(world),
  }),
  [`Delete${kind}PermissionsBoundary`]: (world) => withBoundary(world, kind),
});
const ofTags = (kind: 'User' | 'Role'): Record<string, Make> => ({
  [`Tag${kind}`]: async (world) => ({ [`${kind}Name`]: await makers[kind](world), Tags: tags }),
  [`Untag${kind}`]: async (world) => ({ [`${kind}Name`]: await makers[kind](world), TagKeys: ['team'] }),
  [`List${kind}Tags`]: named(kind),
});

/** By service and operation. */
export const everyInput: Readonly<Record<string, Readonly<Record<string, Make>>>> = {
  kms: {
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
  },
  ec2: {
    AttachVolume: async (world) => ({
      VolumeId: await volume(world),
      InstanceId: await instance(world),
      Device: '/dev/sdf',
    }),
    CreateSnapshot: onVolume(tagged('snapshot')),
    CreateSnapshots: async (world) => ({
      InstanceSpecification: { InstanceId: (await attached(world)).InstanceId },
    }),
    CreateTags: async (world) => ({ Resources: [await volume(world), await instance(world)], Tags: tags }),
    CreateVolume: async (world) => ({
      Size: 1,
      AvailabilityZone: zone,
      Encrypted: true,
      KmsKeyId: await key(world),
      VolumeType: 'gp3',
      ...tagged('volume'),
    }),
    CopySnapshot: async (world) => ({
      SourceSnapshotId: await snapshot(world),
      SourceRegion: 'us-east-1',
      Encrypted: true,
      KmsKeyId: await key(world),
    }),
    CopyVolumes: async (world) => ({ SourceVolumeId: await volume(world, { Encrypted: true }) }),
    DeleteSnapshot: async (world) => ({ SnapshotId: await snapshot(world) }),
    DescribeSnapshotAttribute: async (world) => ({
      SnapshotId: await snapshot(world),
      Attribute: 'createVolumePermission',
    }),
    ModifySnapshotAttribute: async (world) => ({
      SnapshotId: await snapshot(world),
      CreateVolumePermission: { Add: [{ UserId: otherAccount }] },
    }),
    ResetSnapshotAttribute: async (world) => ({
      SnapshotId: await snapshot(world),
      Attribute: 'createVolumePermission',
    }),
    ModifyVolume: onVolume({ Size: 2 }),
    DeleteTags: async (world) => ({ Resources: [await volume(world), await instance(world)], Tags: tags }),
    DeleteVolume: onVolume(),
    DescribeInstanceAttribute: async (world) => ({
      InstanceId: await instance(world),
      Attribute: 'disableApiTermination',
    }),
    DescribeVolumeAttribute: onVolume({ Attribute: 'autoEnableIO' }),
    DetachVolume: attached,
    ModifyEbsDefaultKmsKeyId: async (world) => ({ KmsKeyId: await key(world) }),
    ModifyInstanceAttribute: async (world) => ({
      InstanceId: await instance(world),
      DisableApiTermination: { Value: true },
    }),
    EnableVolumeIO: onVolume(),
    ModifyVolumeAttribute: onVolume({ AutoEnableIO: { Value: true } }),
    RebootInstances: onInstances,
    RunInstances: async (world) => ({
      ...launch,
      IamInstanceProfile: { Name: await filledProfile(world) },
      TagSpecifications: [...tagged('instance').TagSpecifications, ...tagged('volume').TagSpecifications],
      BlockDeviceMappings: [
        { DeviceName: '/dev/sdf', Ebs: { VolumeSize: 1, Encrypted: true, KmsKeyId: await key(world) } },
      ],
    }),
    StartInstances: async (world) => {
      const InstanceIds = [await instance(world)];
      await world.ec2('StopInstances', { InstanceIds });
      return { InstanceIds };
    },
    StopInstances: onInstances,
    TerminateInstances: onInstances,
    ...Object.fromEntries(
      [
        ...['DescribeAvailabilityZones', 'DescribeImages', 'DescribeInstanceStatus', 'DescribeInstanceTypes'],
        ...['DescribeInstances', 'DescribeRegions', 'DescribeSnapshots', 'DescribeTags', 'DescribeVolumeStatus'],
        ...[
          'DescribeVolumes',
          'DescribeVolumesModifications',
          'DisableEbsEncryptionByDefault',
          'EnableEbsEncryptionByDefault',
        ],
        ...['GetEbsDefaultKmsKeyId', 'GetEbsEncryptionByDefault', 'ResetEbsDefaultKmsKeyId'],
      ].map((name) => [name, nothing]),
    ),
  },
  ebs: {
    ListSnapshotBlocks: async (world) => ({ SnapshotId: await snapshot(world) }),
    ListChangedBlocks: async (world) => ({
      FirstSnapshotId: await snapshot(world),
      SecondSnapshotId: await snapshot(world),
    }),
    GetSnapshotBlock: async (world) => ({ SnapshotId: await snapshot(world), BlockIndex: 0, BlockToken: 'x' }),
    PutSnapshotBlock: async (world) => ({
      SnapshotId: await snapshot(world),
      BlockIndex: 0,
      BlockData: Buffer.alloc(512 * 1024),
      DataLength: 512 * 1024,
      Checksum: createHash('sha256')
        .update(Buffer.alloc(512 * 1024))
        .digest('base64'),
      ChecksumAlgorithm: 'SHA256',
    }),
    StartSnapshot: () => ({ VolumeSize: 1, Description: 'x', Tags: tags, ClientToken: randomUUID() }),
    CompleteSnapshot: async (world) => ({ SnapshotId: await snapshot(world), ChangedBlocksCount: 0 }),
  },
  sts: {
    AssumeRole: async (world) => ({
      RoleArn: `arn:aws:iam::${account}:role/${await role(world)}`,
      RoleSessionName: 'monday',
      ExternalId: 'partner',
      Tags: tags,
      TransitiveTagKeys: ['team'],
    }),
    GetAccessKeyInfo: async (world) => ({ AccessKeyId: (await accessKey(world)).AccessKeyId }),
  },
  iam: {
    CreateUser: async (world) => ({
      UserName: next('user'),
      Tags: tags,
      PermissionsBoundary: await policy(world),
    }),
    GetUser: named('User'),
    ListUsers: nothing,
    UpdateUser: async (world) => ({ UserName: await user(world), NewUserName: next('user') }),
    DeleteUser: named('User'),
    CreateAccessKey: named('User'),
    UpdateAccessKey: async (world) => ({ ...(await accessKey(world)), Status: 'Inactive' }),
    DeleteAccessKey: accessKey,
    ListAccessKeys: named('User'),
    GetAccessKeyLastUsed: async (world) => ({ AccessKeyId: (await accessKey(world)).AccessKeyId }),
    CreateGroup: () => ({ GroupName: next('group') }),
    GetGroup: named('Group'),
    ListGroups: nothing,
    ListGroupsForUser: named('User'),
    UpdateGroup: async (world) => ({ GroupName: await group(world), NewGroupName: next('group') }),
    DeleteGroup: named('Group'),
    AddUserToGroup: async (world) => ({ GroupName: await group(world), UserName: await user(world) }),
    RemoveUserFromGroup: async (world) => {
      const both = { GroupName: await group(world), UserName: await user(world) };
      await iam(world, 'AddUserToGroup', both);
      return both;
    },
    CreateRole: () => ({ RoleName: next('role'), AssumeRolePolicyDocument: trust, Tags: tags }),
    GetRole: named('Role'),
    ListRoles: nothing,
    UpdateRole: async (world) => ({ RoleName: await role(world), Description: 'x' }),
    UpdateRoleDescription: async (world) => ({ RoleName: await role(world), Description: 'x' }),
    UpdateAssumeRolePolicy: async (world) => ({ RoleName: await role(world), PolicyDocument: trust }),
    DeleteRole: named('Role'),
    CreateInstanceProfile: () => ({ InstanceProfileName: next('profile'), Tags: tags }),
    GetInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world) }),
    ListInstanceProfiles: nothing,
    ListInstanceProfilesForRole: named('Role'),
    AddRoleToInstanceProfile: async (world) => ({
      InstanceProfileName: await profile(world),
      RoleName: await role(world),
    }),
    RemoveRoleFromInstanceProfile: async (world) => {
      const both = { InstanceProfileName: await profile(world), RoleName: await role(world) };
      await iam(world, 'AddRoleToInstanceProfile', both);
      return both;
    },
    DeleteInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world) }),
    ...ofPolicies('User'),
    ...ofPolicies('Group'),
    ...ofPolicies('Role'),
    ...ofBoundaries('User'),
    ...ofBoundaries('Role'),
    ...ofTags('User'),
    ...ofTags('Role'),
    CreatePolicy: () => ({ PolicyName: next('policy'), PolicyDocument: policyDocument }),
    GetPolicy: async (world) => ({ PolicyArn: await policy(world) }),
    ListPolicies: nothing,
    DeletePolicy: async (world) => ({ PolicyArn: await policy(world) }),
    ListEntitiesForPolicy: async (world) => ({ PolicyArn: await policy(world) }),
    CreatePolicyVersion: async (world) => ({ PolicyArn: await policy(world), PolicyDocument: policyDocument }),
    GetPolicyVersion: async (world) => ({ PolicyArn: await policy(world), VersionId: 'v1' }),
    ListPolicyVersions: async (world) => ({ PolicyArn: await policy(world) }),
    SetDefaultPolicyVersion: async (world) => ({ PolicyArn: await policy(world), VersionId: 'v1' }),
    DeletePolicyVersion: async (world) => {
      const PolicyArn = await policy(world);
      await iam(world, 'CreatePolicyVersion', { PolicyArn, PolicyDocument: policyDocument });
      return { PolicyArn, VersionId: 'v2' };
    },
    TagPolicy: async (world) => ({ PolicyArn: await policy(world), Tags: tags }),
    UntagPolicy: async (world) => ({ PolicyArn: await policy(world), TagKeys: ['team'] }),
    ListPolicyTags: async (world) => ({ PolicyArn: await policy(world) }),
    TagInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world), Tags: tags }),
    UntagInstanceProfile: async (world) => ({ InstanceProfileName: await profile(world), TagKeys: ['team'] }),
    ListInstanceProfileTags: async (world) => ({ InstanceProfileName: await profile(world) }),
    SimulatePrincipalPolicy: async (world) => ({
      PolicySourceArn: `arn:aws:iam::${account}:user/${await user(world)}`,
      ActionNames: ['kms:Decrypt'],
    }),
    SimulateCustomPolicy: () => ({ PolicyInputList: [policyDocument], ActionNames: ['kms:Decrypt'] }),
  },
  cloudtrail: { LookupEvents: nothing },
  coffer: {
    DescribeKeyUsage: ofKey,
    ListEvents: nothing,
    InspectVolume: onVolume(),
  },
};

async function aliasOf(world: World): Promise<object> {
  return { KeyId: (await aliased(world)).AliasName };
}
