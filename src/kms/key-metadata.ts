import type { KeyMetadata, KeySpec, KeyUsageType } from '@aws-sdk/client-kms';
import { algorithmsOf } from './key-specs.ts';
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
    MultiRegion: false,
    ...(isSymmetric && key.keyMaterialId ? { CurrentKeyMaterialId: key.keyMaterialId } : {}),
  };
}

/** The same as CloudTrail shows it. */
export function metadataRecord(metadata: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(metadata).map(([name, value]) => [
      name === 'AWSAccountId' ? name : lowerCamel(name),
      value instanceof Date ? trailDate(value) : value,
    ]),
  );
}
