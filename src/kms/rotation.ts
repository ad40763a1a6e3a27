/** When keys rotate, and what they have rotated through. Source: KMS developer guide, "Rotate AWS KMS keys". */
import {
  type DisableKeyRotationRequest,
  type EnableKeyRotationRequest,
  type GetKeyRotationStatusRequest,
  type GetKeyRotationStatusResponse,
  IncludeKeyMaterial,
  type ListKeyRotationsRequest,
  type ListKeyRotationsResponse,
  type RotateKeyOnDemandRequest,
  type RotateKeyOnDemandResponse,
  type RotationsListEntry,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { integer, oneOf, required, structure } from '../aws/validate.ts';
import { keyIdText, markerText, pageLimit } from './constraints.ts';
import { isUsable, requirePendingRotation } from './imported-material.ts';
import { keyMaterialId } from './key-ids.ts';
import { keyOperation } from './key-operation.ts';
import { requireEnabled, requireOrigin, requirePrimary } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import type { MaterialInfo } from './material-store.ts';
import { rotationDaysDefault } from './rotate-key.ts';

const daysMin = 90;
const daysMax = 2560;
const msPerDay = 86_400_000;
/** Rotations that one key can be asked for. Source: API_RotateKeyOnDemand. */
const onDemandMax = 25;
/** How close an automatic rotation may be. Source: API_RotateKeyOnDemand, ConflictException. */
const conflictMs = 20 * 60_000;

const onlyKeyId = structure({ KeyId: required(keyIdText) });

export const rotationOperations = (store: KeyStore) => [
  enableKeyRotation(store),
  disableKeyRotation(store),
  getKeyRotationStatus(store),
  rotateKeyOnDemand(store),
  listKeyRotations(store),
];

const enableKeyRotation = (store: KeyStore) =>
  keyOperation<EnableKeyRotationRequest, object>(store, {
    name: 'EnableKeyRotation',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), RotationPeriodInDays: integer({ min: daysMin, max: daysMax }) }),
    conditions: (_call, input) => ({
      'kms:RotationPeriodInDays': String(input.RotationPeriodInDays ?? rotationDaysDefault),
    }),
    parameters: ['KeyId', 'RotationPeriodInDays'],
    response: (_output, key) => ({ keyId: key.arn }),
    async handle(call, input, key) {
      requireAutomatic(key, 'EnableKeyRotation');
      requireEnabled(key);
      requirePrimary(key);
      const days = input.RotationPeriodInDays ?? rotationDaysDefault;
      // Saying the same again does not put the next rotation off.
      if (key.rotation_period_days === days) return {};
      const next = call.clock.now() + days * msPerDay;
      await updateAll(call, store, key, { rotation_period_days: days, next_rotation_at: next });
      return {};
    },
  });

const disableKeyRotation = (store: KeyStore) =>
  keyOperation<DisableKeyRotationRequest, object>(store, {
    name: 'DisableKeyRotation',
    effect: 'writes',
    changesKey: true,
    input: onlyKeyId,
    parameters: ['KeyId'],
    response: (_output, key) => ({ keyId: key.arn }),
    async handle(call, _input, key) {
      requireAutomatic(key, 'DisableKeyRotation');
      requireEnabled(key);
      requirePrimary(key);
      await updateAll(call, store, key, { rotation_period_days: null, next_rotation_at: null });
      return {};
    },
  });

const getKeyRotationStatus = (store: KeyStore) =>
  keyOperation<GetKeyRotationStatusRequest, GetKeyRotationStatusResponse>(store, {
    name: 'GetKeyRotationStatus',
    effect: 'reads',
    otherAccounts: true,
    input: onlyKeyId,
    parameters: ['KeyId'],
    handle(_call, _input, key) {
      // A symmetric key with imported material rotates too, on demand, and its status is asked for (API_RotateKeyOnDemand).
      if (key.key_spec !== 'SYMMETRIC_DEFAULT') requireOrigin(key, 'AWS_KMS');
      const isDeleting = key.state === 'PendingDeletion' || key.state === 'PendingReplicaDeletion';
      if (key.rotation_period_days === null || isDeleting) return { KeyId: key.arn, KeyRotationEnabled: false };
      return {
        KeyId: key.arn,
        KeyRotationEnabled: true,
        RotationPeriodInDays: key.rotation_period_days,
        NextRotationDate: new Date(key.next_rotation_at!),
      };
    },
  });

const rotateKeyOnDemand = (store: KeyStore) =>
  keyOperation<RotateKeyOnDemandRequest, RotateKeyOnDemandResponse>(store, {
    name: 'RotateKeyOnDemand',
    effect: 'writes',
    changesKey: true,
    input: onlyKeyId,
    parameters: ['KeyId'],
    response: ({ KeyId }) => ({ keyId: KeyId }),
    async handle(call, _input, key) {
      requireRotating(key, 'RotateKeyOnDemand');
      requireEnabled(key);
      requirePrimary(key);
      const now = call.clock.now();
      if (key.next_rotation_at !== null && key.next_rotation_at - now <= conflictMs)
        throw new AwsError('ConflictException', `${key.arn} rotates by itself within the next 20 minutes.`);
      const materials = await store.materials.list(call.db, key);
      if (materials.filter((material) => material.rotation_type === 'ON_DEMAND').length >= onDemandMax)
        throw new AwsError(
          'LimitExceededException',
          'The on-demand rotations limit has been reached for the given keyId. ' +
            `No more on-demand rotations can be performed for this key: ${key.arn}`,
        );
      if (key.origin === 'EXTERNAL') await requirePendingRotation(call, store, key);
      await call
        .asItself(key.account, key.region)
        .invoke('kms', 'RotateKey', { KeyId: key.key_id, RotationType: 'ON_DEMAND' });
      return { KeyId: key.arn };
    },
  });

const listKeyRotations = (store: KeyStore) =>
  keyOperation<ListKeyRotationsRequest, ListKeyRotationsResponse>(store, {
    name: 'ListKeyRotations',
    effect: 'reads',
    input: structure({
      KeyId: required(keyIdText),
      IncludeKeyMaterial: oneOf(Object.values(IncludeKeyMaterial)),
      Limit: pageLimit,
      Marker: markerText,
    }),
    parameters: ['KeyId', 'IncludeKeyMaterial', 'Limit', 'Marker'],
    async handle(call, input, key) {
      requireRotating(key, 'ListKeyRotations');
      const isAll = input.IncludeKeyMaterial === 'ALL_KEY_MATERIAL';
      const list = `rotations ${key.key_id} ${isAll}`;
      const page = pageOf(list, input, { default: 100, max: 1000 });
      const materials = (await store.materials.list(call.db, key)).filter(
        (material) => (isAll || material.rotated_at !== null) && material.ordinal > Number(page.after || 0),
      );
      const pending = isAll ? await pendingState(call, store, key, materials) : undefined;
      const { items, end } = pageResult(list, page, materials, (material) => String(material.ordinal));
      return { Rotations: items.map((material) => entry(call, key, material, pending)), ...end };
    },
  });

function entry(call: Call, key: Key, material: MaterialInfo, pending: RotationsListEntry['KeyMaterialState']) {
  const state = material.state === 'PENDING_ROTATION' ? pending : material.state;
  const rotation: RotationsListEntry = {
    KeyId: key.key_id,
    KeyMaterialId: keyMaterialId(key.key_id, material.material_id),
    ...(key.origin === 'EXTERNAL' ? importMembers(call, material) : {}),
    KeyMaterialState: state,
    ...(material.rotated_at !== null
      ? { RotationDate: new Date(material.rotated_at), RotationType: material.rotation_type! }
      : {}),
  };
  return rotation;
}

function importMembers(call: Call, material: MaterialInfo): RotationsListEntry {
  const described = material.description !== null ? { KeyMaterialDescription: material.description } : {};
  if (!isUsable(call, material)) return { ...described, ImportState: 'PENDING_IMPORT' };
  return {
    ...described,
    ImportState: 'IMPORTED',
    ...(material.expires_at === null
      ? { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' }
      : { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo: new Date(material.expires_at) }),
  };
}

/** Imported material can become current once all related keys have it. */
async function pendingState(call: Call, store: KeyStore, key: Key, materials: readonly MaterialInfo[]) {
  const pending = materials.find((material) => material.state === 'PENDING_ROTATION');
  if (!pending || !key.multiRegion) return 'PENDING_ROTATION';
  for (const region of [key.multiRegion.primary, ...key.multiRegion.replicas]) {
    const there = await store.materials.list(call.db, { key_id: key.key_id, region });
    const same = there.find(({ material_id }) => material_id === pending.material_id);
    if (!same || !isUsable(call, same)) return 'PENDING_MULTI_REGION_IMPORT_AND_ROTATION';
  }
  return 'PENDING_ROTATION';
}

/** Rotation is set on the primary key, for all related ones. */
async function updateAll(
  call: Call,
  store: KeyStore,
  key: Key,
  columns: { rotation_period_days: number | null; next_rotation_at: number | null },
): Promise<void> {
  if (key.multiRegion) await store.updateRelated(call.db, key.key_id, columns);
  else await store.update(call.db, key, columns);
}

function requireAutomatic(key: Key, operation: string): void {
  requireOrigin(key, 'AWS_KMS');
  requireRotating(key, operation);
}

function requireRotating(key: Key, operation: string): void {
  if (key.key_spec !== 'SYMMETRIC_DEFAULT')
    throw new AwsError(
      'UnsupportedOperationException',
      `${key.arn} key spec is ${key.key_spec} which is not valid for ${operation}.`,
    );
}
