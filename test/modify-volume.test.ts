/** ModifyVolume and DescribeVolumesModifications, and volumes that several instances have attached. */
import { beforeEach, describe, expect, test } from 'vitest';
import { eachInItsWorld, type SnapshotWorld, until } from './support/snapshots.ts';
import { FakeHost, stranger, zone } from './support/world.ts';

const held = eachInItsWorld();
let w: SnapshotWorld;
beforeEach(() => {
  w = held.current;
});

const modify = async (VolumeId: string, input: object) =>
  (await w.world.ec2('ModifyVolume', { VolumeId, ...input })).VolumeModification;
const modification = async (VolumeId: string) =>
  (await w.world.ec2('DescribeVolumesModifications', { VolumeIds: [VolumeId] })).VolumesModifications[0];
const attach = (VolumeId: string, InstanceId: string) =>
  w.world.ec2('AttachVolume', { VolumeId, InstanceId, Device: '/dev/sdf' });
const results = async () =>
  (await w.world.events('EBS Volume Notification'))
    .filter(({ detail }) => detail.event === 'modifyVolume')
    .map(({ detail }) => detail.result);

describe('ModifyVolume', () => {
  test('of a detached volume is completed at once, with the events of all states', async () => {
    const id = await w.volume({ VolumeType: 'gp3' });
    expect(await modify(id, { Size: 10, Iops: 4000, Throughput: 250 })).toMatchObject({
      VolumeId: id,
      ModificationState: 'modifying',
      Progress: 0,
      OriginalSize: 1,
      OriginalVolumeType: 'gp3',
      OriginalIops: 3000,
      OriginalThroughput: 125,
      TargetSize: 10,
      TargetVolumeType: 'gp3',
      TargetIops: 4000,
      TargetThroughput: 250,
    });
    expect(await modification(id)).toMatchObject({ ModificationState: 'completed', Progress: 100, TargetSize: 10 });
    expect(await w.describeVolume(id)).toMatchObject({ Size: 10, Iops: 4000, Throughput: 250 });
    expect(await results()).toEqual(['modifying', 'optimizing', 'completed']);
  });

  test('of an attached one is optimizing until the host has the new size', async () => {
    const id = await w.volume();
    let size = 1024 ** 3;
    w.host.sizeOf = () => size;
    await attach(id, await w.newInstance());
    await modify(id, { Size: 3 });
    await until(async () => (await w.host.sync()).attachments[0]?.sizeBytes === 3 * 1024 ** 3);
    expect(await modification(id)).toMatchObject({ ModificationState: 'optimizing', Progress: 0 });
    expect(await w.describeVolume(id)).toMatchObject({ Size: 3 });
    await expect(modify(id, { Size: 4 })).rejects.toMatchObject({
      code: 'IncorrectModificationState',
      message: expect.stringContaining('OPTIMIZING'),
    });
    size = 3 * 1024 ** 3;
    await w.host.stop();
    w.host.obey(await w.host.sync());
    await w.host.sync();
    expect(await modification(id)).toMatchObject({ ModificationState: 'completed', Progress: 100 });
    expect(await results()).toEqual(['modifying', 'optimizing', 'completed']);
  });

  test('of an attached one is not completed by the word of another host', async () => {
    const id = await w.volume();
    w.host.sizeOf = () => 1024 ** 3;
    const instanceId = await w.newInstance();
    await attach(id, instanceId);
    await modify(id, { Size: 3 });
    const other = new FakeHost(w.world, { hostId: 'other' });
    const report = { volumeId: id, instanceId, device: '/dev/sdf', generation: 1, state: 'attached' } as const;
    await other.sync({ attachments: [report] });
    expect(await modification(id)).toMatchObject({ ModificationState: 'optimizing' });
  });

  test('of an attached one whose host never said so is completed once it is detached', async () => {
    const id = await w.volume();
    w.host.sizeOf = () => 1024 ** 3;
    await attach(id, await w.newInstance());
    await modify(id, { Size: 3 });
    await w.world.ec2('DetachVolume', { VolumeId: id });
    await w.world.housekeeping();
    expect(await modification(id)).toMatchObject({ ModificationState: 'completed' });
  });

  test('can be done four times in a day, and says when the next is possible', async () => {
    const id = await w.volume();
    for (const Size of [2, 3, 4, 5]) {
      await modify(id, { Size });
      w.world.clock.advance(3600_000);
    }
    const next = new Date(w.world.clock.now() + 20 * 3600_000).toISOString();
    await expect(modify(id, { Size: 6 })).rejects.toMatchObject({
      code: 'VolumeModificationRateExceeded',
      message: expect.stringContaining(next),
    });
    w.world.clock.advance(20 * 3600_000 + 1);
    await modify(id, { Size: 6 });
    expect(await modification(id)).toMatchObject({ OriginalSize: 5, TargetSize: 6 });
  });

  test('with another type begins performance anew', async () => {
    const id = await w.volume({ Size: 100 });
    expect(await modify(id, { VolumeType: 'gp3' })).toMatchObject({
      OriginalVolumeType: 'gp2',
      OriginalIops: 300,
      TargetIops: 3000,
      TargetThroughput: 125,
    });
    expect(await modify(id, { VolumeType: 'io2' })).toMatchObject({ TargetIops: 3000 });
    expect(await w.describeVolume(id)).not.toHaveProperty('Throughput');
    expect(await modify(id, { MultiAttachEnabled: true })).toMatchObject({ TargetMultiAttachEnabled: true });
  });

  test('from gp2 to gp3 makes no volume slower', async () => {
    const large = await w.volume({ Size: 2000 });
    expect(await modify(large, { VolumeType: 'gp3' })).toMatchObject({ TargetIops: 6000, TargetThroughput: 250 });
    const named = await w.volume({ Size: 2000 });
    const wish = { VolumeType: 'gp3', Iops: 3000, Throughput: 125 };
    expect(await modify(named, wish)).toMatchObject({ TargetIops: 3000, TargetThroughput: 125 });
  });

  test.each([
    [{}, 'MissingParameter'],
    [{ Size: 7 }, 'InvalidParameterValue'],
    [{ Size: 16_385 }, 'InvalidParameterValue'],
    [{ VolumeType: 'gp9' }, 'UnknownVolumeType'],
    [{ VolumeType: 'standard' }, 'InvalidParameterCombination'],
    [{ Iops: 3000 }, 'InvalidParameterCombination'],
    [{ Throughput: 500 }, 'InvalidParameterCombination'],
    [{ VolumeType: 'st1' }, 'InvalidParameterValue'],
    [{ MultiAttachEnabled: true }, 'InvalidParameterCombination'],
    [{ Size: 9, DryRun: true }, 'DryRunOperation'],
  ])('answers %j with %s, and changes nothing', async (input, code) => {
    const id = await w.volume({ Size: 8 });
    const before = await w.describeVolume(id);
    await expect(modify(id, input)).rejects.toMatchObject({ code });
    expect(await w.describeVolume(id)).toEqual(before);
    await expect(modification(id)).rejects.toMatchObject({ code: 'InvalidVolumeModification.NotFound' });
  });

  test('modifications are found by filters and pages, each volume’s latest, of the own account', async () => {
    const ids = [await w.volume(), await w.volume(), await w.volume()];
    for (const id of ids) await modify(id, { Size: 2 });
    await modify(ids[0]!, { Size: 3 });
    const list = async (input: object, caller = {}) => {
      const answer = await w.world.ec2('DescribeVolumesModifications', input, caller);
      return [
        answer.VolumesModifications.map(({ VolumeId }: { VolumeId: string }) => VolumeId),
        answer.NextToken,
      ] as const;
    };
    expect((await list({ Filters: [{ Name: 'target-size', Values: ['3'] }] }))[0]).toEqual([ids[0]]);
    expect((await list({ Filters: [{ Name: 'modification-state', Values: ['optimizing'] }] }))[0]).toEqual([]);
    const [first, NextToken] = await list({ MaxResults: 2 });
    expect(first).toEqual([ids[1], ids[2]]);
    expect(await list({ NextToken })).toEqual([[ids[0]], undefined]);
    expect((await list({}, stranger))[0]).toEqual([]);
  });
});

describe('Multi-Attach', () => {
  const shared = () => w.volume({ VolumeType: 'io2', Size: 4, Iops: 100, MultiAttachEnabled: true, Encrypted: true });

  test('leaves an io1 volume its size and IOPS, an io2 one only its type', async () => {
    const performance = { Size: 4, Iops: 100, MultiAttachEnabled: true };
    const io1 = await w.volume({ VolumeType: 'io1', ...performance });
    for (const change of [{ Size: 8 }, { Iops: 200 }, { VolumeType: 'io2' }])
      await expect(modify(io1, change)).rejects.toMatchObject({ code: 'InvalidParameterCombination' });
    expect(await w.describeVolume(io1)).toMatchObject(performance);
    const io2 = await shared();
    const otherType = { VolumeType: 'io1', Iops: 100 };
    await expect(modify(io2, otherType)).rejects.toMatchObject({ code: 'InvalidParameterCombination' });
    expect(await modify(io2, { Size: 8, Iops: 200 })).toMatchObject({ TargetSize: 8, TargetIops: 200 });
  });

  test('gives one volume to several instances of a host, each under a grant of its own', async () => {
    const id = await shared();
    const instances = [await w.newInstance(), await w.newInstance()];
    for (const instance of instances) await attach(id, instance);
    const { Attachments, KmsKeyId, MultiAttachEnabled } = await w.describeVolume(id);
    expect(MultiAttachEnabled).toBe(true);
    expect(Attachments.map((each: { InstanceId: string }) => each.InstanceId)).toEqual(instances);
    expect((await w.world.kms('ListGrants', { KeyId: KmsKeyId })).Grants).toHaveLength(2);
    expect(w.host.answers.at(-1)!.attachments.map((each) => each.volumeId)).toEqual([id, id]);
    await expect(attach(id, instances[0]!)).rejects.toMatchObject({ code: 'VolumeInUse' });
    await expect(w.world.ec2('DetachVolume', { VolumeId: id })).rejects.toMatchObject({ code: 'MissingParameter' });
    await w.world.ec2('DetachVolume', { VolumeId: id, InstanceId: instances[0] });
    expect(await w.describeVolume(id)).toMatchObject({ State: 'in-use' });
    const made = await w.world.ec2('CreateSnapshot', { VolumeId: id });
    await w.completed(made.SnapshotId);
    await w.world.ec2('DetachVolume', { VolumeId: id });
    expect(await w.describeVolume(id)).toMatchObject({ State: 'available', Attachments: [] });
  });

  test('does not reach over two hosts: one process has the image open', async () => {
    const id = await shared();
    await attach(id, await w.newInstance());
    const second = new FakeHost(w.world, { hostId: 'second' });
    await second.catchUp();
    second.start();
    // The one with fewer instances gets it.
    const other = await w.newInstance();
    await expect(attach(id, other)).rejects.toMatchObject({
      code: 'UnsupportedOperation',
      message: expect.stringContaining('on one host'),
    });
    await second.stop();
  });
});

test('an instance is made with volumes from snapshots, which go with it as the mapping says', async () => {
  const source = await w.stored({ Encrypted: true, Size: 2 });
  const Ebs = { SnapshotId: source, VolumeType: 'gp3' };
  const run = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, Placement: { AvailabilityZone: zone } };
  const { Instances } = await w.world.ec2('RunInstances', {
    ...run,
    BlockDeviceMappings: [
      { DeviceName: '/dev/sdf', Ebs },
      { DeviceName: '/dev/sdg', Ebs: { ...Ebs, VolumeSize: 3, DeleteOnTermination: false } },
      { DeviceName: '/dev/sdh', NoDevice: '' },
    ],
  });
  const mappings = Instances[0].BlockDeviceMappings;
  expect(mappings).toMatchObject([
    { DeviceName: '/dev/sdf', Ebs: { Status: 'attached', DeleteOnTermination: true } },
    { DeviceName: '/dev/sdg', Ebs: { Status: 'attached', DeleteOnTermination: false } },
  ]);
  const volumes = await Promise.all(
    mappings.map((each: { Ebs: { VolumeId: string } }) => w.describeVolume(each.Ebs.VolumeId)),
  );
  expect(volumes).toMatchObject([
    { Size: 2, SnapshotId: source, Encrypted: true },
    { Size: 3, SnapshotId: source, Encrypted: true },
  ]);
  await w.world.ec2('TerminateInstances', { InstanceIds: [Instances[0].InstanceId] });
  await until(async () => {
    const { Volumes } = await w.world.ec2('DescribeVolumes', { Filters: [{ Name: 'snapshot-id', Values: [source] }] });
    return Volumes.length === 1 && Volumes[0].VolumeId === volumes[1].VolumeId;
  });
});

test('a launch asked for again with its token is the same one, though the snapshot of its volumes is gone', async () => {
  const source = await w.stored();
  const BlockDeviceMappings = [{ DeviceName: '/dev/sdf', Ebs: { SnapshotId: source } }];
  const run = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, ClientToken: 'once', BlockDeviceMappings };
  const { ReservationId } = await w.world.ec2('RunInstances', run);
  await w.world.ec2('DeleteSnapshot', { SnapshotId: source });
  expect(await w.world.ec2('RunInstances', run)).toMatchObject({ ReservationId, Instances: [{ AmiLaunchIndex: 0 }] });
  await expect(w.world.ec2('RunInstances', { ...run, MaxCount: 2 })).rejects.toMatchObject({
    code: 'IdempotentParameterMismatch',
  });
});
