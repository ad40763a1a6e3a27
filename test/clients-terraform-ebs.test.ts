/** What Terraform's AWS provider does for EBS: every change is read back at once. Points: see clients.test.ts. */
import {
  AttachVolumeCommand,
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  DescribeSnapshotAttributeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  DisableEbsEncryptionByDefaultCommand,
  EC2Client,
  EnableEbsEncryptionByDefaultCommand,
  GetEbsDefaultKmsKeyIdCommand,
  GetEbsEncryptionByDefaultCommand,
  ModifyEbsDefaultKmsKeyIdCommand,
  ModifySnapshotAttributeCommand,
  ModifyVolumeCommand,
  ResetEbsDefaultKmsKeyIdCommand,
} from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer, until } from './support/server.ts';
import { Volumes, zone } from './support/volumes.ts';
import { failure } from './support/wire.ts';

const account = '123456789012';
const other = '210987654321';
let server: TestServer;
let volumes: Volumes;
let ec2: EC2Client;
let instance: string;

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  ec2 = server.sdk(EC2Client);
  instance = await volumes.runInstance();
});
afterAll(() => server?.stop());

describe('aws_ebs_volume and what is made of it', () => {
  let keyArn: string;
  let volume: string;
  let snapshot: string;
  beforeAll(async () => {
    keyArn = (await server.sdk(KMSClient).send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  });

  test('aws_ebs_volume: reads back what it asked for, and grows', async () => {
    const made = await ec2.send(
      new CreateVolumeCommand({
        AvailabilityZone: zone,
        ClientToken: 'terraform-20260101000000000000000001',
        Encrypted: true,
        KmsKeyId: keyArn,
        Size: 4,
        VolumeType: 'io1',
        Iops: 100,
        TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'Name', Value: 'data' }] }],
      }),
    );
    volume = made.VolumeId!;
    await until(async () => (await volumes.describe(volume)).State === 'available', 'the volume');
    expect(await volumes.describe(volume)).toMatchObject({
      AvailabilityZone: zone,
      Encrypted: true,
      KmsKeyId: keyArn,
      Size: 4,
      VolumeType: 'io1',
      Iops: 100,
      MultiAttachEnabled: false,
      SnapshotId: '',
      Tags: [{ Key: 'Name', Value: 'data' }],
    });
    await ec2.send(
      new ModifyVolumeCommand({ VolumeId: volume, Size: 5, VolumeType: 'gp3', Iops: 3000, Throughput: 125 }),
    );
    const modified = { Size: 5, VolumeType: 'gp3', Iops: 3000, Throughput: 125 };
    expect(await volumes.describe(volume)).toMatchObject({ ...modified, State: 'available' });
  });

  test('aws_volume_attachment: is found by device and instance, and gone after', async () => {
    const Filters = [
      { Name: 'attachment.device', Values: ['/dev/sdh'] },
      { Name: 'attachment.instance-id', Values: [instance] },
    ];
    const attachments = async () => {
      const { Volumes } = await ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume], Filters }));
      return Volumes!.flatMap(({ Attachments }) => Attachments!);
    };
    expect(await attachments()).toEqual([]);
    const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [instance] }));
    expect(Reservations![0]!.Instances![0]!.State!.Name).toBe('running');
    await ec2.send(new AttachVolumeCommand({ VolumeId: volume, InstanceId: instance, Device: '/dev/sdh' }));
    await until(async () => (await attachments())[0]?.State === 'attached', 'the attachment');
    expect(await attachments()).toMatchObject([
      { VolumeId: volume, InstanceId: instance, Device: '/dev/sdh', AttachTime: expect.any(Date) },
    ]);
    const early = ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    expect(await failure(early)).toMatchObject({ name: 'VolumeInUse' });
    const gone = { VolumeId: volume, InstanceId: instance, Device: '/dev/sdh', Force: false };
    await ec2.send(new DetachVolumeCommand(gone));
    await until(async () => (await attachments()).length === 0, 'the attachment to be gone');
  });

  test('aws_ebs_snapshot, its copy and its permissions: every attribute that is read is there', async () => {
    const tags = [{ Key: 'Name', Value: 'kept' }];
    const made = await ec2.send(
      new CreateSnapshotCommand({
        VolumeId: volume,
        Description: 'kept',
        TagSpecifications: [{ ResourceType: 'snapshot', Tags: tags }],
      }),
    );
    snapshot = made.SnapshotId!;
    const read = async (id: string, client = ec2) => {
      const { Snapshots } = await client.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }));
      return Snapshots![0]!;
    };
    await until(async () => (await read(snapshot)).State === 'completed', 'the snapshot');
    expect(await read(snapshot)).toMatchObject({
      DataEncryptionKeyId: expect.any(String),
      Description: 'kept',
      Encrypted: true,
      KmsKeyId: keyArn,
      OwnerId: account,
      StorageTier: 'standard',
      VolumeId: volume,
      VolumeSize: 5,
      Tags: tags,
      StartTime: expect.any(Date),
    });

    const there = server.as(server.credentials, 'eu-west-1').sdk(EC2Client);
    const copy = await there.send(
      new CopySnapshotCommand({
        SourceRegion: 'us-east-1',
        SourceSnapshotId: snapshot,
        Encrypted: true,
        Description: 'copied',
        TagSpecifications: [{ ResourceType: 'snapshot', Tags: tags }],
      }),
    );
    expect(copy.Tags).toEqual(tags);
    await until(async () => (await read(copy.SnapshotId!, there)).State === 'completed', 'the copy');
    expect(await read(copy.SnapshotId!, there)).toMatchObject({
      Description: 'copied',
      Encrypted: true,
      KmsKeyId: expect.stringMatching(/^arn:aws:kms:eu-west-1:/),
      VolumeSize: 5,
      Tags: tags,
      DataEncryptionKeyId: expect.any(String),
    });

    const permission = { SnapshotId: snapshot, Attribute: 'createVolumePermission' } as const;
    const permissions = async () =>
      (await ec2.send(new DescribeSnapshotAttributeCommand(permission))).CreateVolumePermissions;
    const modify = (change: object) =>
      ec2.send(new ModifySnapshotAttributeCommand({ ...permission, CreateVolumePermission: change }));
    expect(await permissions()).toEqual([]);
    await modify({ Add: [{ UserId: other }] });
    expect(await permissions()).toEqual([{ UserId: other }]);
    await modify({ Remove: [{ UserId: other }] });
    expect(await permissions()).toEqual([]);

    await there.send(new DeleteSnapshotCommand({ SnapshotId: copy.SnapshotId }));
    await ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot }));
    const after = ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshot] }));
    expect(await failure(after)).toMatchObject({ name: 'InvalidSnapshot.NotFound' });
    await ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    const read404 = () =>
      volumes.describe(volume).then(
        ({ State }) => State,
        ({ name }) => name as string,
      );
    expect(['deleting', 'InvalidVolume.NotFound']).toContain(await read404());
    await until(async () => (await read404()) === 'InvalidVolume.NotFound', 'the volume to be gone');
  });

  test('aws_ebs_encryption_by_default and aws_ebs_default_kms_key echo what was set', async () => {
    const byDefault = async () => (await ec2.send(new GetEbsEncryptionByDefaultCommand({}))).EbsEncryptionByDefault;
    const defaultKey = async () => (await ec2.send(new GetEbsDefaultKmsKeyIdCommand({}))).KmsKeyId;
    expect(await byDefault()).toBe(false);
    await ec2.send(new EnableEbsEncryptionByDefaultCommand({}));
    expect(await byDefault()).toBe(true);
    await ec2.send(new ModifyEbsDefaultKmsKeyIdCommand({ KmsKeyId: keyArn }));
    expect(await defaultKey()).toBe(keyArn);
    const { Encrypted, KmsKeyId } = await ec2.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone }));
    expect({ Encrypted, KmsKeyId }).toEqual({ Encrypted: true, KmsKeyId: keyArn });
    await ec2.send(new ResetEbsDefaultKmsKeyIdCommand({}));
    expect(await defaultKey()).not.toBe(keyArn);
    await ec2.send(new DisableEbsEncryptionByDefaultCommand({}));
    expect(await byDefault()).toBe(false);
  });
});
