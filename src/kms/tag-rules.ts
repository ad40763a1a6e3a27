/** The rules of tags. Source: API_TagResource, API_Tag; the messages are AWS's own. */
import type { Tag } from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { list, required, structure, text } from '../aws/validate.ts';
import type { Conditions } from './access.ts';
import type { KmsTables } from './records.ts';

export const tagKeyText = text({ min: 1, max: 128 });
export const tagList = list(
  structure({ TagKey: required(tagKeyText), TagValue: required(text({ min: 0, max: 256 })) }),
);

/** Tags of one key. */
export const tagsMax = 50;

/**
 * What tag keys and values are made of: letters, digits, spaces and these signs. Source: AWS General Reference, "Tagging AWS
 * resources". Tags that were there before this rule can still be removed.
 */
const tagCharacters = /^[\p{L}\p{N}\p{Z}_.:/=+@-]*$/u;

/** @throws {AwsError} TagException */
export function checkTags(tags: readonly Tag[] | undefined): void {
  if (!tags) return;
  const keys = tags.map((tag) => tag.TagKey!);
  checkTagKeys(keys);
  if (!tags.every(({ TagKey, TagValue }) => tagCharacters.test(TagKey!) && tagCharacters.test(TagValue!)))
    throw new AwsError('TagException', 'Invalid tag');
  if (new Set(keys).size < keys.length) throw new AwsError('TagException', 'Duplicate tag keys');
  if (tags.length > tagsMax) throw new AwsError('TagException', 'Too many tags');
}

/** @throws {AwsError} TagException */
export function checkTagKeys(keys: readonly string[]): void {
  if (keys.some((key) => /^aws:/i.test(key)))
    throw new AwsError('TagException', 'Tags beginning with aws: are reserved');
}

/** Adds tags to a key, or changes their values. */
export async function insertTags(
  call: Call,
  key: { key_id: string; region: string },
  tags: readonly Tag[],
): Promise<void> {
  const kms: Kysely<KmsTables> = call.db;
  for (const { TagKey, TagValue } of tags) {
    await kms
      .insertInto('kms_tags')
      .values({ key_id: key.key_id, region: key.region, tag_key: TagKey!, tag_value: TagValue! })
      .onConflict((conflict) => conflict.columns(['key_id', 'region', 'tag_key']).doUpdateSet({ tag_value: TagValue! }))
      .execute();
  }
}

export function tagConditions(tags: readonly Tag[] | undefined): Conditions {
  if (!tags?.length) return {};
  return {
    'aws:TagKeys': tags.map((tag) => tag.TagKey!),
    ...Object.fromEntries(tags.map((tag) => [`aws:RequestTag/${tag.TagKey}`, tag.TagValue!])),
  };
}
