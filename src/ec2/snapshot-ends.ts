/** What follows when a snapshot is stored, or comes to nothing: its state, events, and those that wait for it. */
import type { Call } from '../aws/call.ts';
import type { SnapshotOutcome } from '../aws/host-protocol.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { snapshotEvent, snapshotSource, snapshotsEvent, volumeEvent, volumeSource } from './events.ts';
import { volumeTopic } from './host-store.ts';
import { tables } from './records.ts';
import { startRestore } from './restores.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { freeBlocks, giveChildrenAway, pendingChildren, removeSnapshot, snapshotTopic } from './snapshot-store.ts';
import { endTaskGrants } from './task-grants.ts';
import { dropTasks, wakeHosts } from './task-store.ts';
import { deleteVolume, resumeDeletions } from './volume-store.ts';

const stateMessageMax = 1000;

/** Everything of the snapshot is in the store. `call` acts in its account, as the service itself. */
export async function completeSnapshot(call: Call, snapshot: SnapshotRow, outcome?: SnapshotOutcome): Promise<void> {
  const now = call.clock.now();
  // The source's data key, which the copy's task has, ends with that.
  if (snapshot.encrypted && snapshot.origin === 'copy') forgetForGood(call.db);
  await tables(call)
    .updateTable('ec2_snapshots')
    .set({
      state: 'completed',
      state_message: null,
      progress: 100,
      is_marked: 1,
      completed_at: now,
      expires_at: null,
      // Any host can read what is in the store.
      host_id: null,
      blocks: countOf(outcome?.blocks),
      full_bytes: countOf(outcome?.fullBytes),
      stored_bytes: countOf(outcome?.storedBytes),
    })
    .where('snapshot_id', '=', snapshot.snapshot_id)
    .execute();
  await dropTasks(call, { snapshotId: snapshot.snapshot_id }, ['createSnapshot', 'copySnapshot']);
  await endTaskGrants(call, snapshot.snapshot_id);
  announce(call, snapshot, 'succeeded', '');
  await announceGroup(call, snapshot);
  for (const volume of await clonesOf(call, snapshot)) {
    await tables(call)
      .updateTable('ec2_volumes')
      .set({ state: 'available' })
      .where('volume_id', '=', volume.volume_id)
      .execute();
    call.emit(volumeEvent(volume, 'createVolume', 'available', { requestId: snapshot.request_id }));
    await startRestore(call, volume);
    call.raise(volumeTopic(volume.volume_id));
  }
  await release(call, snapshot);
}

/** A number in a host's message, which may be anything. */
const countOf = (value: unknown) => (Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : null);

/** It can't be made. What is stored of it goes; the snapshot stays to be seen, with the reason, until it is deleted. */
export async function failSnapshot(call: Call, snapshot: SnapshotRow, reason: string): Promise<void> {
  const children = await pendingChildren(call, snapshot.snapshot_id);
  await giveChildrenAway(call, snapshot, children);
  const task = await tables(call)
    .selectFrom('ec2_tasks')
    .select('host_id')
    .where('snapshot_id', '=', snapshot.snapshot_id)
    .executeTakeFirst();
  await dropTasks(call, { snapshotId: snapshot.snapshot_id }, ['createSnapshot', 'copySnapshot']);
  await endTaskGrants(call, snapshot.snapshot_id);
  await freeBlocks(call, snapshot, task?.host_id || snapshot.host_id || undefined, children);
  if (snapshot.encrypted) forgetForGood(call.db);
  await tables(call)
    .updateTable('ec2_snapshots')
    .set({
      state: 'error',
      state_message: reason.slice(0, stateMessageMax),
      encrypted_data_key: null,
      expires_at: null,
    })
    .where('snapshot_id', '=', snapshot.snapshot_id)
    .execute();
  announce(call, snapshot, 'failed', reason);
  await announceGroup(call, snapshot);
  for (const volume of await clonesOf(call, snapshot)) {
    call.emit(volumeEvent(volume, 'createVolume', 'failed', { cause: reason, requestId: snapshot.request_id }));
    await deleteVolume(call, volume);
  }
  await release(call, snapshot);
}

/** Takes back a snapshot whose point in time could not be fixed, and what was to be made from it. */
export async function undoSnapshot(call: Call, snapshot: SnapshotRow): Promise<void> {
  const clones = await clonesOf(call, snapshot);
  for (const volume of clones) await deleteVolume(call, volume);
  // The end of the last copy of a volume is that of its point in time.
  if (clones.length === 0) await removeSnapshot(call, snapshot);
}

/** Volumes whose making waits for the snapshot. */
function clonesOf(call: Call, snapshot: SnapshotRow) {
  return tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('restore_snapshot_id', '=', snapshot.snapshot_id)
    .where('state', '=', 'creating')
    .execute();
}

async function release(call: Call, snapshot: SnapshotRow): Promise<void> {
  await resumeDeletions(call);
  await wakeHosts(call);
  call.raise(snapshotTopic(snapshot.snapshot_id));
  call.raise(volumeTopic(snapshot.volume_id));
}

function announce(call: Call, snapshot: SnapshotRow, result: 'succeeded' | 'failed', cause: string): void {
  if (snapshot.origin === 'internal') return;
  const isCopy = snapshot.origin === 'copy';
  call.emit(
    snapshotEvent(snapshot, isCopy ? 'copySnapshot' : 'createSnapshot', result, {
      source: isCopy
        ? snapshotSource(snapshot.source_region!, snapshot.source_snapshot_id!)
        : volumeSource(snapshot.region, snapshot.volume_id),
      startedAt: snapshot.started_at,
      endedAt: call.clock.now(),
      cause,
      requestId: snapshot.request_id,
      ...(isCopy ? { incremental: false } : {}),
    }),
  );
}

async function announceGroup(call: Call, snapshot: SnapshotRow): Promise<void> {
  if (snapshot.group_id === null) return;
  const members = await tables(call)
    .selectFrom('ec2_snapshots')
    .selectAll()
    .where('account', '=', snapshot.account)
    .where('region', '=', snapshot.region)
    .where('group_id', '=', snapshot.group_id)
    .orderBy('seq')
    .execute();
  if (members.some(({ state }) => state === 'pending')) return;
  call.emit(
    snapshotsEvent(members, {
      startedAt: snapshot.started_at,
      endedAt: call.clock.now(),
      requestId: snapshot.request_id,
    }),
  );
}
