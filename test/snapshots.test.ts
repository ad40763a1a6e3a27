/** Snapshots on the control plane: making, finding and deleting them, and what hosts are told of them. */
import { beforeEach, describe, expect, test } from 'vitest';
import type { CreateSnapshotTask, DeleteSnapshotTask } from '../src/aws/host-protocol.ts';
import { eachInItsWorld, type SnapshotWorld, until } from './support/snapshots.ts';
import { account, done, FakeHost, half, otherAccount, stranger, type World, zone } from './support/world.ts';

const held = eachInItsWorld();
const volume: SnapshotWorld['volume'] = (...input) => held.current.volume(...input);
const snapshot: SnapshotWorld['snapshot'] = (...input) => held.current.snapshot(...input);
const describeOne: SnapshotWorld['describe'] = (...input) => held.current.describe(...input);
const found: SnapshotWorld['found'] = (...input) => held.current.found(...input);
const completed: SnapshotWorld['completed'] = (...input) => held.current.completed(...input);
const listed: SnapshotWorld['listed'] = (kind) => held.current.listed(kind);
let world: World;
let host: FakeHost;
beforeEach(() => {
  ({ world, host } = held.current);
});

describe('CreateSnapshot', () => {
  test('answers once the point in time is fixed, and completes behind the answer', async () => {
    host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const VolumeId = await volume({ Encrypted: true });
    const tags = [{ ResourceType: 'snapshot', Tags: [{ Key: 'Name', Value: 'nightly' }] }];
    const made = await world.ec2('CreateSnapshot', { VolumeId, Description: 'x', TagSpecifications: tags });
    expect(made).toMatchObject({
      State: 'pending',
      VolumeId,
      VolumeSize: 1,
      Encrypted: true,
      OwnerId: account,
      Description: 'x',
      StartTime: new Date(world.clock.now()),
      Tags: [{ Key: 'Name', Value: 'nightly' }],
    });
    await until(async () => (await describeOne(made.SnapshotId)).Progress === '50%');
    host.perform = done;
    await completed(made.SnapshotId);
    const [key] = (await world.ec2('DescribeVolumes', { VolumeIds: [VolumeId] })).Volumes;
    expect(await describeOne(made.SnapshotId)).toEqual({
      ...made,
      State: 'completed',
      Progress: '100%',
      StorageTier: 'standard',
      KmsKeyId: key.KmsKeyId,
      SseType: 'sse-kms',
      DataEncryptionKeyId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      CompletionTime: new Date(world.clock.now()),
      FullSnapshotSizeInBytes: 1_048_576,
    });
    const [event] = await world.events('EBS Snapshot Notification');
    const arn = `arn:aws:ec2::us-east-1:snapshot/${made.SnapshotId}`;
    expect(event).toMatchObject({
      account,
      region: 'us-east-1',
      resources: [arn],
      detail: {
        event: 'createSnapshot',
        result: 'succeeded',
        cause: '',
        snapshot_id: arn,
        source: `arn:aws:ec2::us-east-1:volume/${VolumeId}`,
      },
    });
    const [record] = await world.trail('CreateSnapshot');
    expect(record).toMatchObject({
      requestParameters: { volumeId: VolumeId, description: 'x' },
      responseElements: { snapshotId: made.SnapshotId, status: 'pending', volumeId: VolumeId },
    });
    expect(event!.detail['request-id']).toBe(record.requestID);
    // The ciphertext is copied as it is: nobody asks for a key.
    expect(await world.trail('Decrypt')).toEqual([]);
  });

  test('is not shown before its point in time is fixed', async () => {
    host.perform = () => undefined;
    const making = snapshot(await volume());
    await until(async () => (await listed('createSnapshot')).length === 1);
    const [task] = await listed('createSnapshot');
    expect(await found({ OwnerIds: ['self'] })).toEqual([]);
    await expect(describeOne(task!.snapshotId)).rejects.toMatchObject({ code: 'InvalidSnapshot.NotFound' });
    host.perform = () => half;
    expect(await making).toBe(task!.snapshotId);
    expect(await found({})).toEqual([task!.snapshotId]);
  });

  test('names the newest snapshot that stands as the parent, and keeps the family', async () => {
    const seen: CreateSnapshotTask[] = [];
    host.perform = (task) => {
      if (task.kind === 'createSnapshot') seen.push(task);
      return done(task);
    };
    const VolumeId = await volume();
    const first = await snapshot(VolumeId);
    const second = await snapshot(VolumeId);
    await completed(second);
    await world.ec2('DeleteSnapshot', { SnapshotId: second });
    const third = await snapshot(VolumeId);
    const parentOf = (id: string) => seen.find((task) => task.snapshotId === id)!.parentSnapshotId;
    expect([first, second, third].map(parentOf)).toEqual([undefined, first, first]);
  });

  test('has AWS limits: five pending of a volume, one of st1 and sc1', async () => {
    host.perform = () => half;
    const VolumeId = await volume();
    for (let index = 0; index < 5; index++) await snapshot(VolumeId);
    await expect(snapshot(VolumeId)).rejects.toMatchObject({
      code: 'ConcurrentSnapshotLimitExceeded',
      message: expect.stringContaining(VolumeId),
    });
    const slow = await volume({ VolumeType: 'st1', Size: 125 });
    await snapshot(slow);
    await expect(snapshot(slow)).rejects.toMatchObject({ code: 'ConcurrentSnapshotLimitExceeded' });
  });

  test('without a host that can do it fails at once, and says why', async () => {
    const VolumeId = await volume();
    await host.stop();
    world.clock.advance(61_000);
    await expect(snapshot(VolumeId)).rejects.toMatchObject({
      code: 'IncorrectState',
      message: expect.stringContaining(zone),
    });
    expect(await found({})).toEqual([]);
  });

  test('whose host fails for good ends in error, with the reason; the next one does without it', async () => {
    const VolumeId = await volume();
    host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const lost = await snapshot(VolumeId);
    const after = await snapshot(VolumeId);
    host.perform = (task) =>
      task.kind === 'createSnapshot' && task.snapshotId === lost
        ? { state: 'failed', final: true, error: 'the point in time is lost: the machine crashed' }
        : half;
    await until(async () => (await describeOne(lost)).State === 'error');
    expect(await describeOne(lost)).toMatchObject({ StateMessage: 'the point in time is lost: the machine crashed' });
    const [task] = await listed('createSnapshot');
    expect(task).toMatchObject({ snapshotId: after });
    expect(task).not.toHaveProperty('parentSnapshotId');
    const events = await world.events('EBS Snapshot Notification');
    expect(events.map((event) => event.detail)).toMatchObject([
      { result: 'failed', cause: 'the point in time is lost: the machine crashed' },
    ]);
    await expect(world.ec2('CreateVolume', { SnapshotId: lost, AvailabilityZone: zone })).rejects.toMatchObject({
      code: 'IncorrectState',
    });
  });

  test.each([
    [{ VolumeId: undefined }, 'MissingParameter'],
    [{ VolumeId: 'x' }, 'InvalidParameterValue'],
    [{ VolumeId: 'vol-00000000000000001' }, 'InvalidVolume.NotFound'],
    [{ Description: 'x'.repeat(256) }, 'InvalidParameterValue'],
    [{ OutpostArn: 'arn:aws:outposts:us-east-1:123456789012:outpost/op-1' }, 'InvalidParameterValue'],
    [{ TagSpecifications: [{ ResourceType: 'volume', Tags: [] }] }, 'InvalidParameterValue'],
    [{ DryRun: true }, 'DryRunOperation'],
  ])('answers %j with %s', async (more, code) => {
    await expect(world.ec2('CreateSnapshot', { VolumeId: await volume(), ...more })).rejects.toMatchObject({ code });
    expect(await found({})).toEqual([]);
  });
});

describe('DeleteSnapshot', () => {
  test('frees blocks one of a family at a time, with all that may share them', async () => {
    const VolumeId = await volume();
    const ids = [await snapshot(VolumeId), await snapshot(VolumeId), await snapshot(VolumeId)];
    await completed(ids[2]!);
    host.perform = () => ({ state: 'running' });
    await world.ec2('DeleteSnapshot', { SnapshotId: ids[0] });
    await world.ec2('DeleteSnapshot', { SnapshotId: ids[1] });
    expect(await found({})).toEqual([ids[2]]);
    const [first, ...others] = await listed('deleteSnapshot');
    expect(others).toEqual([]);
    // The second still has its manifest, so it counts.
    expect(first).toMatchObject({ snapshotId: ids[0], family: [ids[2], ids[1]] });
    const deletions: DeleteSnapshotTask[] = [];
    host.perform = (task) => {
      if (task.kind === 'deleteSnapshot') deletions.push(task);
      return done(task);
    };
    await until(async () => (await listed('deleteSnapshot')).length === 0);
    expect(deletions.at(-1)).toMatchObject({ snapshotId: ids[1], family: [ids[2]] });
  });

  test('waits for a pending child, whose parent it is', async () => {
    const VolumeId = await volume();
    const parent = await snapshot(VolumeId);
    await completed(parent);
    host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const child = await snapshot(VolumeId);
    await world.ec2('DeleteSnapshot', { SnapshotId: parent });
    expect(await listed('deleteSnapshot')).toEqual([]);
    host.perform = (task) => (task.kind === 'deleteSnapshot' ? { state: 'running' } : done(task));
    await completed(child);
    expect(await listed('deleteSnapshot')).toMatchObject([{ snapshotId: parent, family: [child] }]);
  });

  test('cancels one that is pending; the next takes its parent', async () => {
    const VolumeId = await volume();
    const parent = await snapshot(VolumeId);
    await completed(parent);
    host.perform = (task) => (task.kind === 'createSnapshot' ? half : { state: 'running' });
    const cancelled = await snapshot(VolumeId);
    const next = await snapshot(VolumeId);
    await world.ec2('DeleteSnapshot', { SnapshotId: cancelled });
    expect(await found({})).toEqual([parent, next]);
    expect(await listed('createSnapshot')).toMatchObject([{ snapshotId: next, parentSnapshotId: parent }]);
    // What is half made goes once nobody can be reading it any more.
    expect(await listed('deleteSnapshot')).toEqual([]);
    host.perform = (task) => (task.kind === 'createSnapshot' ? done(task) : { state: 'running' });
    await completed(next);
    expect(await listed('deleteSnapshot')).toMatchObject([{ snapshotId: cancelled, family: [parent, next] }]);
  });

  test('leaves the snapshots of a deleted volume alone, and the volume until they are made', async () => {
    const VolumeId = await volume({ Encrypted: true });
    host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const instance = await world.ec2('RunInstances', {
      ImageId: 'ami-0c0ffe00000000000',
      MinCount: 1,
      MaxCount: 1,
      Placement: { AvailabilityZone: zone },
    });
    const InstanceId = instance.Instances[0].InstanceId;
    await world.ec2('AttachVolume', { VolumeId, InstanceId, Device: '/dev/sdf' });
    const id = await snapshot(VolumeId);
    await world.ec2('DetachVolume', { VolumeId });
    await world.ec2('DeleteVolume', { VolumeId });
    expect(await listed('eraseVolume')).toEqual([]);
    host.perform = done;
    await completed(id);
    await until(async () => (await world.ec2('DescribeVolumes')).Volumes.length === 0);
    const again = await world.ec2('CreateVolume', { SnapshotId: id, AvailabilityZone: zone });
    expect(again).toMatchObject({ Encrypted: true, SnapshotId: id });
  });

  test('is for the owner alone', async () => {
    const id = await snapshot(await volume());
    await completed(id);
    await expect(world.ec2('DeleteSnapshot', { SnapshotId: id }, stranger)).rejects.toMatchObject({
      code: 'InvalidSnapshot.NotFound',
    });
    const share = { SnapshotId: id, CreateVolumePermission: { Add: [{ UserId: otherAccount }] } };
    await world.ec2('ModifySnapshotAttribute', share);
    await expect(world.ec2('DeleteSnapshot', { SnapshotId: id }, stranger)).rejects.toMatchObject({
      code: 'AuthFailure',
    });
    await world.ec2('DeleteSnapshot', { SnapshotId: id });
    await expect(world.ec2('DeleteSnapshot', { SnapshotId: id })).rejects.toMatchObject({
      code: 'InvalidSnapshot.NotFound',
    });
  });
});

test('a request that asks very much of each snapshot gets its answer in parts, what is shared among it', async () => {
  const [mine, theirs] = [await volume(), await volume({}, stranger)];
  const made: string[] = [];
  for (let index = 0; index < 12; index++) {
    const isMine = index % 3 > 0;
    const id = await snapshot(isMine ? mine : theirs, { Description: `d${index}` }, isMine ? {} : stranger);
    await completed(id, isMine ? {} : stranger);
    const UserIds = [account];
    const add = { SnapshotId: id, Attribute: 'createVolumePermission', OperationType: 'add', UserIds };
    if (!isMine) await world.ec2('ModifySnapshotAttribute', add, stranger);
    made.push(id);
  }
  const heavy = Array.from({ length: 190 }, (_, index) => `${'*a'.repeat(2000)}${index}`);
  const seen: string[] = [];
  let pages = 0;
  let NextToken: string | undefined;
  do {
    const Filters = [{ Name: 'description', Values: ['d*', ...heavy] }];
    const answer = await world.ec2('DescribeSnapshots', { Filters, NextToken });
    NextToken = answer.NextToken;
    pages++;
    seen.push(...answer.Snapshots.map(({ SnapshotId }: { SnapshotId: string }) => SnapshotId));
  } while (NextToken);
  expect(seen).toEqual(made);
  expect(pages).toBeGreaterThan(2);
});

describe('hosts and their block store', () => {
  const stores = async () =>
    Object.fromEntries(
      (await world.call('coffer', 'DescribeHosts')).Hosts.map(
        (each: { HostId: string; BlockStoreProblem: string | null }) => [each.HostId, each.BlockStoreProblem],
      ),
    );

  test('the first that a host has is the installation’s; a host with another gets no work on snapshots', async () => {
    const other = new FakeHost(world, { hostId: 'other', blockStoreId: 'store-2' });
    const silent = new FakeHost(world, { hostId: 'silent', blockStoreId: null });
    const old = new FakeHost(world, { hostId: 'old', blockStoreId: null });
    await other.catchUp();
    await silent.catchUp();
    await old.sync({ blockStore: undefined });
    expect(await stores()).toEqual({
      local: null,
      other: expect.stringContaining('store-2'),
      silent: expect.stringContaining('has not said yet'),
      old: expect.stringContaining('is to be restarted'),
    });
    await host.stop();
    world.clock.advance(61_000);
    await other.sync();
    await silent.sync();
    const VolumeId = await volume();
    await expect(snapshot(VolumeId)).rejects.toMatchObject({ code: 'IncorrectState' });
  });

  test('what a lost host left is taken over by one that reaches the same store', async () => {
    const id = await snapshot(await volume());
    await completed(id);
    host.perform = () => ({ state: 'running' });
    const { SnapshotId: copy } = await world.ec2('CopySnapshot', { SourceSnapshotId: id, SourceRegion: 'us-east-1' });
    expect(await listed('copySnapshot')).toMatchObject([{ snapshotId: copy }]);
    await host.stop();
    world.clock.advance(61_000);
    const next = new FakeHost(world, { hostId: 'next' });
    await next.catchUp();
    expect(await describeOne(copy)).toMatchObject({ State: 'completed' });
    // It is nobody else's any more, should the lost one come back.
    expect((await host.sync()).tasks).toEqual([]);
  });
});
