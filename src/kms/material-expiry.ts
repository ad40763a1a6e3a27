/** Imported material that was to last until a time, when that has come. */
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { keyNotFound } from './identifiers.ts';
import { dropMaterial } from './import-material.ts';
import { keyArn, keyMaterialId } from './key-ids.ts';
import type { Key, KeyStore } from './key-store.ts';
import type { KmsTables } from './records.ts';
import { keyResource } from './trail.ts';

/** How many materials one round of housekeeping destroys at most. */
const roundMax = 1000;

interface ExpiryInput {
  readonly KeyId: string;
  readonly MaterialId: string;
}

/** The service's own doing. That the key can't be used any more does not wait for it. */
export const deleteExpiredKeyMaterial = (store: KeyStore) =>
  operation<ExpiryInput, object, Key>({
    name: 'DeleteExpiredKeyMaterial',
    effect: 'writes',
    audience: 'service',
    access: () => [],
    async resolve(call, { KeyId }) {
      const key = await store.byId(call, call.region, KeyId);
      if (!key) throw keyNotFound(keyArn({ region: call.region, account: call.account, key_id: KeyId }));
      return key;
    },
    async handle(call, { MaterialId }, key) {
      const materials = await store.materials.list(call.db, key);
      const material = materials.find(({ material_id }) => material_id === MaterialId);
      // It may have been imported again since it was found, for longer.
      if (!material?.expires_at || material.expires_at > call.clock.now()) return {};
      await dropMaterial(call, store, key, material);
      call.emit({
        source: 'aws.kms',
        detailType: 'KMS Imported Key Material Expiration',
        resources: [key.arn],
        detail: { 'key-id': key.key_id },
      });
      return {};
    },
    record: (_call, { MaterialId }, _output, key) => ({
      resources: key ? [keyResource(key)] : [],
      serviceEventDetails: key
        ? {
            keyId: key.key_id,
            ...(key.key_spec === 'SYMMETRIC_DEFAULT' ? { keyMaterialId: keyMaterialId(key.key_id, MaterialId) } : {}),
          }
        : {},
    }),
  });

/** Destroys expired material, each by itself, in the name of its key's account and region. */
export async function deleteExpiredMaterial(call: Call): Promise<void> {
  const due = await call.transaction((inside) => {
    const kms: Kysely<KmsTables> = inside.db;
    return kms
      .selectFrom('kms_material as m')
      .innerJoin('kms_keys as k', (join) => join.onRef('k.key_id', '=', 'm.key_id').onRef('k.region', '=', 'm.region'))
      .select(['m.material_id', 'm.key_id', 'm.region', 'k.account'])
      .where('m.expires_at', '<=', call.clock.now())
      .orderBy('m.expires_at')
      .limit(roundMax)
      .execute();
  });
  for (const { key_id, material_id, region, account } of due) {
    if (call.cancelled.aborted) return;
    const input: ExpiryInput = { KeyId: key_id, MaterialId: material_id };
    await call.transaction((inside) =>
      inside.asItself(account, region).invoke('kms', 'DeleteExpiredKeyMaterial', input),
    );
  }
}
