/** The rules for tags on EC2's resources. Source: EC2 user guide, "Tag restrictions". */
import { AwsError } from './errors.ts';

export const tagsPerResourceMax = 50;
const keyLengthMax = 128;
const valueLengthMax = 256;
/** What XML can't carry: a tag with it could be set, but never be shown as it is. */
const unprintable = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/;

export interface TagInput {
  readonly Key?: string | undefined;
  readonly Value?: string | undefined;
}

/**
 * The tags as key and value pairs; a missing value is the empty string.
 * @throws {AwsError} InvalidParameterValue, TagLimitExceeded
 */
export function validateTags(tags: readonly TagInput[]): Map<string, string> {
  const valid = new Map<string, string>();
  for (const { Key: key, Value: value = '' } of tags) {
    if (!key) throw new AwsError('InvalidParameterValue', 'Tag key cannot be null or empty');
    if (key.length > keyLengthMax)
      throw new AwsError('InvalidParameterValue', `Tag key exceeds the maximum length of ${keyLengthMax} characters`);
    if (value.length > valueLengthMax)
      throw new AwsError(
        'InvalidParameterValue',
        `Tag value exceeds the maximum length of ${valueLengthMax} characters`,
      );
    if (unprintable.test(key) || unprintable.test(value))
      throw new AwsError('InvalidParameterValue', 'Tags cannot contain control characters');
    if (/^aws:/i.test(key))
      throw new AwsError('InvalidParameterValue', "Tag keys starting with 'aws:' are reserved for internal use");
    if (valid.has(key)) throw new AwsError('InvalidParameterValue', `Duplicate tag key '${key}' specified.`);
    valid.set(key, value);
  }
  if (valid.size > tagsPerResourceMax) throw tagLimitExceeded();
  return valid;
}

export function tagLimitExceeded(): AwsError {
  return new AwsError(
    'TagLimitExceeded',
    `The maximum number of Tags for a resource has been reached: ${tagsPerResourceMax}.`,
  );
}
