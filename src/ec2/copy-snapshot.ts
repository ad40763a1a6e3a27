/** CopySnapshot: within a region or from another, own or shared, under another key or none. */
import { CopySnapshot$, type CopySnapshotRequest, type CopySnapshotResult } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { CopySnapshotTask, VolumeEncryption } from '../aws/host-protocol.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { noVolumeId } from './direct-snapshots.ts';
import { outcomeKey } from './encryption-outcomes.ts';
import {
  checkSnapshotId,
  incorrectState,
  invalidCombination,
  invalidValue,
  missingParameter,
  stopIfDryRun,
} from './errors.ts';
import { snapshotEvent, snapshotSource } from './events.ts';
import { encryptionContext, KeyUnusable, newDataKey, rewrapDataKey, usableKey, type WrappedDataKey } from './keys.ts';
import { tables } from './records.ts';
import { dataKeyOf } from './restores.ts';
import { allowNewSnapshot, allowOnSnapshot } from './snapshot-access.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { findUsableSnapshot, insertSnapshot, newSnapshotId } from './snapshot-store.ts';
import { checkDescription } from './snapshots.ts';
import { noTags, putTags, type Tags, tagList, tagsFromSpecifications, tagsOf } from './tag-store.ts';
import { grantForTask } from './task-grants.ts';
import { addTask } from './task-store.ts';
import { compact, items, snapshotResources, tagSpecificationSet } from './trail.ts';

const gib = 1024 ** 3;
/** Copies that an account may have under way to a region. Source: EBS user guide, "Quotas for Amazon EBS". */
const copiesAtOnceMax = 20;
/** CompletionDurationMinutes: steps and bounds. Source: EBS user guide, "Time-based copies". */
const durationStepMinutes = 15;
const durationMaxMinutes = 48 * 60;

interface PlannedCopy {
  readonly source: SnapshotRow;
  /** Leave to read the source. */
  readonly sourceAccess: AccessRequest;
  readonly key: string | undefined;
  readonly description: string;
  readonly tags: Tags;
}

/** The call arrives in the region that the copy is to be in. Source: EC2 API reference, CopySnapshot. */
export const copySnapshot = operation<CopySnapshotRequest, CopySnapshotResult, PlannedCopy>({
  name: 'CopySnapshot',
  schema: CopySnapshot$,
  effect: 'writes',
  resolve: planCopy,
  access: (call, _input, { sourceAccess, tags }) => [...allowNewSnapshot(call, 'CopySnapshot', tags, {}), sourceAccess],
  async handle(call, input, plan) {
    stopIfDryRun(input);
    await checkCopies(call);
    const snapshotId = newSnapshotId();
    try {
      await makeCopy(call, input, snapshotId, plan);
    } catch (error) {
      if (error instanceof KeyUnusable) announceFailure(call, snapshotId, plan.source, error);
      throw error;
    }
    await putTags(call, 'snapshot', snapshotId, plan.tags);
    return { SnapshotId: snapshotId, Tags: tagList(plan.tags) };
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      sourceRegion: input.SourceRegion,
      sourceSnapshotId: input.SourceSnapshotId,
      description: input.Description,
      encrypted: input.Encrypted,
      kmsKeyId: input.KmsKeyId,
      completionDurationMinutes: input.CompletionDurationMinutes,
      tagSpecificationSet: tagSpecificationSet(input.TagSpecifications),
      dryRun: input.DryRun,
    }),
    responseElements: output
      ? {
          requestId: call.requestId,
          snapshotId: output.SnapshotId,
          tagSet: items(output.Tags, ({ Key, Value }) => ({ key: Key, value: Value })) ?? {},
        }
      : null,
    lookupResources: snapshotResources(input.SourceSnapshotId, output?.SnapshotId),
  }),
});

async function planCopy(call: Call, input: CopySnapshotRequest): Promise<PlannedCopy> {
  const sourceId = checkSnapshotId(input.SourceSnapshotId, 'sourceSnapshotId');
  if (!input.SourceRegion) throw missingParameter('sourceRegion');
  if (!/^[a-z]{2}(-[a-z]+)+-\d+$/.test(input.SourceRegion))
    throw invalidValue(`Value (${input.SourceRegion}) for parameter sourceRegion is invalid.`);
  if (input.DestinationRegion && input.DestinationRegion !== call.region)
    throw invalidValue(
      `Value (${input.DestinationRegion}) for parameter destinationRegion is invalid: the copy is made in the region that ` +
        `is called, ${call.region}.`,
    );
  for (const name of ['DestinationOutpostArn', 'DestinationAvailabilityZone'] as const)
    if (input[name]) throw invalidValue(`Value (${input[name]}) for parameter ${name} is invalid.`);
  checkDuration(input.CompletionDurationMinutes);
  const description = checkDescription(input.Description);
  const tags = tagsFromSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? noTags;
  const there = call.inRegion(input.SourceRegion);
  const source = await findUsableSnapshot(there, sourceId);
  if (source.state !== 'completed')
    throw incorrectState(`Snapshot '${sourceId}' is in invalid state - ${source.state}`);
  if (input.Encrypted === false && source.encrypted)
    throw invalidCombination(
      `A copy of the encrypted snapshot '${sourceId}' is encrypted; Encrypted can't be false. Leave it out.`,
    );
  return {
    source,
    sourceAccess: allowOnSnapshot(there, 'CopySnapshot', source, await tagsOf(call, sourceId)),
    key: await outcomeKey(call, input, source),
    description,
    tags,
  };
}

function checkDuration(minutes: number | undefined): void {
  if (minutes === undefined) return;
  if (minutes >= durationStepMinutes && minutes <= durationMaxMinutes && minutes % durationStepMinutes === 0) return;
  throw invalidValue(
    `Value (${minutes}) for parameter completionDurationMinutes is invalid. It must be a multiple of ` +
      `${durationStepMinutes} from ${durationStepMinutes} to ${durationMaxMinutes}.`,
  );
}

/** @throws {AwsError} ResourceLimitExceeded */
async function checkCopies(call: Call): Promise<void> {
  const { copies } = await tables(call)
    .selectFrom('ec2_snapshots')
    .select((select) => select.fn.countAll<number>().as('copies'))
    .where('state', '=', 'pending')
    .where('origin', '=', 'copy')
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .executeTakeFirstOrThrow();
  if (Number(copies) >= copiesAtOnceMax)
    throw new AwsError(
      'ResourceLimitExceeded',
      `Too many snapshot copies in progress. The limit is ${copiesAtOnceMax} for this destination region.`,
    );
}

async function makeCopy(
  call: Call,
  input: CopySnapshotRequest,
  snapshotId: string,
  { source, key, description }: PlannedCopy,
): Promise<void> {
  const dataKey =
    key === undefined ? undefined : { ...(await newDataKey(call, key, snapshotId)), contextId: snapshotId };
  const sourceKey = dataKey && (await openSource(call, snapshotId, source, dataKey));
  if (dataKey) await grantForTask(call, snapshotId, dataKey);
  const copy = await insertSnapshot(call, snapshotId, {
    origin: 'copy',
    volume_id: noVolumeId,
    size_gib: source.size_gib,
    encrypted: dataKey ? 1 : 0,
    key_arn: dataKey?.keyArn ?? null,
    encrypted_data_key: dataKey?.encryptedDataKey ?? null,
    context_id: dataKey?.contextId ?? null,
    description,
    is_marked: 1,
    family: snapshotId,
    source_snapshot_id: source.snapshot_id,
    source_region: source.region,
    completion_minutes: input.CompletionDurationMinutes ?? null,
  });
  const payload: Omit<CopySnapshotTask, 'taskId' | 'kind' | 'snapshotId'> = {
    sourceSnapshotId: source.snapshot_id,
    sizeBytes: copy.size_gib * gib,
    ...(sourceKey ? { sourceEncryption: inWords(sourceKey) } : {}),
    ...(dataKey ? { encryption: inWords(dataKey) } : {}),
  };
  await addTask(call, { kind: 'copySnapshot', account: call.account, region: call.region, snapshotId, payload });
}

/**
 * The source's data key as the host can open it. Within a region it is encrypted anew under the copy's key, so that one
 * grant opens both. KMS re-encrypts nothing from one region to another: there the host gets a grant on the source's key.
 */
async function openSource(
  call: Call,
  snapshotId: string,
  source: SnapshotRow,
  copyKey: WrappedDataKey,
): Promise<WrappedDataKey | undefined> {
  const dataKey = dataKeyOf(source);
  if (!dataKey) return undefined;
  if (source.region === call.region)
    return {
      keyArn: copyKey.keyArn,
      contextId: copyKey.contextId,
      encryptedDataKey: await rewrapDataKey(call, dataKey, copyKey),
    };
  const there = call.inRegion(source.region);
  await usableKey(there, dataKey.keyArn);
  await grantForTask(there, snapshotId, dataKey);
  return dataKey;
}

function inWords({ keyArn, encryptedDataKey, contextId }: WrappedDataKey): VolumeEncryption {
  return {
    keyArn,
    encryptedDataKey: Buffer.from(encryptedDataKey).toString('base64'),
    encryptionContext: encryptionContext(contextId),
  };
}

function announceFailure(call: Call, snapshotId: string, source: SnapshotRow, error: KeyUnusable): void {
  call.emit(
    snapshotEvent({ region: call.region, snapshot_id: snapshotId }, 'copySnapshot', 'failed', {
      source: snapshotSource(source.region, source.snapshot_id),
      startedAt: call.clock.now(),
      endedAt: call.clock.now(),
      cause: error.eventCause,
      requestId: call.requestId,
      incremental: false,
    }),
  );
}
