import { createHash, randomUUID } from 'node:crypto';
import { otherAccount, type World, zone } from '../world.ts';
import { filledProfile } from './iam.ts';
import { type Inputs, type Make, nothing, tags } from './inputs.ts';
import { key } from './kms.ts';

const tagged = (ResourceType: string) => ({ TagSpecifications: [{ ResourceType, Tags: tags }] });
async function volume(world: World, more: object = {}): Promise<string> {
  const input = { Size: 1, AvailabilityZone: zone, ...tagged('volume'), ...more };
  return (await world.ec2('CreateVolume', input)).VolumeId;
}
const launch = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1 };
async function instance(world: World): Promise<string> {
  return (await world.ec2('RunInstances', { ...launch, ...tagged('instance') })).Instances[0].InstanceId;
}
async function attached(world: World) {
  const [VolumeId, InstanceId] = [await volume(world), await instance(world)];
  await world.ec2('AttachVolume', { VolumeId, InstanceId, Device: '/dev/sdf' });
  return { VolumeId, InstanceId };
}
async function snapshot(world: World): Promise<string> {
  return (await world.ec2('CreateSnapshot', { VolumeId: await volume(world), ...tagged('snapshot') })).SnapshotId;
}

export const onVolume =
  (more: object = {}): Make =>
  async (world) => ({ VolumeId: await volume(world), ...more });
const onInstances: Make = async (world) => ({ InstanceIds: [await instance(world)] });

export const ec2Inputs: Inputs = {
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
};

export const ebsInputs: Inputs = {
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
};
