/** CreateVolume and DeleteVolume. */
import {
  CreateVolume$,
  type CreateVolumeRequest,
  DeleteVolume$,
  type DeleteVolumeRequest,
  type Volume,
} from '@aws-sdk/client-ec2';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow, allowOnVolume, allowTagsOnCreate, requestTagContext, volumeContext } from './access.ts';
import { checkClientToken, rememberResult } from './client-tokens.ts';
import { outcomeKey } from './encryption-outcomes.ts';
import {
  checkSnapshotId,
  checkVolumeId,
  incorrectState,
  invalidCombination,
  invalidValue,
  missingParameter,
  stopIfDryRun,
} from './errors.ts';
import { tables, type VolumeRow } from './records.ts';
import { findZone, type Zone } from './regions.ts';
import { allowAgain, madeEarlier, viewAgain } from './repeated-volumes.ts';
import type { RestorePlan } from './restores.ts';
import { allowOnSnapshot, snapshotArn } from './snapshot-access.ts';
import { findUsableSnapshot } from './snapshot-store.ts';
import { noTags, putTags, type Tags, tagsFromSpecifications, tagsOf } from './tag-store.ts';
import { createVolumeRecord, volumeResource } from './trail.ts';
import { type VolumeSettings, volumeSettings } from './volume-rules.ts';
import { deleteVolume as endVolume, findVolume, createVolume as makeVolume } from './volume-store.ts';
import { volumeView } from './volume-view.ts';

interface PlannedVolume {
  readonly settings: VolumeSettings;
  readonly zone: Zone;
  readonly key: string | undefined;
  readonly restore: RestorePlan | undefined;
  /** Leave to use the snapshot. */
  readonly source: readonly AccessRequest[];
  readonly tags: Tags;
}

/** What an earlier request with the same token made. */
interface RepeatedVolume {
  readonly earlier: VolumeRow;
  readonly tags: Tags;
}

/** Source: EC2 API reference, CreateVolume. */
export const createVolume = operation<CreateVolumeRequest, Volume, PlannedVolume | RepeatedVolume>({
  name: 'CreateVolume',
  schema: CreateVolume$,
  effect: 'writes',
  async resolve(call, input) {
    checkClientToken(input);
    const tags = tagsFromSpecifications(input.TagSpecifications, ['volume']).get('volume') ?? noTags;
    const earlier = await madeEarlier(call, 'CreateVolume', input);
    if (earlier) return { earlier, tags };
    if (input.OutpostArn) throw invalidValue(`Value (${input.OutpostArn}) for parameter outpostArn is invalid.`);
    const restore = await restoreOf(call, input);
    const settings = volumeSettings({ ...input, Size: sizeFor(input.Size, restore) });
    const zone = findZone(call.region, input.AvailabilityZone, input.AvailabilityZoneId);
    if (!zone) throw missingParameter('AvailabilityZone');
    return {
      settings,
      zone,
      key: await outcomeKey(call, input, restore?.snapshot),
      restore,
      source: await allowSource(call, 'CreateVolume', restore),
      tags,
    };
  },
  access(call, input, plan) {
    if ('earlier' in plan) return allowAgain(call, 'CreateVolume', input, plan.earlier, plan.tags);
    const { settings, zone, key, restore, source, tags } = plan;
    const volume = formatArn('ec2', call.region, call.account, 'volume/*');
    const context = volumeContext({
      ...settings,
      zone: zone.name,
      encrypted: key === undefined ? 0 : 1,
      key_arn: input.KmsKeyId,
      initialization_rate: input.VolumeInitializationRate,
    });
    const parent: Record<string, string> = restore ? { 'ec2:ParentSnapshot': snapshotArn(restore.snapshot) } : {};
    return [
      allow(call, 'CreateVolume', volume, { ...context, ...parent, ...requestTagContext(tags) }),
      ...source,
      ...allowTagsOnCreate(call, 'CreateVolume', volume, tags),
    ];
  },
  async handle(call, input, plan) {
    stopIfDryRun(input);
    if ('earlier' in plan) return viewAgain(call, plan.earlier);
    const { settings, zone, key, restore, tags } = plan;
    const volume = await makeVolume(call, { settings, zone: zone.name, key, restore });
    await putTags(call, 'volume', volume.volume_id, tags);
    await rememberResult(call, 'CreateVolume', input, volume.volume_id);
    return { ...volumeView(volume, [], tags), State: 'creating' };
  },
  record: createVolumeRecord,
});

/** Source: EC2 API reference, CreateVolume, VolumeInitializationRate; MiB/s. */
const rateMin = 100;
const rateMax = 300;

/**
 * The snapshot that a volume is made from, and how fast it is to be restored; undefined for an empty volume.
 * @throws {AwsError} InvalidSnapshot.NotFound, IncorrectState for one that is not completed
 */
export async function restoreOf(
  call: Call,
  input: { SnapshotId?: string; VolumeInitializationRate?: number },
): Promise<RestorePlan | undefined> {
  const rate = input.VolumeInitializationRate;
  if (!input.SnapshotId) {
    if (rate !== undefined)
      throw invalidCombination(
        "You can't specify VolumeInitializationRate for volumes that are not created from a snapshot.",
      );
    return undefined;
  }
  if (rate !== undefined && !(rate >= rateMin && rate <= rateMax))
    throw invalidValue(
      `Value (${rate}) for parameter volumeInitializationRate is invalid. It must be from ${rateMin} to ${rateMax} MiB/s.`,
    );
  const snapshot = await findUsableSnapshot(call, checkSnapshotId(input.SnapshotId));
  if (snapshot.state !== 'completed')
    throw incorrectState(`Snapshot '${snapshot.snapshot_id}' is in invalid state - ${snapshot.state}`);
  return { snapshot, rate };
}

/**
 * The size of a volume, GiB: as asked, else the snapshot's.
 * @throws {AwsError} InvalidParameterValue for less than the snapshot needs
 */
export function sizeFor(asked: number | undefined, restore: RestorePlan | undefined): number | undefined {
  if (!restore) return asked;
  const { snapshot_id: snapshotId, size_gib: size } = restore.snapshot;
  if (asked !== undefined && asked < size)
    throw invalidValue(`Volume of ${asked}GiB is smaller than snapshot '${snapshotId}', expect size >= ${size}GiB`);
  return asked ?? size;
}

/** Leave to use the snapshot that a new volume is made from. */
export async function allowSource(
  call: Call,
  action: string,
  restore: RestorePlan | undefined,
): Promise<AccessRequest[]> {
  if (!restore) return [];
  return [allowOnSnapshot(call, action, restore.snapshot, await tagsOf(call, restore.snapshot.snapshot_id))];
}

/** Source: EC2 API reference, DeleteVolume. */
export const deleteVolume = operation<DeleteVolumeRequest, object, { volume: VolumeRow; tags: Tags }>({
  name: 'DeleteVolume',
  schema: DeleteVolume$,
  effect: 'writes',
  async resolve(call, input) {
    const volume = await findVolume(call, checkVolumeId(input.VolumeId));
    return { volume, tags: await tagsOf(call, volume.volume_id) };
  },
  access: (call, _input, { volume, tags }) => [allowOnVolume(call, 'DeleteVolume', volume, tags)],
  async handle(call, input, { volume }) {
    stopIfDryRun(input);
    const attachment = await tables(call)
      .selectFrom('ec2_attachments')
      .select('instance_id')
      .where('volume_id', '=', volume.volume_id)
      .executeTakeFirst();
    if (attachment)
      throw new AwsError(
        'VolumeInUse',
        `Volume ${volume.volume_id} is currently attached to ${attachment.instance_id}`,
      );
    if (volume.state === 'deleting') throw incorrectState(`Volume '${volume.volume_id}' is in the 'deleting' state.`);
    await endVolume(call, volume);
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { volumeId: input.VolumeId ?? null },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});
