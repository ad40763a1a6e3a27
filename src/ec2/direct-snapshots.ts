/**
 * Snapshots that are written and read block by block: what the service `ebs` asks of EC2. Internal operations, for services
 * only: the permissions to EBS direct's own actions are that service's to check, those to KMS keys are checked here, as the
 * caller's.
 */
import type { Tag } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import type { DirectSnapshot } from '../aws/direct-snapshots.ts';
import { AwsError } from '../aws/errors.ts';
import type { SnapshotOutcome } from '../aws/host-protocol.ts';
import { betweenServices, operation } from '../aws/service.ts';
import { validateTags } from '../aws/tags.ts';
import { checkSnapshotId, incorrectState } from './errors.ts';
import { encryptionContext, newDataKey, rewrapDataKey } from './keys.ts';
import { tables } from './records.ts';
import { dataKeyOf } from './restores.ts';
import { defaultKey, settingsOf } from './settings.ts';
import { completeSnapshot, failSnapshot } from './snapshot-ends.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { findOwnSnapshot, findUsableSnapshot, insertSnapshot, newSnapshotId } from './snapshot-store.ts';
import { checkDescription } from './snapshots.ts';
import { noTags, putTags, type Tags, tagsOf } from './tag-store.ts';
import { anyHost } from './task-store.ts';

const gib = 1024 ** 3;
const minuteMs = 60_000;
/** Snapshots that an account may have begun at a time, in all regions. Source: EBS quotas, "Pending snapshots per account". */
const pendingMax = 100;
/** What the API shows as the volume of a snapshot that was made from none. */
export const noVolumeId = 'vol-ffffffff';

function directView(call: Call, snapshot: SnapshotRow, tags: Tags): DirectSnapshot {
  const dataKey = snapshot.encrypted_data_key === null ? undefined : dataKeyOf(snapshot);
  const isOwn = snapshot.account === call.account;
  return {
    SnapshotId: snapshot.snapshot_id,
    OwnerId: snapshot.account,
    IsOwn: isOwn,
    IsDirect: snapshot.origin === 'direct',
    IsOpen: snapshot.origin === 'direct' && snapshot.state === 'pending',
    State: snapshot.state,
    StateMessage: snapshot.state_message,
    Description: snapshot.description,
    VolumeSize: snapshot.size_gib,
    SizeBytes: snapshot.size_gib * gib,
    StartTime: new Date(snapshot.started_at),
    ParentSnapshotId: snapshot.parent_id,
    Family: snapshot.family,
    VolumeId: snapshot.volume_id,
    HostId: snapshot.host_id,
    Encryption: dataKey
      ? {
          KeyArn: dataKey.keyArn,
          EncryptedDataKey: dataKey.encryptedDataKey,
          EncryptionContext: encryptionContext(dataKey.contextId),
        }
      : null,
    Tags: isOwn ? tags : noTags,
  };
}

export interface BeginDirectSnapshotRequest {
  /** GiB */
  readonly VolumeSize: number;
  readonly Description?: string | undefined;
  /** The caller's own, completed; its unchanged blocks count as the new one's. */
  readonly ParentSnapshotId?: string | undefined;
  readonly Encrypted?: boolean | undefined;
  readonly KmsKeyArn?: string | undefined;
  readonly Tags?: readonly Tag[] | undefined;
  /** Minutes without a write after which it is given up. */
  readonly Timeout: number;
}

/**
 * Begins a snapshot whose blocks will be written: StartSnapshot's part in EC2. With a parent, encryption and data key are
 * the parent's, under the context of its volume; without, a new data key has the snapshot's own id for its context.
 * @throws {AwsError} InvalidSnapshot.NotFound, IncorrectState, InvalidParameterCombination, SnapshotLimitExceeded,
 *   PendingSnapshotLimitExceeded, Unavailable while no host is connected
 * @throws {KeyUnusable}
 */
export const beginDirectSnapshot = operation<BeginDirectSnapshotRequest, DirectSnapshot>({
  name: 'BeginDirectSnapshot',
  effect: 'writes',
  ...betweenServices,
  async handle(call, input) {
    const description = checkDescription(input.Description);
    const tags = validateTags(input.Tags ?? []);
    await checkPending(call);
    const parent = input.ParentSnapshotId ? await findParent(call, input) : undefined;
    const hostId = await anyHost(call);
    if (hostId === undefined)
      throw new AwsError('Unavailable', 'No host that reaches the block store is connected now. Try again.', {
        httpStatus: 503,
      });
    const snapshotId = newSnapshotId();
    const key = parent ? await keyOfParent(call, parent) : await keyOfNew(call, input, snapshotId);
    const snapshot = await insertSnapshot(call, snapshotId, {
      origin: 'direct',
      volume_id: parent?.volume_id ?? noVolumeId,
      size_gib: input.VolumeSize,
      encrypted: key ? 1 : 0,
      key_arn: key?.keyArn ?? null,
      encrypted_data_key: key?.encryptedDataKey ?? null,
      context_id: key?.contextId ?? null,
      description,
      is_marked: 1,
      parent_id: parent?.snapshot_id ?? null,
      family: parent?.family ?? snapshotId,
      host_id: hostId,
      idle_minutes: input.Timeout,
      expires_at: call.clock.now() + input.Timeout * minuteMs,
    });
    await putTags(call, 'snapshot', snapshotId, tags);
    return directView(call, snapshot, tags);
  },
});

/** @throws {AwsError} PendingSnapshotLimitExceeded */
async function checkPending(call: Call): Promise<void> {
  const { pending } = await tables(call)
    .selectFrom('ec2_snapshots')
    .select((select) => select.fn.countAll<number>().as('pending'))
    .where('state', '=', 'pending')
    .where('origin', '=', 'direct')
    .where('account', '=', call.account)
    .executeTakeFirstOrThrow();
  if (Number(pending) >= pendingMax)
    throw new AwsError(
      'PendingSnapshotLimitExceeded',
      `The account has ${pending} snapshots that were begun with StartSnapshot and are not completed, as many as it can have.`,
    );
}

async function findParent(call: Call, input: BeginDirectSnapshotRequest): Promise<SnapshotRow> {
  const parent = await findOwnSnapshot(call, checkSnapshotId(input.ParentSnapshotId));
  if (input.Encrypted !== undefined || input.KmsKeyArn !== undefined)
    throw new AwsError(
      'InvalidParameterCombination',
      'Encrypted and KmsKeyArn cannot be used with ParentSnapshotId: the parent decides.',
    );
  if (parent.state !== 'completed') throw incorrectState(`The snapshot '${parent.snapshot_id}' is not completed.`);
  if (parent.size_gib > input.VolumeSize)
    throw new AwsError(
      'InvalidParameterValue',
      `The volume size ${input.VolumeSize} GiB is smaller than that of the parent snapshot '${parent.snapshot_id}', ${parent.size_gib} GiB.`,
    );
  if (!parent.encrypted && (await settingsOf(call)).encryption_by_default)
    throw new AwsError(
      'InvalidParameterCombination',
      `Encryption by default is on, and the parent snapshot '${parent.snapshot_id}' is not encrypted.`,
    );
  return parent;
}

/** The parent's data key, so that blocks can be shared. Encrypted anew, which asks whether the caller may use the key. */
async function keyOfParent(call: Call, parent: SnapshotRow) {
  const dataKey = dataKeyOf(parent);
  return dataKey && { ...dataKey, encryptedDataKey: await rewrapDataKey(call, dataKey, dataKey) };
}

async function keyOfNew(call: Call, input: BeginDirectSnapshotRequest, snapshotId: string) {
  const isEncrypted = input.Encrypted === true || (await settingsOf(call)).encryption_by_default === 1;
  if (!isEncrypted) {
    if (input.KmsKeyArn) throw new AwsError('InvalidParameterCombination', 'KmsKeyArn requires Encrypted to be true.');
    return undefined;
  }
  const dataKey = await newDataKey(call, input.KmsKeyArn || (await defaultKey(call)), snapshotId);
  return { ...dataKey, contextId: snapshotId };
}

/**
 * What EC2 knows of a snapshot that the caller owns or that is shared with it.
 * @throws {AwsError} InvalidSnapshot.NotFound
 */
export const getDirectSnapshot = operation<{ readonly SnapshotId: string }, DirectSnapshot>({
  name: 'GetDirectSnapshot',
  effect: 'reads',
  ...betweenServices,
  async handle(call, input) {
    const snapshot = await findUsableSnapshot(call, checkSnapshotId(input.SnapshotId));
    return directView(call, snapshot, await tagsOf(call, snapshot.snapshot_id));
  },
});

async function findOpen(call: Call, snapshotId: string): Promise<SnapshotRow> {
  const snapshot = await findOwnSnapshot(call, checkSnapshotId(snapshotId));
  if (snapshot.origin !== 'direct' || snapshot.state !== 'pending')
    throw incorrectState(`The snapshot '${snapshotId}' takes no blocks: it is ${snapshot.state}.`);
  return snapshot;
}

/** Blocks were written: the time after which it is given up begins anew. @throws {AwsError} IncorrectState */
export const touchDirectSnapshot = operation<{ readonly SnapshotId: string; readonly Progress?: number }, object>({
  name: 'TouchDirectSnapshot',
  effect: 'writes',
  ...betweenServices,
  async handle(call, input) {
    const snapshot = await findOpen(call, input.SnapshotId);
    await tables(call)
      .updateTable('ec2_snapshots')
      .set({
        expires_at: call.clock.now() + snapshot.idle_minutes! * minuteMs,
        progress: Math.min(99, Math.max(snapshot.progress, Math.floor(input.Progress ?? 0))),
      })
      .where('snapshot_id', '=', snapshot.snapshot_id)
      .execute();
    return {};
  },
});

/** All blocks and the manifest are in the store. @throws {AwsError} IncorrectState */
export const completeDirectSnapshot = operation<
  { readonly SnapshotId: string; readonly Outcome: SnapshotOutcome },
  object
>({
  name: 'CompleteDirectSnapshot',
  effect: 'writes',
  ...betweenServices,
  async handle(call, input) {
    const snapshot = await findOpen(call, input.SnapshotId);
    await completeSnapshot(call.asItself(snapshot.account, snapshot.region), snapshot, input.Outcome);
    return {};
  },
});

/** It comes to nothing: its state is `error` from now on. @throws {AwsError} IncorrectState */
export const failDirectSnapshot = operation<{ readonly SnapshotId: string; readonly Message: string }, object>({
  name: 'FailDirectSnapshot',
  effect: 'writes',
  ...betweenServices,
  async handle(call, input) {
    const snapshot = await findOpen(call, input.SnapshotId);
    await failSnapshot(call.asItself(snapshot.account, snapshot.region), snapshot, input.Message);
    return {};
  },
});

/** Gives up what nobody has written to for as long as it was to wait. `call` is the service's own. */
export async function expireDirectSnapshots(call: Call): Promise<void> {
  const expired = await tables(call)
    .selectFrom('ec2_snapshots')
    .selectAll()
    .where('state', '=', 'pending')
    .where('origin', '=', 'direct')
    .where('expires_at', '<=', call.clock.now())
    .execute();
  for (const snapshot of expired)
    await failSnapshot(
      call.asItself(snapshot.account, snapshot.region),
      snapshot,
      `No block was written for ${snapshot.idle_minutes} minutes, and the snapshot was not completed.`,
    );
}
