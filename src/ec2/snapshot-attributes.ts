/** Sharing: ModifySnapshotAttribute, DescribeSnapshotAttribute and ResetSnapshotAttribute. */
import {
  type CreateVolumePermission,
  DescribeSnapshotAttribute$,
  type DescribeSnapshotAttributeRequest,
  type DescribeSnapshotAttributeResult,
  ModifySnapshotAttribute$,
  type ModifySnapshotAttributeRequest,
  ResetSnapshotAttribute$,
  type ResetSnapshotAttributeRequest,
} from '@aws-sdk/client-ec2';
import type { DescribeKeyResponse } from '@aws-sdk/client-kms';
import { parseArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError, isAwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { checkSnapshotId, invalidCombination, invalidValue, missingParameter, stopIfDryRun } from './errors.ts';
import { snapshotEvent } from './events.ts';
import { tables } from './records.ts';
import { allowOnSnapshot } from './snapshot-access.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { everybody, findOwnSnapshot } from './snapshot-store.ts';
import { type Tags, tagsOf } from './tag-store.ts';
import { compact, items, snapshotResources } from './trail.ts';

/** Source: EC2 API reference, ModifySnapshotAttribute. */
const changesMax = 500;
const sharedWithMax = 1000;
const attributeName = 'createVolumePermission';

interface OneSnapshot {
  readonly snapshot: SnapshotRow;
  readonly tags: Tags;
}

/** Accounts, and `all`. */
interface Changes {
  readonly add: readonly string[];
  readonly remove: readonly string[];
}

async function resolveSnapshot(call: Call, input: { readonly SnapshotId?: string | undefined }): Promise<OneSnapshot> {
  const snapshot = await findOwnSnapshot(call, checkSnapshotId(input.SnapshotId));
  return { snapshot, tags: await tagsOf(call, snapshot.snapshot_id) };
}

export const modifySnapshotAttribute = operation<
  ModifySnapshotAttributeRequest,
  object,
  OneSnapshot & { changes: Changes }
>({
  name: 'ModifySnapshotAttribute',
  schema: ModifySnapshotAttribute$,
  effect: 'writes',
  resolve: async (call, input) => ({ ...(await resolveSnapshot(call, input)), changes: changesOf(input) }),
  access: (call, _input, { snapshot, tags, changes }) => [
    allowOnSnapshot(call, 'ModifySnapshotAttribute', snapshot, tags, {
      'ec2:Attribute': 'CreateVolumePermission',
      ...partiesContext('ec2:Add', changes.add),
      ...partiesContext('ec2:Remove', changes.remove),
    }),
  ],
  async handle(call, input, { snapshot, changes }) {
    const added = changes.add.filter((party) => party !== snapshot.account);
    if (added.length > 0) await checkShareable(call, snapshot, added);
    stopIfDryRun(input);
    const db = tables(call);
    for (const account of added) {
      const { numInsertedOrUpdatedRows: inserted } = await db
        .insertInto('ec2_snapshot_permissions')
        .values({ snapshot_id: snapshot.snapshot_id, region: snapshot.region, account })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirstOrThrow();
      if (inserted && account !== everybody) tellReceiver(call, snapshot, account);
    }
    if (changes.remove.length > 0)
      await db
        .deleteFrom('ec2_snapshot_permissions')
        .where('snapshot_id', '=', snapshot.snapshot_id)
        .where('account', 'in', changes.remove as string[])
        .execute();
    await checkSharedWith(call, snapshot);
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      snapshotId: input.SnapshotId,
      attributeType: 'CREATE_VOLUME_PERMISSION',
      createVolumePermission: compact({
        add: items(input.CreateVolumePermission?.Add, partyRecord),
        remove: items(input.CreateVolumePermission?.Remove, partyRecord),
      }),
      operationType: input.OperationType,
      userIds: items(input.UserIds, (userId) => ({ userId })),
      groups: items(input.GroupNames, (group) => ({ group })),
    }),
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: snapshotResources(input.SnapshotId),
  }),
});

const partyRecord = ({ UserId, Group }: CreateVolumePermission) => compact({ userId: UserId, group: Group });

/** @throws {AwsError} the EC2 error for the first rule that is broken */
function changesOf(input: ModifySnapshotAttributeRequest): Changes {
  const attribute = input.Attribute ?? attributeName;
  if (attribute !== attributeName)
    throw invalidValue(
      `Value (${attribute}) for parameter attribute is invalid. Only ${attributeName} can be changed.`,
    );
  const { Add, Remove } = input.CreateVolumePermission ?? {};
  const named = [...(input.UserIds ?? []).map(checkAccount), ...(input.GroupNames ?? []).map(checkGroup)];
  if (named.length > 0 && (Add?.length || Remove?.length))
    throw invalidCombination('CreateVolumePermission cannot be used together with UserIds or GroupNames.');
  if (named.length > 0 && input.OperationType !== 'add' && input.OperationType !== 'remove')
    throw input.OperationType
      ? invalidValue(`Value (${input.OperationType}) for parameter operationType is invalid. Expected: add, remove.`)
      : missingParameter('operationType');
  const add = input.OperationType === 'add' ? named : (Add ?? []).map(partyOf);
  const remove = input.OperationType === 'remove' ? named : (Remove ?? []).map(partyOf);
  if (add.length + remove.length === 0) throw missingParameter(attributeName);
  if (add.length > 0 && remove.length > 0)
    throw invalidCombination('A request can add permissions or remove them, not both.');
  if (add.length + remove.length > changesMax)
    throw invalidValue(`One request can change ${changesMax} permissions, not ${add.length + remove.length}.`);
  return { add, remove };
}

function partyOf({ UserId: user, Group: group }: CreateVolumePermission): string {
  if (user && group) throw invalidCombination('A permission names a UserId or a Group, not both.');
  if (group) return checkGroup(group);
  return checkAccount(user ?? '');
}

function checkAccount(user: string): string {
  const account = user.replaceAll('-', '');
  if (!/^\d{12}$/.test(account)) throw new AwsError('InvalidUserID.Malformed', `Invalid user id: "${user}"`);
  return account;
}

function checkGroup(group: string): string {
  if (group !== everybody)
    throw invalidValue(`Value (${group}) for parameter group is invalid. The only group is '${everybody}'.`);
  return group;
}

/** @throws {AwsError} OperationNotPermitted for what AWS never lets be shared */
async function checkShareable(call: Call, snapshot: SnapshotRow, added: readonly string[]): Promise<void> {
  if (!snapshot.encrypted) return;
  const { snapshot_id: id, key_arn: keyArn } = snapshot;
  if (added.includes(everybody))
    throw new AwsError('OperationNotPermitted', `Encrypted snapshots cannot be made public, and '${id}' is encrypted.`);
  if (await isManaged(call, keyArn!))
    throw new AwsError(
      'OperationNotPermitted',
      `Encrypted snapshots with EBS default key cannot be shared: '${id}' is encrypted under ${keyArn}, which only its ` +
        'account can use. Copy it under a customer managed key first.',
    );
}

/** Whether a key is one that AWS manages. One that is gone is not. */
async function isManaged(call: Call, keyArn: string): Promise<boolean> {
  const { account, region } = parseArn(keyArn)!;
  try {
    const { KeyMetadata: key } = await call
      .asItself(account, region)
      .invoke<DescribeKeyResponse>('kms', 'DescribeKey', { KeyId: keyArn });
    return key?.KeyManager === 'AWS';
  } catch (error) {
    if (isAwsError(error, 'NotFoundException')) return false;
    throw error;
  }
}

async function checkSharedWith(call: Call, snapshot: SnapshotRow): Promise<void> {
  const { shared } = await tables(call)
    .selectFrom('ec2_snapshot_permissions')
    .select((select) => select.fn.countAll<number>().as('shared'))
    .where('snapshot_id', '=', snapshot.snapshot_id)
    .executeTakeFirstOrThrow();
  if (Number(shared) > sharedWithMax)
    throw new AwsError(
      'ResourceLimitExceeded',
      `A snapshot can be shared with ${sharedWithMax} accounts; '${snapshot.snapshot_id}' would be with ${shared}.`,
    );
}

function tellReceiver(call: Call, snapshot: SnapshotRow, account: string): void {
  call.asItself(account, snapshot.region).emit(
    snapshotEvent(snapshot, 'shareSnapshot', 'succeeded', {
      source: snapshot.account,
      startedAt: call.clock.now(),
      endedAt: call.clock.now(),
      requestId: call.requestId,
    }),
  );
}

/** Condition keys for who gets or loses a permission. */
function partiesContext(name: string, parties: readonly string[]): Record<string, string | readonly string[]> {
  const accounts = parties.filter((party) => party !== everybody);
  return {
    ...(parties.includes(everybody) ? { [`${name}/group`]: everybody } : {}),
    ...(accounts.length > 0 ? { [`${name}/userId`]: accounts } : {}),
  };
}

export const describeSnapshotAttribute = operation<
  DescribeSnapshotAttributeRequest,
  DescribeSnapshotAttributeResult,
  OneSnapshot
>({
  name: 'DescribeSnapshotAttribute',
  schema: DescribeSnapshotAttribute$,
  effect: 'reads',
  resolve: resolveSnapshot,
  access: (call, _input, { snapshot, tags }) => [allowOnSnapshot(call, 'DescribeSnapshotAttribute', snapshot, tags)],
  async handle(call, input, { snapshot }) {
    const attribute = input.Attribute;
    if (!attribute) throw missingParameter('attribute');
    if (attribute !== attributeName && attribute !== 'productCodes')
      throw invalidValue(`Value (${attribute}) for parameter attribute is invalid. Unknown attribute.`);
    stopIfDryRun(input);
    if (attribute === 'productCodes') return { SnapshotId: snapshot.snapshot_id, ProductCodes: [] };
    const permissions = await tables(call)
      .selectFrom('ec2_snapshot_permissions')
      .select('account')
      .where('snapshot_id', '=', snapshot.snapshot_id)
      .orderBy('account')
      .execute();
    return {
      SnapshotId: snapshot.snapshot_id,
      CreateVolumePermissions: permissions.map(({ account }) =>
        account === everybody ? { Group: everybody } : { UserId: account },
      ),
    };
  },
});

export const resetSnapshotAttribute = operation<ResetSnapshotAttributeRequest, object, OneSnapshot>({
  name: 'ResetSnapshotAttribute',
  schema: ResetSnapshotAttribute$,
  effect: 'writes',
  resolve: resolveSnapshot,
  access: (call, _input, { snapshot, tags }) => [allowOnSnapshot(call, 'ResetSnapshotAttribute', snapshot, tags)],
  async handle(call, input, { snapshot }) {
    if (!input.Attribute) throw missingParameter('attribute');
    if (input.Attribute !== attributeName)
      throw invalidValue(
        `Value (${input.Attribute}) for parameter attribute is invalid. Only ${attributeName} can be reset.`,
      );
    stopIfDryRun(input);
    await tables(call).deleteFrom('ec2_snapshot_permissions').where('snapshot_id', '=', snapshot.snapshot_id).execute();
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { snapshotId: input.SnapshotId ?? null, attributeType: 'CREATE_VOLUME_PERMISSION' },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: snapshotResources(input.SnapshotId),
  }),
});
