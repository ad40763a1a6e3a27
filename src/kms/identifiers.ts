/** What may stand for a key in a request, and the key that it means. Source: KMS developer guide, "Key identifiers". */
import { formatArn, parseArn, partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Key, type KeyStore, keyArn, managedAliasPrefix } from './key-store.ts';
import { ensureManagedKey, isManagedAlias } from './managed-keys.ts';

/** The key that a request is about, and the alias by which it named the key. */
export interface KeySubject {
  readonly key: Key;
  readonly alias?: string;
}

type Identifier =
  | { readonly kind: 'key'; readonly account: string; readonly keyId: string }
  | { readonly kind: 'alias'; readonly account: string; readonly alias: string };

const keyIdPattern = /^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})$/i;

/**
 * Finds the key that `identifier` names: a key id or key ARN, and where `aliases` are allowed an alias name or ARN. The
 * AWS managed key of a predefined alias is made when it is first named.
 * @throws {AwsError} NotFoundException or InvalidArnException
 */
export async function findKey(
  call: Call,
  store: KeyStore,
  identifier: string,
  options: { aliases: boolean },
): Promise<KeySubject> {
  const parsed = parseIdentifier(call, identifier);
  if (parsed.kind === 'alias' && !options.aliases)
    throw new AwsError('InvalidArnException', 'Key Aliases are not supported for this operation.');
  // Another account's key can't be named yet: as if it did not exist.
  const isOwn = parsed.account === call.account;
  if (parsed.kind === 'alias') {
    const key = isOwn ? await keyOfAlias(call, store, parsed.alias) : undefined;
    if (!key) throw aliasNotFound(formatArn('kms', call.region, parsed.account, parsed.alias));
    return { key, alias: parsed.alias };
  }
  const key = isOwn ? await store.byId(call, call.region, parsed.keyId) : undefined;
  if (!key || key.account !== parsed.account)
    throw keyNotFound(keyArn({ region: call.region, account: parsed.account, key_id: parsed.keyId }));
  return { key };
}

async function keyOfAlias(call: Call, store: KeyStore, alias: string): Promise<Key | undefined> {
  const key = await store.byAlias(call, call.account, call.region, alias);
  if (key || !alias.startsWith(managedAliasPrefix) || !isManagedAlias(alias)) return key;
  return ensureManagedKey(call, store, alias);
}

function parseIdentifier(call: Call, identifier: string): Identifier {
  if (identifier.startsWith('alias/')) return { kind: 'alias', account: call.account, alias: identifier };
  if (!identifier.startsWith('arn:')) return { kind: 'key', account: call.account, keyId: checkedKeyId(identifier) };
  const arn = parseArn(identifier);
  if (arn?.service !== 'kms' || arn.partition !== partitionOf(call.region))
    throw new AwsError('InvalidArnException', `Invalid arn ${identifier}`);
  if (arn.region !== call.region) throw new AwsError('NotFoundException', `Invalid arn ${arn.region}`);
  if (arn.resource.startsWith('alias/')) return { kind: 'alias', account: arn.account, alias: arn.resource };
  if (!arn.resource.startsWith('key/')) throw new AwsError('InvalidArnException', `Invalid arn ${identifier}`);
  return { kind: 'key', account: arn.account, keyId: checkedKeyId(arn.resource.slice('key/'.length)) };
}

function checkedKeyId(keyId: string): string {
  if (!keyIdPattern.test(keyId)) throw new AwsError('NotFoundException', `Invalid keyId '${keyId}'`);
  return keyId;
}

export function keyNotFound(arn: string): AwsError {
  return new AwsError('NotFoundException', `Key '${arn}' does not exist`);
}

export function aliasNotFound(arn: string): AwsError {
  return new AwsError('NotFoundException', `Alias ${arn} is not found.`);
}
