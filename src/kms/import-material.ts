/** Key material that comes from outside, and goes. Source: API_ImportKeyMaterial, API_DeleteImportedKeyMaterial. */
import {
  type DeleteImportedKeyMaterialRequest,
  type DeleteImportedKeyMaterialResponse,
  ExpirationModelType,
  type ImportKeyMaterialRequest,
  type ImportKeyMaterialResponse,
  ImportType,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { blob, oneOf, required, structure, text, timestamp } from '../aws/validate.ts';
import { keyIdText } from './constraints.ts';
import { withWrappingKey } from './import-parameters.ts';
import { isPermanent, settleMaterials } from './imported-material.ts';
import { keyMaterialId } from './key-ids.ts';
import { keyOperation } from './key-operation.ts';
import type { Material } from './key-specs.ts';
import { isPrimary, requireNotPendingDeletion, requireOrigin, requirePrimary } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { type MaterialInfo, plain } from './material-store.ts';
import { parameters, trailDate } from './trail.ts';
import { readMaterial, unwrap } from './unwrapping.ts';

const daysMax = 365;
const msPerDay = 86_400_000;

const materialIdText = text({ min: 64, max: 64, pattern: /^[a-f0-9]+$/ });

export const importOperations = (store: KeyStore) => [importKeyMaterial(store), deleteImportedKeyMaterial(store)];

const importKeyMaterial = (store: KeyStore) =>
  keyOperation<ImportKeyMaterialRequest, ImportKeyMaterialResponse>(store, {
    name: 'ImportKeyMaterial',
    effect: 'writes',
    input: structure({
      KeyId: required(keyIdText),
      ImportToken: required(blob({ min: 1, max: 6144 })),
      EncryptedKeyMaterial: required(blob({ min: 1, max: 6144 })),
      ValidTo: timestamp(),
      ExpirationModel: oneOf(Object.values(ExpirationModelType)),
      ImportType: oneOf(Object.values(ImportType)),
      KeyMaterialDescription: text({ min: 0, max: 256, pattern: /^[a-zA-Z0-9:/_\s.-]*$/ }),
      KeyMaterialId: materialIdText,
    }),
    check(input) {
      checkExpiration(input);
      if (input.KeyMaterialId && input.ImportType === 'NEW_KEY_MATERIAL')
        throw invalid('KeyMaterialId is not valid with an ImportType of NEW_KEY_MATERIAL.');
    },
    conditions: (_call, input) => ({
      'kms:ExpirationModel': input.ExpirationModel ?? 'KEY_MATERIAL_EXPIRES',
      ...(input.ValidTo ? { 'kms:ValidTo': input.ValidTo.toISOString().replace(/\.\d{3}Z$/, 'Z') } : {}),
    }),
    parameters: (input) => ({
      expirationModel: 'KEY_MATERIAL_EXPIRES',
      ...parameters(input, ['KeyId', 'ExpirationModel', 'ImportType', 'KeyMaterialDescription', 'KeyMaterialId']),
      ...(input.ValidTo instanceof Date && !Number.isNaN(input.ValidTo.getTime())
        ? { validTo: trailDate(input.ValidTo) }
        : {}),
    }),
    response: ({ KeyId, KeyMaterialId }) => ({ keyId: KeyId, keyMaterialId: KeyMaterialId }),
    async handle(call, input, key) {
      requireOrigin(key, 'EXTERNAL');
      requireNotPendingDeletion(key);
      checkMembers(key, input);
      const expires_at = expiryOf(call, input);
      const materialId = await withWrappingKey(call, store, key, input.ImportToken!, async (algorithm, privateKey) => {
        const material = openMaterial(key, unwrap(algorithm, privateKey, input.EncryptedKeyMaterial!));
        try {
          return await place(call, store, key, input, material, expires_at);
        } finally {
          material.secret.fill(0);
        }
      });
      await settleMaterials(call, store, key);
      return { KeyId: key.arn, ...shownId(key, materialId) };
    },
  });

const deleteImportedKeyMaterial = (store: KeyStore) =>
  keyOperation<DeleteImportedKeyMaterialRequest, DeleteImportedKeyMaterialResponse>(store, {
    name: 'DeleteImportedKeyMaterial',
    effect: 'writes',
    input: structure({ KeyId: required(keyIdText), KeyMaterialId: materialIdText }),
    parameters: ['KeyId', 'KeyMaterialId'],
    response: ({ KeyId, KeyMaterialId }) => ({
      keyId: KeyId,
      ...(KeyMaterialId ? { keyMaterialId: KeyMaterialId } : {}),
    }),
    async handle(call, input, key) {
      requireOrigin(key, 'EXTERNAL');
      checkMembers(key, input);
      const materials = await store.materials.list(call.db, key);
      const target = materials.find(({ material_id, state }) =>
        input.KeyMaterialId ? keyMaterialId(key.key_id, material_id) === input.KeyMaterialId : state === 'CURRENT',
      );
      if (!target && input.KeyMaterialId)
        throw new AwsError('NotFoundException', `${key.arn} has no key material ${input.KeyMaterialId}.`);
      if (!target) return { KeyId: key.arn };
      await dropMaterial(call, store, key, target);
      return { KeyId: key.arn, ...shownId(key, target.material_id) };
    },
  });

/**
 * Destroys imported material. What is the key's for good can only come back; what waits for rotation is forgotten, and of a
 * primary key with all its replicas.
 */
export async function dropMaterial(call: Call, store: KeyStore, key: Key, material: MaterialInfo): Promise<void> {
  if (isPermanent(material) || !isPrimary(key)) await store.materials.empty(call.db, key, material.material_id);
  else
    for (const region of [key.region, ...(key.multiRegion?.replicas ?? [])])
      await store.materials.remove(call.db, { key_id: key.key_id, region }, material.material_id);
  await settleMaterials(call, store, key);
}

/** Puts material where it belongs. @returns its id. @throws {AwsError} when it is not what the request says it is */
async function place(
  call: Call,
  store: KeyStore,
  key: Key,
  input: ImportKeyMaterialRequest,
  material: Material,
  expires_at: number | null,
): Promise<string> {
  const materials = await store.materials.list(call.db, key);
  const materialId = store.materials.importedId(key.key_id, material);
  const known = materials.find(({ material_id }) => material_id === materialId);
  const isNew = (input.ImportType ?? (materials.length === 0 ? 'NEW_KEY_MATERIAL' : '')) === 'NEW_KEY_MATERIAL';
  const description = input.KeyMaterialDescription ?? undefined;
  if (!isNew) {
    if (!known)
      throw incorrect(
        `The key material is not one that has been imported into ${key.arn} before; it can have no other.`,
      );
    if (input.KeyMaterialId && input.KeyMaterialId !== keyMaterialId(key.key_id, materialId))
      throw incorrect(`The key material is not ${input.KeyMaterialId}.`);
    await store.materials.fill(call.db, key, materialId, material, {
      expires_at,
      ...(description === undefined ? {} : { description }),
    });
    return materialId;
  }
  requirePrimary(key);
  if (known) throw incorrect(`The key material is not new: it has been imported into ${key.arn} before.`);
  const pending = materials.find((material) => !isPermanent(material));
  if (pending) {
    const [newId, pendingId] = [materialId, pending.material_id].map((id) => keyMaterialId(key.key_id, id));
    throw new AwsError(
      'KMSInvalidStateException',
      `New key material (id: ${newId}) cannot be imported into KMS key ${key.arn}, ` +
        `because another key material (id: ${pendingId}) is pending rotation.`,
    );
  }
  const row = {
    ...plain,
    material_id: materialId,
    ordinal: (materials.at(-1)?.ordinal ?? 0) + 1,
    state: materials.length === 0 ? ('CURRENT' as const) : ('PENDING_ROTATION' as const),
    created_at: call.clock.now(),
  };
  await store.materials.add(call.db, key, { ...row, material, expires_at, description: description ?? null });
  // Its replicas are to import the same.
  for (const region of key.multiRegion?.replicas ?? [])
    await store.materials.add(call.db, { key_id: key.key_id, region }, row);
  return materialId;
}

function openMaterial(key: Key, plaintext: Buffer | undefined): Material {
  if (!plaintext)
    throw new AwsError(
      'InvalidCiphertextException',
      'The encrypted key material could not be decrypted with the wrapping key and algorithm of the import token.',
    );
  try {
    const material = readMaterial(key.key_spec, plaintext);
    if (!material)
      throw incorrect(
        `The key material is not valid for key spec ${key.key_spec}: of another length, kind or curve, or damaged.`,
      );
    return material;
  } finally {
    plaintext.fill(0);
  }
}

function checkExpiration({ ExpirationModel, ValidTo }: ImportKeyMaterialRequest): void {
  const expires = (ExpirationModel ?? 'KEY_MATERIAL_EXPIRES') === 'KEY_MATERIAL_EXPIRES';
  if (expires && !ValidTo) throw invalid('A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES');
  if (!expires && ValidTo)
    throw invalid('A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE');
}

function expiryOf(call: Call, { ValidTo }: ImportKeyMaterialRequest): number | null {
  if (!ValidTo) return null;
  const now = call.clock.now();
  const expiresAt = Math.floor(ValidTo.getTime() / 1000) * 1000;
  if (expiresAt <= now) throw invalid('The validTo date must be in the future.');
  if (expiresAt > now + daysMax * msPerDay)
    throw invalid(`The validTo date must not be more than ${daysMax} days from now.`);
  return expiresAt;
}

/** Only symmetric encryption keys can have more than one material. */
function checkMembers(key: Key, input: Partial<ImportKeyMaterialRequest>): void {
  if (key.key_spec === 'SYMMETRIC_DEFAULT') return;
  for (const member of ['ImportType', 'KeyMaterialDescription', 'KeyMaterialId'] as const)
    if (input[member] !== undefined && input[member] !== null)
      throw invalid(
        `${member} is valid only with symmetric encryption keys, and ${key.arn} key spec is ${key.key_spec}.`,
      );
}

const shownId = (key: Key, materialId: string) =>
  key.key_spec === 'SYMMETRIC_DEFAULT' ? { KeyMaterialId: keyMaterialId(key.key_id, materialId) } : {};

const invalid = (message: string) => new AwsError('ValidationException', message);
const incorrect = (message: string) => new AwsError('IncorrectKeyMaterialException', message);
