/** DescribeVolumeStatus, and the attributes of a volume. */
import {
  DescribeVolumeAttribute$,
  type DescribeVolumeAttributeRequest,
  type DescribeVolumeAttributeResult,
  DescribeVolumeStatus$,
  type DescribeVolumeStatusRequest,
  type DescribeVolumeStatusResult,
  EnableVolumeIO$,
  type EnableVolumeIORequest,
  type InitializationStatusDetails,
  ModifyVolumeAttribute$,
  type ModifyVolumeAttributeRequest,
  type VolumeStatusItem,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { matchesFilters } from '../aws/filters.ts';
import { pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow, allowOnVolume, attributeContext } from './access.ts';
import { checkVolumeId, invalidValue, missingParameter, stopIfDryRun, volumesNotFound } from './errors.ts';
import { rowsAtOnce } from './filter-effort.ts';
import { listRequest, pageMax } from './list-request.ts';
import { type AttachmentRow, tables, type VolumeRow } from './records.ts';
import { zoneIdOf } from './regions.ts';
import { type Tags, tagsOf } from './tag-store.ts';
import { volumeResource } from './trail.ts';
import { findVolume } from './volume-store.ts';
import { attachmentsOfAll } from './volume-view.ts';

/** A request looks at so many volumes at most, whatever it asks of them: what their status is takes longer than a filter. */
const readMax = 20_000;

const filterNames = new Set([
  'action.code',
  'action.description',
  'action.event-id',
  'attachment-status.instance-id',
  'attachment-status.io-performance',
  'availability-zone',
  'event.description',
  'event.event-id',
  'event.event-type',
  'event.not-after',
  'event.not-before',
  'volume-status.details-name',
  'volume-status.details-status',
  'volume-status.status',
]);

/**
 * A volume is `impaired` while its host can't open it again (the host restarted and its key can no longer be used).
 * Source: EC2 API reference, DescribeVolumeStatus.
 */
export const describeVolumeStatus = operation<DescribeVolumeStatusRequest, DescribeVolumeStatusResult>({
  name: 'DescribeVolumeStatus',
  schema: DescribeVolumeStatus$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeVolumeStatus')],
  async handle(call, input) {
    const check = (id: string) => checkVolumeId(id, 'volumes');
    const named = { ids: input.VolumeIds, check, what: 'volumes', parameter: 'volumes' };
    const { ids, filters, start, size } = listRequest(input, named, filterNames);
    let after = start;
    let rowsLeft = rowsAtOnce(filters) ?? readMax;
    let isAll = false;
    const found: Array<{ row: VolumeRow; item: VolumeStatusItem }> = [];
    while (!isAll && found.length <= size && rowsLeft > 0) {
      const limit = ids.length > 0 ? ids.length : Math.min(pageMax, rowsLeft);
      const rows = await read(call, ids, after, limit);
      const attachments = await attachmentsOfAll(
        call,
        'volume_id',
        rows.map((row) => row.volume_id),
      );
      for (const row of rows) {
        const item = statusOf(call, row, attachments.get(row.volume_id) ?? []);
        if (matchesFilters(filters, (name) => filterValues(item, name))) found.push({ row, item });
      }
      isAll = ids.length > 0 || rows.length < limit;
      rowsLeft -= rows.length;
      after = rows.at(-1)?.seq ?? after;
    }
    const shown = found.slice(0, size);
    const last = found.length > shown.length ? shown.at(-1)!.row.seq : isAll ? undefined : after;
    return {
      VolumeStatuses: shown.map(({ item }) => item),
      ...(last === undefined ? {} : { NextToken: pageToken(last) }),
    };
  },
});

async function read(call: Call, ids: readonly string[], after: number, limit: number): Promise<VolumeRow[]> {
  let query = tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('account', '=', call.account)
    .where('region', '=', call.region);
  query = ids.length > 0 ? query.where('volume_id', 'in', ids as string[]) : query.where('seq', '>', after);
  const rows = await query.orderBy('seq').limit(limit).execute();
  const present = new Set(rows.map((row) => row.volume_id));
  const missing = ids.filter((id) => !present.has(id));
  if (missing.length > 0) throw volumesNotFound(missing);
  return rows;
}

function statusOf(call: Call, volume: VolumeRow, attachments: readonly AttachmentRow[]): VolumeStatusItem {
  const failed = attachments.find((attachment) => attachment.observed === 'failed');
  const initialization = initializationOf(call, volume);
  // What is missing of a snapshot can't be read: the volume is not what it should be.
  const incomplete = volume.initialization_error !== null && volume.restore_snapshot_id !== null;
  return {
    VolumeId: volume.volume_id,
    AvailabilityZone: volume.zone,
    AvailabilityZoneId: zoneIdOf(volume.region, volume.zone),
    Actions: [],
    Events: [
      ...(failed
        ? [
            {
              EventType: 'io-enabled',
              Description: failed.error_message ?? '',
              InstanceId: failed.instance_id,
            } as const,
          ]
        : []),
      ...(incomplete
        ? [{ EventType: 'potential-data-inconsistency', Description: volume.initialization_error! } as const]
        : []),
    ],
    VolumeStatus: {
      Status: failed || incomplete ? 'impaired' : 'ok',
      Details: [
        { Name: 'io-enabled', Status: failed ? 'failed' : 'passed' },
        { Name: 'io-performance', Status: 'not-applicable' },
        ...(initialization
          ? [
              {
                Name: 'initialization-state',
                Status: volume.restore_snapshot_id === null ? 'completed' : 'initializing',
              } as const,
            ]
          : []),
      ],
    },
    AttachmentStatuses: attachments.map((attachment) => ({
      InstanceId: attachment.instance_id,
      IoPerformance: 'not-applicable',
    })),
    ...(initialization ? { InitializationStatusDetails: initialization } : {}),
  };
}

/** How far a volume that was made from something is filled; the time left is told for those with a rate of their own. */
function initializationOf(call: Call, volume: VolumeRow): InitializationStatusDetails | undefined {
  const { initialization_type: type, initialization_rate: rate } = volume;
  if (type === null) return undefined;
  const progress = volume.restore_snapshot_id === null ? 100 : Math.min(99, volume.initialization_progress ?? 0);
  return {
    InitializationType: type,
    Progress: progress,
    ...(rate === null ? {} : { EstimatedTimeToCompleteInSeconds: secondsLeft(call, volume, rate, progress) }),
  };
}

function secondsLeft(call: Call, volume: VolumeRow, rate: number, progress: number): number {
  if (progress === 100) return 0;
  // At most as long as all of it would take; what has been done tells better, once something has.
  const mostSeconds = ((volume.restore_size_gib ?? 0) * 1024) / rate;
  const spentSeconds = (call.clock.now() - (volume.initialization_started_at ?? call.clock.now())) / 1000;
  const seconds = progress > 0 ? (spentSeconds / progress) * (100 - progress) : mostSeconds;
  return Math.ceil(Math.min(seconds, mostSeconds));
}

function filterValues(item: VolumeStatusItem, name: string): string[] {
  const values: Record<string, ReadonlyArray<string | undefined>> = {
    'attachment-status.instance-id': (item.AttachmentStatuses ?? []).map((each) => each.InstanceId),
    'attachment-status.io-performance': (item.AttachmentStatuses ?? []).map((each) => each.IoPerformance),
    'availability-zone': [item.AvailabilityZone],
    'event.description': (item.Events ?? []).map((event) => event.Description),
    'event.event-type': (item.Events ?? []).map((event) => event.EventType),
    'volume-status.details-name': (item.VolumeStatus?.Details ?? []).map((detail) => detail.Name),
    'volume-status.details-status': (item.VolumeStatus?.Details ?? []).map((detail) => detail.Status),
    'volume-status.status': [item.VolumeStatus?.Status],
  };
  return (values[name] ?? []).filter((value) => value !== undefined);
}

interface OneVolume {
  readonly volume: VolumeRow;
  readonly tags: Tags;
}

async function resolveVolume(call: Call, input: { readonly VolumeId?: string | undefined }): Promise<OneVolume> {
  const volume = await findVolume(call, checkVolumeId(input.VolumeId));
  return { volume, tags: await tagsOf(call, volume.volume_id) };
}

export const describeVolumeAttribute = operation<
  DescribeVolumeAttributeRequest,
  DescribeVolumeAttributeResult,
  OneVolume
>({
  name: 'DescribeVolumeAttribute',
  schema: DescribeVolumeAttribute$,
  effect: 'reads',
  resolve: resolveVolume,
  access: (call, _input, { volume, tags }) => [allowOnVolume(call, 'DescribeVolumeAttribute', volume, tags)],
  handle(_call, input, { volume }) {
    const attribute = input.Attribute;
    if (!attribute) throw missingParameter('attribute');
    if (attribute !== 'autoEnableIO' && attribute !== 'productCodes')
      throw invalidValue(`Value (${attribute}) for parameter attribute is invalid. Unknown attribute.`);
    stopIfDryRun(input);
    return {
      VolumeId: volume.volume_id,
      ...(attribute === 'productCodes'
        ? { ProductCodes: [] }
        : { AutoEnableIO: { Value: volume.auto_enable_io === 1 } }),
    };
  },
});

/**
 * Lets I/O to a volume go on that was stopped because its data may be inconsistent. No volume's I/O is stopped here: what
 * can't be read is an error for who reads it. So there is nothing to do. Source: EC2 API reference, EnableVolumeIO.
 */
export const enableVolumeIO = operation<EnableVolumeIORequest, object, OneVolume>({
  name: 'EnableVolumeIO',
  schema: EnableVolumeIO$,
  effect: 'writes',
  resolve: resolveVolume,
  access: (call, _input, { volume, tags }) => [allowOnVolume(call, 'EnableVolumeIO', volume, tags)],
  handle(_call, input) {
    stopIfDryRun(input);
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { volumeId: input.VolumeId ?? null },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});

export const modifyVolumeAttribute = operation<ModifyVolumeAttributeRequest, object, OneVolume>({
  name: 'ModifyVolumeAttribute',
  schema: ModifyVolumeAttribute$,
  effect: 'writes',
  resolve: resolveVolume,
  access: (call, input, { volume, tags }) => [
    allowOnVolume(
      call,
      'ModifyVolumeAttribute',
      volume,
      tags,
      attributeContext({ AutoEnableIO: input.AutoEnableIO?.Value }),
    ),
  ],
  async handle(call, input, { volume }) {
    const value = input.AutoEnableIO?.Value;
    if (value === undefined) throw missingParameter('autoEnableIO');
    stopIfDryRun(input);
    await tables(call)
      .updateTable('ec2_volumes')
      .set({ auto_enable_io: value ? 1 : 0 })
      .where('volume_id', '=', volume.volume_id)
      .execute();
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { volumeId: input.VolumeId ?? null, autoEnableIO: { value: input.AutoEnableIO?.Value ?? null } },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});
