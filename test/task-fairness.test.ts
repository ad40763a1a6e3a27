/** One account asks for more than a host can do in days: what others ask for goes on beside it. */
import { expect, test } from 'vitest';
import type { HostTask, TaskResult } from '../src/aws/host-protocol.ts';
import { eachInItsWorld, until } from './support/snapshots.ts';
import { account, stranger } from './support/world.ts';

const w = eachInItsWorld();
const stuck: ReadonlySet<HostTask['kind']> = new Set(['initializeVolume', 'copySnapshot']);
const mostlyDone = (task: HostTask): Omit<TaskResult, 'taskId'> =>
  stuck.has(task.kind) ? { state: 'running' } : { state: 'done', outcome: { blocks: 0, fullBytes: 0, storedBytes: 0 } };

/** Puts copies of an account's task (and of what it is about) before all others of the host. */
async function flood(kind: HostTask['kind'], count: number, first = '0'): Promise<void> {
  const { database } = w.current.world;
  await database.run(async (db) => {
    const task = await db.selectFrom('ec2_tasks').selectAll().where('kind', '=', kind).executeTakeFirstOrThrow();
    const volume = await db
      .selectFrom('ec2_volumes')
      .selectAll()
      .where('volume_id', '=', task.volume_id as string)
      .executeTakeFirst();
    for (let n = 0; n < count; n++) {
      const id = first + n.toString(16).padStart(16, '0');
      const about = volume ? { volume_id: `vol-${id}` } : { snapshot_id: `snap-${id}`, family: `snap-${id}` };
      if (volume) {
        const { seq: _, ...columns } = volume;
        await db
          .insertInto('ec2_volumes')
          .values({ ...columns, ...about })
          .execute();
      }
      const row = { ...task, ...about, task_id: `task-${id}`, created_at: (task.created_at as number) - 1 };
      await db.insertInto('ec2_tasks').values(row).execute();
    }
  });
}

const toRestore = async (caller = {}) => w.current.volume({ SnapshotId: await w.current.stored({}, caller) }, caller);

test('a snapshot is taken beside thousands of volumes that another account fills', async () => {
  w.current.host.perform = mostlyDone;
  await toRestore();
  await flood('initializeVolume', 2500);
  const mine = await toRestore(stranger);
  await w.current.stored({}, stranger);
  const listed = await w.current.listed('initializeVolume');
  expect(listed.findIndex(({ volumeId }) => volumeId === mine)).toBeLessThan(2);
});

test('places are shared among the accounts that want some, and all are had by one that is alone', async () => {
  w.current.host.perform = mostlyDone;
  await toRestore();
  await flood('initializeVolume', 30);
  const alone = await w.current.listed('initializeVolume');
  expect(alone).toHaveLength(31);
  await flood('initializeVolume', 100, 'f');
  expect(await w.current.listed('initializeVolume')).toHaveLength(64);
  const mine = await toRestore(stranger);
  const shared = await w.current.listed('initializeVolume');
  expect(shared).toHaveLength(8 + 1);
  expect(shared.map(({ volumeId }) => volumeId)).toContain(mine);
});

test('blocks of deleted snapshots are freed beside thousands that wait', async () => {
  w.current.host.perform = () => ({ state: 'running', marked: true });
  const one = await w.current.snapshot(await w.current.volume());
  const pending = await w.current.snapshot(await w.current.volume({}, stranger), {}, stranger);
  await w.current.world.ec2('DeleteSnapshot', { SnapshotId: one });
  await flood('deleteSnapshot', 2500);
  // None of them can go on.
  const payload = JSON.stringify({ after: [pending] });
  await w.current.world.database.run((db) =>
    db.updateTable('ec2_tasks').set({ payload }).where('account', '=', account).execute(),
  );
  const second = await w.current.snapshot(await w.current.volume({}, stranger), {}, stranger);
  await w.current.world.ec2('DeleteSnapshot', { SnapshotId: second }, stranger);
  await until(async () => (await w.current.listed('deleteSnapshot')).some(({ snapshotId }) => snapshotId === second));
});

test('the snapshots of an instance are listed together, however many others there are', async () => {
  const { world, host } = w.current;
  host.perform = mostlyDone;
  await toRestore();
  const instance = await w.current.newInstance();
  for (const letter of 'fghij') {
    const VolumeId = await w.current.volume();
    await until(async () => (await w.current.describeVolume(VolumeId)).State === 'available');
    await world.ec2('AttachVolume', { InstanceId: instance, VolumeId, Device: `/dev/sd${letter}` });
  }
  await flood('initializeVolume', 2500);
  const { Snapshots } = await world.ec2('CreateSnapshots', { InstanceSpecification: { InstanceId: instance } });
  expect(Snapshots).toHaveLength(5);
});
