/**
 * What a user's or role's policies say, ready for evaluation. Kept in memory under the account's revision: a random text
 * that is replaced with every change to the account's identities, in the same transaction. So what is kept is never
 * stale, also when a change is rolled back, and one cheap query per decision tells.
 */
import type { AnyDatabase, Call } from '../aws/call.ts';
import type { PolicyDocument } from '../aws/service.ts';
import { prepared } from './prepared.ts';
import { infrastructureRole } from './principals.ts';

export interface Permissions {
  /** Of the identity and of the groups it is in. */
  readonly identity: readonly PolicyDocument[];
  readonly boundary: PolicyDocument | undefined;
  /** What the session was limited to when it was made; any of them may allow. Undefined when there is no such limit. */
  readonly session: readonly PolicyDocument[] | undefined;
  readonly tags: Readonly<Record<string, string>>;
  /** The user or role is not there any more. */
  readonly isGone?: true;
}

type Kept = Omit<Permissions, 'session'>;

const nothing: PolicyDocument = { Version: '2012-10-17', Statement: [] };
const none: Permissions = { identity: [], boundary: undefined, session: undefined, tags: {} };
/** Identities and policies over all accounts; documents are a few KB at most. */
const keptMax = 2000;
/** A key's last use is kept to a quarter of an hour, so that using it hardly ever writes. */
const lastUsedEveryMs = 15 * 60_000;

const kept = new Map<string, { readonly revision: string; readonly values: Map<string, unknown> }>();
let keptCount = 0;

/**
 * The policies of the caller, as far as they are not the resource's, when it asks for `action`; nothing for an instance's infrastructure role.
 */
export async function permissionsOf(call: Call, action: string): Promise<Permissions> {
  const { principal } = call;
  if (principal.sessionIssuer?.userName === infrastructureRole) return none;
  const revision = await currentRevision(call, action);
  const id = principal.sessionIssuer?.principalId ?? principal.principalId;
  const own = await keep(principal.account, revision, id, () => loadPermissions(call.db, id));
  const session = await sessionPolicies(call, revision);
  const tags = principal.session?.tags;
  return { ...own, session, tags: tags ? { ...own.tags, ...tags } : own.tags };
}

/** What limits a session of an account's root, which has no other policies. */
export async function sessionLimits(call: Call, action: string): Promise<readonly PolicyDocument[] | undefined> {
  const { session } = call.principal;
  if (!session?.policy && !session?.policyArns) return undefined;
  return sessionPolicies(call, await currentRevision(call, action));
}

const revisionAndUse = prepared((db) =>
  db
    .selectFrom('access_keys')
    .leftJoin('iam_revisions', 'iam_revisions.account', 'access_keys.account')
    .select(['revision', 'last_used_at'])
    .where('access_key_id', '=', ''),
);
const revisionOnly = prepared((db) => db.selectFrom('iam_revisions').select('revision').where('account', '=', ''));

/** The account's revision; on the way, a long-term key's use is noted. */
async function currentRevision(call: Call, action: string): Promise<string> {
  const { accessKeyId, account, session } = call.principal;
  if (accessKeyId && !session) {
    const [row] = await revisionAndUse(call.db, [accessKeyId]);
    if (row) {
      const isNews = call.via === undefined && (row.last_used_at ?? 0) + lastUsedEveryMs <= call.clock.now();
      if (isNews) await noteUse(call, accessKeyId, action);
      return row.revision ?? account;
    }
  }
  const [row] = await revisionOnly(call.db, [account]);
  return row?.revision ?? account;
}

async function noteUse(call: Call, accessKeyId: string, action: string): Promise<void> {
  await call.db
    .updateTable('access_keys')
    .set({
      last_used_at: call.clock.now(),
      last_used_service: action.slice(0, action.indexOf(':')),
      last_used_region: call.region,
    })
    .where('access_key_id', '=', accessKeyId)
    .execute();
}

async function loadPermissions(db: AnyDatabase, id: string): Promise<Kept> {
  const identity = await db.selectFrom('iam_identities').select('boundary_arn').where('id', '=', id).executeTakeFirst();
  if (!identity) return { ...none, isGone: true };
  const groups = await db.selectFrom('iam_memberships').select('group_id').where('user_id', '=', id).execute();
  const owners: string[] = [id, ...groups.map(({ group_id }) => group_id as string)];
  const inline = await db
    .selectFrom('iam_inline_policies')
    .select('document')
    .where('identity_id', 'in', owners)
    .execute();
  const attached = await db
    .selectFrom('iam_attachments')
    .innerJoin('iam_policies', 'iam_policies.arn', 'iam_attachments.arn')
    .innerJoin('iam_policy_versions', (join) =>
      join
        .onRef('iam_policy_versions.arn', '=', 'iam_policies.arn')
        .onRef('iam_policy_versions.version', '=', 'iam_policies.default_version'),
    )
    .select('iam_policy_versions.document')
    .where('identity_id', 'in', owners)
    .execute();
  const tags = await db.selectFrom('iam_tags').select(['tag_key', 'tag_value']).where('resource_id', '=', id).execute();
  return {
    identity: [...inline, ...attached].map(({ document }) => JSON.parse(document)),
    boundary: identity.boundary_arn ? await managedDocument(db, identity.boundary_arn) : undefined,
    tags: Object.fromEntries(tags.map((tag) => [tag.tag_key, tag.tag_value])),
  };
}

async function sessionPolicies(call: Call, revision: string): Promise<readonly PolicyDocument[] | undefined> {
  const { account, session } = call.principal;
  if (!session?.policy && !session?.policyArns) return undefined;
  const documents: PolicyDocument[] = [];
  const { policy } = session;
  if (policy) documents.push(await keep(account, revision, policy, () => JSON.parse(policy)));
  for (const arn of session.policyArns ?? [])
    documents.push(await keep(account, revision, arn, () => managedDocument(call.db, arn)));
  return documents;
}

/** The version in force of a managed policy; one that allows nothing when it is gone. */
async function managedDocument(db: AnyDatabase, arn: string): Promise<PolicyDocument> {
  const row = await db
    .selectFrom('iam_policies')
    .innerJoin('iam_policy_versions', (join) =>
      join
        .onRef('iam_policy_versions.arn', '=', 'iam_policies.arn')
        .onRef('iam_policy_versions.version', '=', 'iam_policies.default_version'),
    )
    .select('document')
    .where('iam_policies.arn', '=', arn)
    .executeTakeFirst();
  return row ? JSON.parse(row.document) : nothing;
}

/** What was read under one account's revision, or sent with its sessions. */
async function keep<T>(account: string, revision: string, name: string, load: () => Promise<T> | T): Promise<T> {
  let ofAccount = kept.get(account);
  if (ofAccount?.revision !== revision) {
    // What was kept under another revision is never asked for again.
    keptCount -= ofAccount?.values.size ?? 0;
    ofAccount = { revision, values: new Map() };
    kept.set(account, ofAccount);
  }
  const known = ofAccount.values.get(name);
  if (known !== undefined) return known as T;
  const loaded = await load();
  if (keptCount >= keptMax || kept.size >= keptMax) {
    kept.clear();
    keptCount = 0;
    return loaded;
  }
  if (kept.get(account) === ofAccount) {
    ofAccount.values.set(name, loaded);
    keptCount++;
  }
  return loaded;
}
