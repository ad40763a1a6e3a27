/**
 * Every operation of EC2 and KMS that names something, called with the names of another account's things, and of one's own
 * in another region: it finds nothing, says so in the words for what does not exist, and changes nothing.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from './support/snapshots.ts';
import { type Caller, FakeHost, stranger, World, zone } from './support/world.ts';

let world: World;
const host = { current: undefined as FakeHost | undefined };
const names = { key: '', arn: '', alias: 'alias/mine', grant: '', token: '', volume: '', instance: '', snapshot: '' };
let blob: Uint8Array;

const abroad: Caller = { region: 'eu-west-1' };
const callers: ReadonlyArray<[string, Caller]> = [
  ['another account', stranger],
  ['another region', abroad],
];

beforeAll(async () => {
  world = await World.create();
  host.current = new FakeHost(world).start();
  const { KeyId, Arn } = (await world.kms('CreateKey', {})).KeyMetadata;
  names.key = KeyId;
  names.arn = Arn;
  await world.kms('CreateAlias', { AliasName: names.alias, TargetKeyId: KeyId });
  await world.kms('TagResource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] });
  const grant = await world.kms('CreateGrant', {
    KeyId,
    GranteePrincipal: 'arn:aws:iam::123456789012:root',
    Operations: ['Decrypt'],
  });
  names.grant = grant.GrantId;
  names.token = grant.GrantToken;
  blob = (await world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('secret') })).CiphertextBlob;
  const run = { ImageId: 'ami-0c0ffe00000000000', InstanceType: 'm5.large', MinCount: 1, MaxCount: 1 };
  names.instance = (
    await world.ec2('RunInstances', { ...run, Placement: { AvailabilityZone: zone } })
  ).Instances[0].InstanceId;
  names.volume = (
    await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: KeyId })
  ).VolumeId;
  await world.ec2('AttachVolume', { VolumeId: names.volume, InstanceId: names.instance, Device: '/dev/sdf' });
  names.snapshot = (await world.ec2('CreateSnapshot', { VolumeId: names.volume })).SnapshotId;
  // From here on there is nothing left to do for the host, so nothing changes by itself.
  await until(async () => {
    const { State } = (await world.ec2('DescribeSnapshots', { SnapshotIds: [names.snapshot] })).Snapshots[0];
    const { Attachments } = (await world.ec2('DescribeVolumes', { VolumeIds: [names.volume] })).Volumes[0];
    return State === 'completed' && Attachments[0]?.State === 'attached';
  });
  const Resources = [names.volume, names.instance, names.snapshot];
  await world.ec2('CreateTags', { Resources, Tags: [{ Key: 'a', Value: 'b' }] });
});
afterAll(async () => {
  await host.current?.stop();
  await world?.close();
});

/** Everything there is, but for the trail and what a host's Sync writes. */
async function everything(): Promise<string> {
  const tables = ['kms_keys', 'kms_aliases', 'kms_grants', 'kms_tags', 'ec2_volumes', 'ec2_instances'];
  tables.push('ec2_attachments', 'ec2_tags', 'ec2_tasks', 'ec2_snapshots', 'ec2_snapshot_permissions');
  const rows = await world.database.run(async (db) =>
    Promise.all(tables.map(async (table) => [table, await db.selectFrom(table).selectAll().execute()])),
  );
  return JSON.stringify(rows);
}

/** The error of a call, its ids made one, so that it can be compared with that for something that does not exist. */
async function outcome(work: Promise<unknown>): Promise<string> {
  return work.then(
    (output) => `succeeded: ${JSON.stringify(output)}`,
    (error) => `${error.code}: ${error.message}`,
  );
}

describe('KMS', () => {
  /** With these members any operation on a key has what it needs; those that an operation doesn't know are ignored. */
  const everyMember = {
    Description: 'x',
    Tags: [{ TagKey: 'a', TagValue: 'stolen' }],
    TagKeys: ['a'],
    Policy: '{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}',
    BypassPolicyLockoutSafetyCheck: true,
    Plaintext: Buffer.from('x'),
    GranteePrincipal: 'arn:aws:iam::210987654321:root',
    Operations: ['Decrypt'],
    PendingWindowInDays: 7,
    AliasName: 'alias/mine',
  };
  const perOperation = (op: string, key: string, grant: string): object => {
    switch (op) {
      case 'GenerateDataKey':
      case 'GenerateDataKeyWithoutPlaintext':
        return { KeyId: key, NumberOfBytes: 32 };
      case 'Decrypt':
        return { KeyId: key, CiphertextBlob: blob };
      case 'RetireGrant':
      case 'RevokeGrant':
        return { KeyId: key, GrantId: grant };
      default:
        return { KeyId: key, TargetKeyId: key, ...everyMember };
    }
  };
  const operations = [
    ...['DescribeKey', 'EnableKey', 'DisableKey', 'UpdateKeyDescription', 'ScheduleKeyDeletion', 'CancelKeyDeletion'],
    ...['CreateAlias', 'TagResource', 'UntagResource', 'ListResourceTags', 'GetKeyPolicy', 'PutKeyPolicy'],
    ...['ListKeyPolicies', 'GetKeyRotationStatus', 'Encrypt', 'Decrypt', 'GenerateDataKey', 'ListAliases'],
    ...['GenerateDataKeyWithoutPlaintext', 'CreateGrant', 'ListGrants', 'RetireGrant', 'RevokeGrant', 'GetPublicKey'],
  ];

  describe.each(callers)('from %s', (name, caller) => {
    test.each(operations)('%s', async (op) => {
      const before = await everything();
      for (const key of [names.key, names.arn]) {
        const nowhere = key.replace(names.key, names.key.replace(/^.{8}/, '00000000'));
        const noGrant = '0'.repeat(64);
        const denied = await outcome(world.kms(op, perOperation(op, key, names.grant), caller));
        const missing = await outcome(world.kms(op, perOperation(op, nowhere, noGrant), caller));
        // Another account's ARN could be open to the caller; nothing is said of one that isn't, or isn't there.
        const isClosed = name === 'another account' && key === names.arn && op !== 'ListAliases';
        expect(denied).toMatch(isClosed ? /^AccessDeniedException: / : /^(NotFoundException|InvalidArnException): /);
        expect(denied.replaceAll(names.key, '').replaceAll(names.grant, '')).toBe(
          missing.replaceAll(nowhere.slice(-36), '').replaceAll(noGrant, ''),
        );
      }
      expect(await everything()).toBe(before);
    });

    test('ciphertexts, aliases and grant tokens', async () => {
      const before = await everything();
      const own = (await world.kms('CreateKey', {}, caller)).KeyMetadata.KeyId as string;
      const attempts: ReadonlyArray<[string, object]> = [
        ['Decrypt', { CiphertextBlob: blob }],
        ['Decrypt', { CiphertextBlob: blob, KeyId: own }],
        ['ReEncrypt', { CiphertextBlob: blob, DestinationKeyId: own }],
        ['ReEncrypt', { CiphertextBlob: blob, SourceKeyId: names.arn, DestinationKeyId: own }],
        ['DescribeKey', { KeyId: names.alias }],
        ['DescribeKey', { KeyId: `arn:aws:kms:us-east-1:123456789012:${names.alias}` }],
        ['UpdateAlias', { AliasName: names.alias, TargetKeyId: own }],
        ['DeleteAlias', { AliasName: names.alias }],
        ['RetireGrant', { GrantToken: names.token }],
        ['RetireGrant', { KeyId: own, GrantId: names.grant }],
        ['RevokeGrant', { KeyId: own, GrantId: names.grant }],
      ];
      for (const [op, input] of attempts) expect(await outcome(world.kms(op, input, caller))).not.toMatch(/^succeeded/);
      const theirs = await world.kms('ListGrants', { KeyId: own }, caller);
      expect(theirs.Grants).toEqual([]);
      expect((await world.kms('ListKeys', {}, caller)).Keys.map((key: { KeyId: string }) => key.KeyId)).toEqual([own]);
      await world.kms('ScheduleKeyDeletion', { KeyId: own }, caller);
      const changed = JSON.parse(await everything()) as Array<[string, Array<{ key_id?: string }>]>;
      const without = changed.map(([table, rows]) => [table, rows.filter((row) => row.key_id !== own)]);
      expect(JSON.stringify(without)).toBe(before);
      await world.database.run((db) => db.deleteFrom('kms_keys').where('key_id', '=', own).execute());
    });
  });
});

describe('EC2', () => {
  const inputs = (volume: string, instance: string, snapshot: string): ReadonlyArray<[string, object]> => [
    ['AttachVolume', { VolumeId: volume, InstanceId: instance, Device: '/dev/sdg' }],
    ['DetachVolume', { VolumeId: volume }],
    ['DeleteVolume', { VolumeId: volume }],
    ['DescribeVolumes', { VolumeIds: [volume] }],
    ['DescribeVolumeStatus', { VolumeIds: [volume] }],
    ['DescribeVolumeAttribute', { VolumeId: volume, Attribute: 'autoEnableIO' }],
    ['ModifyVolumeAttribute', { VolumeId: volume, AutoEnableIO: { Value: true } }],
    ['EnableVolumeIO', { VolumeId: volume }],
    ['CreateTags', { Resources: [volume], Tags: [{ Key: 'a', Value: 'stolen' }] }],
    ['CreateTags', { Resources: [instance], Tags: [{ Key: 'a', Value: 'stolen' }] }],
    ['DeleteTags', { Resources: [volume] }],
    ['DeleteTags', { Resources: [instance] }],
    ['DescribeInstances', { InstanceIds: [instance] }],
    ['DescribeInstanceStatus', { InstanceIds: [instance] }],
    ['DescribeInstanceAttribute', { InstanceId: instance, Attribute: 'instanceType' }],
    ['ModifyInstanceAttribute', { InstanceId: instance, InstanceType: { Value: 'm5.xlarge' } }],
    ['RebootInstances', { InstanceIds: [instance] }],
    ['StopInstances', { InstanceIds: [instance] }],
    ['StartInstances', { InstanceIds: [instance] }],
    ['TerminateInstances', { InstanceIds: [instance] }],
    ['ModifyVolume', { VolumeId: volume, Size: 2 }],
    ['CopyVolumes', { SourceVolumeId: volume }],
    ['CreateSnapshot', { VolumeId: volume }],
    ['CreateSnapshots', { InstanceSpecification: { InstanceId: instance } }],
    ['DeleteSnapshot', { SnapshotId: snapshot }],
    ['DescribeSnapshots', { SnapshotIds: [snapshot] }],
    ['CopySnapshot', { SourceSnapshotId: snapshot, SourceRegion: 'eu-west-1' }],
    ['ModifySnapshotAttribute', { SnapshotId: snapshot, CreateVolumePermission: { Add: [{ Group: 'all' }] } }],
    ['DescribeSnapshotAttribute', { SnapshotId: snapshot, Attribute: 'createVolumePermission' }],
    ['ResetSnapshotAttribute', { SnapshotId: snapshot, Attribute: 'createVolumePermission' }],
    ['CreateTags', { Resources: [snapshot], Tags: [{ Key: 'a', Value: 'stolen' }] }],
    ['DeleteTags', { Resources: [snapshot] }],
  ];

  describe.each(callers)('from %s', (_name, caller) => {
    test.each(inputs('', '', '').map(([op], index) => [op, index] as const))('%s (%i)', async (_op, index) => {
      const before = await everything();
      const noVolume = 'vol-00000000000000000';
      const noInstance = 'i-00000000000000000';
      const noSnapshot = 'snap-00000000000000000';
      const [op, input] = inputs(names.volume, names.instance, names.snapshot)[index]!;
      const denied = await outcome(world.ec2(op, input, caller));
      const missing = await outcome(world.ec2(op, inputs(noVolume, noInstance, noSnapshot)[index]![1], caller));
      expect(denied).toMatch(/^Invalid(Volume|InstanceID|Snapshot)\.NotFound: /);
      const unnamed = denied.replaceAll(names.volume, noVolume).replaceAll(names.instance, noInstance);
      expect(unnamed.replaceAll(names.snapshot, noSnapshot)).toBe(missing);
      expect(await everything()).toBe(before);
    });

    test('lists, filters, internal operations, keys', async () => {
      const before = await everything();
      const byId = [{ Name: 'resource-id', Values: [names.volume, names.instance] }];
      expect((await world.ec2('DescribeTags', { Filters: byId }, caller)).Tags).toEqual([]);
      const filters = [{ Name: 'volume-id', Values: [names.volume, '*'] }];
      expect((await world.ec2('DescribeVolumes', { Filters: filters }, caller)).Volumes).toEqual([]);
      const attached = [{ Name: 'attachment.instance-id', Values: [names.instance] }];
      expect((await world.ec2('DescribeVolumes', { Filters: attached }, caller)).Volumes).toEqual([]);
      expect((await world.ec2('DescribeInstances', {}, caller)).Reservations).toEqual([]);
      expect((await world.ec2('DescribeSnapshots', {}, caller)).Snapshots).toEqual([]);
      expect((await world.ec2('DescribeVolumesModifications', {}, caller)).VolumesModifications).toEqual([]);
      await expect(world.call('coffer', 'InspectVolume', { VolumeId: names.volume }, caller)).rejects.toMatchObject({
        code: 'InvalidVolume.NotFound',
      });
      const request = { Size: 1, AvailabilityZone: `${caller.region ?? 'us-east-1'}a`, Encrypted: true };
      for (const KmsKeyId of [names.key, names.arn, names.alias])
        await expect(world.ec2('CreateVolume', { ...request, KmsKeyId }, caller)).rejects.toMatchObject({
          // Another account's key may be open to the caller; whether this one exists, the refusal does not say.
          code: expect.stringMatching(/^(InvalidParameterValue|UnauthorizedOperation)$/),
        });
      expect(await everything()).toBe(before);
    });
  });
});
