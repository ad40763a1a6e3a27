/** Snapshots where they are kept: making one, finding some, and the end of one. */
import { sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { CreateSnapshotTask } from '../aws/host-protocol.ts';
import { newResourceId } from '../aws/ids.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { snapshotsNotFound } from './errors.ts';
import { type HostRow, preparedQuery, tables, type VolumeRow } from './records.ts';
import type { NewSnapshotRow, SnapshotRow } from './snapshot-records.ts';
import { dropTags } from './tag-store.ts';
import { endTaskGrants } from './task-grants.ts';
import { addTask, dropTasks } from './task-store.ts';

const gib = 1024 ** 3;
/** The most snapshots that an account can have in a region. */
export const snapshotsPerRegionMax = 100_000;
/** Raised when a snapshot changes. */
export const snapshotTopic = (snapshotId: string) => `ec2/snapshot/${snapshotId}`;
/** In the list of a snapshot's permissions: everybody. */
export const everybody = 'all';

const countSnapshot = preparedQuery<{ snapshots: number }>((db) =>
  db
    .insertInto('ec2_usage')
    .values({ account: '', region: '', volumes: 0, snapshots: 0 })
    .onConflict((conflict) =>
      conflict
        .columns(['account', 'region'])
        .doUpdateSet({ snapshots: sql<number>`ec2_usage.snapshots + excluded.snapshots` }),
    )
    .returning('snapshots'),
);

/** What snapshots of all origins have in common when they begin. */
type BeginningSnapshot = Omit<NewSnapshotRow, 'snapshot_id' | 'state' | 'progress' | 'started_at' | 'request_id'> & {
  /** Default: now. */
  readonly started_at?: number;
};

/**
 * Adds a pending snapshot of the caller's account and region.
 * @throws {AwsError} SnapshotLimitExceeded
 */
export async function insertSnapshot(
  call: Call,
  snapshotId: string,
  beginning: Omit<BeginningSnapshot, 'account' | 'region'>,
): Promise<SnapshotRow> {
  if (beginning.origin !== 'internal') {
    const { rows } = await countSnapshot(call, [call.account, call.region, 0, 1]);
    if (rows[0]!.snapshots > snapshotsPerRegionMax)
      throw new AwsError('SnapshotLimitExceeded', `Maximum number of snapshots, '${snapshotsPerRegionMax}', exceeded.`);
  }
  return tables(call)
    .insertInto('ec2_snapshots')
    .values({
      started_at: call.clock.now(),
      ...beginning,
      snapshot_id: snapshotId,
      account: call.account,
      region: call.region,
      state: 'pending',
      progress: 0,
      request_id: call.requestId,
    })
    .returningAll()
    .executeTakeFirstOrThrow();
}

/** Snapshots of a volume that may be pending at a time. Source: EBS user guide, "Quotas for Amazon EBS". */
function pendingMax(volumeType: string): number {
  return volumeType === 'st1' || volumeType === 'sc1' ? 1 : 5;
}

/** @throws {AwsError} ConcurrentSnapshotLimitExceeded */
export async function checkPending(call: Call, volume: VolumeRow): Promise<void> {
  const pending = await pendingSnapshotsOf(call, volume.volume_id);
  if (pending.length >= pendingMax(volume.volume_type))
    throw new AwsError(
      'ConcurrentSnapshotLimitExceeded',
      `Maximum allowed in-progress snapshots for a single volume exceeded: ${volume.volume_id} has ` +
        `${pending.length} (${pending.join(', ')}).`,
    );
}

/** Oldest first. */
export async function pendingSnapshotsOf(call: Call, volumeId: string): Promise<string[]> {
  const rows = await ofVolume(call, volumeId).where('state', '=', 'pending').orderBy('seq').execute();
  return rows.map((row) => row.snapshot_id);
}

function ofVolume(call: Call, volumeId: string) {
  return tables(call)
    .selectFrom('ec2_snapshots')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('origin', 'in', ['volume', 'internal']);
}

export interface NewSnapshot {
  readonly origin: 'volume' | 'internal';
  readonly snapshotId: string;
  readonly description: string;
  readonly group?: CreateSnapshotTask['group'];
  /** The same for all of a group; ms since the epoch. Default: now. */
  readonly startedAt?: number;
}

/**
 * Begins a snapshot of a volume on the host that can do it. It takes over the volume's key and data key, so that it
 * outlives the volume; the point in time is not fixed before the host says so.
 */
export async function beginSnapshot(
  call: Call,
  volume: VolumeRow,
  host: HostRow,
  { origin, snapshotId, description, group, startedAt = call.clock.now() }: NewSnapshot,
): Promise<SnapshotRow> {
  await checkPending(call, volume);
  const parent = await ofVolume(call, volume.volume_id)
    .where('state', 'in', ['pending', 'completed'])
    .orderBy('seq', 'desc')
    .limit(1)
    .executeTakeFirst();
  const snapshot = await insertSnapshot(call, snapshotId, {
    origin,
    volume_id: volume.volume_id,
    size_gib: volume.size_gib,
    encrypted: volume.encrypted,
    key_arn: volume.key_arn,
    encrypted_data_key: volume.encrypted_data_key,
    context_id: volume.encrypted ? volume.volume_id : null,
    description,
    is_marked: 0,
    parent_id: parent?.snapshot_id ?? null,
    family: parent?.family ?? snapshotId,
    group_id: group?.groupId ?? null,
    started_at: startedAt,
  });
  const payload: Omit<CreateSnapshotTask, 'taskId' | 'kind' | 'volumeId' | 'snapshotId'> = {
    sizeBytes: volume.size_gib * gib,
    // What is still to be restored is not in the image: without one the volume would be taken for empty.
    hasImage: volume.has_image === 1 || volume.restore_snapshot_id !== null,
    ...(parent ? { parentSnapshotId: parent.snapshot_id } : {}),
    ...(group ? { group } : {}),
  };
  await addTask(call, {
    kind: 'createSnapshot',
    account: call.account,
    region: call.region,
    volumeId: volume.volume_id,
    snapshotId,
    zone: volume.zone,
    hostId: host.host_id,
    payload,
  });
  return snapshot;
}

/** A snapshot by its id, whoever's it is and wherever. */
export async function snapshotById(call: Call, snapshotId: string): Promise<SnapshotRow | undefined> {
  return tables(call).selectFrom('ec2_snapshots').selectAll().where('snapshot_id', '=', snapshotId).executeTakeFirst();
}

/**
 * A snapshot that the caller may make volumes from: its own, or one that is shared with it.
 * @throws {AwsError} InvalidSnapshot.NotFound, the same whether it exists or not
 */
export async function findUsableSnapshot(call: Call, snapshotId: string): Promise<SnapshotRow> {
  const snapshot = await snapshotById(call, snapshotId);
  const isShown = snapshot && snapshot.region === call.region && snapshot.origin !== 'internal' && snapshot.is_marked;
  if (!isShown || !(snapshot.account === call.account || (await isSharedWith(call, snapshotId, call.account))))
    throw snapshotsNotFound([snapshotId]);
  return snapshot;
}

/**
 * A snapshot of the caller's own.
 * @throws {AwsError} InvalidSnapshot.NotFound; AuthFailure for one that is shared with the caller
 */
export async function findOwnSnapshot(call: Call, snapshotId: string): Promise<SnapshotRow> {
  const snapshot = await findUsableSnapshot(call, snapshotId);
  if (snapshot.account !== call.account)
    throw new AwsError(
      'AuthFailure',
      `Not authorized for the snapshot '${snapshotId}': it belongs to account ${snapshot.account}, which shares it.`,
    );
  return snapshot;
}

export async function isSharedWith(call: Call, snapshotId: string, account: string): Promise<boolean> {
  const permission = await tables(call)
    .selectFrom('ec2_snapshot_permissions')
    .select('account')
    .where('snapshot_id', '=', snapshotId)
    .where('account', 'in', [account, everybody])
    .executeTakeFirst();
  return permission !== undefined;
}

/**
 * Ends a snapshot: it is gone for the API, its encrypted data key with it. The blocks that no other needs are freed by a
 * host, later if something still reads them. One that is pending is cancelled.
 */
export async function removeSnapshot(call: Call, snapshot: SnapshotRow): Promise<void> {
  const { snapshot_id: snapshotId } = snapshot;
  const children = await pendingChildren(call, snapshotId);
  if (snapshot.state === 'pending') await giveChildrenAway(call, snapshot, children);
  const work = await tables(call)
    .selectFrom('ec2_tasks')
    .select('host_id')
    .where('snapshot_id', '=', snapshotId)
    .where('kind', 'in', ['createSnapshot', 'copySnapshot'])
    .executeTakeFirst();
  await dropTasks(call, { snapshotId }, ['createSnapshot', 'copySnapshot']);
  await endTaskGrants(call, snapshotId);
  if (snapshot.encrypted) forgetForGood(call.db);
  await tables(call).deleteFrom('ec2_snapshots').where('snapshot_id', '=', snapshotId).execute();
  await tables(call).deleteFrom('ec2_snapshot_permissions').where('snapshot_id', '=', snapshotId).execute();
  await dropTags(call, snapshotId);
  if (snapshot.origin !== 'internal') await countSnapshot(call, [snapshot.account, snapshot.region, 0, -1]);
  // What a failed one left was cleaned up when it failed.
  if (snapshot.state !== 'error')
    await freeBlocks(
      call,
      snapshot,
      // Whoever was at work on it is the one that can stop that first.
      work?.host_id || snapshot.host_id || undefined,
      children,
    );
  call.raise(snapshotTopic(snapshotId));
}

/** Has a host free what is stored of a snapshot, once none of `after` is pending any more. */
export async function freeBlocks(
  call: Call,
  snapshot: SnapshotRow,
  hostId: string | undefined,
  after: readonly string[],
): Promise<void> {
  await addTask(call, {
    kind: 'deleteSnapshot',
    account: snapshot.account,
    region: snapshot.region,
    snapshotId: snapshot.snapshot_id,
    family: snapshot.family,
    hostId,
    payload: { after },
  });
}

/** Pending snapshots that take unchanged blocks from this one. */
export async function pendingChildren(call: Call, snapshotId: string): Promise<string[]> {
  const rows = await tables(call)
    .selectFrom('ec2_snapshots')
    .select('snapshot_id')
    .where('state', '=', 'pending')
    .where('parent_id', '=', snapshotId)
    .execute();
  return rows.map((row) => row.snapshot_id);
}

/** A snapshot that comes to nothing can't be a parent: its own parent takes its place. */
export async function giveChildrenAway(call: Call, snapshot: SnapshotRow, children: readonly string[]): Promise<void> {
  for (const child of children) {
    await tables(call)
      .updateTable('ec2_snapshots')
      .set({ parent_id: snapshot.parent_id })
      .where('snapshot_id', '=', child)
      .execute();
    const task = await tables(call)
      .selectFrom('ec2_tasks')
      .selectAll()
      .where('snapshot_id', '=', child)
      .where('kind', '=', 'createSnapshot')
      .executeTakeFirst();
    if (!task) continue;
    const { parentSnapshotId: _, ...payload } = JSON.parse(task.payload!);
    const parent = snapshot.parent_id === null ? {} : { parentSnapshotId: snapshot.parent_id };
    await tables(call)
      .updateTable('ec2_tasks')
      .set({ payload: JSON.stringify({ ...payload, ...parent }) })
      .where('task_id', '=', task.task_id)
      .execute();
  }
}

export const newSnapshotId = () => newResourceId('snap');
