import type { KeyUsageType } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { algorithmsOf } from './key-specs.ts';
import type { Key } from './key-store.ts';

/**
 * Which states an operation works in. Source: KMS developer guide, "Key states of AWS KMS keys".
 * @throws {AwsError} DisabledException or KMSInvalidStateException when the key can't be used now
 */
export function requireEnabled(key: Key): void {
  if (key.state === 'Enabled') return;
  if (key.state === 'Disabled') throw new AwsError('DisabledException', `${key.arn} is disabled.`);
  requireNotPendingDeletion(key);
  requireMaterial(key);
}

export function requireNotPendingDeletion(key: Key): void {
  if (key.state === 'PendingDeletion')
    throw new AwsError('KMSInvalidStateException', `${key.arn} is pending deletion.`);
  if (key.state === 'PendingReplicaDeletion')
    throw new AwsError('KMSInvalidStateException', `${key.arn} is pending replica deletion.`);
}

/** Whether a key has all the material that it ever had for good. Imported material may be missing. */
export const hasMaterial = (key: Key): boolean => key.material_id !== null && key.materials_missing === 0;

export function requireMaterial(key: Key): void {
  if (key.state === 'PendingImport') throw new AwsError('KMSInvalidStateException', `${key.arn} is pending import.`);
}

/** @throws {AwsError} UnsupportedOperationException unless the key's material comes from there */
export function requireOrigin(key: Key, origin: Key['origin']): void {
  if (key.origin !== origin)
    throw new AwsError(
      'UnsupportedOperationException',
      `${key.arn} origin is ${key.origin} which is not valid for this operation.`,
    );
}

/** Whether a key is not the replica of another. */
export const isPrimary = ({ region, multiRegion }: Key): boolean => !multiRegion || multiRegion.primary === region;

/** @throws {AwsError} UnsupportedOperationException for a replica of a multi-Region key */
export function requirePrimary(key: Key): void {
  if (!isPrimary(key)) throw notMultiRegionPrimary(key);
}

/** @throws {AwsError} UnsupportedOperationException for a key of one region, and for a replica */
export function requireMultiRegionPrimary(key: Key): void {
  if (!key.multiRegion || !isPrimary(key)) throw notMultiRegionPrimary(key);
}

const notMultiRegionPrimary = ({ arn }: Key) =>
  new AwsError('UnsupportedOperationException', `${arn} is not a multi-region primary key.`);

/** @throws {AwsError} InvalidKeyUsageException unless the key is for `usage` */
function requireUsage(key: Key, usage: KeyUsageType, operation: string): void {
  if (key.key_usage !== usage)
    throw new AwsError(
      'InvalidKeyUsageException',
      `${key.arn} key usage is ${key.key_usage} which is not valid for ${operation}.`,
    );
}

/** @throws {AwsError} InvalidKeyUsageException unless the key is for `usage`, and its spec has the algorithm */
export function requireAlgorithm(key: Key, usage: KeyUsageType, operation: string, algorithm: string): void {
  requireUsage(key, usage, operation);
  const [algorithms] = Object.values<readonly string[]>(algorithmsOf(key.key_spec, usage));
  if (!algorithms!.includes(algorithm))
    throw new AwsError(
      'InvalidKeyUsageException',
      `Algorithm ${algorithm} is incompatible with key spec ${key.key_spec}.`,
    );
}

/** @throws {AwsError} InvalidKeyUsageException unless the key is a symmetric encryption key */
export function requireSymmetric(key: Key, operation: string): void {
  requireUsage(key, 'ENCRYPT_DECRYPT', operation);
  if (key.key_spec !== 'SYMMETRIC_DEFAULT')
    throw new AwsError(
      'InvalidKeyUsageException',
      `${key.arn} key spec is ${key.key_spec} which is not valid for ${operation}.`,
    );
}
