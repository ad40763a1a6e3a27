import { AwsError } from '../aws/errors.ts';
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
}

export function requireMaterial(key: Key): void {
  if (key.state === 'PendingImport') throw new AwsError('KMSInvalidStateException', `${key.arn} is pending import.`);
}

/** @throws {AwsError} InvalidKeyUsageException unless the key is a symmetric encryption key */
export function requireSymmetric(key: Key, operation: string): void {
  if (key.key_usage !== 'ENCRYPT_DECRYPT')
    throw new AwsError(
      'InvalidKeyUsageException',
      `${key.arn} key usage is ${key.key_usage} which is not valid for ${operation}.`,
    );
  if (key.key_spec !== 'SYMMETRIC_DEFAULT')
    throw new AwsError(
      'InvalidKeyUsageException',
      `${key.arn} key spec is ${key.key_spec} which is not valid for ${operation}.`,
    );
}
