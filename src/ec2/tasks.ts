/** Hosts' tasks in the words of the protocol: which of them a host is told now, and what follows from its results. */

import type { Call } from '../aws/call.ts';
import type {
  CopySnapshotTask,
  CreateSnapshotTask,
  HostTask,
  TaskResult,
  VolumeEncryption,
} from '../aws/host-protocol.ts';
import { encryptionContext } from './keys.ts';
import { type HostRow, type TaskRow, tables, type VolumeRow } from './records.ts';
import { finishRestore, restoreSource } from './restores.ts';
import { completeSnapshot, failSnapshot } from './snapshot-ends.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { snapshotById, snapshotTopic } from './snapshot-store.ts';
import { tasksInTurn, withinShares } from './task-shares.ts';
import { installedBlockStore, wakeHosts } from './task-store.ts';
import { deleteVolume, forgetVolume } from './volume-store.ts';

const gib = 1024 ** 3;
/** A host is told about so many tasks at a time. */
const listedMax = 2000;
/** And of all hosts together so many deletions of snapshots: each frees its blocks one after the other. */
const deletionsListedMax = 200;
const errorLengthMax = 1000;

interface Listed {
  readonly row: TaskRow;
  readonly task: HostTask;
}

/** What tasks depend on. */
interface Surroundings {
  /** Those to be filled. */
  readonly volumes: ReadonlyMap<string, VolumeRow>;
  readonly beingRead: ReadonlySet<string>;
  /** The tasks that delete snapshots and can go on, each with the family. */
  readonly ready: ReadonlyMap<string, readonly string[]>;
}

/** The tasks that a host shall be at work on now: each account's oldest first, accounts in turn. */
export async function listedTasks(call: Call, host: HostRow): Promise<Listed[]> {
  const rows = withinShares(await tasksInTurn(call, { hostId: host.host_id }, listedMax));
  if (rows.length === 0) return [];
  const store = await installedBlockStore(call);
  const isForeign = host.block_store_id !== null && host.block_store_id !== store;
  const around: Surroundings = {
    volumes: await volumesOf(call, rows),
    beingRead: await volumesBeingRead(call, rows),
    ready: await readyDeletions(call, rows),
  };
  const listed: Listed[] = [];
  for (const row of rows) {
    if (isForeign && row.kind !== 'eraseVolume') continue;
    const task = taskOf(row, around);
    if (task) listed.push({ row, task });
  }
  return listed;
}

async function volumesOf(call: Call, rows: readonly TaskRow[]): Promise<Map<string, VolumeRow>> {
  const ids = rows.filter(({ kind }) => kind === 'initializeVolume').map((row) => row.volume_id);
  if (ids.length === 0) return new Map();
  const volumes = await tables(call).selectFrom('ec2_volumes').selectAll().where('volume_id', 'in', ids).execute();
  return new Map(volumes.map((volume) => [volume.volume_id, volume]));
}

/** A task as the host reads it, or undefined while it has to wait. */
function taskOf(row: TaskRow, around: Surroundings): HostTask | undefined {
  const { task_id: taskId, volume_id: volumeId } = row;
  const snapshotId = row.snapshot_id ?? '';
  switch (row.kind) {
    case 'eraseVolume':
      return around.beingRead.has(volumeId) ? undefined : { taskId, kind: row.kind, volumeId };
    case 'createSnapshot':
      return {
        taskId,
        kind: row.kind,
        volumeId,
        snapshotId,
        ...(JSON.parse(row.payload!) as Pick<CreateSnapshotTask, 'sizeBytes' | 'hasImage' | 'parentSnapshotId'>),
      };
    case 'initializeVolume': {
      const volume = around.volumes.get(volumeId);
      const source = volume && restoreSource(volume);
      if (!volume || !source) return undefined;
      const encryption = volumeEncryption(volume);
      return {
        taskId,
        kind: row.kind,
        volumeId,
        sizeBytes: volume.size_gib * gib,
        hasImage: volume.has_image === 1,
        ...(encryption ? { encryption } : {}),
        source,
      };
    }
    case 'copySnapshot':
      return {
        taskId,
        kind: row.kind,
        snapshotId,
        ...(JSON.parse(row.payload!) as Omit<CopySnapshotTask, 'taskId' | 'kind' | 'snapshotId'>),
      };
    case 'deleteSnapshot': {
      const family = around.ready.get(taskId);
      return family && { taskId, kind: row.kind, snapshotId, family };
    }
  }
}

/** What a host needs to get a volume's own data key; undefined for one that is not encrypted, or no more. */
export function volumeEncryption(volume: VolumeRow): VolumeEncryption | undefined {
  if (volume.key_arn === null || volume.encrypted_data_key === null) return undefined;
  return {
    keyArn: volume.key_arn,
    encryptedDataKey: Buffer.from(volume.encrypted_data_key).toString('base64'),
    encryptionContext: encryptionContext(volume.volume_id),
  };
}

/** Volumes that snapshots are being made of. */
async function volumesBeingRead(call: Call, rows: readonly TaskRow[]): Promise<ReadonlySet<string>> {
  if (!rows.some(({ kind }) => kind === 'eraseVolume')) return new Set();
  const tasks = await tables(call)
    .selectFrom('ec2_tasks')
    .select('volume_id')
    .where('kind', '=', 'createSnapshot')
    .execute();
  return new Set(tasks.map((task) => task.volume_id));
}

/**
 * Which deletions of snapshots can go on, each with the snapshots that may share its blocks. One waits while a snapshot
 * that takes blocks from it is pending, a volume is restored from it or a copy made of it; and of one family only one is
 * under way at a time: two that look at each other would both leave what they share.
 */
async function readyDeletions(call: Call, mine: readonly TaskRow[]): Promise<Map<string, readonly string[]>> {
  const ready = new Map<string, string[]>();
  if (!mine.some(({ kind }) => kind === 'deleteSnapshot')) return ready;
  const db = tables(call);
  const deletions = await tasksInTurn(call, { kind: 'deleteSnapshot' }, listedMax);
  const pending = await db
    .selectFrom('ec2_snapshots')
    .select(['snapshot_id', 'parent_id', 'source_snapshot_id'])
    .where('state', '=', 'pending')
    .execute();
  const restoring = await db
    .selectFrom('ec2_volumes')
    .select('restore_snapshot_id')
    .distinct()
    .where('restore_snapshot_id', 'is not', null)
    .execute();
  const stillPending = new Set(pending.map((row) => row.snapshot_id));
  const needed = new Set<string | null>(restoring.map((row) => row.restore_snapshot_id));
  for (const row of pending) needed.add(row.parent_id).add(row.source_snapshot_id);
  const families = new Map<string, TaskRow>();
  for (const task of deletions) {
    const { after = [] } = JSON.parse(task.payload ?? '{}') as { after?: string[] };
    if (families.has(task.family!) || needed.has(task.snapshot_id) || after.some((id) => stillPending.has(id)))
      continue;
    families.set(task.family!, task);
    if (families.size === deletionsListedMax) break;
  }
  if (families.size === 0) return ready;
  const relatives = await db
    .selectFrom('ec2_snapshots')
    .select(['family', 'snapshot_id'])
    .where('family', 'in', [...families.keys()])
    .where('state', '=', 'completed')
    .orderBy('seq')
    .execute();
  for (const task of families.values()) ready.set(task.task_id, []);
  // Those that wait to be deleted still have their manifests.
  for (const { family, snapshot_id: snapshotId } of [...relatives, ...deletions]) {
    const task = families.get(family!);
    if (task && snapshotId !== task.snapshot_id) ready.get(task.task_id)!.push(snapshotId!);
  }
  return ready;
}

/** Takes a host's word about one of its tasks. `call` acts in the task's account, as the service itself. */
export async function applyTaskResult(call: Call, row: TaskRow, result: TaskResult): Promise<void> {
  const snapshot = row.snapshot_id === null ? undefined : await snapshotById(call, row.snapshot_id);
  if (snapshot?.state === 'pending') await noteProgress(call, snapshot, result);
  if (row.kind === 'initializeVolume') await noteInitialization(call, row, result);
  if (result.state === 'done') return finishTask(call, row, snapshot, result);
  const error = result.state === 'failed' ? errorOf(result) : null;
  if (error !== row.error)
    await tables(call).updateTable('ec2_tasks').set({ error }).where('task_id', '=', row.task_id).execute();
  if (error === null || !snapshot || snapshot.state !== 'pending') return;
  // A call may wait for the point in time of this one.
  if (!snapshot.is_marked) call.raise(snapshotTopic(snapshot.snapshot_id));
  if (result.final && (row.kind === 'createSnapshot' || row.kind === 'copySnapshot'))
    await failSnapshot(call, snapshot, error);
}

async function noteProgress(call: Call, snapshot: SnapshotRow, result: TaskResult): Promise<void> {
  const progress = percent(result.progress) ?? snapshot.progress;
  const isMarked = snapshot.is_marked === 1 || result.marked === true;
  const message = troubleOf(result, snapshot.state_message, progress > snapshot.progress);
  if (progress === snapshot.progress && isMarked === (snapshot.is_marked === 1) && message === snapshot.state_message)
    return;
  await tables(call)
    .updateTable('ec2_snapshots')
    .set({ progress, is_marked: isMarked ? 1 : 0, state_message: message })
    .where('snapshot_id', '=', snapshot.snapshot_id)
    .execute();
  call.raise(snapshotTopic(snapshot.snapshot_id));
}

/** What holds work up: what it failed with the last time, until it gets on. That it is tried again is not yet a success. */
function troubleOf(result: TaskResult, before: string | null, hasMoved: boolean): string | null {
  if (result.state === 'failed') return errorOf(result);
  return hasMoved ? null : before;
}

const errorOf = (result: TaskResult) => String(result.error ?? 'failed').slice(0, errorLengthMax);

/** A block that can't be had stays missing, and with it the restore unfinished: the volume is not whole, and says so. */
async function noteInitialization(call: Call, row: TaskRow, result: TaskResult): Promise<void> {
  const before = await tables(call)
    .selectFrom('ec2_volumes')
    .select(['initialization_progress', 'initialization_error'])
    .where('volume_id', '=', row.volume_id)
    .executeTakeFirst();
  if (!before) return;
  const progress = percent(result.progress) ?? before.initialization_progress;
  const hasMoved = (progress ?? 0) > (before.initialization_progress ?? 0);
  await tables(call)
    .updateTable('ec2_volumes')
    .set({
      initialization_progress: progress,
      initialization_error: troubleOf(result, before.initialization_error, hasMoved),
    })
    .where('volume_id', '=', row.volume_id)
    .execute();
  if (result.state === 'failed') await tellSnapshots(call, row.volume_id, errorOf(result));
}

/** Snapshots of a volume wait for what of their point in time has yet to come from where the volume was made of. */
async function tellSnapshots(call: Call, volumeId: string, error: string): Promise<void> {
  await tables(call)
    .updateTable('ec2_snapshots')
    .set({ state_message: `Volume ${volumeId} is not filled yet: ${error}`.slice(0, errorLengthMax) })
    .where('volume_id', '=', volumeId)
    .where('state', '=', 'pending')
    .where('is_marked', '=', 1)
    .where('origin', '=', 'volume')
    .execute();
}

const percent = (value: unknown) =>
  typeof value === 'number' && value >= 0 && value <= 100 ? Math.floor(value) : undefined;

async function finishTask(
  call: Call,
  row: TaskRow,
  snapshot: SnapshotRow | undefined,
  result: TaskResult,
): Promise<void> {
  await tables(call).deleteFrom('ec2_tasks').where('task_id', '=', row.task_id).execute();
  const volume =
    row.volume_id === ''
      ? undefined
      : await tables(call)
          .selectFrom('ec2_volumes')
          .selectAll()
          .where('volume_id', '=', row.volume_id)
          .executeTakeFirst();
  switch (row.kind) {
    case 'eraseVolume':
      if (volume?.state === 'deleting') await forgetVolume(call, volume, row.request_id);
      return;
    case 'initializeVolume':
      if (!volume) return;
      await finishRestore(call, volume);
      // Its end has waited for a snapshot that lacked what was still to be restored.
      if (volume.state === 'deleting') await deleteVolume(call, { ...volume, restore_snapshot_id: null });
      return;
    case 'createSnapshot':
    case 'copySnapshot':
      if (snapshot?.state === 'pending') await completeSnapshot(call, snapshot, result.outcome);
      return;
    case 'deleteSnapshot':
      // The next of the family may go on.
      await wakeHosts(call);
  }
}
