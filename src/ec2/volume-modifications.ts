/** ModifyVolume and DescribeVolumesModifications. */
import {
  DescribeVolumesModifications$,
  type DescribeVolumesModificationsRequest,
  type DescribeVolumesModificationsResult,
  ModifyVolume$,
  type ModifyVolumeRequest,
  type ModifyVolumeResult,
  type VolumeModification,
} from '@aws-sdk/client-ec2';
import { sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { matchesFilters, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart, pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow, allowOnVolume } from './access.ts';
import { checkVolumeId, incorrectState, invalidCombination, stopIfDryRun } from './errors.ts';
import { rowsAtOnce } from './filter-effort.ts';
import { beginModification, isOpen } from './modification-store.ts';
import { tables, type VolumeRow } from './records.ts';
import type { ModificationRow } from './snapshot-records.ts';
import { type Tags, tagsOf } from './tag-store.ts';
import { compact, filterSet, items, volumeResource } from './trail.ts';
import { modifiedSettings, type VolumeSettings } from './volume-rules.ts';
import { findVolume } from './volume-store.ts';

/** Modifications of a volume in so many ms. Source: EC2 API reference, ModifyVolume. */
const modificationsMax = 4;
const windowMs = 24 * 3600_000;
/** The size of volumes of an account and region that may be modified at a time, TiB. Source: EBS quotas. */
const modifyingMaxTib = 500;
const volumeIdsMax = 1000;
const pageSizeMax = 500;
/** A request looks at so many modifications at most. */
const readMax = 20_000;

interface Planned {
  readonly volume: VolumeRow;
  readonly tags: Tags;
  readonly target: VolumeSettings;
}

/** Source: EC2 API reference, ModifyVolume. */
export const modifyVolume = operation<ModifyVolumeRequest, ModifyVolumeResult, Planned>({
  name: 'ModifyVolume',
  schema: ModifyVolume$,
  effect: 'writes',
  async resolve(call, input) {
    const volume = await findVolume(call, checkVolumeId(input.VolumeId));
    return { volume, tags: await tagsOf(call, volume.volume_id), target: modifiedSettings(volume, input) };
  },
  access: (call, _input, { volume, tags, target }) => {
    const request = allowOnVolume(call, 'ModifyVolume', volume, tags);
    return [{ ...request, context: { ...request.context, ...targetContext(target) } }];
  },
  async handle(call, input, { volume, target }) {
    if (volume.state !== 'available' && volume.state !== 'in-use')
      throw incorrectState(`Volume '${volume.volume_id}' is in the '${volume.state}' state.`);
    checkMultiAttach(volume, target);
    await checkRate(call, volume);
    await checkTotal(call, target);
    stopIfDryRun(input);
    const modification = await beginModification(call, volume, target);
    return { VolumeModification: { ...modificationView(modification), ModificationState: 'modifying', Progress: 0 } };
  },
  record: (call, input, output) => ({
    requestParameters: {
      ModifyVolumeRequest: compact({
        VolumeId: input.VolumeId,
        Size: input.Size,
        VolumeType: input.VolumeType,
        Iops: input.Iops,
        Throughput: input.Throughput,
        MultiAttachEnabled: input.MultiAttachEnabled,
      }),
    },
    responseElements: output
      ? {
          ModifyVolumeResponse: {
            requestId: call.requestId,
            volumeModification: compact({
              volumeId: output.VolumeModification?.VolumeId,
              modificationState: output.VolumeModification?.ModificationState,
              targetSize: output.VolumeModification?.TargetSize,
              originalSize: output.VolumeModification?.OriginalSize,
            }),
          },
        }
      : null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});

function targetContext(target: VolumeSettings): Record<string, string> {
  return {
    'ec2:TargetVolumeSize': String(target.size_gib),
    'ec2:TargetVolumeType': target.volume_type,
    ...(target.iops === null ? {} : { 'ec2:TargetVolumeIops': String(target.iops) }),
    ...(target.throughput === null ? {} : { 'ec2:TargetVolumeThroughput': String(target.throughput) }),
  };
}

/**
 * Only io2 volumes that are not attached can change it; while it is on, io1 volumes stay as they are.
 * Source: EBS user guide, "Attach a volume to multiple instances" and the limitations of "Elastic Volumes".
 */
function checkMultiAttach(volume: VolumeRow, target: VolumeSettings): void {
  if (volume.multi_attach && target.volume_type !== volume.volume_type)
    throw invalidCombination(
      `The type of the Multi-Attach volume '${volume.volume_id}' can't be changed while Multi-Attach is enabled.`,
    );
  if (volume.multi_attach && volume.volume_type === 'io1')
    throw invalidCombination(
      `The size and IOPS of the io1 volume '${volume.volume_id}' can't be changed while Multi-Attach is enabled.`,
    );
  if (target.multi_attach === volume.multi_attach) return;
  if (target.volume_type !== 'io2')
    throw invalidCombination(
      `Multi-Attach can be changed for io2 volumes only, and '${volume.volume_id}' would be ${target.volume_type}.`,
    );
  if (volume.state === 'in-use')
    throw incorrectState(`Multi-Attach can't be changed while volume '${volume.volume_id}' is attached.`);
}

/** @throws {AwsError} IncorrectModificationState, VolumeModificationRateExceeded */
async function checkRate(call: Call, volume: VolumeRow): Promise<void> {
  const recent = await tables(call)
    .selectFrom('ec2_volume_modifications')
    .selectAll()
    .where('volume_id', '=', volume.volume_id)
    .orderBy('seq', 'desc')
    .limit(modificationsMax)
    .execute();
  const [latest] = recent;
  if (latest && isOpen(latest))
    throw new AwsError(
      'IncorrectModificationState',
      `Volume ${volume.volume_id} cannot be modified in modification state ${latest.state.toUpperCase()}`,
    );
  const oldest = recent[modificationsMax - 1];
  if (oldest && oldest.started_at > call.clock.now() - windowMs)
    throw new AwsError(
      'VolumeModificationRateExceeded',
      `You've reached the maximum modification rate per volume limit: ${modificationsMax} in 24 hours. ` +
        `Volume ${volume.volume_id} can be modified again after ${new Date(oldest.started_at + windowMs).toISOString()}.`,
    );
}

/** @throws {AwsError} VolumeModificationSizeLimitExceeded */
async function checkTotal(call: Call, target: VolumeSettings): Promise<void> {
  const { total } = await tables(call)
    .selectFrom('ec2_volume_modifications')
    .select((select) => select.fn.sum<number | null>('target_size').as('total'))
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('state', '!=', 'completed')
    .executeTakeFirstOrThrow();
  if (Number(total ?? 0) + target.size_gib > modifyingMaxTib * 1024)
    throw new AwsError(
      'VolumeModificationSizeLimitExceeded',
      `The volumes that are being modified have ${total} GiB together; the limit is ${modifyingMaxTib} TiB at a time.`,
    );
}

function modificationView(row: ModificationRow): VolumeModification {
  const present = <T>(name: string, value: T | null) => (value === null ? {} : { [name]: value });
  return {
    VolumeId: row.volume_id,
    ModificationState: row.state,
    TargetSize: row.target_size,
    ...present('TargetIops', row.target_iops),
    TargetVolumeType: row.target_type as VolumeModification['TargetVolumeType'],
    ...present('TargetThroughput', row.target_throughput),
    TargetMultiAttachEnabled: row.target_multi_attach === 1,
    OriginalSize: row.original_size,
    ...present('OriginalIops', row.original_iops),
    OriginalVolumeType: row.original_type as VolumeModification['OriginalVolumeType'],
    ...present('OriginalThroughput', row.original_throughput),
    OriginalMultiAttachEnabled: row.original_multi_attach === 1,
    Progress: row.state === 'completed' ? 100 : 0,
    StartTime: new Date(row.started_at),
    ...(row.ended_at === null ? {} : { EndTime: new Date(row.ended_at) }),
  };
}

const filterNames = new Set([
  'modification-state',
  'original-iops',
  'original-size',
  'original-volume-type',
  'originalMultiAttachEnabled',
  'start-time',
  'target-iops',
  'target-size',
  'target-volume-type',
  'targetMultiAttachEnabled',
  'volume-id',
]);

function filterValues(view: VolumeModification, name: string): string[] {
  const values: Record<string, unknown> = {
    'modification-state': view.ModificationState,
    'original-iops': view.OriginalIops,
    'original-size': view.OriginalSize,
    'original-volume-type': view.OriginalVolumeType,
    originalMultiAttachEnabled: view.OriginalMultiAttachEnabled,
    'start-time': view.StartTime?.toISOString(),
    'target-iops': view.TargetIops,
    'target-size': view.TargetSize,
    'target-volume-type': view.TargetVolumeType,
    targetMultiAttachEnabled: view.TargetMultiAttachEnabled,
    'volume-id': view.VolumeId,
  };
  return values[name] === undefined ? [] : [String(values[name])];
}

/** The latest modification of each volume that was ever modified. Source: EC2 API reference, same name. */
export const describeVolumesModifications = operation<
  DescribeVolumesModificationsRequest,
  DescribeVolumesModificationsResult
>({
  name: 'DescribeVolumesModifications',
  schema: DescribeVolumesModifications$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeVolumesModifications')],
  async handle(call, input) {
    const ids = [...new Set((input.VolumeIds ?? []).map((id) => checkVolumeId(id, 'volumes')))];
    if (ids.length > volumeIdsMax)
      throw new AwsError('RequestLimitExceeded', `One request can name ${volumeIdsMax} volumes, not ${ids.length}.`);
    const filters = parseFilters(input.Filters, filterNames);
    const start = pageStart(input.NextToken);
    const size = pageSize(input.MaxResults || undefined, 1, pageSizeMax);
    stopIfDryRun(input);
    const rowsMax = Math.min(readMax, rowsAtOnce(filters) ?? readMax);
    const rows = await latest(call, ids, start, rowsMax);
    checkNamed(ids, rows, start);
    const found = rows
      .map((row) => ({ row, view: modificationView(row) }))
      .filter(({ view }) => matchesFilters(filters, (name) => filterValues(view, name)));
    const shown = found.slice(0, size);
    const isAll = ids.length > 0 || rows.length < rowsMax;
    const last = found.length > size ? shown.at(-1)!.row.seq : isAll ? undefined : rows.at(-1)!.seq;
    return {
      VolumesModifications: shown.map(({ view }) => view),
      ...(last === undefined ? {} : { NextToken: pageToken(last) }),
    };
  },
  record: (_call, input) => ({
    requestParameters: {
      DescribeVolumesModificationsRequest: {
        VolumeId: items(input.VolumeIds, (volumeId) => ({ volumeId })) ?? {},
        filterSet: filterSet(input.Filters as never),
      },
    },
    responseElements: null,
  }),
});

async function latest(call: Call, ids: readonly string[], start: number, limit: number): Promise<ModificationRow[]> {
  const query = tables(call)
    .selectFrom('ec2_volume_modifications as m')
    .selectAll()
    .where('m.account', '=', call.account)
    .where('m.region', '=', call.region)
    .where('m.seq', '>', start)
    .where('m.seq', '=', (select) =>
      select
        .selectFrom('ec2_volume_modifications as other')
        .select(sql<number>`max(other.seq)`.as('seq'))
        .whereRef('other.volume_id', '=', 'm.volume_id'),
    );
  if (ids.length > 0)
    return query
      .where('m.volume_id', 'in', ids as string[])
      .orderBy('m.seq')
      .execute();
  return query.orderBy('m.seq').limit(limit).execute();
}

/** @throws {AwsError} InvalidVolumeModification.NotFound for volumes that are not there or were never modified */
function checkNamed(ids: readonly string[], rows: readonly ModificationRow[], start: number): void {
  if (start > 0) return;
  const present = new Set(rows.map((row) => row.volume_id));
  const missing = ids.filter((id) => !present.has(id));
  if (missing.length > 0)
    throw new AwsError(
      'InvalidVolumeModification.NotFound',
      `Modification for volume${missing.length > 1 ? 's' : ''} '${missing.join(', ')}' does not exist.`,
    );
}
