/** What becomes of snapshots that nobody waits for, that are given up, and of volumes whose snapshots are not made yet. */
import { beforeEach, describe, expect, test } from 'vitest';
import { eachInItsWorld, infrastructureArn, type SnapshotWorld, until } from './support/snapshots.ts';
import { done, half, otherAccount, stranger, zone } from './support/world.ts';

const held = eachInItsWorld();
let w: SnapshotWorld;
beforeEach(() => {
  w = held.current;
});
const running = () => ({ state: 'running' }) as const;
const rows = async (table: string) => w.world.database.run((db) => db.selectFrom(table).selectAll().execute());

describe('a point in time that is not fixed', () => {
  test('leaves no snapshot, and has the host clean up, when its caller is gone', async () => {
    w.host.perform = () => undefined;
    const VolumeId = await w.volume();
    const gone = new AbortController();
    const making = w.world.ec2('CreateSnapshot', { VolumeId }, { cancelled: gone.signal });
    await until(async () => (await w.listed('createSnapshot')).length === 1);
    const [task] = await w.listed('createSnapshot');
    gone.abort();
    await expect(making).rejects.toMatchObject({ code: 'Unavailable', message: expect.stringContaining(VolumeId) });
    expect(await rows('ec2_snapshots')).toEqual([]);
    expect(await w.listed('createSnapshot')).toEqual([]);
    expect(await w.listed('deleteSnapshot')).toMatchObject([{ snapshotId: task!.snapshotId, family: [] }]);
    expect((await w.world.trail('CreateSnapshot'))[0]).toMatchObject({ errorCode: 'Unavailable' });
  });

  test('says why, when the host did', async () => {
    w.host.perform = (task) =>
      task.kind === 'createSnapshot' ? { state: 'failed', error: 'no room left in /srv' } : undefined;
    const gone = new AbortController();
    const making = w.world.ec2('CreateSnapshot', { VolumeId: await w.volume() }, { cancelled: gone.signal });
    await until(async () => (await rows('ec2_tasks')).some((task) => task.error !== null));
    gone.abort();
    await expect(making).rejects.toMatchObject({ message: expect.stringContaining('no room left in /srv') });
  });

  test('is forgotten when the server died over it, and the copy of a volume that was to be made from it, too', async () => {
    w.host.perform = () => undefined;
    const VolumeId = await w.volume();
    const never = new AbortController();
    const calls = [
      w.world.ec2('CreateSnapshot', { VolumeId }, { cancelled: never.signal }),
      w.world.ec2('CopyVolumes', { SourceVolumeId: VolumeId }, { cancelled: never.signal }),
    ];
    const ended = Promise.allSettled(calls);
    await until(async () => (await rows('ec2_snapshots')).length === 2);
    w.world.clock.advance(61_000);
    await w.host.sync();
    await w.world.housekeeping();
    expect(await rows('ec2_snapshots')).toEqual([]);
    await until(async () => (await w.world.ec2('DescribeVolumes')).Volumes.length === 1);
    never.abort();
    expect((await ended).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });
});

test('a snapshot that is held up says why until it gets on, and stays pending', async () => {
  const full = { state: 'failed', marked: true, error: 'no room left in /srv' } as const;
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? full : done(task));
  const id = await w.snapshot(await w.volume());
  const told = async () => {
    const { State, StateMessage } = await w.describe(id);
    return { State, StateMessage };
  };
  const heldUp = { State: 'pending', StateMessage: 'no room left in /srv' };
  await until(async () => (await told()).StateMessage !== undefined);
  expect(await told()).toEqual(heldUp);
  // It is being tried again, and that may fail just so.
  w.host.perform = () => ({ state: 'running', marked: true });
  await until(async () => (await rows('ec2_tasks')).every((task) => task.error === null));
  expect(await told()).toEqual(heldUp);
  w.host.perform = () => half;
  await until(async () => (await told()).StateMessage === undefined);
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? full : done(task));
  await until(async () => (await told()).StateMessage !== undefined);
  w.host.perform = done;
  await w.completed(id);
  expect(await told()).toEqual({ State: 'completed', StateMessage: undefined });
});

test('a volume deleted while a snapshot waits for what is still to be restored keeps its keys until that is stored', async () => {
  const source = await w.stored({ Encrypted: true, KmsKeyId: await w.newKey() });
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : running());
  const { VolumeId } = await w.world.ec2('CreateVolume', { SnapshotId: source, AvailabilityZone: zone });
  const snapshotId = await w.snapshot(VolumeId);
  const [task] = await w.listed('createSnapshot');
  // Without an image there would seem to be nothing in it.
  expect(task).toMatchObject({ hasImage: true });
  await w.world.ec2('DeleteVolume', { VolumeId });
  expect(await w.describeVolume(VolumeId)).toMatchObject({ State: 'deleting' });
  expect(await w.listed('initializeVolume')).toMatchObject([{ volumeId: VolumeId, encryption: expect.anything() }]);
  expect(await w.listed('eraseVolume')).toEqual([]);
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? done(task) : running());
  await w.completed(snapshotId);
  expect(await w.listed('initializeVolume')).toEqual([]);
  expect(await w.listed('eraseVolume')).toMatchObject([{ volumeId: VolumeId }]);
  const [volume] = (await rows('ec2_volumes')).filter((row) => row.volume_id === VolumeId);
  expect(volume).toMatchObject({ encrypted_data_key: null, restore_encrypted_data_key: null });
  await w.world.ec2('CreateVolume', { SnapshotId: snapshotId, AvailabilityZone: zone });
});

test('or until it is restored, whichever comes first', async () => {
  const source = await w.stored({ Encrypted: true, KmsKeyId: await w.newKey() });
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : running());
  const { VolumeId } = await w.world.ec2('CreateVolume', { SnapshotId: source, AvailabilityZone: zone });
  const snapshotId = await w.snapshot(VolumeId);
  await w.world.ec2('DeleteVolume', { VolumeId });
  w.host.perform = (task) => (task.kind === 'initializeVolume' ? done(task) : half);
  await until(async () => (await w.listed('initializeVolume')).length === 0);
  const [volume] = (await rows('ec2_volumes')).filter((row) => row.volume_id === VolumeId);
  expect(volume).toMatchObject({ encrypted_data_key: null, restore_encrypted_data_key: null });
  w.host.perform = done;
  await w.completed(snapshotId);
  await until(async () => (await rows('ec2_volumes')).every((row) => row.volume_id !== VolumeId));
});

test('all snapshots of an instance are one point in time, with one event when all are done', async () => {
  const volumes = [await w.volume(), await w.volume({ Encrypted: true }), await w.volume()];
  const InstanceId = await w.newInstance();
  for (const [index, VolumeId] of volumes.entries())
    await w.world.ec2('AttachVolume', { VolumeId, InstanceId, Device: `/dev/sd${'fgh'[index]}` });
  await w.world.ec2('CreateTags', { Resources: [volumes[0]], Tags: [{ Key: 'Name', Value: 'data' }] });
  w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
  const create = async (more: object, specification: object = {}) =>
    (
      await w.world.ec2('CreateSnapshots', {
        InstanceSpecification: { InstanceId, ...specification },
        ...more,
      })
    ).Snapshots;
  // Time passes while they are made, and makes no difference.
  const now = w.world.clock.now.bind(w.world.clock);
  w.world.clock.now = () => {
    w.world.clock.advance(1);
    return now();
  };
  const made = await create({ CopyTagsFromSource: 'volume' }, { ExcludeDataVolumeIds: [volumes[2]] });
  w.world.clock.now = now;
  expect(made[1].StartTime).toEqual(made[0].StartTime);
  expect(made).toMatchObject([
    { VolumeId: volumes[0], State: 'pending', Tags: [{ Key: 'Name', Value: 'data' }] },
    { VolumeId: volumes[1], State: 'pending', Tags: [], Encrypted: true },
  ]);
  const ids = made.map(({ SnapshotId }: { SnapshotId: string }) => SnapshotId);
  const tasks = await w.listed('createSnapshot');
  expect(tasks.map((task) => task.group?.snapshotIds)).toEqual([ids, ids]);
  w.host.perform = (task) =>
    task.kind === 'createSnapshot' && task.snapshotId === ids[0]
      ? { state: 'failed', final: true, error: 'lost' }
      : done(task);
  await w.completed(ids[1]);
  await until(async () => (await w.world.events('EBS Multi-Volume Snapshots Completion Status')).length === 1);
  const [event] = await w.world.events('EBS Multi-Volume Snapshots Completion Status');
  expect(event!.detail).toMatchObject({
    event: 'createSnapshots',
    result: 'failed',
    cause: `Snapshot ${ids[0]} is in status error`,
    snapshots: [
      { snapshot_id: `arn:aws:ec2::us-east-1:snapshot/${ids[0]}`, status: 'error' },
      { source: `arn:aws:ec2::us-east-1:volume/${volumes[1]}`, status: 'completed' },
    ],
  });
  await expect(create({}, { ExcludeDataVolumeIds: volumes })).rejects.toMatchObject({
    code: 'InvalidParameterCombination',
  });
  await expect(create({}, { ExcludeDataVolumeIds: [await w.volume()] })).rejects.toMatchObject({
    code: 'InvalidParameterValue',
  });
});

test('a shared snapshot from another region takes a grant on its key, which its account must give', async () => {
  const key = await w.newKey();
  const VolumeId = await w.volume({ Encrypted: true, KmsKeyId: key });
  const source = await w.snapshot(VolumeId);
  await w.completed(source);
  const share = { SnapshotId: source, CreateVolumePermission: { Add: [{ UserId: otherAccount }] } };
  await w.world.ec2('ModifySnapshotAttribute', share);
  const abroad = { ...stranger, region: 'eu-west-1' };
  const copy = () => w.world.ec2('CopySnapshot', { SourceSnapshotId: source, SourceRegion: 'us-east-1' }, abroad);
  await expect(copy()).rejects.toMatchObject({ code: 'UnauthorizedOperation' });
  const everyone = ['123456789012', otherAccount].map((id) => `arn:aws:iam::${id}:root`);
  const Statement = [{ Effect: 'Allow', Principal: { AWS: everyone }, Action: 'kms:*', Resource: '*' }];
  await w.world.kms('PutKeyPolicy', { KeyId: key, Policy: JSON.stringify({ Version: '2012-10-17', Statement }) });
  w.host.perform = running;
  const { SnapshotId } = await copy();
  const grantee = infrastructureArn(SnapshotId).replace('123456789012', otherAccount);
  const grants = async () => (await w.world.kms('ListGrants', { KeyId: key })).Grants;
  expect(await grants()).toMatchObject([
    { GranteePrincipal: grantee, Constraints: { EncryptionContextSubset: { 'aws:ebs:id': VolumeId } } },
  ]);
  w.host.perform = done;
  await w.completed(SnapshotId, abroad);
  expect(await grants()).toEqual([]);
});

test("numbers in a host's report that are none are left out, and keep nothing from going on", async () => {
  for (const outcome of [{ blocks: 'x', fullBytes: -1, storedBytes: 1.5 }, { blocks: {}, fullBytes: null }, null, 7]) {
    w.host.perform = () => ({ state: 'done', outcome: outcome as never });
    const id = await w.stored();
    expect(await w.describe(id)).toMatchObject({ State: 'completed', Progress: '100%' });
  }
});
