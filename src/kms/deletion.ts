/** Keys end here: scheduled, taken back, or destroyed when their time has come. */
import type {
  CancelKeyDeletionRequest,
  CancelKeyDeletionResponse,
  ScheduleKeyDeletionRequest,
  ScheduleKeyDeletionResponse,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { integer, required, structure } from '../aws/validate.ts';
import { keyIdText } from './constraints.ts';
import { keyNotFound } from './identifiers.ts';
import { keyOperation } from './key-operation.ts';
import { hasMaterial, isPrimary, requireNotPendingDeletion } from './key-states.ts';
import { type Key, type KeyStore, keyArn } from './key-store.ts';
import type { KmsTables } from './records.ts';
import { keyResource, trailDate } from './trail.ts';

const daysMin = 7;
const daysMax = 30;
const msPerDay = 86_400_000;
/** How many keys one round of housekeeping destroys at most. */
const roundMax = 1000;

export const deletionOperations = (store: KeyStore) => [
  keyOperation<ScheduleKeyDeletionRequest, ScheduleKeyDeletionResponse>(store, {
    name: 'ScheduleKeyDeletion',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), PendingWindowInDays: integer({ min: 1, max: 365 }) }),
    check({ PendingWindowInDays: days }) {
      if (days && (days < daysMin || days > daysMax))
        throw new AwsError(
          'ValidationException',
          `PendingWindowInDays must be between ${daysMin} and ${daysMax}, but it is ${days}.`,
        );
    },
    conditions: (_call, input) => ({
      'kms:ScheduleKeyDeletionPendingWindowInDays': String(input.PendingWindowInDays ?? daysMax),
    }),
    parameters: (input) => ({ keyId: input.KeyId, pendingWindowInDays: input.PendingWindowInDays ?? daysMax }),
    response: ({ KeyId, DeletionDate, KeyState, PendingWindowInDays }) => ({
      keyId: KeyId,
      ...(DeletionDate ? { deletionDate: trailDate(DeletionDate) } : {}),
      keyState: KeyState,
      pendingWindowInDays: PendingWindowInDays,
    }),
    async handle(call, input, key) {
      requireNotPendingDeletion(key);
      const days = input.PendingWindowInDays ?? daysMax;
      if (key.multiRegion?.replicas.length && isPrimary(key)) {
        // Its waiting period begins when the last of its replicas is gone.
        const state = 'PendingReplicaDeletion';
        await store.update(call.db, key, { state, deletion_window_days: days });
        return { KeyId: key.arn, KeyState: state, PendingWindowInDays: days };
      }
      const deletionAt = call.clock.now() + days * msPerDay;
      await store.update(call.db, key, { state: 'PendingDeletion', deletion_at: deletionAt });
      return {
        KeyId: key.arn,
        DeletionDate: new Date(deletionAt),
        KeyState: 'PendingDeletion' as const,
        PendingWindowInDays: days,
      };
    },
  }),
  keyOperation<CancelKeyDeletionRequest, CancelKeyDeletionResponse>(store, {
    name: 'CancelKeyDeletion',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText) }),
    parameters: ['KeyId'],
    response: ({ KeyId }) => ({ keyId: KeyId }),
    async handle(call, _input, key) {
      if (key.state !== 'PendingDeletion' && key.state !== 'PendingReplicaDeletion')
        throw new AwsError('KMSInvalidStateException', `${key.arn} is not pending deletion.`);
      // A key whose imported material is not there waits for it again.
      const state = hasMaterial(key) ? 'Disabled' : 'PendingImport';
      await store.update(call.db, key, { state, deletion_at: null, deletion_window_days: null });
      return { KeyId: key.arn };
    },
  }),
  deleteKey(store),
];

/** What the trail calls the end of a key: no API call, but the service's own doing. */
const deleteKey = (store: KeyStore) =>
  operation<{ KeyId: string }, object, Key>({
    name: 'DeleteKey',
    effect: 'writes',
    audience: 'service',
    access: () => [],
    async resolve(call, { KeyId }) {
      const key = await store.byId(call, call.region, KeyId);
      if (!key) throw keyNotFound(keyArn({ region: call.region, account: call.account, key_id: KeyId }));
      return key;
    },
    async handle(call, _input, key) {
      // A deletion that was cancelled since the key was found to be due does not happen.
      if (key.deletion_at === null || key.deletion_at > call.clock.now()) return {};
      await store.destroy(call.db, key);
      if (key.multiRegion && !isPrimary(key)) await startPrimaryDeletion(call, store, key);
      call.emit({
        source: 'aws.kms',
        detailType: 'KMS CMK Deletion',
        resources: [key.arn],
        detail: { 'key-id': key.key_id },
      });
      return {};
    },
    record: (_call, _input, _output, key) => ({
      resources: key ? [keyResource(key)] : [],
      serviceEventDetails: {},
    }),
  });

/** Begins the waiting period of a primary key that is to be deleted, if the replica that is gone was its last. */
async function startPrimaryDeletion(call: Call, store: KeyStore, replica: Key): Promise<void> {
  const primary = await store.byId(call, replica.multiRegion!.primary, replica.key_id);
  if (primary?.state !== 'PendingReplicaDeletion' || primary.multiRegion!.replicas.length > 0) return;
  const deletion_at = call.clock.now() + primary.deletion_window_days! * msPerDay;
  await store.update(call.db, primary, { state: 'PendingDeletion', deletion_at, deletion_window_days: null });
}

/** Destroys the keys whose waiting period is over, each by itself, in the name of its own account and region. */
export async function deleteDueKeys(call: Call): Promise<void> {
  const due = await call.transaction((inside) => {
    const kms: Kysely<KmsTables> = inside.db;
    return kms
      .selectFrom('kms_keys')
      .select(['key_id', 'region', 'account'])
      .where('deletion_at', '<=', call.clock.now())
      .orderBy('deletion_at')
      .limit(roundMax)
      .execute();
  });
  for (const { key_id, region, account } of due) {
    if (call.cancelled.aborted) return;
    await call.transaction((inside) => inside.asItself(account, region).invoke('kms', 'DeleteKey', { KeyId: key_id }));
  }
}
