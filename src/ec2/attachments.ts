/** AttachVolume and DetachVolume. */
import {
  AttachVolume$,
  type AttachVolumeRequest,
  DetachVolume$,
  type DetachVolumeRequest,
  type VolumeAttachment,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { allowOnInstance, allowOnVolume } from './access.ts';
import { beginAttach, beginDetach } from './attachment-flow.ts';
import { devicePath } from './devices.ts';
import {
  checkInstanceId,
  checkVolumeId,
  incorrectState,
  invalidValue,
  missingParameter,
  stopIfDryRun,
} from './errors.ts';
import { volumeTopic } from './host-store.ts';
import { findInstance } from './instance-store.ts';
import { instanceTypes } from './instance-type-table.ts';
import { type AttachmentRow, type InstanceRow, tables, type VolumeRow } from './records.ts';
import { type Tags, tagsOf } from './tag-store.ts';
import { busyElsewhere } from './task-store.ts';
import { compact, instanceResources, volumeResource } from './trail.ts';
import { findVolume } from './volume-store.ts';
import { attachmentView } from './volume-view.ts';
import { throwFailure, waitFor } from './waiting.ts';

const multiAttachMax = 16;

interface Pair {
  readonly volume: VolumeRow;
  readonly instance: InstanceRow;
  readonly volumeTags: Tags;
  readonly instanceTags: Tags;
}

async function findPair(call: Call, volumeId: string, instanceId: string): Promise<Pair> {
  const volume = await findVolume(call, volumeId);
  const instance = await findInstance(call, instanceId);
  return {
    volume,
    instance,
    volumeTags: await tagsOf(call, volumeId),
    instanceTags: await tagsOf(call, instanceId),
  };
}

/**
 * Makes the wish, then waits a while for the host to fulfil it. The answer's state is `attached`, or `attaching` when the
 * host takes longer. Source: EC2 API reference, AttachVolume.
 */
export const attachVolume = operation<AttachVolumeRequest, VolumeAttachment, Pair>({
  name: 'AttachVolume',
  schema: AttachVolume$,
  effect: 'waits',
  resolve(call, input) {
    devicePath(input.Device);
    return findPair(call, checkVolumeId(input.VolumeId), checkInstanceId(input.InstanceId));
  },
  access: (call, _input, { volume, instance, volumeTags, instanceTags }) => [
    allowOnInstance(call, 'AttachVolume', instance, instanceTags),
    allowOnVolume(call, 'AttachVolume', volume, volumeTags),
  ],
  async handle(call, input) {
    stopIfDryRun(input);
    const begun = await call.transaction(async (inside) => {
      // Looked up again: the world may have changed since the transaction of the checks.
      const { volume, instance } = await findPair(inside, input.VolumeId!, input.InstanceId!);
      await checkAttachable(inside, volume, instance, input.Device!);
      return beginAttach(inside, volume, instance, input.Device!, false);
    });
    const settled = await waitFor(call, volumeTopic(begun.volume_id), async (inside) => {
      const now = await findAttachment(inside, begun.volume_id, begun.instance_id);
      if (now?.status === 'attached' || now?.status === 'detaching') return now;
      if (now?.generation === begun.generation) return undefined;
      await throwFailure(inside, [begun.generation]);
      throw incorrectState(
        `The volume '${begun.volume_id}' was detached from instance '${begun.instance_id}' before it was attached.`,
      );
    });
    return attachmentView(settled ?? begun);
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      volumeId: input.VolumeId,
      instanceId: input.InstanceId,
      device: input.Device,
      deleteOnTermination: false,
      dryRun: input.DryRun,
    }),
    responseElements: output ? attachmentRecord(call, output) : null,
    lookupResources: [...volumeResource(input.VolumeId), ...instanceResources(input.InstanceId)],
  }),
});

/** @throws {AwsError} the EC2 error for the first rule that is broken */
export async function checkAttachable(
  call: Call,
  volume: VolumeRow,
  instance: InstanceRow,
  device: string,
): Promise<void> {
  if (volume.state !== 'available' && volume.state !== 'in-use')
    throw incorrectState(`Volume '${volume.volume_id}' is in the '${volume.state}' state.`);
  if (instance.state !== 'running' && instance.state !== 'stopped' && instance.state !== 'pending')
    throw incorrectState(`Instance '${instance.instance_id}' is not 'running'. It is '${instance.state}'.`);
  if (volume.zone !== instance.zone)
    throw new AwsError(
      'InvalidVolume.ZoneMismatch',
      `The volume '${volume.volume_id}' is not in the same availability zone as instance '${instance.instance_id}'`,
    );
  const type = instanceTypes.get(instance.instance_type);
  if (volume.encrypted && type && !type.ebsEncryption)
    throw new AwsError(
      'EncryptedVolumesNotSupported',
      `Encrypted Amazon EBS volumes may only be attached to instances that support Amazon EBS encryption; instance ` +
        `'${instance.instance_id}' of type ${instance.instance_type} does not.`,
    );
  await checkVolumeFree(call, volume, instance);
  const busy = await busyElsewhere(call, volume.volume_id, instance.host_id);
  if (busy !== undefined)
    throw incorrectState(
      `Host ${busy} is restoring volume '${volume.volume_id}' or taking a snapshot of it; until that is done the volume can ` +
        `be attached to instances on that host only, and instance '${instance.instance_id}' is on another.`,
    );
  const onInstance = await tables(call)
    .selectFrom('ec2_attachments')
    .select('device')
    .where('instance_id', '=', instance.instance_id)
    .execute();
  const path = devicePath(device);
  if (onInstance.some((other) => devicePath(other.device) === path))
    throw invalidValue(`Invalid value '${device}' for unixDevice. Attachment point ${device} is already in use`);
  const limit = type?.volumesMax ?? 27;
  if (onInstance.length >= limit)
    throw new AwsError(
      'AttachmentLimitExceeded',
      `Instance '${instance.instance_id}' of type ${instance.instance_type} can have ${limit} volumes attached, and has them.`,
    );
}

async function checkVolumeFree(call: Call, volume: VolumeRow, instance: InstanceRow): Promise<void> {
  const attachments = await tables(call)
    .selectFrom('ec2_attachments')
    .innerJoin('ec2_instances', 'ec2_instances.instance_id', 'ec2_attachments.instance_id')
    .select(['ec2_attachments.instance_id', 'ec2_instances.host_id'])
    .where('ec2_attachments.volume_id', '=', volume.volume_id)
    .execute();
  if (attachments.length === 0) return;
  const isThere = attachments.some((other) => other.instance_id === instance.instance_id);
  if (!volume.multi_attach || isThere)
    throw new AwsError('VolumeInUse', `${volume.volume_id} is already attached to an instance`);
  // One process has the image open, and serves all the instances.
  const elsewhere = attachments.find((other) => other.host_id !== instance.host_id);
  if (elsewhere)
    throw new AwsError(
      'UnsupportedOperation',
      `The Multi-Attach volume '${volume.volume_id}' is attached to instance '${elsewhere.instance_id}' on host ` +
        `${elsewhere.host_id ?? 'to come'}, and instance '${instance.instance_id}' is on host ${instance.host_id ?? 'to come'}: ` +
        'all instances of a volume must be on one host.',
    );
  if (attachments.length >= multiAttachMax)
    throw new AwsError(
      'AttachmentLimitExceeded',
      `Volume '${volume.volume_id}' is attached to ${attachments.length} instances; a Multi-Attach volume can be attached to ${multiAttachMax}.`,
    );
}

interface Found extends Pair {
  readonly attachment: AttachmentRow;
}

/** Source: EC2 API reference, DetachVolume. */
export const detachVolume = operation<DetachVolumeRequest, VolumeAttachment, Found>({
  name: 'DetachVolume',
  schema: DetachVolume$,
  effect: 'waits',
  resolve: findForDetach,
  access: (call, _input, { volume, instance, volumeTags, instanceTags }) => [
    allowOnInstance(call, 'DetachVolume', instance, instanceTags),
    allowOnVolume(call, 'DetachVolume', volume, volumeTags),
  ],
  async handle(call, input) {
    stopIfDryRun(input);
    const begun = await call.transaction(async (inside) => {
      const { attachment, instance } = await findForDetach(inside, input);
      await beginDetach(inside, attachment, instance, input.Force === true);
      return attachment;
    });
    const view = attachmentView(begun);
    const isGone = await waitFor(call, volumeTopic(begun.volume_id), async (inside) => {
      const now = await findAttachment(inside, begun.volume_id, begun.instance_id);
      return now && now.attached_at === begun.attached_at ? undefined : true;
    });
    return { ...view, State: isGone ? 'detached' : 'detaching' };
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      volumeId: input.VolumeId,
      instanceId: input.InstanceId,
      device: input.Device,
      force: input.Force ?? false,
      dryRun: input.DryRun,
    }),
    responseElements: output ? attachmentRecord(call, output) : null,
    lookupResources: [...volumeResource(input.VolumeId), ...instanceResources(input.InstanceId ?? output?.InstanceId)],
  }),
});

async function findForDetach(call: Call, input: DetachVolumeRequest): Promise<Found> {
  const volume = await findVolume(call, checkVolumeId(input.VolumeId));
  if (input.InstanceId) await findInstance(call, checkInstanceId(input.InstanceId));
  const attachments = await tables(call)
    .selectFrom('ec2_attachments')
    .selectAll()
    .where('volume_id', '=', volume.volume_id)
    .execute();
  if (attachments.length === 0) throw incorrectState(`Volume '${volume.volume_id}' is in the '${volume.state}' state.`);
  if (attachments.length > 1 && !input.InstanceId)
    throw missingParameter('instanceId: the volume is attached to several');
  const attachment = attachments.find(
    (candidate) =>
      (!input.InstanceId || candidate.instance_id === input.InstanceId) &&
      (!input.Device || candidate.device === input.Device),
  );
  if (!attachment)
    throw new AwsError(
      'InvalidAttachment.NotFound',
      input.InstanceId && !attachments.some((other) => other.instance_id === input.InstanceId)
        ? `The volume '${volume.volume_id}' is not attached to instance '${input.InstanceId}'`
        : `The volume '${volume.volume_id}' is not attached to instance '${attachments[0]!.instance_id}' as device '${input.Device}'.`,
    );
  return { ...(await findPair(call, volume.volume_id, attachment.instance_id)), attachment };
}

async function findAttachment(call: Call, volumeId: string, instanceId: string): Promise<AttachmentRow | undefined> {
  return tables(call)
    .selectFrom('ec2_attachments')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('instance_id', '=', instanceId)
    .executeTakeFirst();
}

function attachmentRecord(call: Call, output: VolumeAttachment): Record<string, unknown> {
  return {
    requestId: call.requestId,
    volumeId: output.VolumeId,
    instanceId: output.InstanceId,
    device: output.Device,
    status: output.State,
    attachTime: output.AttachTime?.getTime(),
    deleteOnTermination: output.DeleteOnTermination ?? false,
  };
}
