/** How a volume looks in answers. */
import type { Volume, VolumeAttachment } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { type AttachmentRow, tables, type VolumeRow } from './records.ts';
import { zoneIdOf } from './regions.ts';
import { noTags, type Tags, tagList, tagsOfAll } from './tag-store.ts';

/**
 * Clients rely on some members being there even when empty: snapshotId, attachmentSet, multiAttachEnabled, encrypted; and
 * on kmsKeyId being the key's full ARN.
 */
export function volumeView(volume: VolumeRow, attachments: readonly AttachmentRow[], tags: Tags): Volume {
  return {
    VolumeId: volume.volume_id,
    Size: volume.size_gib,
    SnapshotId: volume.snapshot_id ?? '',
    ...(volume.source_volume_id === null ? {} : { SourceVolumeId: volume.source_volume_id }),
    ...(volume.initialization_rate === null ? {} : { VolumeInitializationRate: volume.initialization_rate }),
    AvailabilityZone: volume.zone,
    AvailabilityZoneId: zoneIdOf(volume.region, volume.zone),
    State: volume.state,
    CreateTime: new Date(volume.created_at),
    Attachments: attachments.map(attachmentView),
    Encrypted: volume.encrypted === 1,
    ...(volume.key_arn ? { KmsKeyId: volume.key_arn } : {}),
    ...(volume.encrypted ? { SseType: 'sse-kms' } : {}),
    ...(volume.iops === null ? {} : { Iops: volume.iops }),
    ...(volume.throughput === null ? {} : { Throughput: volume.throughput }),
    Tags: tagList(tags),
    VolumeType: volume.volume_type as Volume['VolumeType'],
    FastRestored: false,
    // None belongs to a service.
    Operator: { Managed: false },
    MultiAttachEnabled: volume.multi_attach === 1,
  };
}

export function attachmentView(attachment: AttachmentRow): VolumeAttachment {
  return {
    VolumeId: attachment.volume_id,
    InstanceId: attachment.instance_id,
    Device: attachment.device,
    State: attachment.status,
    AttachTime: new Date(attachment.attached_at),
    DeleteOnTermination: attachment.delete_on_termination === 1,
  };
}

/** The views of volumes, with what belongs to them read in two queries. */
export async function volumeViews(call: Call, volumes: readonly VolumeRow[]): Promise<Volume[]> {
  const ids = volumes.map((volume) => volume.volume_id);
  const tags = await tagsOfAll(call, ids);
  const attachments = await attachmentsOfAll(call, 'volume_id', ids);
  return volumes.map((volume) =>
    volumeView(volume, attachments.get(volume.volume_id) ?? [], tags.get(volume.volume_id) ?? noTags),
  );
}

/** Attachments by volume or by instance, oldest first. */
export async function attachmentsOfAll(
  call: Call,
  by: 'volume_id' | 'instance_id',
  ids: readonly string[],
): Promise<Map<string, AttachmentRow[]>> {
  const found = new Map<string, AttachmentRow[]>();
  if (ids.length === 0) return found;
  const rows = await tables(call)
    .selectFrom('ec2_attachments')
    .selectAll()
    .where(by, 'in', ids as string[])
    .orderBy('attached_at')
    .orderBy('generation')
    .execute();
  for (const row of rows) {
    const list = found.get(row[by]);
    if (list) list.push(row);
    else found.set(row[by], [row]);
  }
  return found;
}
