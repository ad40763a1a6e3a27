/** What the AWS EBS CSI driver does, call by call, and what it relies on in the answers. Points: see clients.test.ts. */
import { createHash, randomBytes } from 'node:crypto';
import {
  AttachVolumeCommand,
  CopyVolumesCommand,
  CreateSnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  type CreateVolumeCommandInput,
  DeleteSnapshotCommand,
  DeleteTagsCommand,
  DeleteVolumeCommand,
  DescribeAvailabilityZonesCommand,
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DescribeVolumesModificationsCommand,
  DetachVolumeCommand,
  EC2Client,
  ModifyVolumeCommand,
  type Snapshot,
  type Tag,
  type Volume,
} from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { Volumes, zone } from './support/volumes.ts';
import { failure } from './support/wire.ts';

const mebibyte = 1024 * 1024;
const limitProbeIops = 2_147_483_647;
let server: TestServer;
let volumes: Volumes;
let ec2: EC2Client;
let keyArn: string;
let node: string;

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  ec2 = server.sdk(EC2Client);
  keyArn = (await server.sdk(KMSClient).send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  node = await volumes.runInstance();
});
afterAll(() => server?.stop());

/** 64 hexadecimal digits, as the driver makes them of a volume's name. */
const tokenOf = (name: string) => createHash('sha256').update(name).digest('hex');
const tagsOf = (nameKey: string, name: string): Tag[] => [
  { Key: nameKey, Value: name },
  { Key: 'ebs.csi.aws.com/cluster', Value: 'true' },
  { Key: 'kubernetes.io/cluster/one', Value: 'owned' },
];
const byTag = (key: string, ...Values: string[]) => ({ Filters: [{ Name: `tag:${key}`, Values }] });

/** CreateVolume as the driver sends it. */
function request(name: string, more: Partial<CreateVolumeCommandInput> = {}): CreateVolumeCommandInput {
  return {
    AvailabilityZone: zone,
    ClientToken: tokenOf(name),
    Size: 1,
    VolumeType: 'gp3',
    Encrypted: true,
    KmsKeyId: keyArn,
    MultiAttachEnabled: false,
    TagSpecifications: [{ ResourceType: 'volume', Tags: tagsOf('CSIVolumeName', name) }],
    ...more,
  };
}

async function provision(name: string, more: Partial<CreateVolumeCommandInput> = {}): Promise<Volume> {
  const made = await ec2.send(new CreateVolumeCommand(request(name, more)));
  await until(
    async () => (await volumes.describe(made.VolumeId!)).State === 'available',
    `${made.VolumeId} to be there`,
  );
  return made;
}

async function snapshotByName(name: string): Promise<Snapshot | undefined> {
  const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand(byTag('CSIVolumeSnapshotName', name)));
  expect(Snapshots!.length).toBeLessThan(2);
  return Snapshots![0];
}

/** The driver publishes a volume: the names in use, AttachVolume, DescribeVolumes until it is attached. */
async function publish(volumeId: string, device: string): Promise<void> {
  const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [node] }));
  const mappings = Reservations![0]!.Instances![0]!.BlockDeviceMappings!;
  for (const mapping of mappings) expect(mapping).toMatchObject({ DeviceName: expect.any(String), Ebs: {} });
  expect(mappings.map((mapping) => mapping.DeviceName)).not.toContain(device);
  await ec2.send(new AttachVolumeCommand({ VolumeId: volumeId, InstanceId: node, Device: device }));
  const after = await volumes.describe(volumeId);
  expect(after.State).toBe('in-use');
  expect(after.Attachments).toMatchObject([{ InstanceId: node, Device: device, VolumeId: volumeId }]);
  await volumes.attached(volumeId);
}

async function unpublish(volumeId: string): Promise<void> {
  await ec2.send(new DetachVolumeCommand({ VolumeId: volumeId, InstanceId: node }));
  await until(async () => (await volumes.describe(volumeId)).Attachments!.length === 0, `${volumeId} to be detached`);
}

describe('its probes', () => {
  test('it is healthy when a dry run says that it would have worked', async () => {
    const probe = ec2.send(new DescribeAvailabilityZonesCommand({ DryRun: true }));
    expect(await failure(probe)).toMatchObject({ name: 'DryRunOperation', status: 412 });
    const { AvailabilityZones } = await ec2.send(new DescribeAvailabilityZonesCommand({}));
    expect(AvailabilityZones![0]).toMatchObject({ ZoneName: zone, ZoneId: expect.stringMatching(/^use1-az\d$/) });
  });

  test.each([
    ['gp3', 'InvalidParameterValue', /maximum is (\d+)/, 80_000],
    ['io1', 'InvalidParameterValue', /maximum is (\d+)/, 64_000],
    ['io2', 'InvalidParameterCombination', /(\d+)K/, 256],
  ] as const)('it learns the most IOPS of %s from the refusal', async (VolumeType, name, limit, most) => {
    const probe = { Size: 4, VolumeType, Iops: limitProbeIops, AvailabilityZone: zone, DryRun: true };
    const refusal = await failure(ec2.send(new CreateVolumeCommand(probe)));
    expect(refusal).toMatchObject({ name, status: 400 });
    expect(Number(limit.exec(refusal.message)![1])).toBe(most);
  });

  test('a dry run uses up no client token', async () => {
    const dry = ec2.send(new CreateVolumeCommand(request('dry', { DryRun: true, Size: 2 })));
    expect(await failure(dry)).toMatchObject({ name: 'DryRunOperation', status: 412 });
    const made = await provision('dry');
    expect(made.Size).toBe(1);
    await ec2.send(new DeleteVolumeCommand({ VolumeId: made.VolumeId }));
  });
});

test('a claim becomes a volume once, however often it asks', async () => {
  expect((await ec2.send(new DescribeVolumesCommand(byTag('CSIVolumeName', 'pvc-1')))).Volumes).toEqual([]);
  const given = { Size: 8, Iops: 4000, Throughput: 250 };
  const made = await provision('pvc-1', given);
  expect(made).toMatchObject({
    VolumeId: expect.stringMatching(/^vol-[0-9a-f]{17}$/),
    VolumeType: 'gp3',
    Encrypted: true,
    KmsKeyId: keyArn,
    MultiAttachEnabled: false,
    SnapshotId: '',
    CreateTime: expect.any(Date),
    AvailabilityZone: zone,
    Tags: expect.arrayContaining(tagsOf('CSIVolumeName', 'pvc-1')),
    ...given,
  });
  const again = await ec2.send(new CreateVolumeCommand(request('pvc-1', given)));
  expect(again.VolumeId).toBe(made.VolumeId);
  const found = await ec2.send(new DescribeVolumesCommand(byTag('CSIVolumeName', 'pvc-1')));
  expect(found.Volumes!.map(({ VolumeId }) => VolumeId)).toEqual([made.VolumeId]);
  expect(found.Volumes![0]).toMatchObject({ State: 'available', Attachments: [] });

  const mismatch = { name: 'IdempotentParameterMismatch', status: 400 };
  const larger = new CreateVolumeCommand(request('pvc-1', { ...given, Size: 16 }));
  expect(await failure(ec2.send(larger))).toMatchObject(mismatch);
  await ec2.send(new DeleteVolumeCommand({ VolumeId: made.VolumeId }));
  // A token stays bound to the volume that it made: the driver then goes on to its next token.
  expect(await failure(ec2.send(new CreateVolumeCommand(request('pvc-1', given))))).toMatchObject(mismatch);
  const next = await ec2.send(new CreateVolumeCommand(request('pvc-1', { ...given, ClientToken: tokenOf('pvc-1-2') })));
  expect(next.VolumeId).not.toBe(made.VolumeId);
  await ec2.send(new DeleteVolumeCommand({ VolumeId: next.VolumeId }));
});

test('batches of 500 ids, and of as many names, are one request', async () => {
  const many = await Promise.all(
    Array.from({ length: 4 }, (_, index) => ec2.send(new CreateVolumeCommand(request(`batch-${index}`)))),
  );
  const known = many.map(({ VolumeId }) => VolumeId!);
  const names = Array.from({ length: 500 }, (_, index) => `batch-${index}`);
  const byName = await ec2.send(new DescribeVolumesCommand(byTag('CSIVolumeName', ...names)));
  expect(byName.Volumes!.map(({ VolumeId }) => VolumeId).sort()).toEqual([...known].sort());
  expect(byName.NextToken).toBeUndefined();
  expect((await ec2.send(new DescribeVolumesCommand({ VolumeIds: known }))).Volumes).toHaveLength(4);

  const unknown = Array.from({ length: 496 }, (_, index) => `vol-0${index.toString(16).padStart(16, '0')}`);
  const refusal = await failure(ec2.send(new DescribeVolumesCommand({ VolumeIds: [...known, ...unknown] })));
  expect(refusal).toMatchObject({ name: 'InvalidVolume.NotFound', status: 400 });
  const named = new Set(refusal.message.match(/vol-[0-9a-f]{17}/g));
  expect([...known, ...unknown].filter((id) => named.has(id))).toEqual(unknown);
  const snapshotNames = Array.from({ length: 1000 }, (_, index) => `snapshot-${index}`);
  const none = await ec2.send(new DescribeSnapshotsCommand(byTag('CSIVolumeSnapshotName', ...snapshotNames)));
  expect(none.Snapshots).toEqual([]);
  await Promise.all(known.map((VolumeId) => ec2.send(new DeleteVolumeCommand({ VolumeId }))));
});

test('its errors are the ones it knows', async () => {
  const { VolumeId } = await provision('errors');
  const other = await provision('errors-2');
  const nowhere = 'i-00000000000000001';
  const absent = 'vol-00000000000000001';
  const attach = (volume: string | undefined, instance: string, Device: string) =>
    failure(ec2.send(new AttachVolumeCommand({ VolumeId: volume, InstanceId: instance, Device })));
  const detach = (volume: string | undefined, instance: string) =>
    failure(ec2.send(new DetachVolumeCommand({ VolumeId: volume, InstanceId: instance })));

  expect(await attach(VolumeId, nowhere, '/dev/xvdaa')).toMatchObject({
    name: 'InvalidInstanceID.NotFound',
    message: expect.stringContaining(nowhere),
  });
  expect(await attach(absent, node, '/dev/xvdaa')).toMatchObject({
    name: 'InvalidVolume.NotFound',
    message: expect.stringContaining(absent),
  });
  const instances = ec2.send(new DescribeInstancesCommand({ InstanceIds: [node, nowhere] }));
  expect(await failure(instances)).toMatchObject({ name: 'InvalidInstanceID.NotFound' });
  expect(await detach(VolumeId, node)).toMatchObject({
    name: 'IncorrectState',
    message: expect.stringContaining('available'),
  });
  await publish(VolumeId!, '/dev/xvdaa');
  expect(await attach(other.VolumeId, node, '/dev/xvdaa')).toMatchObject({
    name: 'InvalidParameterValue',
    message: expect.stringContaining('already in use'),
  });
  const elsewhere = await volumes.runInstance();
  expect(await attach(VolumeId, elsewhere, '/dev/xvdaa')).toMatchObject({ name: 'VolumeInUse' });
  expect(await detach(VolumeId, elsewhere)).toMatchObject({ name: 'InvalidAttachment.NotFound' });
  expect(await failure(ec2.send(new DeleteVolumeCommand({ VolumeId })))).toMatchObject({ name: 'VolumeInUse' });
  await unpublish(VolumeId!);
  const dangling = ec2.send(new CreateVolumeCommand(request('x', { SnapshotId: 'snap-00000000000000001' })));
  expect(await failure(dangling)).toMatchObject({
    name: 'InvalidSnapshot.NotFound',
    message: expect.stringContaining('snap-00000000000000001'),
  });
  const snapshot = ec2.send(new DeleteSnapshotCommand({ SnapshotId: 'snap-00000000000000001' }));
  expect(await failure(snapshot)).toMatchObject({ name: 'InvalidSnapshot.NotFound' });
  const combination = ec2.send(new CreateVolumeCommand(request('y', { VolumeType: 'gp2', Iops: 3000 })));
  expect(await failure(combination)).toMatchObject({ name: 'InvalidParameterCombination' });
  for (const id of [VolumeId, other.VolumeId]) await ec2.send(new DeleteVolumeCommand({ VolumeId: id }));
});

describe('the life of a claim', () => {
  const data = randomBytes(4 * mebibyte);
  const name = 'pvc-life';
  let volume: string;
  let snapshot: string;

  const content = async (id: string, device: string) => {
    await publish(id, device);
    const nbd = await NbdClient.connect(volumes.socket(node, device));
    const bytes = await nbd.read(mebibyte, data.length);
    const { sizeBytes } = nbd;
    await nbd.close();
    await unpublish(id);
    return { bytes, sizeBytes };
  };

  test('it is published at a device name of two letters, and written to', async () => {
    volume = (await provision(name)).VolumeId!;
    await publish(volume, '/dev/xvdaa');
    const nbd = await NbdClient.connect(volumes.socket(node, '/dev/xvdaa'));
    await nbd.write(mebibyte, data);
    await nbd.flush();
    await nbd.close();
    const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [node] }));
    const instance = Reservations![0]!.Instances![0]!;
    expect(instance.BlockDeviceMappings).toContainEqual(
      expect.objectContaining({
        DeviceName: '/dev/xvdaa',
        Ebs: expect.objectContaining({ VolumeId: volume, Status: 'attached' }),
      }),
    );
    expect(instance).toMatchObject({ RootDeviceName: expect.any(String), Placement: { AvailabilityZone: zone } });
  });

  test('a snapshot is found by its name while and after it is made', async () => {
    expect(await snapshotByName('snapshot-life')).toBeUndefined();
    const made = await ec2.send(
      new CreateSnapshotCommand({
        VolumeId: volume,
        Description: `Created by AWS EBS CSI driver for volume ${volume}`,
        TagSpecifications: [{ ResourceType: 'snapshot', Tags: tagsOf('CSIVolumeSnapshotName', 'snapshot-life') }],
      }),
    );
    expect(made).toMatchObject({ VolumeId: volume, VolumeSize: 1, StartTime: expect.any(Date) });
    snapshot = made.SnapshotId!;
    expect((await snapshotByName('snapshot-life'))!.SnapshotId).toBe(snapshot);
    await until(async () => (await snapshotByName('snapshot-life'))!.State === 'completed', 'the snapshot');
    // ListSnapshots without a limit asks for 0 results: as many as there are.
    const ofVolume = { Filters: [{ Name: 'volume-id', Values: [volume] }] };
    for (const input of [{ MaxResults: 0 }, { MaxResults: 0, ...ofVolume }, ofVolume]) {
      const { Snapshots, NextToken } = await ec2.send(new DescribeSnapshotsCommand(input));
      expect(Snapshots!.map(({ SnapshotId }) => SnapshotId)).toEqual([snapshot]);
      expect(NextToken).toBeUndefined();
    }
    await unpublish(volume);
  });

  test('a claim from the snapshot, and a clone of the claim, hold its data', async () => {
    const restored = await provision('pvc-restored', { SnapshotId: snapshot, VolumeInitializationRate: 300 });
    expect(restored).toMatchObject({ SnapshotId: snapshot, Size: 1, VolumeInitializationRate: 300 });
    expect((await content(restored.VolumeId!, '/dev/xvdab')).bytes.equals(data)).toBe(true);

    const clone = () =>
      ec2.send(
        new CopyVolumesCommand({
          SourceVolumeId: volume,
          ClientToken: tokenOf('pvc-clone'),
          Size: 2,
          VolumeType: 'gp3',
          TagSpecifications: [{ ResourceType: 'volume', Tags: tagsOf('CSIVolumeName', 'pvc-clone') }],
        }),
      );
    const { Volumes } = await clone();
    expect(Volumes).toHaveLength(1);
    const [copy] = Volumes!;
    expect(copy).toMatchObject({ Size: 2, VolumeType: 'gp3', Encrypted: true, KmsKeyId: keyArn });
    expect((await clone()).Volumes![0]!.VolumeId).toBe(copy!.VolumeId);
    const byName = () => ec2.send(new DescribeVolumesCommand(byTag('CSIVolumeName', 'pvc-clone')));
    await until(async () => (await byName()).Volumes![0]!.State === 'available', 'the clone');
    const { bytes, sizeBytes } = await content(copy!.VolumeId!, '/dev/xvdac');
    expect(bytes.equals(data)).toBe(true);
    expect(sizeBytes).toBe(2 * 1024 * mebibyte);
    for (const VolumeId of [restored.VolumeId, copy!.VolumeId]) await ec2.send(new DeleteVolumeCommand({ VolumeId }));
  });

  test('it grows, and its tags change', async () => {
    const modification = (id: string) => ec2.send(new DescribeVolumesModificationsCommand({ VolumeIds: [id] }));
    expect(await failure(modification(volume))).toMatchObject({ name: 'InvalidVolumeModification.NotFound' });
    await publish(volume, '/dev/xvdaa');
    const asked = { VolumeId: volume, Size: 8, Iops: 4000, VolumeType: 'gp3', Throughput: 200 } as const;
    const { VolumeModification } = await ec2.send(new ModifyVolumeCommand(asked));
    expect(VolumeModification).toMatchObject({ VolumeId: volume, TargetSize: 8, OriginalSize: 1 });
    await until(async () => {
      const [state] = (await modification(volume)).VolumesModifications!;
      return ['optimizing', 'completed'].includes(state!.ModificationState!);
    }, 'the modification');
    expect(await volumes.describe(volume)).toMatchObject({ Size: 8, Iops: 4000, Throughput: 200, VolumeType: 'gp3' });
    const smaller = ec2.send(new ModifyVolumeCommand({ VolumeId: volume, Size: 2 }));
    expect(await failure(smaller)).toMatchObject({ name: expect.stringMatching(/^Inv|^IncorrectModificationState/) });
    await unpublish(volume);
    expect((await content(volume, '/dev/xvdaa')).sizeBytes).toBe(8 * 1024 * mebibyte);

    await ec2.send(new CreateTagsCommand({ Resources: [volume], Tags: [{ Key: 'team', Value: 'a' }] }));
    await ec2.send(new DeleteTagsCommand({ Resources: [volume], Tags: [{ Key: 'team', Value: 'b' }] }));
    expect((await volumes.describe(volume)).Tags).toContainEqual({ Key: 'team', Value: 'a' });
    await ec2.send(new DeleteTagsCommand({ Resources: [volume], Tags: [{ Key: 'team' }] }));
    expect((await volumes.describe(volume)).Tags!.map(({ Key }) => Key)).not.toContain('team');
  });

  test('it is deleted, and gone: deleting or not found, never available again', async () => {
    await ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    const seen = new Set<string>();
    await until(async () => {
      const answer = await volumes.describe(volume).then(
        ({ State }) => State!,
        ({ name: error }) => error as string,
      );
      seen.add(answer);
      return answer === 'InvalidVolume.NotFound';
    }, 'the volume to be gone');
    expect([...seen].filter((state) => state !== 'deleting')).toEqual(['InvalidVolume.NotFound']);
    expect(await failure(ec2.send(new DeleteVolumeCommand({ VolumeId: volume })))).toMatchObject({
      name: 'InvalidVolume.NotFound',
    });
    await ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot, DryRun: false }));
    expect(await snapshotByName('snapshot-life')).toBeUndefined();
    const byId = ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshot] }));
    expect(await failure(byId)).toMatchObject({
      name: 'InvalidSnapshot.NotFound',
      message: expect.stringContaining(snapshot),
    });
  });
});
