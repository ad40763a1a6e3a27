/** Users, groups and roles as they rest in the database, and what all their operations share. */
import { randomUUID } from 'node:crypto';
import type { Tag } from '@aws-sdk/client-iam';
import type { Kysely } from 'kysely';
import type { AnyDatabase, Call } from '../aws/call.ts';
import type { AccessRequest } from '../aws/service.ts';
import { list, required, structure, text } from '../aws/validate.ts';
import { newIamId } from './access-keys.ts';
import { entityAlreadyExists, invalidInput, limitExceeded, missing } from './errors.ts';
import { identityArn } from './principals.ts';
import type { IamTables, Identity, IdentityKind } from './records.ts';

const idPrefixes = { user: 'AIDA', group: 'AGPA', role: 'AROA' } as const;
/** Quotas of an account. Source: IAM user guide, "IAM and AWS STS quotas". */
const identitiesMax = { user: 5000, group: 300, role: 1000 } as const;
const tagsMax = 50;

const nameMax = { user: 64, group: 128, role: 64 } as const;
const namePattern = /[\w+=,.@-]+/;
export const nameOf = (kind: IdentityKind) => text({ min: 1, max: nameMax[kind], pattern: namePattern });
export const policyNameText = text({ min: 1, max: 128, pattern: namePattern });
export const pathText = text({ min: 1, max: 512, pattern: /(\u002F)|(\u002F[\u0021-\u007E]+\u002F)/ });
export const pathPrefixText = text({ min: 1, max: 512, pattern: /\u002F[\u0021-\u007F]*/ });
export const arnText = text({ min: 20, max: 2048 });
export const tagKeyText = text({ min: 1, max: 128, pattern: /[\p{L}\p{Z}\p{N}_.:/=+\-@]+/u });
export const tagListRule = list(
  structure({
    Key: required(tagKeyText),
    Value: required(text({ min: 0, max: 256, pattern: /[\p{L}\p{Z}\p{N}_.:/=+\-@]*/u })),
  }),
);

/** A tag with both its members. */
export interface PlainTag {
  readonly Key: string;
  readonly Value: string;
}

/** Condition keys of a request and their values. */
export type Conditions = Readonly<Record<string, string | readonly string[]>>;

export const tablesOf = (call: Pick<Call, 'db'>): Kysely<IamTables> => call.db;

/** An identity that a request names: as it is, or as it would be if it existed. */
export interface NamedIdentity {
  readonly kind: IdentityKind;
  readonly name: string;
  readonly arn: string;
  readonly found: Identity | undefined;
  readonly tags: readonly PlainTag[];
}

/** Looks up an identity of the caller's account by its name. */
export async function resolveIdentity(call: Call, kind: IdentityKind, name: string): Promise<NamedIdentity> {
  const found = await findIdentity(call, kind, name);
  const tags = found ? await tagsOf(call, found.id) : [];
  const arn = identityArn(found ?? { account: call.account, kind, path: '/', name });
  return { kind, name, arn, found, tags };
}

/** The identity that a request is about to make: with the path it asks for, unless the name is taken. */
export async function resolveNewIdentity(
  call: Call,
  kind: IdentityKind,
  name: string,
  path = '/',
): Promise<NamedIdentity> {
  const named = await resolveIdentity(call, kind, name);
  return named.found ? named : { ...named, arn: identityArn({ account: call.account, kind, path, name }) };
}

/** @throws {AwsError} NoSuchEntity */
export function existing({ kind, name, found }: NamedIdentity): Identity {
  if (!found) throw missing(kind, name);
  return found;
}

export function findIdentity(call: Call, kind: IdentityKind, name: string): Promise<Identity | undefined> {
  return tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', call.account)
    .where('kind', '=', kind)
    .where('name_key', '=', name.toLowerCase())
    .executeTakeFirst();
}

export function findIdentityById(db: AnyDatabase, id: string): Promise<Identity | undefined> {
  const iam: Kysely<IamTables> = db;
  return iam.selectFrom('iam_identities').selectAll().where('id', '=', id).executeTakeFirst();
}

/** @throws {AwsError} EntityAlreadyExists, LimitExceeded, InvalidInput */
export async function insertIdentity(
  call: Call,
  kind: IdentityKind,
  values: Pick<Identity, 'name'> & Partial<Identity>,
  tags: readonly Tag[] = [],
): Promise<Identity> {
  await requireFreeName(call, kind, values.name);
  await requireRoom(call, kind);
  const identity: Identity = {
    path: '/',
    boundary_arn: null,
    trust_policy: null,
    trusted_ids: null,
    description: null,
    session_max_s: null,
    ...values,
    id: newIamId(idPrefixes[kind]),
    account: call.account,
    kind,
    name_key: values.name.toLowerCase(),
    created_at: call.clock.now(),
  };
  await tablesOf(call).insertInto('iam_identities').values(identity).execute();
  await putTags(call, identity.id, tags);
  await identitiesChanged(call);
  return identity;
}

/** @throws {AwsError} EntityAlreadyExists */
async function requireFreeName(call: Call, kind: IdentityKind, name: string, but?: Identity): Promise<void> {
  const other = await findIdentity(call, kind, name);
  if (!other || other.id === but?.id) return;
  const label = kind.charAt(0).toUpperCase() + kind.slice(1);
  throw entityAlreadyExists(`${label} with name ${name} already exists.`);
}

async function requireRoom(call: Call, kind: IdentityKind): Promise<void> {
  const { count } = await tablesOf(call)
    .selectFrom('iam_identities')
    .select((select) => select.fn.countAll<number>().as('count'))
    .where('account', '=', call.account)
    .where('kind', '=', kind)
    .executeTakeFirstOrThrow();
  const quota = { user: 'UsersPerAccount', group: 'GroupsPerAccount', role: 'RolesPerAccount' }[kind];
  if (count >= identitiesMax[kind]) throw limitExceeded(`Cannot exceed quota for ${quota}: ${identitiesMax[kind]}`);
}

/** An identity with a new name, path or both, and the ARN that it will have. */
export interface Renaming {
  readonly identity: NamedIdentity;
  readonly name: string;
  readonly path: string;
  readonly arn: string;
}

/** What an update of a user or group makes of it. */
export async function resolveRenaming(
  call: Call,
  kind: IdentityKind,
  name: string,
  to: { name: string | undefined; path: string | undefined },
): Promise<Renaming> {
  const identity = await resolveIdentity(call, kind, name);
  const path = to.path ?? identity.found?.path ?? '/';
  const newName = to.name ?? identity.found?.name ?? name;
  return { identity, name: newName, path, arn: identityArn({ account: call.account, kind, path, name: newName }) };
}

/** Leave to rename an identity: as it is called now, and as it will be. */
export function accessToRename(call: Call, action: string, { identity, arn }: Renaming): AccessRequest[] {
  const now = accessTo(call, action, identity);
  return arn === identity.arn ? [now] : [now, accessTo(call, action, { ...identity, arn })];
}

/** @throws {AwsError} NoSuchEntity, EntityAlreadyExists */
export async function rename(call: Call, { identity, name, path }: Renaming): Promise<void> {
  const row = existing(identity);
  await requireFreeName(call, identity.kind, name, row);
  await tablesOf(call)
    .updateTable('iam_identities')
    .set({ name, name_key: name.toLowerCase(), path })
    .where('id', '=', row.id)
    .execute();
  await identitiesChanged(call);
}

/** Removes an identity with its tags; whatever else belongs to it is its operation's business. */
export async function deleteIdentity(call: Call, { id }: Identity): Promise<void> {
  await tablesOf(call).deleteFrom('iam_tags').where('resource_id', '=', id).execute();
  await tablesOf(call).deleteFrom('iam_identities').where('id', '=', id).execute();
  await identitiesChanged(call);
}

/** Ends the validity of everything that was read of an account's identities; every change to them calls it. */
export async function identitiesChanged(call: Call): Promise<void> {
  await tablesOf(call).replaceInto('iam_revisions').values({ account: call.account, revision: randomUUID() }).execute();
}

export async function tagsOf(call: Call, resourceId: string): Promise<PlainTag[]> {
  const rows = await tablesOf(call)
    .selectFrom('iam_tags')
    .select(['tag_key', 'tag_value'])
    .where('resource_id', '=', resourceId)
    .orderBy('key_lower')
    .execute();
  return rows.map((row) => ({ Key: row.tag_key, Value: row.tag_value }));
}

/**
 * Adds tags, or changes their values. Keys differ without regard to case, as IAM has it.
 * @throws {AwsError} InvalidInput, LimitExceeded
 */
export async function putTags(call: Call, resourceId: string, tags: readonly Tag[]): Promise<void> {
  if (tags.length === 0) return;
  const keys = tags.map((tag) => tag.Key!.toLowerCase());
  if (new Set(keys).size < keys.length)
    throw invalidInput('Duplicate tag keys found. Please note that Tag keys are case insensitive.');
  if (keys.some((key) => key.startsWith('aws:')))
    throw invalidInput('Tag keys that begin with aws: are reserved and cannot be set.');
  // Thousands would be written only to be undone.
  if (keys.length > tagsMax) throw tooManyTags();
  for (const tag of tags) {
    const row = { tag_key: tag.Key!, tag_value: tag.Value! };
    await tablesOf(call)
      .insertInto('iam_tags')
      .values({ resource_id: resourceId, key_lower: tag.Key!.toLowerCase(), ...row })
      .onConflict((conflict) => conflict.columns(['resource_id', 'key_lower']).doUpdateSet(row))
      .execute();
  }
  if ((await tagsOf(call, resourceId)).length > tagsMax) throw tooManyTags();
}

const tooManyTags = () => limitExceeded(`The number of tags has reached the maximum limit. Limit: ${tagsMax}`);

/** Leave to do `action` to an identity; a request that sets its boundary is about the new one. */
export function accessTo(
  call: Call,
  action: string,
  { arn, tags, found }: Pick<NamedIdentity, 'arn' | 'tags'> & { readonly found?: Partial<Identity> | undefined },
  context: Conditions = {},
): AccessRequest {
  const boundary: Conditions = found?.boundary_arn ? { 'iam:PermissionsBoundary': found.boundary_arn } : {};
  const resourceTags = tags.flatMap(({ Key, Value }) => [
    [`aws:ResourceTag/${Key}`, Value],
    [`iam:ResourceTag/${Key}`, Value],
  ]);
  return iamAccess(call, action, arn, { ...Object.fromEntries(resourceTags), ...boundary, ...context });
}

/** Leave to make a user or role: with a boundary, and with tags, which takes leave of its own. */
export function accessToCreate(
  call: Call,
  kind: 'User' | 'Role',
  subject: NamedIdentity,
  { PermissionsBoundary, Tags }: { PermissionsBoundary?: string | undefined; Tags?: Tag[] | undefined },
): AccessRequest[] {
  const tags = requestTags(Tags);
  const boundary: Conditions = PermissionsBoundary ? { 'iam:PermissionsBoundary': PermissionsBoundary } : {};
  const create = accessTo(call, `Create${kind}`, subject, { ...tags, ...boundary });
  return Tags?.length ? [create, accessTo(call, `Tag${kind}`, subject, tags)] : [create];
}

export function iamAccess(call: Call, action: string, resource: string, context: Conditions = {}): AccessRequest {
  return { action: `iam:${action}`, resource, resourceAccount: call.account, context };
}

/** The condition keys of a request that brings tags. */
export function requestTags(tags: readonly Tag[] | undefined): Conditions {
  if (!tags?.length) return {};
  const pairs = tags.map(({ Key, Value }) => [`aws:RequestTag/${Key}`, Value ?? '']);
  return { ...Object.fromEntries(pairs), 'aws:TagKeys': tags.map((tag) => tag.Key ?? '') };
}

/** The tags of a request as the trail shows them; nothing has been checked yet where the request is refused. */
export function recordedTags(tags: readonly Tag[] | undefined): ReadonlyArray<object> | undefined {
  return Array.isArray(tags) ? tags.map((tag?: Tag) => ({ key: tag?.Key, value: tag?.Value })) : undefined;
}
