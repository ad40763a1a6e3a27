/** Snapshots that are shared: who sees them, who may make something from them, and what can't be shared. */
import { beforeEach, describe, expect, test } from 'vitest';
import { eachInItsWorld, type SnapshotWorld } from './support/snapshots.ts';
import { account, otherAccount, stranger, zone } from './support/world.ts';

const held = eachInItsWorld();
let w: SnapshotWorld;
beforeEach(() => {
  w = held.current;
});

const modify = (SnapshotId: string, input: object, caller = {}) =>
  w.world.ec2('ModifySnapshotAttribute', { SnapshotId, ...input }, caller);
const add = (id: string, ...Add: object[]) => modify(id, { CreateVolumePermission: { Add } });
const permissions = async (SnapshotId: string) =>
  (await w.world.ec2('DescribeSnapshotAttribute', { SnapshotId, Attribute: 'createVolumePermission' }))
    .CreateVolumePermissions;

test('a share shows the snapshot to the receiver, tells it, and ends when it is taken back', async () => {
  const id = await w.stored();
  expect(await permissions(id)).toEqual([]);
  expect(await w.found({}, stranger)).toEqual([]);
  await add(id, { UserId: otherAccount });
  expect(await permissions(id)).toEqual([{ UserId: otherAccount }]);
  expect(await w.found({}, stranger)).toEqual([id]);
  expect(await w.describe(id, stranger)).toMatchObject({ OwnerId: account });
  const shared = (await w.world.events('EBS Snapshot Notification')).at(-1)!;
  expect(shared).toMatchObject({
    account: otherAccount,
    detail: { event: 'shareSnapshot', result: 'succeeded', source: account },
  });
  const again = (await w.world.events()).length;
  await add(id, { UserId: otherAccount });
  expect(await w.world.events()).toHaveLength(again);
  await modify(id, { Attribute: 'createVolumePermission', OperationType: 'remove', UserIds: [otherAccount] });
  expect(await w.found({}, stranger)).toEqual([]);
  await expect(w.world.ec2('CreateVolume', { SnapshotId: id, AvailabilityZone: zone }, stranger)).rejects.toMatchObject(
    { code: 'InvalidSnapshot.NotFound' },
  );
});

test('public ones are everybody’s to see and to restore; Reset takes all permissions back', async () => {
  const id = await w.stored();
  await add(id, { Group: 'all' }, { UserId: otherAccount });
  expect(await permissions(id)).toEqual([{ UserId: otherAccount }, { Group: 'all' }]);
  expect(await w.found({ RestorableByUserIds: ['all'] }, stranger)).toEqual([id]);
  const made = await w.world.ec2('CreateVolume', { SnapshotId: id, AvailabilityZone: zone }, stranger);
  expect(made).toMatchObject({ SnapshotId: id, Encrypted: false });
  await w.world.ec2('ResetSnapshotAttribute', { SnapshotId: id, Attribute: 'createVolumePermission' });
  expect(await permissions(id)).toEqual([]);
  expect(await w.found({}, stranger)).toEqual([]);
});

test('owners and restorable users narrow what is found', async () => {
  const own = await w.stored({}, stranger);
  const given = await w.stored();
  const open = await w.stored();
  await add(given, { UserId: otherAccount });
  await add(open, { Group: 'all' });
  const cases: ReadonlyArray<[object, string[]]> = [
    [{}, [own, given, open]],
    [{ OwnerIds: ['self'] }, [own]],
    [{ OwnerIds: [otherAccount] }, [own]],
    [{ OwnerIds: [account] }, [given, open]],
    [{ OwnerIds: ['amazon'] }, []],
    [{ OwnerIds: ['self', 'amazon', account] }, [own, given, open]],
    [{ RestorableByUserIds: ['self'] }, [own, given]],
    [{ RestorableByUserIds: [otherAccount] }, [own, given]],
    [{ RestorableByUserIds: ['all'] }, [open]],
    [{ RestorableByUserIds: [account] }, []],
    [{ OwnerIds: [account], Filters: [{ Name: 'owner-id', Values: [otherAccount] }] }, []],
  ];
  for (const [input, expected] of cases) expect([input, await w.found(input, stranger)]).toEqual([input, expected]);
  expect(await w.found({ RestorableByUserIds: [otherAccount] })).toEqual([given]);
  for (const input of [{ OwnerIds: ['x'] }, { RestorableByUserIds: ['12345'] }])
    await expect(w.found(input)).rejects.toMatchObject({ code: 'InvalidUserID.Malformed' });
});

test('tags stay with the owner', async () => {
  const id = await w.stored();
  await w.world.ec2('CreateTags', { Resources: [id], Tags: [{ Key: 'secret', Value: 'x' }] });
  await add(id, { UserId: otherAccount });
  expect((await w.describe(id)).Tags).toEqual([{ Key: 'secret', Value: 'x' }]);
  expect((await w.describe(id, stranger)).Tags).toEqual([]);
  expect(await w.found({ Filters: [{ Name: 'tag-key', Values: ['secret'] }] }, stranger)).toEqual([]);
});

describe('encrypted snapshots', () => {
  test('under the AWS managed key are not shared, and none is public', async () => {
    const managed = await w.stored({ Encrypted: true });
    await expect(add(managed, { UserId: otherAccount })).rejects.toMatchObject({
      code: 'OperationNotPermitted',
      message: expect.stringContaining('EBS default key'),
    });
    const own = await w.stored({ Encrypted: true, KmsKeyId: await w.newKey() });
    await expect(add(own, { Group: 'all' })).rejects.toMatchObject({ code: 'OperationNotPermitted' });
    expect(await permissions(own)).toEqual([]);
    await add(own, { UserId: otherAccount });
  });

  test('are of use to the receiver only with the key, whose permissions it needs one by one', async () => {
    const key = await w.newKey();
    const id = await w.stored({ Encrypted: true, KmsKeyId: key });
    await add(id, { UserId: otherAccount });
    const restore = () => w.world.ec2('CreateVolume', { SnapshotId: id, AvailabilityZone: zone }, stranger);
    const copy = () => w.world.ec2('CopySnapshot', { SourceSnapshotId: id, SourceRegion: 'us-east-1' }, stranger);
    const allow = (actions: string[]) =>
      w.world.kms('PutKeyPolicy', {
        KeyId: key,
        Policy: JSON.stringify({
          Version: '2012-10-17',
          Statement: [
            { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' },
            {
              Effect: 'Allow',
              Principal: { AWS: `arn:aws:iam::${otherAccount}:root` },
              Action: actions,
              Resource: '*',
            },
          ],
        }),
      });
    const needed = ['kms:DescribeKey', 'kms:ReEncrypt*'];
    for (const make of [restore, copy]) {
      await allow(['kms:DescribeKey']);
      await expect(make()).rejects.toMatchObject({
        code: 'UnauthorizedOperation',
        message: expect.stringContaining('kms:ReEncryptFrom'),
      });
      await allow(needed);
      await make();
    }
    expect(await w.found({ OwnerIds: ['self'] }, stranger)).toHaveLength(1);
  });
});

test.each([
  [{}, 'MissingParameter'],
  [{ CreateVolumePermission: { Add: [{ UserId: 'bob' }] } }, 'InvalidUserID.Malformed'],
  [{ CreateVolumePermission: { Add: [{ Group: 'some' }] } }, 'InvalidParameterValue'],
  [{ CreateVolumePermission: { Add: [{ Group: 'all' }], Remove: [{ Group: 'all' }] } }, 'InvalidParameterCombination'],
  [{ UserIds: [otherAccount] }, 'MissingParameter'],
  [{ UserIds: [otherAccount], OperationType: 'give' }, 'InvalidParameterValue'],
  [{ Attribute: 'productCodes', CreateVolumePermission: { Add: [{ Group: 'all' }] } }, 'InvalidParameterValue'],
  [{ CreateVolumePermission: { Add: [{ Group: 'all' }] }, DryRun: true }, 'DryRunOperation'],
  [
    { OperationType: 'add', UserIds: Array.from({ length: 501 }, (_, index) => String(100_000_000_000 + index)) },
    'InvalidParameterValue',
  ],
])('answers %j with %s, and changes nothing', async (input, code) => {
  const id = await w.stored();
  await expect(modify(id, input)).rejects.toMatchObject({ code });
  expect(await permissions(id)).toEqual([]);
});

test('is the owner’s business alone', async () => {
  const id = await w.stored();
  const attempts = {
    ModifySnapshotAttribute: { CreateVolumePermission: { Add: [{ Group: 'all' }] } },
    DescribeSnapshotAttribute: { Attribute: 'createVolumePermission' },
    ResetSnapshotAttribute: { Attribute: 'createVolumePermission' },
  };
  for (const [operation, input] of Object.entries(attempts))
    await expect(w.world.ec2(operation, { SnapshotId: id, ...input }, stranger)).rejects.toMatchObject({
      code: 'InvalidSnapshot.NotFound',
    });
  await add(id, { UserId: otherAccount });
  for (const [operation, input] of Object.entries(attempts))
    await expect(w.world.ec2(operation, { SnapshotId: id, ...input }, stranger)).rejects.toMatchObject({
      code: 'AuthFailure',
    });
});
