/**
 * How attachments and instances change state. A call wishes (`desired`, a new generation), the instance's host does and
 * reports, and here both meet. Every step is one transaction that leaves the records whole: whatever dies in between, the
 * next Sync goes on from there.
 */
import type { Call } from '../aws/call.ts';
import type { AwsError } from '../aws/errors.ts';
import type { ObservedAttachment } from '../aws/host-protocol.ts';
import { incorrectState } from './errors.ts';
import { instanceEvent, volumeEvent } from './events.ts';
import { findHost, hostTopic, instanceTopic, isLive, volumeTopic } from './host-store.ts';
import { grantDecrypt, isKeyError, KeyUnusable, keyError, retireGrant } from './keys.ts';
import { type AttachmentRow, type InstanceRow, nextGeneration, tables, type VolumeRow } from './records.ts';
import { deleteVolume } from './volume-store.ts';

/**
 * Wishes a new attachment. An encrypted volume gets its grant first: a key that can't be used stops everything here.
 * On a stopped instance the attachment is made at once; the host opens it when the instance starts.
 */
export async function beginAttach(
  call: Call,
  volume: VolumeRow,
  instance: InstanceRow,
  device: string,
  deleteOnTermination: boolean,
): Promise<AttachmentRow> {
  const isRunning = instance.state === 'running' || instance.state === 'pending';
  const attachment: AttachmentRow = {
    volume_id: volume.volume_id,
    instance_id: instance.instance_id,
    account: volume.account,
    region: volume.region,
    device,
    status: isRunning ? 'attaching' : 'attached',
    attached_at: call.clock.now(),
    delete_on_termination: deleteOnTermination ? 1 : 0,
    grant_id: await grantFor(call, volume, instance.instance_id, 'attachVolume'),
    desired: isRunning ? 'attached' : 'detached',
    generation: await nextGeneration(call),
    force: 0,
    observed: isRunning ? 'none' : 'detached',
    error_message: null,
    request_id: call.requestId,
  };
  await tables(call).insertInto('ec2_attachments').values(attachment).execute();
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ state: 'in-use', ...(isRunning && instance.host_id ? { image_host_id: instance.host_id } : {}) })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  tellHost(call, instance);
  call.raise(volumeTopic(volume.volume_id));
  return attachment;
}

/** Wishes the end of an attachment; it is gone when the host has closed it, or at once when no host can have it open. */
export async function beginDetach(
  call: Call,
  attachment: AttachmentRow,
  instance: InstanceRow,
  force: boolean,
): Promise<void> {
  await wishClosed(call, attachment, { status: 'detaching', force });
  const host = instance.host_id === null ? undefined : await findHost(call, instance.host_id);
  // Force is for a host that is lost: a live one is still asked, so that nothing is open twice.
  const isClosed = attachment.observed === 'detached' || host === undefined || (force && !isLive(call, host));
  if (isClosed) await attachmentClosed(call, { ...attachment, status: 'detaching' }, instance);
  else tellHost(call, instance);
}

/** Wishes all volumes of a stopped instance open again, each under a grant of its own, as at the first attach. */
export async function beginStart(call: Call, instance: InstanceRow): Promise<void> {
  for (const attachment of await attachmentsOf(call, instance)) {
    const volume = await volumeOf(call, attachment);
    await endGrant(call, attachment, volume);
    await tables(call)
      .updateTable('ec2_attachments')
      .set({
        grant_id: await grantFor(call, volume, instance.instance_id, 'reattachVolume'),
        desired: 'attached',
        generation: await nextGeneration(call),
        force: 0,
        observed: 'none',
        error_message: null,
        request_id: call.requestId,
      })
      .where('volume_id', '=', attachment.volume_id)
      .where('instance_id', '=', attachment.instance_id)
      .execute();
    if (instance.host_id) await noteImage(call, volume, instance.host_id);
  }
  await setInstanceState(call, instance, {
    state: 'pending',
    reason_code: '',
    reason_message: '',
    transition_reason: '',
  });
  tellHost(call, instance);
  await settleInstance(call, instance.instance_id);
}

/** Wishes all volumes of an instance closed, and then the instance stopped or terminated. */
export async function beginShutdown(
  call: Call,
  instance: InstanceRow,
  to: 'stopping' | 'shutting-down',
  reason: { readonly code: string; readonly message: string },
): Promise<void> {
  await setInstanceState(call, instance, {
    state: to,
    reason_code: reason.code,
    reason_message: `${reason.code}: ${reason.message}`,
    transition_reason: transitionReason(call, reason.message),
  });
  const changed = { ...instance, state: to };
  for (const attachment of await attachmentsOf(call, instance)) {
    const isTerminating = to === 'shutting-down';
    const status = isTerminating || attachment.status === 'detaching' ? 'detaching' : 'attached';
    const isClosed = attachment.observed === 'detached' || instance.host_id === null;
    if (!isClosed || attachment.desired === 'attached') await wishClosed(call, attachment, { status, force: false });
    if (isClosed) await attachmentClosed(call, { ...attachment, status }, changed);
    call.raise(volumeTopic(attachment.volume_id));
  }
  tellHost(call, instance);
  await settleInstance(call, instance.instance_id);
}

/** Takes a host's word about one of its attachments. `call` acts in the attachment's account, as the service itself. */
export async function applyReport(
  call: Call,
  attachment: AttachmentRow,
  instance: InstanceRow,
  report: ObservedAttachment,
): Promise<void> {
  if (report.generation !== attachment.generation) return;
  if (attachment.desired === 'detached') {
    if (report.state === 'detached' && attachment.observed !== 'detached')
      await attachmentClosed(call, attachment, instance);
  } else if (report.state === 'attached') {
    await attachmentOpened(call, attachment, instance);
  } else if (report.state === 'failed') {
    await attachmentFailed(call, attachment, instance, report);
  }
}

/** The host has closed it (or none can have it open): the grant ends, and with `detaching` the attachment itself. */
async function attachmentClosed(call: Call, attachment: AttachmentRow, instance: InstanceRow): Promise<void> {
  const volume = await volumeOf(call, attachment);
  await endGrant(call, attachment, volume);
  if (attachment.status === 'detaching') await removeAttachment(call, attachment, volume, instance);
  else
    await tables(call)
      .updateTable('ec2_attachments')
      .set({ observed: 'detached', grant_id: null })
      .where('volume_id', '=', attachment.volume_id)
      .where('instance_id', '=', attachment.instance_id)
      .execute();
  tellHost(call, instance);
  await settleInstance(call, instance.instance_id);
}

async function attachmentOpened(call: Call, attachment: AttachmentRow, instance: InstanceRow): Promise<void> {
  if (attachment.observed === 'attached' && attachment.status !== 'attaching') return;
  await tables(call)
    .updateTable('ec2_attachments')
    .set({ status: 'attached', observed: 'attached', error_message: null })
    .where('volume_id', '=', attachment.volume_id)
    .where('instance_id', '=', attachment.instance_id)
    .execute();
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ has_image: 1 })
    .where('volume_id', '=', attachment.volume_id)
    .execute();
  call.raise(volumeTopic(attachment.volume_id));
  await settleInstance(call, instance.instance_id);
}

/** A first attach or a start that fails is undone whole; a volume that had been open stays wished for, and is retried. */
async function attachmentFailed(
  call: Call,
  attachment: AttachmentRow,
  instance: InstanceRow,
  report: ObservedAttachment,
): Promise<void> {
  const volume = await volumeOf(call, attachment);
  const error = failureOf(attachment, volume, report);
  if (attachment.error_message !== error.cause) {
    const event = attachment.status === 'attaching' ? 'attachVolume' : 'reattachVolume';
    call.emit(
      volumeEvent(volume, event, 'failed', {
        cause: error.cause,
        keyArn: volume.key_arn,
        requestId: attachment.request_id,
      }),
    );
  }
  if (attachment.status === 'attaching') {
    await rememberFailure(call, attachment.generation, error.answer);
    await endGrant(call, attachment, volume);
    await removeAttachment(call, attachment, volume, instance);
    tellHost(call, instance);
    await settleInstance(call, instance.instance_id);
    return;
  }
  await tables(call)
    .updateTable('ec2_attachments')
    .set({ observed: 'failed', error_message: error.cause })
    .where('volume_id', '=', attachment.volume_id)
    .where('instance_id', '=', attachment.instance_id)
    .execute();
  call.raise(volumeTopic(attachment.volume_id));
  if (instance.state === 'pending') {
    await rememberFailure(call, attachment.generation, error.answer);
    await beginShutdown(call, instance, 'stopping', {
      code: 'Client.InvalidState',
      message: `volume ${volume.volume_id} can't be attached: ${error.cause}`,
    });
  }
}

function failureOf(attachment: AttachmentRow, volume: VolumeRow, report: ObservedAttachment) {
  const { code, message } = report.error ?? { code: 'InternalError', message: 'the host gave no reason' };
  if (volume.key_arn && isKeyError(code)) {
    const answer = keyError(code, message, volume.key_arn, volume.key_arn);
    return { cause: answer.eventCause, answer: answer as AwsError };
  }
  const sentence = `The volume '${volume.volume_id}' can't be attached to instance '${attachment.instance_id}': ${message}`;
  return { cause: message, answer: incorrectState(sentence) };
}

/** An instance goes on once all its attachments have come where it waits for them. */
export async function settleInstance(call: Call, instanceId: string): Promise<void> {
  const instance = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('instance_id', '=', instanceId)
    .executeTakeFirstOrThrow();
  const attachments = await attachmentsOf(call, instance);
  if (instance.state === 'pending') {
    const isReady = attachments.every((each) => each.desired === 'detached' || each.observed === 'attached');
    if (isReady) await setInstanceState(call, instance, { state: 'running' });
  } else if (instance.state === 'stopping') {
    if (attachments.every((each) => each.observed === 'detached'))
      await setInstanceState(call, instance, { state: 'stopped' });
  } else if (instance.state === 'shutting-down' && attachments.length === 0) {
    await setInstanceState(call, instance, { state: 'terminated', ended_at: call.clock.now() });
  }
}

async function setInstanceState(
  call: Call,
  instance: InstanceRow,
  change: Partial<InstanceRow> & { state: InstanceRow['state'] },
): Promise<void> {
  await tables(call).updateTable('ec2_instances').set(change).where('instance_id', '=', instance.instance_id).execute();
  call.emit(instanceEvent(instance, change.state));
  call.raise(instanceTopic(instance.instance_id));
  tellHost(call, instance);
}

async function wishClosed(
  call: Call,
  attachment: AttachmentRow,
  wish: { status: AttachmentRow['status']; force: boolean },
): Promise<void> {
  // A wish that stands already keeps its generation, so that the answer that is on its way counts.
  const isNew = attachment.desired === 'attached' || (wish.force && !attachment.force);
  await tables(call)
    .updateTable('ec2_attachments')
    .set({
      status: wish.status,
      desired: 'detached',
      force: wish.force ? 1 : 0,
      ...(isNew ? { generation: await nextGeneration(call) } : {}),
      ...(attachment.desired === 'attached' ? { observed: 'none' } : {}),
      request_id: call.requestId,
    })
    .where('volume_id', '=', attachment.volume_id)
    .where('instance_id', '=', attachment.instance_id)
    .execute();
  call.raise(volumeTopic(attachment.volume_id));
}

async function removeAttachment(
  call: Call,
  attachment: AttachmentRow,
  volume: VolumeRow,
  instance: InstanceRow,
): Promise<void> {
  await tables(call)
    .deleteFrom('ec2_attachments')
    .where('volume_id', '=', attachment.volume_id)
    .where('instance_id', '=', attachment.instance_id)
    .execute();
  call.raise(volumeTopic(volume.volume_id));
  const left = await tables(call)
    .selectFrom('ec2_attachments')
    .select('instance_id')
    .where('volume_id', '=', volume.volume_id)
    .executeTakeFirst();
  if (left) return;
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ state: 'available' })
    .where('volume_id', '=', volume.volume_id)
    .execute();
  if (instance.state === 'shutting-down' && attachment.delete_on_termination)
    await deleteVolume(call, { ...volume, state: 'available' });
}

/** The grant for opening an encrypted volume; a key that can't be used is announced as the failure of `event`. */
async function grantFor(
  call: Call,
  volume: VolumeRow,
  instanceId: string,
  event: 'attachVolume' | 'reattachVolume',
): Promise<string | null> {
  if (!volume.key_arn) return null;
  try {
    return await grantDecrypt(call, volume.key_arn, volume.volume_id, instanceId);
  } catch (error) {
    if (error instanceof KeyUnusable)
      call.emit(
        volumeEvent(volume, event, 'failed', {
          cause: error.eventCause,
          keyArn: volume.key_arn,
          requestId: call.requestId,
        }),
      );
    throw error;
  }
}

async function endGrant(call: Call, attachment: AttachmentRow, volume: VolumeRow): Promise<void> {
  if (attachment.grant_id && volume.key_arn) await retireGrant(call, volume.key_arn, attachment.grant_id);
}

/** Remembers that from now on this host may have made the volume's image. */
export async function noteImage(call: Call, volume: VolumeRow, hostId: string): Promise<void> {
  if (volume.image_host_id === hostId) return;
  await tables(call)
    .updateTable('ec2_volumes')
    .set({ image_host_id: hostId })
    .where('volume_id', '=', volume.volume_id)
    .execute();
}

export async function attachmentsOf(call: Call, instance: { instance_id: string }): Promise<AttachmentRow[]> {
  return tables(call)
    .selectFrom('ec2_attachments')
    .selectAll()
    .where('instance_id', '=', instance.instance_id)
    .orderBy('generation')
    .execute();
}

async function volumeOf(call: Call, attachment: AttachmentRow): Promise<VolumeRow> {
  return tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('volume_id', '=', attachment.volume_id)
    .executeTakeFirstOrThrow();
}

async function rememberFailure(call: Call, generation: number, error: AwsError): Promise<void> {
  await tables(call)
    .insertInto('ec2_failures')
    .values({ generation, code: error.code, message: error.message, created_at: call.clock.now() })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

function tellHost(call: Call, instance: InstanceRow): void {
  if (instance.host_id) call.raise(hostTopic(instance.host_id));
}

/** `User initiated (2026-08-01 12:00:00 GMT)` */
function transitionReason(call: Call, message: string): string {
  const time = new Date(call.clock.now()).toISOString().slice(0, 19).replace('T', ' ');
  return `${message} (${time} GMT)`;
}
