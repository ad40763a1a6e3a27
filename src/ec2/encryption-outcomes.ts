/**
 * Whether a new volume or snapshot copy is encrypted, and under which key: one table for both.
 * Source: EBS user guide, "How Amazon EBS encryption works", encryption outcomes.
 */
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { managedKeyAlias } from './keys.ts';
import { settingsOf } from './settings.ts';

/** What the data comes from; absent for a new, empty volume. */
export interface EncryptionSource {
  readonly account: string;
  readonly region: string;
  readonly key_arn: string | null;
}

/**
 * The key as it was named, or undefined for what stays unencrypted. Asked for or on by default gives the key named or the
 * default key; what comes from something encrypted is always encrypted, and stays under its key when that is the caller's
 * own and no other is named.
 * @throws {AwsError} InvalidParameterDependency for a key without encryption
 */
export async function outcomeKey(
  call: Call,
  request: { readonly Encrypted?: boolean | undefined; readonly KmsKeyId?: string | undefined },
  source?: EncryptionSource,
): Promise<string | undefined> {
  const settings = await settingsOf(call);
  const isAsked = request.Encrypted === true || settings.encryption_by_default === 1;
  if (request.KmsKeyId && !isAsked)
    throw new AwsError(
      'InvalidParameterDependency',
      'The parameter KmsKeyId requires the parameter Encrypted to be set.',
    );
  if (!isAsked && !source?.key_arn) return undefined;
  if (request.KmsKeyId) return request.KmsKeyId;
  const staysUnderIts = source?.key_arn && source.account === call.account && source.region === call.region;
  return (staysUnderIts && source.key_arn) || settings.default_key_arn || managedKeyAlias;
}
