/** Tags where they are kept: one row each. */
import type { TagSpecification } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { validateTags } from '../aws/tags.ts';
import { invalidValue } from './errors.ts';
import { preparedQuery, tables } from './records.ts';

export type Tags = ReadonlyMap<string, string>;
export const noTags: Tags = new Map();

/** The API's form: a list, in the order of the keys. */
export function tagList(tags: Tags): Array<{ Key: string; Value: string }> {
  return [...tags].map(([Key, Value]) => ({ Key, Value }));
}

/**
 * The tags that a request gives to resources of each type that it makes.
 * @throws {AwsError} InvalidParameterValue for another type, or one named twice
 */
export function tagsFromSpecifications(
  specifications: readonly TagSpecification[] | undefined,
  types: readonly string[],
): Map<string, Tags> {
  const byType = new Map<string, Tags>();
  for (const { ResourceType: type, Tags: tags } of specifications ?? []) {
    if (!type || !types.includes(type))
      throw invalidValue(`'${type ?? ''}' is not a valid taggable resource type for this operation.`);
    if (byType.has(type)) throw invalidValue(`The same resource type '${type}' may not be specified more than once.`);
    byType.set(type, validateTags(tags ?? []));
  }
  return byType;
}

const putTag = preparedQuery<never>((db) =>
  db
    .insertInto('ec2_tags')
    .values({ resource_id: '', account: '', region: '', resource_type: '', key: '', value: '' })
    .onConflict((conflict) =>
      conflict.columns(['resource_id', 'key']).doUpdateSet((set) => ({ value: set.ref('excluded.value') })),
    ),
);

/** Sets tags; one that is there already gets the new value. */
export async function putTags(call: Call, resourceType: string, resourceId: string, tags: Tags): Promise<void> {
  for (const [key, value] of tags)
    await putTag(call, [resourceId, call.account, call.region, resourceType, key, value]);
}

export async function dropTags(call: Call, resourceId: string): Promise<void> {
  await tables(call).deleteFrom('ec2_tags').where('resource_id', '=', resourceId).execute();
}

export async function tagsOf(call: Call, resourceId: string): Promise<Tags> {
  return (await tagsOfAll(call, [resourceId])).get(resourceId) ?? noTags;
}

/** The tags of many resources; those without any are absent. */
export async function tagsOfAll(call: Call, resourceIds: readonly string[]): Promise<Map<string, Map<string, string>>> {
  const found = new Map<string, Map<string, string>>();
  if (resourceIds.length === 0) return found;
  const rows = await tables(call)
    .selectFrom('ec2_tags')
    .select(['resource_id', 'key', 'value'])
    .where('resource_id', 'in', resourceIds as string[])
    .orderBy('resource_id')
    .orderBy('key')
    .execute();
  for (const { resource_id, key, value } of rows) {
    let tags = found.get(resource_id);
    if (!tags) found.set(resource_id, (tags = new Map()));
    tags.set(key, value);
  }
  return found;
}
