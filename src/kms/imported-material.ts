/** What keys with imported material have of it, and what follows for the key. */
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Key, type KeyStore, keyArn } from './key-store.ts';
import type { KeyName, MaterialInfo } from './material-store.ts';

/** Whether a material is here and has not expired. */
export function isUsable({ clock }: Pick<Call, 'clock'>, { isPresent, expires_at }: MaterialInfo): boolean {
  return isPresent && (expires_at === null || expires_at > clock.now());
}

/** Whether a material belongs to its key for good: one that waits for rotation can still be exchanged. */
export const isPermanent = ({ state }: MaterialInfo): boolean => state !== 'PENDING_ROTATION';

/**
 * Brings the key up to date with its materials: a key works only while it has all that anything may have been encrypted
 * with. Source: API_ImportKeyMaterial, API_DeleteImportedKeyMaterial.
 */
export async function settleMaterials(call: Call, store: KeyStore, { key_id, region }: KeyName): Promise<void> {
  const key = (await store.byId(call, region, key_id))!;
  const permanent = (await store.materials.list(call.db, key)).filter(isPermanent);
  const usable = permanent.filter((material) => isUsable(call, material));
  const expiries = usable.flatMap(({ expires_at }) => expires_at ?? []);
  const missing = permanent.length - usable.length;
  await store.update(call.db, key, {
    state: stateWith(key, missing),
    material_id: permanent.find(({ state }) => state === 'CURRENT')?.material_id ?? null,
    materials_missing: missing,
    material_expires_at: expiries.length > 0 ? Math.min(...expiries) : null,
  });
}

function stateWith({ state }: Key, missing: number): Key['state'] {
  if (state === 'PendingImport') return missing === 0 ? 'Enabled' : state;
  return missing > 0 && (state === 'Enabled' || state === 'Disabled') ? 'PendingImport' : state;
}

/**
 * The imported material that the next rotation makes current, which all related keys must have.
 * @throws {AwsError} KMSInvalidStateException
 */
export async function requirePendingRotation(call: Call, store: KeyStore, key: Key): Promise<MaterialInfo> {
  let found: MaterialInfo | undefined;
  for (const region of key.multiRegion ? [...key.multiRegion.replicas, key.region] : [key.region]) {
    const materials = await store.materials.list(call.db, { key_id: key.key_id, region });
    found = materials.find((material) => !isPermanent(material) && isUsable(call, material));
    if (!found)
      throw new AwsError(
        'KMSInvalidStateException',
        `No available key material pending rotation for the key: ${keyArn({ ...key, region })}.`,
      );
  }
  return found!;
}
