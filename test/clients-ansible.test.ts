/**
 * What Ansible's amazon.aws modules do: ec2_vol, ec2_vol_info, ec2_snapshot, ec2_snapshot_info and kms_key, with boto3,
 * as they do it. Points: see clients.test.ts.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startServer, type TestServer } from './support/server.ts';

const root = 'arn:aws:iam::123456789012:root';
let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

test('kms_key: a key by its old names, an alias, rotation, grants without names, and back from deletion', async () => {
  const seen = await server.boto3(`
kms = client('kms')
made = kms.create_key(Description='by ansible', KeyUsage='ENCRYPT_DECRYPT', CustomerMasterKeySpec='SYMMETRIC_DEFAULT',
                      Origin='AWS_KMS', MultiRegion=False, BypassPolicyLockoutSafetyCheck=False,
                      Tags=[{'TagKey': 'team', 'TagValue': 'storage'}])['KeyMetadata']
key = made['KeyId']
kms.create_alias(AliasName='alias/ansible', TargetKeyId=key)
kms.enable_key_rotation(KeyId=key)
kms.create_grant(KeyId=key, GranteePrincipal='${root}', Operations=['Decrypt', 'RetireGrant'])
kms.create_grant(KeyId=key, GranteePrincipal='${root}', Operations=['Encrypt'], Name='named',
                 Constraints={'EncryptionContextSubset': {'app': 'shop'}})

def facts():
    aliases = [a for page in kms.get_paginator('list_aliases').paginate() for a in page['Aliases']]
    grants = [g for page in kms.get_paginator('list_grants').paginate(KeyId=key) for g in page['Grants']]
    tags = [t for page in kms.get_paginator('list_resource_tags').paginate(KeyId=key) for t in page['Tags']] \\
        if kms.can_paginate('list_resource_tags') else kms.list_resource_tags(KeyId=key)['Tags']
    policies = kms.list_key_policies(KeyId=key)['PolicyNames']
    return {
        'metadata': kms.describe_key(KeyId=key)['KeyMetadata'],
        'aliases': [a['AliasName'] for a in aliases if a.get('TargetKeyId') == key],
        'rotation': kms.get_key_rotation_status(KeyId=key)['KeyRotationEnabled'],
        'grants': {g['Name']: g for g in grants},
        'tags': tags,
        'policies': [json.loads(kms.get_key_policy(KeyId=key, PolicyName=name)['Policy']) for name in policies],
    }

here = facts()
for grant in here['grants'].values(): kms.revoke_grant(KeyId=key, GrantId=grant['GrantId'])
kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
pending = facts()
kms.cancel_key_deletion(KeyId=key)
cancelled = facts()
kms.enable_key(KeyId=key)
rsa = kms.create_key(CustomerMasterKeySpec='RSA_2048', KeyUsage='SIGN_VERIFY')['KeyMetadata']
answer({'here': here, 'pending': pending, 'cancelled': cancelled, 'enabled': facts(), 'rsa': rsa,
        'rsaRotates': kms.get_key_rotation_status(KeyId=rsa['KeyId'])['KeyRotationEnabled']})`);
  expect(seen.here).toMatchObject({
    metadata: {
      CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
      KeySpec: 'SYMMETRIC_DEFAULT',
      KeyState: 'Enabled',
      Description: 'by ansible',
    },
    aliases: ['alias/ansible'],
    rotation: true,
    grants: {
      '': { GranteePrincipal: root, Operations: ['Decrypt', 'RetireGrant'] },
      named: { Constraints: { EncryptionContextSubset: { app: 'shop' } }, IssuingAccount: root },
    },
    tags: [{ TagKey: 'team', TagValue: 'storage' }],
    policies: [{ Statement: [{ Principal: { AWS: root }, Action: 'kms:*' }] }],
  });
  expect(seen.pending).toMatchObject({ metadata: { KeyState: 'PendingDeletion', Enabled: false }, grants: {} });
  expect(seen.cancelled).toMatchObject({ metadata: { KeyState: 'Disabled', Enabled: false }, rotation: true });
  expect(seen.enabled).toMatchObject({ metadata: { KeyState: 'Enabled', Enabled: true } });
  expect(seen.rsa).toMatchObject({ CustomerMasterKeySpec: 'RSA_2048', KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' });
  expect(seen.rsaRotates).toBe(false);
});

test('ec2_vol and ec2_snapshot: no client token, type standard, one look at each snapshot’s permissions', async () => {
  const seen = await server.boto3(`
ec2, kms = client('ec2'), client('kms')
key = kms.create_key()['KeyMetadata']
kms.create_alias(AliasName='alias/ansible-ec2', TargetKeyId=key['KeyId'])
instance = ec2.run_instances(ImageId='ami-0c0ffe00000000000', MinCount=1, MaxCount=1,
                             Placement={'AvailabilityZone': 'us-east-1a'})['Instances'][0]['InstanceId']

def describe_instance():
    return ec2.describe_instances(InstanceIds=[instance])['Reservations'][0]['Instances'][0]
def describe(id): return ec2.describe_volumes(VolumeIds=[id])['Volumes'][0]
def tagged(kind, **tags):
    return [{'ResourceType': kind, 'Tags': [{'Key': k, 'Value': v} for k, v in tags.items()]}]
def error(call, **more):
    try: call(**more)
    except botocore.exceptions.ClientError as e: return [e.response['Error']['Code'], e.response['Error']['Message']]

zone = describe_instance()['Placement']['AvailabilityZone']
plain = [ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType='standard', Encrypted=False)['VolumeId'] for i in (1, 2)]
by_name = {'Filters': [{'Name': 'tag:Name', 'Values': ['ansible']}, {'Name': 'availability-zone', 'Values': [zone]}]}
before = ec2.describe_volumes(**by_name)['Volumes']
volume = ec2.create_volume(AvailabilityZone=zone, Size=2, VolumeType='gp3', Encrypted=True, KmsKeyId='alias/ansible-ec2',
                           TagSpecifications=tagged('volume', Name='ansible'))['VolumeId']
ec2.get_waiter('volume_available').wait(VolumeIds=[volume])
found = ec2.describe_volumes(**by_name)['Volumes']
ec2.attach_volume(Device='/dev/sdf', InstanceId=instance, VolumeId=volume)
ec2.get_waiter('volume_in_use').wait(VolumeIds=[volume])
ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=[
    {'DeviceName': '/dev/sdf', 'Ebs': {'DeleteOnTermination': True, 'VolumeId': volume}}])
attached, mappings = describe(volume), describe_instance()['BlockDeviceMappings']
ec2.modify_volume(VolumeId=volume, Size=4, VolumeType='gp3')
by_status = ec2.describe_volumes(Filters=[
    {'Name': 'attachment.status', 'Values': ['attached']}, {'Name': 'encrypted', 'Values': ['true']},
    {'Name': 'tag-key', 'Values': ['N*']}, {'Name': 'size', 'Values': ['?']}])['Volumes']
by_device = ec2.describe_volumes(Filters=[
    {'Name': 'attachment.instance-id', 'Values': [instance]}, {'Name': 'attachment.device', 'Values': ['/dev/sdf']}])['Volumes']
snapshot = ec2.create_snapshot(VolumeId=volume, Description='by ansible',
                               TagSpecifications=tagged('snapshot', frequency='hourly'))
id = snapshot['SnapshotId']
ec2.get_waiter('snapshot_completed').wait(SnapshotIds=[id], WaiterConfig={'Delay': 1})
listed = [ec2.describe_snapshots(**by)['Snapshots'] for by in (
    {'Filters': [{'Name': 'volume-id', 'Values': [volume]}, {'Name': 'status', 'Values': ['completed']}]},
    {'Filters': [{'Name': 'tag:frequency', 'Values': ['hour*']}]}, {'OwnerIds': ['self']}, {'RestorableByUserIds': ['self']})]
shared = [ec2.describe_snapshot_attribute(Attribute='createVolumePermission', SnapshotId=id)['CreateVolumePermissions']]
restored = ec2.create_volume(AvailabilityZone=zone, SnapshotId=id, VolumeType='gp3', Encrypted=False)
ec2.detach_volume(VolumeId=volume)
ec2.get_waiter('volume_available').wait(VolumeIds=[volume])
again = error(ec2.detach_volume, VolumeId=volume)
for one in [volume, restored['VolumeId'], *plain]: ec2.delete_volume(VolumeId=one)
ec2.get_waiter('volume_deleted').wait(VolumeIds=[volume], WaiterConfig={'Delay': 1})
ec2.delete_snapshot(SnapshotId=id)
answer({'key': key['Arn'], 'instance': instance, 'plain': plain, 'before': before, 'found': found, 'attached': attached,
        'mappings': mappings, 'by_status': by_status, 'by_device': by_device, 'volume': volume, 'snapshot': snapshot,
        'listed': [[s['SnapshotId'] for s in l] for l in listed], 'shared': shared, 'restored': restored, 'again': again,
        'gone': error(ec2.delete_snapshot, SnapshotId=id)})`);
  const { volume, instance } = seen;
  expect(new Set(seen.plain).size).toBe(2);
  expect(seen.before).toEqual([]);
  expect(seen.found).toMatchObject([{ VolumeId: volume, State: 'available', Attachments: [], KmsKeyId: seen.key }]);
  const attachment = { VolumeId: volume, InstanceId: instance, Device: '/dev/sdf', State: 'attached' };
  expect(seen.attached).toMatchObject({
    State: 'in-use',
    MultiAttachEnabled: false,
    SnapshotId: '',
    Attachments: [{ ...attachment, DeleteOnTermination: true }],
  });
  expect(seen.mappings).toMatchObject([
    { DeviceName: '/dev/sdf', Ebs: { VolumeId: volume, DeleteOnTermination: true, Status: 'attached' } },
  ]);
  expect(seen.by_status).toMatchObject([{ VolumeId: volume, Size: 4 }]);
  expect(seen.by_device).toMatchObject([{ VolumeId: volume }]);
  expect(seen.snapshot).toMatchObject({
    Tags: [{ Key: 'frequency', Value: 'hourly' }],
    VolumeId: volume,
    VolumeSize: 4,
    StartTime: expect.any(String),
  });
  expect(seen.listed).toEqual(Array(4).fill([seen.snapshot.SnapshotId]));
  expect(seen.shared).toEqual([[]]);
  // Nothing encrypted becomes unencrypted, whatever is asked for.
  expect(seen.restored).toMatchObject({ Encrypted: true, KmsKeyId: seen.key });
  expect(seen.again).toEqual(['IncorrectState', expect.stringContaining('available')]);
  expect(seen.gone).toEqual(['InvalidSnapshot.NotFound', expect.stringContaining(seen.snapshot.SnapshotId)]);
});
