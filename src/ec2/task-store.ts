/** Hosts' tasks where they are kept, and which host gets them. What they say is src/aws/host-protocol.ts. */
import type { Call } from '../aws/call.ts';
import type { HostTask } from '../aws/host-protocol.ts';
import { newResourceId } from '../aws/ids.ts';
import { hostTopic, isLive, servesZone } from './host-store.ts';
import { type HostRow, type TaskRow, tables, type VolumeRow } from './records.ts';

/** How many tasks that nobody has are handed out at a time. */
const claimsMax = 1000;
const blockStoreName = 'block-store';

export interface NewTask {
  readonly kind: HostTask['kind'];
  readonly account: string;
  readonly region: string;
  readonly volumeId?: string;
  readonly snapshotId?: string;
  readonly family?: string;
  /** Where its volume is; absent for work that any host can do. */
  readonly zone?: string;
  /** The host that has to do it; absent: one that can is looked for. */
  readonly hostId?: string | undefined;
  /** What else the task says; JSON. */
  readonly payload?: object;
}

/** Adds a task and tells its host, if there is one now; otherwise the first that comes and can do it takes it. */
export async function addTask(call: Call, task: NewTask): Promise<TaskRow> {
  const row: TaskRow = {
    task_id: newResourceId('task'),
    kind: task.kind,
    volume_id: task.volumeId ?? '',
    account: task.account,
    region: task.region,
    zone: task.zone ?? '',
    host_id: task.hostId ?? (await placeTask(call, task)) ?? '',
    request_id: call.requestId,
    created_at: call.clock.now(),
    error: null,
    snapshot_id: task.snapshotId ?? null,
    family: task.family ?? null,
    payload: task.payload ? JSON.stringify(task.payload) : null,
  };
  await tables(call).insertInto('ec2_tasks').values(row).execute();
  if (row.host_id) call.raise(hostTopic(row.host_id));
  return row;
}

/** The live host that has the fewest tasks of those that can do this one. */
async function placeTask(call: Call, task: Pick<NewTask, 'kind' | 'zone'>): Promise<string | undefined> {
  const hosts = await tables(call).selectFrom('ec2_hosts').selectAll().orderBy('first_seen_at').execute();
  const store = await installedBlockStore(call);
  const able = hosts.filter((host) => isLive(call, host) && canDo(host, task.kind, task.zone ?? '', store));
  if (able.length <= 1) return able[0]?.host_id;
  const counts = await tables(call)
    .selectFrom('ec2_tasks')
    .select((select) => ['host_id', select.fn.countAll<number>().as('tasks')])
    .groupBy('host_id')
    .execute();
  const tasksOf = new Map(counts.map((row) => [row.host_id, Number(row.tasks)]));
  const load = (host: HostRow) => tasksOf.get(host.host_id) ?? 0;
  return able.reduce((best, host) => (load(host) < load(best) ? host : best)).host_id;
}

/** A live host that reaches the installation's block store. */
export function anyHost(call: Call): Promise<string | undefined> {
  return placeTask(call, { kind: 'deleteSnapshot' });
}

function canDo(host: HostRow, kind: HostTask['kind'], zone: string, store: string | undefined): boolean {
  if (zone !== '' && !servesZone(host, zone)) return false;
  return kind === 'eraseVolume' || (host.block_store_id !== null && host.block_store_id === store);
}

/** The id of the block store that all hosts of the installation share: the first that one of them had. */
export async function installedBlockStore(call: Call): Promise<string | undefined> {
  const row = await tables(call)
    .selectFrom('ec2_installation')
    .select('value')
    .where('name', '=', blockStoreName)
    .executeTakeFirst();
  return row?.value;
}

/** Takes the block store that a host reports for the installation's, unless that has one. */
export async function noteBlockStore(call: Call, blockStoreId: string): Promise<void> {
  await tables(call)
    .insertInto('ec2_installation')
    .values({ name: blockStoreName, value: blockStoreId })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

/** Why a host gets no work on snapshots, or undefined when it does. */
export function blockStoreProblem(host: HostRow, store: string | undefined): string | undefined {
  if (host.block_store_id === null)
    return host.block_store === null
      ? 'it runs an earlier version of Coffer, and is to be restarted'
      : "it has not said yet which block store it reaches, or can't read it";
  if (host.block_store_id === store) return undefined;
  return `it reaches the block store ${host.block_store_id}, and the installation's is ${store}: snapshots of one are not in the other`;
}

/**
 * Gives a host the tasks that it can do and that no live host has. A volume that is attached elsewhere stays where it is:
 * its host may be out of reach and yet have it open.
 */
export async function claimTasks(call: Call, host: HostRow): Promise<void> {
  const hosts = await tables(call).selectFrom('ec2_hosts').selectAll().execute();
  const gone = hosts.filter((other) => other.host_id !== host.host_id && !isLive(call, other));
  const free = await tables(call)
    .selectFrom('ec2_tasks')
    .selectAll()
    // Named one by one, so that they are found by the index: of tasks that hosts have there may be very many.
    .where('host_id', 'in', ['', ...gone.map((other) => other.host_id)])
    .orderBy('created_at')
    .limit(claimsMax)
    .execute();
  if (free.length === 0) return;
  const store = await installedBlockStore(call);
  for (const task of free) {
    if (!canDo(host, task.kind, task.zone, store)) continue;
    const isOnVolume = task.kind === 'createSnapshot' || task.kind === 'initializeVolume';
    if (isOnVolume && (await isHeldElsewhere(call, task.volume_id, host.host_id))) continue;
    await tables(call)
      .updateTable('ec2_tasks')
      .set({ host_id: host.host_id })
      .where('task_id', '=', task.task_id)
      .execute();
    if (isOnVolume)
      await tables(call)
        .updateTable('ec2_volumes')
        .set({ image_host_id: host.host_id })
        .where('volume_id', '=', task.volume_id)
        .execute();
  }
}

/** Whether another host than this one may have the volume open. */
async function isHeldElsewhere(call: Call, volumeId: string, hostId: string): Promise<boolean> {
  const holder = await openHost(call, volumeId);
  return holder !== undefined && holder !== hostId;
}

/** The host on which a volume is attached and may be open. */
async function openHost(call: Call, volumeId: string): Promise<string | undefined> {
  const attachment = await tables(call)
    .selectFrom('ec2_attachments')
    .innerJoin('ec2_instances', 'ec2_instances.instance_id', 'ec2_attachments.instance_id')
    .select('ec2_instances.host_id')
    .where('ec2_attachments.volume_id', '=', volumeId)
    .where('ec2_attachments.observed', '!=', 'detached')
    .where('ec2_instances.host_id', 'is not', null)
    .executeTakeFirst();
  return attachment?.host_id ?? undefined;
}

/**
 * The host that has to do work on a volume: where it is attached, else where its image is if that host is there, else any
 * live one of the zone. Undefined when no host can.
 */
export async function hostForVolume(
  call: Call,
  volume: VolumeRow,
  kind: 'createSnapshot' | 'initializeVolume',
): Promise<HostRow | undefined> {
  const hosts = await tables(call).selectFrom('ec2_hosts').selectAll().execute();
  const store = await installedBlockStore(call);
  const isAble = (hostId: string | null | undefined) =>
    hosts.find((host) => host.host_id === hostId && isLive(call, host) && canDo(host, kind, volume.zone, store));
  const attachedTo = await openHost(call, volume.volume_id);
  if (attachedTo !== undefined) return isAble(attachedTo);
  // Work that is under way on it binds it to its host.
  const busy = await tables(call)
    .selectFrom('ec2_tasks')
    .select('host_id')
    .where('volume_id', '=', volume.volume_id)
    .where('kind', 'in', ['createSnapshot', 'initializeVolume'])
    .where('host_id', '!=', '')
    .executeTakeFirst();
  if (
    busy &&
    isLive(
      call,
      hosts.find((host) => host.host_id === busy.host_id),
    )
  )
    return isAble(busy.host_id);
  return isAble(volume.image_host_id) ?? isAble(await placeTask(call, { kind, zone: volume.zone }));
}

/**
 * A live host, other than `hostId`, that is at work on the volume: until it is done the volume can be opened there only.
 */
export async function busyElsewhere(call: Call, volumeId: string, hostId: string | null): Promise<string | undefined> {
  const busy = await tables(call)
    .selectFrom('ec2_tasks')
    .innerJoin('ec2_hosts', 'ec2_hosts.host_id', 'ec2_tasks.host_id')
    .select(['ec2_hosts.host_id', 'ec2_hosts.last_seen_at'])
    .where('ec2_tasks.volume_id', '=', volumeId)
    .where('ec2_tasks.kind', 'in', ['createSnapshot', 'initializeVolume'])
    .execute();
  return busy.find((host) => host.host_id !== hostId && isLive(call, host))?.host_id;
}

/** Ends the tasks of some kinds that are about a volume or a snapshot. */
export async function dropTasks(
  call: Call,
  about: { readonly volumeId?: string; readonly snapshotId?: string },
  kinds: ReadonlyArray<HostTask['kind']>,
): Promise<void> {
  let query = tables(call)
    .deleteFrom('ec2_tasks')
    .where('kind', 'in', kinds as HostTask['kind'][]);
  if (about.volumeId !== undefined) query = query.where('volume_id', '=', about.volumeId);
  if (about.snapshotId !== undefined) query = query.where('snapshot_id', '=', about.snapshotId);
  const dropped = await query.returning('host_id').execute();
  for (const { host_id: hostId } of dropped) if (hostId) call.raise(hostTopic(hostId));
}

/** Lets all hosts look again: something that held tasks back is over. */
export async function wakeHosts(call: Call): Promise<void> {
  const hosts = await tables(call).selectFrom('ec2_tasks').select('host_id').distinct().execute();
  for (const { host_id: hostId } of hosts) if (hostId) call.raise(hostTopic(hostId));
}
