/** Changes to a volume's size, type and performance, from the wish to the end. */
import type { Call } from '../aws/call.ts';
import type { ObservedAttachment } from '../aws/host-protocol.ts';
import { volumeEvent } from './events.ts';
import { hostTopic, volumeTopic } from './host-store.ts';
import { tables, type VolumeRow } from './records.ts';
import type { ModificationRow } from './snapshot-records.ts';
import type { VolumeSettings } from './volume-rules.ts';

const gib = 1024 ** 3;

/** Whether a modification still goes on. */
export const isOpen = (modification: ModificationRow) => modification.state !== 'completed';

/**
 * Changes a volume's settings, from now on; hosts that have it open hear of a new size, and until they say that they have
 * it the modification is `optimizing`. Nothing else takes time here, so all others are completed at once.
 */
export async function beginModification(
  call: Call,
  volume: VolumeRow,
  target: VolumeSettings,
): Promise<ModificationRow> {
  const db = tables(call);
  const hosts = await openAt(call, volume.volume_id);
  const isGrowing = target.size_gib > volume.size_gib;
  const row = await db
    .insertInto('ec2_volume_modifications')
    .values({
      volume_id: volume.volume_id,
      account: volume.account,
      region: volume.region,
      state: 'optimizing',
      original_size: volume.size_gib,
      original_type: volume.volume_type,
      original_iops: volume.iops,
      original_throughput: volume.throughput,
      original_multi_attach: volume.multi_attach,
      target_size: target.size_gib,
      target_type: target.volume_type,
      target_iops: target.iops,
      target_throughput: target.throughput,
      target_multi_attach: target.multi_attach,
      started_at: call.clock.now(),
      request_id: call.requestId,
    })
    .returningAll()
    .executeTakeFirstOrThrow();
  await db.updateTable('ec2_volumes').set(target).where('volume_id', '=', volume.volume_id).execute();
  announce(call, row, 'modifying');
  announce(call, row, 'optimizing');
  const tasks = await db.selectFrom('ec2_tasks').select('host_id').where('volume_id', '=', volume.volume_id).execute();
  for (const hostId of new Set([...hosts, ...tasks.map((task) => task.host_id)]))
    if (hostId) call.raise(hostTopic(hostId));
  if (!isGrowing || hosts.length === 0) await complete(call, row);
  call.raise(volumeTopic(volume.volume_id));
  return row;
}

/** The hosts that have a volume open. */
async function openAt(call: Call, volumeId: string): Promise<string[]> {
  const rows = await tables(call)
    .selectFrom('ec2_attachments')
    .innerJoin('ec2_instances', 'ec2_instances.instance_id', 'ec2_attachments.instance_id')
    .select('ec2_instances.host_id')
    .distinct()
    .where('ec2_attachments.volume_id', '=', volumeId)
    .where('ec2_attachments.observed', '=', 'attached')
    .execute();
  return rows.map((row) => row.host_id).filter((hostId) => hostId !== null);
}

/**
 * What a host says of its open volumes ends the modifications that wait for them. A host that doesn't say a volume's size
 * has the new one: it has been told.
 */
export async function noteSizes(call: Call, reports: readonly ObservedAttachment[]): Promise<void> {
  for (const row of await openModifications(call)) {
    const report = reports.find((one) => one.volumeId === row.volume_id && one.state === 'attached');
    if (report && (report.sizeBytes ?? Number.POSITIVE_INFINITY) >= row.target_size * gib)
      await complete(call.asItself(row.account, row.region), row);
  }
}

function openModifications(call: Call): Promise<ModificationRow[]> {
  return tables(call).selectFrom('ec2_volume_modifications').selectAll().where('state', '!=', 'completed').execute();
}

/** Nothing has the volume open any more: whoever opens it next gets the new size. */
export async function completeClosed(call: Call): Promise<void> {
  for (const row of await openModifications(call))
    if ((await openAt(call, row.volume_id)).length === 0) await complete(call.asItself(row.account, row.region), row);
}

async function complete(call: Call, row: ModificationRow): Promise<void> {
  await tables(call)
    .updateTable('ec2_volume_modifications')
    .set({ state: 'completed', ended_at: call.clock.now() })
    .where('seq', '=', row.seq)
    .execute();
  announce(call, row, 'completed');
  call.raise(volumeTopic(row.volume_id));
}

function announce(call: Call, row: ModificationRow, result: 'modifying' | 'optimizing' | 'completed'): void {
  call.emit(volumeEvent(row, 'modifyVolume', result, { requestId: row.request_id }));
}
