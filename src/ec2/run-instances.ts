/** RunInstances: instances are attach targets; volumes that the request maps to devices are made and attached too. */

import { randomInt } from 'node:crypto';
import {
  type BlockDeviceMapping,
  type Reservation,
  RunInstances$,
  type RunInstancesRequest,
} from '@aws-sdk/client-ec2';
import { formatArn, partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { newResourceId } from '../aws/ids.ts';
import { operation } from '../aws/service.ts';
import { allow, allowTagsOnCreate, launchContext, requestTagContext, volumeContext, zoneContext } from './access.ts';
import { beginAttach, beginShutdown, settleInstance } from './attachment-flow.ts';
import { checkAttachable } from './attachments.ts';
import { earlierResult, rememberResult, tokenMismatch } from './client-tokens.ts';
import { stopIfDryRun } from './errors.ts';
import { instanceEvent } from './events.ts';
import { hostTopic, instanceTopic, placeInZone } from './host-store.ts';
import { builtInImageId } from './images.ts';
import { instanceViews, reservations } from './instance-store.ts';
import { type Launch, type MappedVolume, planLaunch } from './launch-plan.ts';
import { type AttachmentRow, type Echoed, type InstanceRow, tables } from './records.ts';
import { snapshotArn } from './snapshot-access.ts';
import { putTags, type Tags } from './tag-store.ts';
import { compact, instanceResources, items, tagSpecificationSet } from './trail.ts';
import { createVolume, deleteVolume, findVolume } from './volume-store.ts';
import { throwFailure, waitDeadline, waitFor } from './waiting.ts';

const instancesPerRegionMax = 5000;

/** There are no launch templates: everything is in the request. */
const noTemplate = { 'ec2:IsLaunchTemplateResource': 'false' };

/** What is true of the one image that there is. */
const imageContext = {
  ...noTemplate,
  'ec2:ImageID': builtInImageId,
  'ec2:ImageType': 'machine',
  'ec2:Owner': 'amazon',
  'ec2:Public': 'true',
  'ec2:RootDeviceType': 'ebs',
};

/** Source: EC2 API reference, RunInstances. */
export const runInstances = operation<RunInstancesRequest, Reservation, Launch>({
  name: 'RunInstances',
  schema: RunInstances$,
  effect: 'waits',
  resolve: planLaunch,
  access(call, input, launch) {
    const instance = formatArn('ec2', call.region, call.account, 'instance/*');
    const volume = formatArn('ec2', call.region, call.account, 'volume/*');
    const context = {
      ...noTemplate,
      ...zoneContext(launch.zone.name),
      'ec2:InstanceType': launch.type,
      'ec2:RootDeviceType': 'ebs',
      'ec2:Tenancy': 'default',
      ...launchContext(echoed(input, launch)),
    };
    return [
      allow(call, 'RunInstances', instance, { ...context, ...requestTagContext(launch.instanceTags) }),
      allow(
        call,
        'RunInstances',
        `arn:${partitionOf(call.region)}:ec2:${call.region}::image/${builtInImageId}`,
        imageContext,
      ),
      ...launch.volumes.flatMap(({ settings, key, restore, source }) => [
        allow(call, 'RunInstances', volume, {
          ...noTemplate,
          ...volumeContext({ ...settings, zone: launch.zone.name, encrypted: key === undefined ? 0 : 1 }),
          ...(restore ? { 'ec2:ParentSnapshot': snapshotArn(restore.snapshot) } : {}),
          ...requestTagContext(launch.volumeTags),
        }),
        ...source,
      ]),
      ...(launch.profile ? [launch.profile.passRole] : []),
      ...allowTagsOnCreate(call, 'RunInstances', instance, launch.instanceTags),
      ...(launch.volumes.length > 0 ? allowTagsOnCreate(call, 'RunInstances', volume, launch.volumeTags) : []),
    ];
  },
  async handle(call, input, launch) {
    stopIfDryRun(input);
    const made = await call.transaction(async (inside) => {
      const earlier = await earlierResult(inside, 'RunInstances', input);
      if (earlier !== undefined) return { reservationId: earlier, attachments: [] };
      if (launch.isRepeated) throw tokenMismatch(input.ClientToken!);
      return makeInstances(inside, input, launch);
    });
    try {
      await opened(call, made.attachments);
    } catch (error) {
      await call.transaction((inside) => undoLaunch(inside, made.reservationId, made.attachments));
      throw error;
    }
    return call.transaction((inside) => describeReservation(inside, input, made.reservationId));
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      instancesSet: {
        items: [
          compact({
            imageId: input.ImageId,
            minCount: input.MinCount,
            maxCount: input.MaxCount,
            keyName: input.KeyName,
          }),
        ],
      },
      instanceType: input.InstanceType,
      availabilityZone: input.Placement?.AvailabilityZone,
      blockDeviceMapping: items(input.BlockDeviceMappings, mappingRecord) ?? {},
      monitoring: { enabled: input.Monitoring?.Enabled ?? false },
      disableApiTermination: input.DisableApiTermination ?? false,
      clientToken: input.ClientToken,
      tagSpecificationSet: tagSpecificationSet(input.TagSpecifications),
      dryRun: input.DryRun,
    }),
    responseElements: output
      ? {
          requestId: call.requestId,
          reservationId: output.ReservationId,
          ownerId: call.account,
          instancesSet: items(output.Instances, (instance) => ({
            instanceId: instance.InstanceId,
            imageId: instance.ImageId,
            instanceState: { code: instance.State?.Code, name: instance.State?.Name },
            instanceType: instance.InstanceType,
            launchTime: instance.LaunchTime?.getTime(),
            placement: { availabilityZone: instance.Placement?.AvailabilityZone, tenancy: 'default' },
          })),
        }
      : null,
    lookupResources: instanceResources(...(output?.Instances ?? []).map((instance) => instance.InstanceId)),
  }),
});

async function makeInstances(
  call: Call,
  input: RunInstancesRequest,
  launch: Launch,
): Promise<{ reservationId: string; attachments: AttachmentRow[] }> {
  await checkInstanceQuota(call, launch.count);
  const reservationId = newResourceId('r');
  const attachments: AttachmentRow[] = [];
  const hostId = (await placeInZone(call, launch.zone.name)) ?? null;
  for (let index = 0; index < launch.count; index++) {
    const instance: Omit<InstanceRow, 'seq'> = {
      instance_id: newResourceId('i'),
      account: call.account,
      region: call.region,
      zone: launch.zone.name,
      reservation_id: reservationId,
      launch_index: index,
      instance_type: launch.type,
      image_id: input.ImageId!,
      state: 'pending',
      reason_code: '',
      reason_message: '',
      transition_reason: '',
      launched_at: call.clock.now(),
      ended_at: null,
      client_token: input.ClientToken ?? '',
      private_ip: `172.31.${randomInt(0, 256)}.${randomInt(4, 255)}`,
      echoed: JSON.stringify(echoed(input, launch)),
      disable_api_termination: input.DisableApiTermination ? 1 : 0,
      host_id: hostId,
    };
    await tables(call).insertInto('ec2_instances').values(instance).execute();
    await putTags(call, 'instance', instance.instance_id, launch.instanceTags);
    call.emit(instanceEvent(instance, 'pending'));
    for (const mapped of launch.volumes)
      attachments.push(await makeMappedVolume(call, { ...instance, seq: 0 }, mapped, launch.volumeTags));
    await settleInstance(call, instance.instance_id);
  }
  if (hostId) call.raise(hostTopic(hostId));
  await rememberResult(call, 'RunInstances', input, reservationId);
  return { reservationId, attachments };
}

/** Waits for the hosts to open the mapped volumes. Throws when one of them can't be. */
async function opened(call: Call, attachments: readonly AttachmentRow[]): Promise<void> {
  const deadline = waitDeadline();
  for (const { instance_id: instanceId, generation } of attachments) {
    const look = async (inside: Call) => {
      await throwFailure(inside, [generation]);
      const instance = await tables(inside)
        .selectFrom('ec2_instances')
        .select('state')
        .where('instance_id', '=', instanceId)
        .executeTakeFirst();
      return instance?.state === 'pending' ? undefined : true;
    };
    await waitFor(call, instanceTopic(instanceId), look, deadline);
  }
}

/** Takes back instances one of whose volumes can't be opened, and all their volumes. */
async function undoLaunch(call: Call, reservationId: string, attachments: readonly AttachmentRow[]): Promise<void> {
  const volumeIds = attachments.map((attachment) => attachment.volume_id);
  await tables(call)
    .updateTable('ec2_attachments')
    .set({ delete_on_termination: 1 })
    .where('volume_id', 'in', volumeIds)
    .execute();
  const instances = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('reservation_id', '=', reservationId)
    .where('state', 'not in', ['shutting-down', 'terminated'])
    .execute();
  for (const instance of instances)
    await beginShutdown(call, instance, 'shutting-down', {
      code: 'Server.InternalError',
      message: "a mapped volume can't be attached",
    });
  const detached = await tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('volume_id', 'in', volumeIds)
    .where('state', '=', 'available')
    .execute();
  for (const volume of detached) await deleteVolume(call, volume);
}

async function makeMappedVolume(call: Call, instance: InstanceRow, mapped: MappedVolume, tags: Tags) {
  const { volume_id: volumeId } = await createVolume(call, {
    settings: mapped.settings,
    zone: instance.zone,
    key: mapped.key,
    restore: mapped.restore,
    hostId: instance.host_id,
  });
  await putTags(call, 'volume', volumeId, tags);
  const volume = await findVolume(call, volumeId);
  await checkAttachable(call, volume, instance, mapped.device);
  return beginAttach(call, volume, instance, mapped.device, mapped.deleteOnTermination);
}

async function checkInstanceQuota(call: Call, count: number): Promise<void> {
  const { instances } = await tables(call)
    .selectFrom('ec2_instances')
    .select((select) => select.fn.countAll<number>().as('instances'))
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('state', '!=', 'terminated')
    .executeTakeFirstOrThrow();
  if (Number(instances) + count > instancesPerRegionMax)
    throw new AwsError(
      'InstanceLimitExceeded',
      `You have requested more instances (${Number(instances) + count}) than your current instance limit of ${instancesPerRegionMax} allows.`,
    );
}

function echoed(input: RunInstancesRequest, { profile }: Launch): Echoed {
  return {
    ...(input.KeyName ? { keyName: input.KeyName } : {}),
    ...(profile ? { profileArn: profile.arn, profileId: profile.id } : {}),
    ...(input.Monitoring?.Enabled ? { monitoring: true } : {}),
    ...(input.EbsOptimized ? { ebsOptimized: true } : {}),
  };
}

async function describeReservation(
  call: Call,
  input: RunInstancesRequest,
  reservationId: string,
): Promise<Reservation> {
  const rows = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('reservation_id', '=', reservationId)
    .orderBy('launch_index')
    .execute();
  if (rows.length === 0) throw tokenMismatch(input.ClientToken ?? '');
  return reservations(call, rows, await instanceViews(call, rows))[0]!;
}

function mappingRecord({ DeviceName, Ebs }: BlockDeviceMapping) {
  return compact({
    deviceName: DeviceName,
    ebs: Ebs
      ? compact({
          snapshotId: Ebs.SnapshotId,
          volumeSize: Ebs.VolumeSize,
          volumeType: Ebs.VolumeType,
          deleteOnTermination: Ebs.DeleteOnTermination,
          encrypted: Ebs.Encrypted,
          kmsKeyId: Ebs.KmsKeyId,
          iops: Ebs.Iops,
          throughput: Ebs.Throughput,
          volumeInitializationRate: Ebs.VolumeInitializationRate,
        })
      : undefined,
  });
}
