/** EC2 through the front door, with the clients that people have: the aws CLI, the JavaScript SDK and boto3. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeAvailabilityZonesCommand,
  DescribeInstanceTypesCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  EC2Client,
  paginateDescribeVolumes,
  RunInstancesCommand,
  TerminateInstancesCommand,
  waitUntilInstanceRunning,
  waitUntilVolumeAvailable,
  waitUntilVolumeDeleted,
  waitUntilVolumeInUse,
} from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer } from './support/server.ts';

const image = 'ami-0c0ffe00000000000';
const zone = 'us-east-1a';
let server: TestServer;

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

async function failure(
  promise: Promise<unknown>,
): Promise<{ name: string; message: string; status: number | undefined }> {
  try {
    await promise;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { name, message, status: $metadata?.httpStatusCode };
  }
  throw new Error('it did not fail');
}

describe('the JavaScript SDK', () => {
  test('takes an encrypted volume from creation to deletion, waiting as it would for AWS', async () => {
    const ec2 = server.sdk(EC2Client);
    const wait = { client: ec2, maxWaitTime: 120, minDelay: 1 };
    const { Instances } = await ec2.send(new RunInstancesCommand({ ImageId: image, MinCount: 1, MaxCount: 1 }));
    const InstanceId = Instances![0]!.InstanceId!;
    await waitUntilInstanceRunning(wait, { InstanceIds: [InstanceId] });
    const { VolumeId, KmsKeyId, SnapshotId } = await ec2.send(
      new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, VolumeType: 'gp3', Encrypted: true }),
    );
    expect(KmsKeyId).toMatch(/^arn:aws:kms:us-east-1:123456789012:key\//);
    expect(SnapshotId).toBe('');
    await waitUntilVolumeAvailable(wait, { VolumeIds: [VolumeId!] });
    const attached = await ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device: '/dev/sdf' }));
    expect(attached).toMatchObject({ State: 'attached', Device: '/dev/sdf', InstanceId, VolumeId });
    expect(Math.abs(attached.AttachTime!.getTime() - Date.now())).toBeLessThan(60_000);
    await waitUntilVolumeInUse(wait, { VolumeIds: [VolumeId!] });
    const socket = join(server.dataDir, 'instances', InstanceId, 'dev/sdf');
    expect(existsSync(socket)).toBe(true);
    await ec2.send(new DetachVolumeCommand({ VolumeId }));
    await waitUntilVolumeAvailable(wait, { VolumeIds: [VolumeId!] });
    expect(existsSync(socket)).toBe(false);
    await ec2.send(new DeleteVolumeCommand({ VolumeId }));
    await waitUntilVolumeDeleted(wait, { VolumeIds: [VolumeId!] });
    expect(readdirSync(join(server.dataDir, 'volumes')).filter((name) => name.startsWith(VolumeId!))).toEqual([]);
    await ec2.send(new TerminateInstancesCommand({ InstanceIds: [InstanceId] }));
    await expect.poll(() => existsSync(join(server.dataDir, 'instances', InstanceId))).toBe(false);
    ec2.destroy();
  });

  test('pages through volumes', async () => {
    const ec2 = server.sdk(EC2Client);
    const made = new Set<string>();
    for (let i = 0; i < 12; i++)
      made.add((await ec2.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: 'us-east-1c' }))).VolumeId!);
    const seen: string[] = [];
    const pages = paginateDescribeVolumes(
      { client: ec2, pageSize: 5 },
      { Filters: [{ Name: 'availability-zone', Values: ['us-east-1c'] }] },
    );
    for await (const page of pages) seen.push(...(page.Volumes ?? []).map((volume) => volume.VolumeId!));
    expect(seen.sort()).toEqual([...made].sort());
    ec2.destroy();
  });

  test('knows our errors by name and status', async () => {
    const ec2 = server.sdk(EC2Client);
    const none = 'vol-00000000000000001';
    expect(await failure(ec2.send(new DescribeVolumesCommand({ VolumeIds: [none] })))).toEqual({
      name: 'InvalidVolume.NotFound',
      message: `The volume '${none}' does not exist.`,
      status: 400,
    });
    expect(await failure(ec2.send(new DescribeAvailabilityZonesCommand({ DryRun: true })))).toMatchObject({
      name: 'DryRunOperation',
      status: 412,
    });
    const probe = new CreateVolumeCommand({
      Size: 4,
      AvailabilityZone: zone,
      VolumeType: 'gp3',
      Iops: 2147483647,
      DryRun: true,
    });
    expect((await failure(ec2.send(probe))).message).toMatch(/Volume iops of 2147483647 is too high; maximum is 80000/);
    ec2.destroy();
  });

  test('learns which instance types take encrypted volumes', async () => {
    const ec2 = server.sdk(EC2Client);
    const { InstanceTypes } = await ec2.send(
      new DescribeInstanceTypesCommand({ InstanceTypes: ['m5.large', 't1.micro'] }),
    );
    expect(InstanceTypes!.map((type) => [type.InstanceType, type.EbsInfo?.EncryptionSupport])).toEqual([
      ['m5.large', 'supported'],
      ['t1.micro', 'unsupported'],
    ]);
    ec2.destroy();
  });
});

describe('boto3', () => {
  test("its waiters and its resources work, and every documented error is a ClientError of AWS's code", async () => {
    const answer = await server.boto3(`
ec2 = client('ec2')
kms = client('kms')
key = kms.create_key()['KeyMetadata']['Arn']
instance = ec2.run_instances(ImageId='${image}', InstanceType='m5.large', MinCount=1, MaxCount=1)['Instances'][0]['InstanceId']
ec2.get_waiter('instance_running').wait(InstanceIds=[instance], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
volume = ec2.create_volume(Size=1, AvailabilityZone='${zone}', Encrypted=True, KmsKeyId=key,
  TagSpecifications=[{'ResourceType': 'volume', 'Tags': [{'Key': 'Name', 'Value': 'a <b> & "c"'}]}])['VolumeId']
ec2.get_waiter('volume_available').wait(VolumeIds=[volume], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device='/dev/sdf')
ec2.get_waiter('volume_in_use').wait(VolumeIds=[volume], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
described = ec2.describe_volumes(Filters=[{'Name': 'attachment.instance-id', 'Values': [instance]}])['Volumes']
mapping = ec2.describe_instances(InstanceIds=[instance])['Reservations'][0]['Instances'][0]

codes = {}
def attempt(name, call, **input):
    try:
        call(**input)
        codes[name] = 'none'
    except botocore.exceptions.ClientError as error:
        codes[name] = error.response['Error']['Code'] + ': ' + error.response['Error']['Message']
attempt('delete attached', ec2.delete_volume, VolumeId=volume)
attempt('attach twice', ec2.attach_volume, VolumeId=volume, InstanceId=instance, Device='/dev/sdg')
kms.disable_key(KeyId=key)
ec2.stop_instances(InstanceIds=[instance])
attempt('start', ec2.start_instances, InstanceIds=[instance])
attempt('create', ec2.create_volume, Size=1, AvailabilityZone='${zone}', Encrypted=True, KmsKeyId=key)
ec2.detach_volume(VolumeId=volume)
ec2.get_waiter('volume_available').wait(VolumeIds=[volume], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
attempt('attach', ec2.attach_volume, VolumeId=volume, InstanceId=instance, Device='/dev/sdf')
attempt('detach', ec2.detach_volume, VolumeId=volume)
ec2.terminate_instances(InstanceIds=[instance])
ec2.get_waiter('instance_terminated').wait(InstanceIds=[instance], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
ec2.delete_volume(VolumeId=volume)
ec2.get_waiter('volume_deleted').wait(VolumeIds=[volume], WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
answer({'key': key, 'volume': volume, 'instance': instance, 'described': described, 'mapping': mapping, 'codes': codes})
`);
    const { key, volume, instance, codes } = answer;
    expect(answer.described).toMatchObject([
      {
        VolumeId: volume,
        Encrypted: true,
        KmsKeyId: key,
        Tags: [{ Key: 'Name', Value: 'a <b> & "c"' }],
        Attachments: [{ State: 'attached', InstanceId: instance, Device: '/dev/sdf', DeleteOnTermination: false }],
      },
    ]);
    expect(answer.mapping).toMatchObject({
      RootDeviceName: '/dev/xvda',
      Placement: { AvailabilityZone: zone },
      BlockDeviceMappings: [{ DeviceName: '/dev/sdf', Ebs: { VolumeId: volume, Status: 'attached' } }],
    });
    expect(codes['delete attached']).toBe(`VolumeInUse: Volume ${volume} is currently attached to ${instance}`);
    expect(codes['attach twice']).toBe(`VolumeInUse: ${volume} is already attached to an instance`);
    for (const step of ['start', 'create', 'attach'])
      expect(codes[step]).toBe(`InvalidKMSKey.InvalidState: The KMS key can't be used: ${key} is disabled.`);
    expect(codes.detach).toBe(`IncorrectState: Volume '${volume}' is in the 'available' state.`);
  });
});

describe('the aws CLI', () => {
  test('does what the page about volumes shows', async () => {
    const aws = (...args: string[]) => server.awsCli('ec2', ...args);
    const { InstanceId } = (await aws('run-instances', '--image-id', image, '--instance-type', 'm5.large'))
      .Instances[0];
    const { VolumeId } = await aws('create-volume', '--size', '1', '--availability-zone', zone, '--encrypted');
    await aws('create-tags', '--resources', VolumeId, '--tags', 'Key=Name,Value=data');
    await aws('attach-volume', '--volume-id', VolumeId, '--instance-id', InstanceId, '--device', '/dev/sdf');
    const found = await aws('describe-volumes', '--filters', 'Name=tag:Name,Values=da*', 'Name=status,Values=in-use');
    expect(found.Volumes).toMatchObject([{ VolumeId, Attachments: [{ InstanceId, State: 'attached' }] }]);
    await aws('wait', 'volume-in-use', '--volume-ids', VolumeId);
    await aws('stop-instances', '--instance-ids', InstanceId);
    await aws('start-instances', '--instance-ids', InstanceId);
    await aws('detach-volume', '--volume-id', VolumeId);
    await aws('delete-volume', '--volume-id', VolumeId);
    await aws('terminate-instances', '--instance-ids', InstanceId);
    expect(await aws('describe-tags', '--filters', `Name=resource-id,Values=${VolumeId}`)).toEqual({ Tags: [] });
    expect((await aws('get-ebs-encryption-by-default')).EbsEncryptionByDefault).toBe(false);
    expect((await aws('describe-regions', '--region-names', 'eu-west-1')).Regions).toHaveLength(1);
  });
});
