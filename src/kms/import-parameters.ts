/** The wrapping keys that material is imported under, and the tokens that stand for them. Source: API_GetParametersForImport. */
import { randomUUID } from 'node:crypto';
import {
  AlgorithmSpec,
  type GetParametersForImportRequest,
  type GetParametersForImportResponse,
  WrappingKeySpec,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { oneOf, required, structure } from '../aws/validate.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { keyIdText } from './constraints.ts';
import { keyNotFound } from './identifiers.ts';
import { keyOperation } from './key-operation.ts';
import { newMaterial } from './key-specs.ts';
import { requireNotPendingDeletion, requireOrigin } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import type { KmsTables } from './records.ts';
import { requireWrapping } from './unwrapping.ts';

const validForMs = 24 * 3_600_000;
/** Wrapping keys that one key may have waiting at a time: each is a private key in the database. */
const waitingMax = 100;

const tokenPurpose = 'kms-import-token';
const wrappingPurpose = 'kms-wrapping-key';

interface Token {
  readonly region: string;
  readonly keyId: string;
  readonly wrappingId: string;
  readonly expiresAt: number;
}

export const importParameterOperations = (store: KeyStore) => [getParametersForImport(store)];

const getParametersForImport = (store: KeyStore) =>
  keyOperation<GetParametersForImportRequest, GetParametersForImportResponse>(store, {
    name: 'GetParametersForImport',
    // Making an RSA key takes long, and nothing else may wait for it.
    effect: 'waits',
    readOnly: true,
    input: structure({
      KeyId: required(keyIdText),
      WrappingAlgorithm: required(oneOf(Object.values(AlgorithmSpec))),
      WrappingKeySpec: required(oneOf(Object.values(WrappingKeySpec))),
    }),
    conditions: (_call, input) => ({
      'kms:WrappingAlgorithm': input.WrappingAlgorithm!,
      'kms:WrappingKeySpec': input.WrappingKeySpec!,
    }),
    parameters: ['KeyId', 'WrappingAlgorithm', 'WrappingKeySpec'],
    async handle(call, input, found) {
      requireOrigin(found, 'EXTERNAL');
      requireNotPendingDeletion(found);
      requireWrapping(found.key_spec, input.WrappingKeySpec!, input.WrappingAlgorithm!);
      await call.transaction((inside) => requireRoom(inside, found));
      const pair = await newMaterial(input.WrappingKeySpec!);
      try {
        const { token, expiresAt } = await call.transaction(async (inside) => {
          const key = await store.byId(inside, found.region, found.key_id);
          if (!key) throw keyNotFound(found.arn);
          requireNotPendingDeletion(key);
          await requireRoom(inside, key);
          return insertWrappingKey(inside, store, key, input.WrappingAlgorithm!, pair.secret);
        });
        return {
          KeyId: found.arn,
          ImportToken: token,
          PublicKey: pair.publicKey!,
          ParametersValidTo: new Date(expiresAt),
        };
      } finally {
        pair.secret.fill(0);
      }
    },
  });

async function requireRoom(call: Call, key: Key): Promise<void> {
  const kms: Kysely<KmsTables> = call.db;
  const { count } = await kms
    .selectFrom('kms_wrapping_keys')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('key_id', '=', key.key_id)
    .where('region', '=', key.region)
    .where('expires_at', '>', call.clock.now())
    .executeTakeFirstOrThrow();
  if (count >= waitingMax)
    throw new AwsError(
      'LimitExceededException',
      `${key.arn} has ${waitingMax} import tokens that are valid, as many as a key can have. Use one, or wait until one expires.`,
    );
}

async function insertWrappingKey(call: Call, store: KeyStore, key: Key, algorithm: string, privateKey: Buffer) {
  const kms: Kysely<KmsTables> = call.db;
  const wrappingId = randomUUID();
  // Timestamps of the API have whole seconds.
  const expiresAt = Math.floor((call.clock.now() + validForMs) / 1000) * 1000;
  await kms
    .insertInto('kms_wrapping_keys')
    .values({
      wrapping_id: wrappingId,
      key_id: key.key_id,
      region: key.region,
      algorithm,
      sealed: store.rootKey.seal(wrappingPurpose, privateKey, wrappingId),
      expires_at: expiresAt,
    })
    .execute();
  const token: Token = { region: key.region, keyId: key.key_id, wrappingId, expiresAt };
  return { token: store.rootKey.seal(tokenPurpose, Buffer.from(JSON.stringify(token)), ''), expiresAt };
}

/**
 * Uses up an import token: gives `use` its private key (PKCS #8, DER) and algorithm for the time of that call alone, and
 * destroys the key unless it throws.
 * @throws {AwsError} InvalidImportTokenException or ExpiredImportTokenException
 */
export async function withWrappingKey<T>(
  call: Call,
  store: KeyStore,
  key: Key,
  importToken: Uint8Array,
  use: (algorithm: string, privateKey: Buffer) => Promise<T>,
): Promise<T> {
  const token = openToken(store, importToken);
  if (!token || token.keyId !== key.key_id || token.region !== key.region)
    throw new AwsError('InvalidImportTokenException', `The import token is not one for ${key.arn}.`);
  if (token.expiresAt <= call.clock.now())
    throw new AwsError(
      'ExpiredImportTokenException',
      'The import token has expired. Get a new one, and a new public key.',
    );
  const kms: Kysely<KmsTables> = call.db;
  const row = await kms
    .deleteFrom('kms_wrapping_keys')
    .where('wrapping_id', '=', token.wrappingId)
    .returning(['algorithm', 'sealed'])
    .executeTakeFirst();
  forgetForGood(call.db);
  if (!row)
    throw new AwsError(
      'InvalidImportTokenException',
      'The import token has been used. Get a new one, and a new public key.',
    );
  const privateKey = store.rootKey.open(wrappingPurpose, row.sealed, token.wrappingId);
  try {
    // Should it throw, the whole operation is undone, and with it the deletion.
    return await use(row.algorithm, privateKey);
  } finally {
    privateKey.fill(0);
  }
}

function openToken({ rootKey }: KeyStore, token: Uint8Array): Token | undefined {
  try {
    return JSON.parse(rootKey.open(tokenPurpose, token, '').toString()) as Token;
  } catch {
    return undefined;
  }
}

/** Destroys the private keys that nothing can be imported under any more. */
export async function removeExpiredWrappingKeys(call: Call): Promise<void> {
  await call.transaction(async (inside) => {
    const kms: Kysely<KmsTables> = inside.db;
    const { numDeletedRows } = await kms
      .deleteFrom('kms_wrapping_keys')
      .where('expires_at', '<=', call.clock.now())
      .executeTakeFirstOrThrow();
    if (numDeletedRows > 0n) forgetForGood(inside.db);
  });
}
