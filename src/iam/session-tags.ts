/**
 * The tags of a role's session: those that the request brings, and those that the caller's own session hands on because
 * they are transitive. Source: IAM user guide, "Pass session tags in AWS STS", on chaining roles.
 */
import type { AssumeRoleRequest } from '@aws-sdk/client-sts';
import type { Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { validationError } from './errors.ts';
import { type Conditions, type PlainTag, requestTags } from './identities.ts';

const sessionTagsMax = 50;

type Request = Pick<AssumeRoleRequest, 'Tags' | 'TransitiveTagKeys'>;

/** What the caller's session hands on to every session that it asks for. */
export function inheritedTags({ session }: Principal): readonly PlainTag[] {
  const keys = session?.transitiveTagKeys ?? [];
  return Object.entries(session?.tags ?? {})
    .filter(([key]) => keys.includes(key))
    .map(([Key, Value]) => ({ Key, Value }));
}

/** The condition keys of a request for a session with tags, inherited ones among them. */
export function sessionTagConditions(input: Request, inherited: readonly PlainTag[]): Conditions {
  const transitive = [...inherited.map(({ Key }) => Key), ...(input.TransitiveTagKeys ?? [])];
  return {
    ...requestTags([...inherited, ...((input.Tags ?? []) as PlainTag[])]),
    ...(transitive.length > 0 ? { 'sts:TransitiveTagKeys': transitive } : {}),
  };
}

/** The role's own tags as its trust policy sees them: what is inherited stands in the place of the same key. */
export function roleTagConditions(tags: readonly PlainTag[], inherited: readonly PlainTag[]): Conditions {
  const seen = tags.map(({ Key, Value }) => {
    const handedOn = inherited.find((tag) => tag.Key.toLowerCase() === Key.toLowerCase());
    return { Key, Value: handedOn?.Value ?? Value };
  });
  return Object.fromEntries(
    seen.flatMap(({ Key, Value }) => [
      [`aws:ResourceTag/${Key}`, Value],
      [`iam:ResourceTag/${Key}`, Value],
    ]),
  );
}

/**
 * The tags of the new session, and which of them it hands on in turn.
 * @throws {AwsError} ValidationError, InvalidParameterValue
 */
export function sessionTags(
  input: Request,
  inherited: readonly PlainTag[],
): Pick<NonNullable<Principal['session']>, 'tags' | 'transitiveTagKeys'> {
  const tags = (input.Tags ?? []) as readonly PlainTag[];
  const all = [...inherited, ...tags];
  checkKeys(tags);
  if (all.length > sessionTagsMax) throw validationError(`A session can have at most ${sessionTagsMax} tags.`);
  const has = (list: readonly PlainTag[], key: string) =>
    list.find((tag) => tag.Key.toLowerCase() === key.toLowerCase())?.Key;
  if (tags.some(({ Key }) => has(inherited, Key)))
    throw invalidParameter(
      "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.",
    );
  const transitive = (input.TransitiveTagKeys ?? []).map((key) => has(tags, key));
  if (transitive.includes(undefined))
    throw invalidParameter('The specified transitive tag key must be included in the requested tags.');
  if (all.length === 0) return {};
  const transitiveTagKeys = [...inherited.map(({ Key }) => Key), ...(transitive as string[])];
  return {
    tags: Object.fromEntries(all.map(({ Key, Value }) => [Key, Value])),
    ...(transitiveTagKeys.length > 0 ? { transitiveTagKeys } : {}),
  };
}

function checkKeys(tags: readonly PlainTag[]): void {
  const keys = tags.map(({ Key }) => Key.toLowerCase());
  if (new Set(keys).size < keys.length)
    throw validationError('Duplicate tag keys found. Please note that Tag keys are case insensitive.');
  if (keys.some((key) => key.startsWith('aws:'))) throw validationError('Tag keys that begin with aws: are reserved.');
}

const invalidParameter = (message: string) => new AwsError('InvalidParameterValue', message);
