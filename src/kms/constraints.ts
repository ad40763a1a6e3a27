/** Constraints that many requests share. Source: KMS API reference, whose patterns messages repeat as they stand there. */
import { EncryptionAlgorithmSpec } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { integer, list, oneOf, text } from '../aws/validate.ts';

export const keyIdText = text({ min: 1, max: 2048 });
export const aliasNameText = text({ min: 1, max: 256, pattern: /^[a-zA-Z0-9:/_-]+$/ });
export const grantIdText = text({ min: 1, max: 128 });
export const grantTokenList = list(text({ min: 1, max: 8192 }), { min: 0, max: 10 });
export const principalText = text({ min: 1, max: 256, pattern: /^[\w+=,.@:/-]+$/ });
export const servicePrincipalText = text({
  min: 1,
  max: 128,
  pattern: /^([A-Za-z0-9-]+)\.([A-Za-z0-9-]+)(\.[A-Za-z0-9-]+)+$/,
});
export const pageLimit = integer({ min: 1, max: 1000 });
export const markerText = text({ min: 1, max: 1024, pattern: /[\u0020-\u00FF]*/ });
export const policyNameText = text({ min: 1, max: 128, pattern: /[\w]+/ });
export const policyText = text({ min: 1, max: 131_072, pattern: /[\u0009\u000A\u000D\u0020-\u00FF]+/ });
export const descriptionText = text({ min: 0, max: 8192 });
export const encryptionAlgorithm = oneOf(Object.values(EncryptionAlgorithmSpec));

/** All keys and values of an encryption context together, in UTF-16 units. */
const contextLengthMax = 8192;

/** @throws {AwsError} ValidationException for a context that is too long, or that is not Unicode text */
export function checkContext(member: string, context: Readonly<Record<string, string>> | undefined): void {
  if (!context) return;
  let length = 0;
  for (const key of Object.keys(context)) {
    const value = context[key]!;
    length += key.length + value.length;
    // Unpaired surrogates all encode to the same bytes: two different contexts would be one.
    if (!key.isWellFormed() || !value.isWellFormed())
      throw new AwsError('ValidationException', `${member} has a key or value that is not valid Unicode.`);
  }
  if (length > contextLengthMax)
    throw new AwsError(
      'ValidationException',
      `1 validation error detected: Value at '${member.charAt(0).toLowerCase()}${member.slice(1)}' failed to satisfy ` +
        `constraint: Member must have length less than or equal to ${contextLengthMax}`,
    );
}
