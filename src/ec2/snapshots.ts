/** CreateSnapshot, CreateSnapshots and DeleteSnapshot. */
import {
  CreateSnapshot$,
  type CreateSnapshotRequest,
  CreateSnapshots$,
  type CreateSnapshotsRequest,
  type CreateSnapshotsResult,
  DeleteSnapshot$,
  type DeleteSnapshotRequest,
  type Snapshot,
  type SnapshotInfo,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { newUuid } from '../aws/ids.ts';
import { operation } from '../aws/service.ts';
import { allowOnInstance, allowOnVolume } from './access.ts';
import { devicePath } from './devices.ts';
import {
  checkInstanceId,
  checkSnapshotId,
  checkVolumeId,
  incorrectState,
  invalidCombination,
  invalidValue,
  missingParameter,
  stopIfDryRun,
} from './errors.ts';
import { rootDeviceName } from './images.ts';
import { findInstance } from './instance-store.ts';
import { type HostRow, type InstanceRow, tables, type VolumeRow } from './records.ts';
import { allowNewSnapshot, allowOnSnapshot } from './snapshot-access.ts';
import { undoSnapshot } from './snapshot-ends.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import {
  beginSnapshot,
  findOwnSnapshot,
  type NewSnapshot,
  newSnapshotId,
  removeSnapshot,
  snapshotById,
  snapshotTopic,
} from './snapshot-store.ts';
import { snapshotInfo } from './snapshot-view.ts';
import { noTags, putTags, type Tags, tagsFromSpecifications, tagsOf, tagsOfAll } from './tag-store.ts';
import { hostForVolume } from './task-store.ts';
import { compact, instanceResources, items, snapshotResources, tagSpecificationSet, volumeResource } from './trail.ts';
import { findVolume, resumeDeletions } from './volume-store.ts';
import { waitDeadline, waitFor } from './waiting.ts';

const descriptionLengthMax = 255;
/** Source: EC2 API reference, CreateSnapshots and InstanceSpecification. */
const excludedVolumesMax = 127;

export function checkDescription(description: string | undefined): string {
  if (description && description.length > descriptionLengthMax)
    throw invalidValue(
      `Value for parameter description is invalid. A description has at most ${descriptionLengthMax} characters; this one has ${description.length}.`,
    );
  return description ?? '';
}

export interface OfVolume {
  readonly volume: VolumeRow;
  readonly volumeTags: Tags;
  readonly tags: Tags;
}

/** Source: EC2 API reference, CreateSnapshot. */
export const createSnapshot = operation<CreateSnapshotRequest, Snapshot, OfVolume>({
  name: 'CreateSnapshot',
  schema: CreateSnapshot$,
  effect: 'waits',
  async resolve(call, input) {
    const volumeId = checkVolumeId(input.VolumeId);
    refuseElsewhere(input);
    checkDescription(input.Description);
    const tags = tagsFromSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? noTags;
    const volume = await findVolume(call, volumeId);
    return { volume, volumeTags: await tagsOf(call, volumeId), tags };
  },
  access: (call, _input, { volume, volumeTags, tags }) => [
    ...allowNewSnapshot(call, 'CreateSnapshot', tags, { volume }),
    allowOnVolume(call, 'CreateSnapshot', volume, volumeTags),
  ],
  async handle(call, input, { tags }) {
    stopIfDryRun(input);
    const snapshot = await call.transaction(async (inside) => {
      const volume = await findVolume(inside, input.VolumeId!);
      const host = await snapshotHost(inside, volume);
      const made = await beginSnapshot(inside, volume, host, {
        origin: 'volume',
        snapshotId: newSnapshotId(),
        description: input.Description ?? '',
      });
      await putTags(inside, 'snapshot', made.snapshot_id, tags);
      return made;
    });
    await fixed(call, [snapshot]);
    return snapshotInfo(snapshot, tags);
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      volumeId: input.VolumeId,
      description: input.Description,
      tagSpecificationSet: tagSpecificationSet(input.TagSpecifications),
      dryRun: input.DryRun,
    }),
    responseElements: output ? { requestId: call.requestId, ...snapshotRecord(output) } : null,
    lookupResources: [...volumeResource(input.VolumeId), ...snapshotResources(output?.SnapshotId)],
  }),
});

/** There are no Outposts and Local Zones here; a request that names one must not seem to work. */
function refuseElsewhere(input: { OutpostArn?: string; Location?: string }): void {
  if (input.OutpostArn) throw invalidValue(`Value (${input.OutpostArn}) for parameter outpostArn is invalid.`);
  if (input.Location && input.Location !== 'regional')
    throw invalidValue(`Value (${input.Location}) for parameter location is invalid. There are no Local Zones here.`);
}

/**
 * The host that can fix a point in time of the volume.
 * @throws {AwsError} IncorrectState
 */
export async function snapshotHost(call: Call, volume: VolumeRow): Promise<HostRow> {
  if (volume.state !== 'available' && volume.state !== 'in-use')
    throw incorrectState(`Volume '${volume.volume_id}' is in the '${volume.state}' state.`);
  const host = await hostForVolume(call, volume, 'createSnapshot');
  if (!host)
    throw incorrectState(
      `No host can take a snapshot of volume '${volume.volume_id}' now: the one that has the volume, or any of zone ` +
        `${volume.zone} if none has, must be connected and reach the block store (see coffer status).`,
    );
  return host;
}

/**
 * Waits until the hosts have fixed the point in time of all these snapshots. When they don't, none of them has ever been.
 * @throws {AwsError} Unavailable, with what the host said
 */
export async function fixed(call: Call, snapshots: readonly SnapshotRow[]): Promise<void> {
  const deadline = waitDeadline();
  for (const { snapshot_id: snapshotId, volume_id: volumeId } of snapshots) {
    const look = async (inside: Call, isLastLook: boolean) => {
      const now = await snapshotById(inside, snapshotId);
      if (!now)
        throw incorrectState(`The snapshot of volume '${volumeId}' was cancelled before its point in time was fixed.`);
      if (now.is_marked && now.state !== 'error') return true;
      return now.state === 'error' || isLastLook ? false : undefined;
    };
    if (await waitFor(call, snapshotTopic(snapshotId), look, deadline)) continue;
    const reason = await call.transaction((inside) => undo(inside, snapshots));
    throw new AwsError(
      'Unavailable',
      `The host could not fix the point in time of volume '${volumeId}' soon enough; no snapshot was made. ${reason}`,
      { httpStatus: 503 },
    );
  }
}

/** Takes back snapshots whose point in time could not be fixed. Resolves with what the host said about it. */
async function undo(call: Call, snapshots: readonly SnapshotRow[]): Promise<string> {
  let reason = '';
  for (const { snapshot_id: snapshotId } of snapshots) {
    const task = await tables(call)
      .selectFrom('ec2_tasks')
      .select('error')
      .where('snapshot_id', '=', snapshotId)
      .where('kind', '=', 'createSnapshot')
      .executeTakeFirst();
    const snapshot = await snapshotById(call, snapshotId);
    reason ||= task?.error ?? snapshot?.state_message ?? '';
    if (snapshot) await undoSnapshot(call, snapshot);
  }
  return reason;
}

interface OfInstance {
  readonly instance: InstanceRow;
  readonly instanceTags: Tags;
  readonly volumes: readonly VolumeRow[];
  readonly volumeTags: ReadonlyMap<string, Tags>;
  readonly tags: Tags;
}

/** One point in time for all the volumes of an instance. Source: EC2 API reference, CreateSnapshots. */
export const createSnapshots = operation<CreateSnapshotsRequest, CreateSnapshotsResult, OfInstance>({
  name: 'CreateSnapshots',
  schema: CreateSnapshots$,
  effect: 'waits',
  resolve: planSnapshots,
  access: (call, _input, { instance, instanceTags, volumes, volumeTags, tags }) => [
    allowOnInstance(call, 'CreateSnapshots', instance, instanceTags),
    ...allowNewSnapshot(call, 'CreateSnapshots', tags, {}),
    ...volumes.map((volume) =>
      allowOnVolume(call, 'CreateSnapshots', volume, volumeTags.get(volume.volume_id) ?? noTags),
    ),
  ],
  async handle(call, input) {
    stopIfDryRun(input);
    const made = await call.transaction(async (inside) => {
      // Looked up again: the world may have changed since the transaction of the checks.
      const { volumes, volumeTags, tags } = await planSnapshots(inside, input);
      const hosts: HostRow[] = [];
      for (const volume of volumes) hosts.push(await snapshotHost(inside, volume));
      const other = hosts.findIndex((host) => host.host_id !== hosts[0]!.host_id);
      if (other > 0)
        throw incorrectState(
          `The volumes '${volumes[0]!.volume_id}' and '${volumes[other]!.volume_id}' are on different hosts, which can't ` +
            'fix one point in time together.',
        );
      const group: NonNullable<NewSnapshot['group']> = {
        groupId: newUuid(),
        snapshotIds: volumes.map(() => newSnapshotId()),
      };
      const startedAt = inside.clock.now();
      const snapshots: Array<{ row: SnapshotRow; tags: Tags }> = [];
      for (const [index, volume] of volumes.entries()) {
        const row = await beginSnapshot(inside, volume, hosts[index]!, {
          origin: 'volume',
          snapshotId: group.snapshotIds[index]!,
          description: input.Description ?? '',
          group,
          startedAt,
        });
        const copied = input.CopyTagsFromSource === 'volume' ? volumeTags.get(volume.volume_id) : undefined;
        const all = new Map([...(copied ?? noTags), ...tags]);
        await putTags(inside, 'snapshot', row.snapshot_id, all);
        snapshots.push({ row, tags: all });
      }
      return snapshots;
    });
    await fixed(
      call,
      made.map(({ row }) => row),
    );
    return { Snapshots: made.map(({ row, tags }): SnapshotInfo => snapshotInfo(row, tags)) };
  },
  record: (call, input, output) => ({
    requestParameters: {
      CreateSnapshotsRequest: compact({
        InstanceSpecification: input.InstanceSpecification,
        Description: input.Description,
        CopyTagsFromSource: input.CopyTagsFromSource,
        TagSpecification: tagSpecificationSet(input.TagSpecifications),
      }),
    },
    responseElements: output
      ? {
          CreateSnapshotsResponse: {
            requestId: call.requestId,
            snapshotSet: items(output.Snapshots, snapshotRecord) ?? {},
          },
        }
      : null,
    lookupResources: [
      ...instanceResources(input.InstanceSpecification?.InstanceId),
      ...snapshotResources(...(output?.Snapshots ?? []).map((snapshot) => snapshot.SnapshotId)),
    ],
  }),
});

async function planSnapshots(call: Call, input: CreateSnapshotsRequest): Promise<OfInstance> {
  if (!input.InstanceSpecification) throw missingParameter('InstanceSpecification');
  const { InstanceId, ExcludeBootVolume: noBoot, ExcludeDataVolumeIds: excluded = [] } = input.InstanceSpecification;
  const instanceId = checkInstanceId(InstanceId);
  refuseElsewhere(input);
  checkDescription(input.Description);
  if (input.CopyTagsFromSource && input.CopyTagsFromSource !== 'volume')
    throw invalidValue(`Value (${input.CopyTagsFromSource}) for parameter CopyTagsFromSource is invalid.`);
  if (excluded.length > excludedVolumesMax)
    throw invalidValue(`At most ${excludedVolumesMax} volumes can be excluded, not ${excluded.length}.`);
  const tags = tagsFromSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? noTags;
  const instance = await findInstance(call, instanceId);
  const attached = await tables(call)
    .selectFrom('ec2_volumes')
    .innerJoin('ec2_attachments', 'ec2_attachments.volume_id', 'ec2_volumes.volume_id')
    .selectAll('ec2_volumes')
    .select('ec2_attachments.device')
    .where('ec2_attachments.instance_id', '=', instanceId)
    .orderBy('ec2_attachments.generation')
    .execute();
  const isBoot = (device: string) => devicePath(device) === devicePath(rootDeviceName);
  for (const id of excluded) {
    const found = attached.find((volume) => volume.volume_id === checkVolumeId(id, 'ExcludeDataVolumeId'));
    if (!found) throw invalidValue(`The volume '${id}' is not attached to instance '${instanceId}'.`);
    if (isBoot(found.device))
      throw invalidValue(`The volume '${id}' is the root volume of instance '${instanceId}': use ExcludeBootVolume.`);
  }
  const volumes = attached.filter(
    ({ volume_id, device }) => !excluded.includes(volume_id) && !(noBoot && isBoot(device)),
  );
  if (volumes.length === 0)
    throw invalidCombination(`The instance '${instanceId}' has no volumes, or all of them are excluded.`);
  const volumeTags = await tagsOfAll(
    call,
    volumes.map((volume) => volume.volume_id),
  );
  return { instance, instanceTags: await tagsOf(call, instanceId), volumes, volumeTags, tags };
}

/** One that is pending is cancelled. Source: EC2 API reference, DeleteSnapshot. */
export const deleteSnapshot = operation<DeleteSnapshotRequest, object, { snapshot: SnapshotRow; tags: Tags }>({
  name: 'DeleteSnapshot',
  schema: DeleteSnapshot$,
  effect: 'writes',
  async resolve(call, input) {
    const snapshot = await findOwnSnapshot(call, checkSnapshotId(input.SnapshotId));
    return { snapshot, tags: await tagsOf(call, snapshot.snapshot_id) };
  },
  access: (call, _input, { snapshot, tags }) => [allowOnSnapshot(call, 'DeleteSnapshot', snapshot, tags)],
  async handle(call, input, { snapshot }) {
    stopIfDryRun(input);
    await removeSnapshot(call, snapshot);
    await resumeDeletions(call);
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { snapshotId: input.SnapshotId ?? null },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: snapshotResources(input.SnapshotId),
  }),
});

function snapshotRecord(snapshot: SnapshotInfo): Record<string, unknown> {
  return {
    snapshotId: snapshot.SnapshotId,
    volumeId: snapshot.VolumeId,
    status: snapshot.State,
    startTime: snapshot.StartTime?.getTime(),
    progress: snapshot.Progress,
    ownerId: snapshot.OwnerId,
    volumeSize: String(snapshot.VolumeSize),
    description: snapshot.Description,
    encrypted: snapshot.Encrypted,
    tagSet: items(snapshot.Tags, ({ Key, Value }) => ({ key: Key, value: Value })) ?? {},
  };
}
