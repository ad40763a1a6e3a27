/** What may stand for a key in a request, and the key that it means. Source: KMS developer guide, "Key identifiers". */
import { formatArn, parseArn, partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { PolicyDocument } from '../aws/service.ts';
import { type Key, type KeyStore, keyArn } from './key-store.ts';
import { ensureManagedKey, isManagedAlias } from './managed-keys.ts';

/** The key that a request is about, and the alias by which it named the key. */
export interface KeySubject {
  readonly key: Key;
  readonly alias?: string;
  /** There is no such key, or none that the operation reaches: `key` stands in for it, and its policy allows nobody. */
  readonly isMissing?: true;
  /** What a refusal calls a key that the request did not name. */
  readonly hiddenAs?: string;
}

type Identifier =
  | { readonly kind: 'key'; readonly account: string; readonly keyId: string }
  | { readonly kind: 'alias'; readonly account: string; readonly alias: string };

const keyIdPattern = /^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})$/i;

interface FindOptions {
  /** Whether an alias may stand for the key. */
  readonly aliases: boolean;
  /** Whether the operation works on keys of other accounts. Default false. */
  readonly otherAccounts?: boolean;
}

/**
 * Finds the key that `identifier` names: a key id or key ARN, and where `aliases` are allowed an alias name or ARN. The
 * AWS managed key of a predefined alias is made when it is first named.
 *
 * Of another account's keys a caller learns nothing unless they are open to it. So one that is not there is found all the
 * same, as a key that is open to nobody, and everything up to the refusal goes the same way.
 * @throws {AwsError} NotFoundException or InvalidArnException
 */
export async function findKey(
  call: Call,
  store: KeyStore,
  identifier: string,
  options: FindOptions,
): Promise<KeySubject> {
  const parsed = parseIdentifier(call, identifier);
  if (parsed.kind === 'alias' && !options.aliases)
    throw new AwsError('InvalidArnException', 'Key Aliases are not supported for this operation.');
  const isOwn = parsed.account === call.account;
  const key = isOwn || options.otherAccounts ? await keyOf(call, store, parsed) : undefined;
  const alias = parsed.kind === 'alias' ? { alias: parsed.alias } : {};
  if (key) return { key, ...alias };
  // Services act for themselves only on what they know.
  if (isOwn || call.principal.type === 'AWSService') throw notFound(call, parsed);
  return { ...missingKey(call.region, parsed.account, parsed.kind === 'alias' ? '' : parsed.keyId), ...alias };
}

/** What stands in for a key of another account that is not there. Nothing that is done before the refusal tells it apart. */
export function missingKey(region: string, account: string, keyId: string): KeySubject {
  const resource = { region, account, key_id: keyId };
  const key: Pick<Key, 'region' | 'account' | 'key_id' | 'arn' | 'policyDocument' | 'conditions' | 'managed_alias'> = {
    ...resource,
    arn: keyArn(resource),
    policyDocument: nobodys,
    conditions: {},
    managed_alias: null,
  };
  return { key: key as Key, isMissing: true };
}

const nobodys: PolicyDocument = { Version: '2012-10-17', Statement: [] };

async function keyOf(call: Call, store: KeyStore, parsed: Identifier): Promise<Key | undefined> {
  if (parsed.kind === 'alias') return keyOfAlias(call, store, parsed.account, parsed.alias);
  const key = await store.byId(call, call.region, parsed.keyId);
  return key?.account === parsed.account ? key : undefined;
}

function notFound(call: Call, parsed: Identifier): AwsError {
  const { account } = parsed;
  return parsed.kind === 'alias'
    ? aliasNotFound(formatArn('kms', call.region, account, parsed.alias))
    : keyNotFound(keyArn({ region: call.region, account, key_id: parsed.keyId }));
}

async function keyOfAlias(call: Call, store: KeyStore, account: string, alias: string): Promise<Key | undefined> {
  const key = await store.byAlias(call, account, call.region, alias);
  if (key || account !== call.account || !isManagedAlias(alias)) return key;
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
