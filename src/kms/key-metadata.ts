import type { KeyMetadata, KeySpec, KeyUsageType } from '@aws-sdk/client-kms';
import { keyArn } from './key-ids.ts';
import { algorithmsOf } from './key-specs.ts';
import { hasMaterial, isPrimary } from './key-states.ts';
import type { Key } from './key-store.ts';
import { lowerCamel, trailDate } from './trail.ts';

/** A key as CreateKey and DescribeKey show it. Source: API_KeyMetadata. */
export function keyMetadata(key: Key): KeyMetadata & { KeyId: string } {
  const isSymmetric = key.key_spec === 'SYMMETRIC_DEFAULT';
  return {
    AWSAccountId: key.account,
    KeyId: key.key_id,
    Arn: key.arn,
    CreationDate: new Date(key.created_at),
    Enabled: key.state === 'Enabled',
    Description: key.description,
    KeyUsage: key.key_usage as KeyUsageType,
    KeyState: key.state,
    ...(key.deletion_at !== null ? { DeletionDate: new Date(key.deletion_at) } : {}),
    Origin: key.origin,
    KeyManager: key.key_manager,
    CustomerMasterKeySpec: key.key_spec as KeyMetadata['CustomerMasterKeySpec'],
    KeySpec: key.key_spec as KeySpec,
    ...algorithmsOf(key.key_spec, key.key_usage),
    ...expiration(key),
    ...multiRegion(key),
    ...(isSymmetric && key.keyMaterialId ? { CurrentKeyMaterialId: key.keyMaterialId } : {}),
  };
}

/** Of imported material, while it is there. */
function expiration(key: Key): Partial<KeyMetadata> {
  if (key.origin !== 'EXTERNAL' || !hasMaterial(key)) return {};
  if (key.material_expires_at === null) return { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' };
  return { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo: new Date(key.material_expires_at) };
}

function multiRegion(key: Key): Partial<KeyMetadata> {
  if (!key.multiRegion) return { MultiRegion: false };
  const { primary, replicas } = key.multiRegion;
  const related = (region: string) => ({ Arn: keyArn({ ...key, region }), Region: region });
  return {
    MultiRegion: true,
    MultiRegionConfiguration: {
      MultiRegionKeyType: isPrimary(key) ? 'PRIMARY' : 'REPLICA',
      PrimaryKey: related(primary),
      ReplicaKeys: replicas.map(related),
    },
    ...(key.deletion_window_days !== null ? { PendingDeletionWindowInDays: key.deletion_window_days } : {}),
  };
}

/** The same as CloudTrail shows it. */
export function metadataRecord(metadata: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(metadata).map(([name, value]) => [
      name === 'AWSAccountId' ? name : lowerCamel(name),
      recordedValue(value),
    ]),
  );
}

function recordedValue(value: unknown): unknown {
  if (value instanceof Date) return trailDate(value);
  if (Array.isArray(value)) return value.map(recordedValue);
  return typeof value === 'object' && value !== null ? metadataRecord(value) : value;
}
