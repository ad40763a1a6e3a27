/** How a key encrypts: a symmetric one with the envelope, an RSA key with RSAES-OAEP. */
import type { EncryptionAlgorithmSpec } from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type EncryptionContext, sealEnvelope } from '../crypto/envelope.ts';
import { type Conditions, contextConditions } from './access.ts';
import { requireAlgorithm } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { checkOaepLength, sealOaep } from './rsa-encryption.ts';

export const symmetric: EncryptionAlgorithmSpec = 'SYMMETRIC_DEFAULT';

/** The policy condition keys of a request to encrypt or decrypt. */
export function encryptionConditions(
  algorithm: EncryptionAlgorithmSpec | undefined,
  context: EncryptionContext | undefined,
): Conditions {
  return { 'kms:EncryptionAlgorithm': algorithm ?? symmetric, ...contextConditions(context) };
}

/** What encrypts under a key without the database, for the time until `end`. */
export async function sealerOf(
  call: Call,
  store: KeyStore,
  key: Key,
  algorithm: EncryptionAlgorithmSpec,
  context: EncryptionContext | undefined,
): Promise<{ seal: (plaintext: Uint8Array) => Uint8Array; end: () => void }> {
  if (algorithm !== symmetric) {
    const publicKey = await store.publicKey(call.db, key);
    return { seal: (plaintext) => sealOaep(publicKey, algorithm, plaintext), end: () => {} };
  }
  const material = (await store.withMaterial(call.db, key, key.material_id!, (bytes) => Buffer.from(bytes)))!;
  return {
    seal: (plaintext) => sealEnvelope(material, key.sender!, plaintext, context ?? undefined),
    end: () => void material.fill(0),
  };
}

/** @throws {AwsError} unless the key encrypts with the algorithm, and the algorithm takes the context */
export function checkAlgorithm(
  key: Key,
  operationName: string,
  algorithm: EncryptionAlgorithmSpec,
  context: EncryptionContext | undefined,
): void {
  requireAlgorithm(key, 'ENCRYPT_DECRYPT', operationName, algorithm);
  if (algorithm !== symmetric && context && Object.keys(context).length > 0)
    throw new AwsError(
      'ValidationException',
      'EncryptionContext is not supported when encrypting/decrypting with asymmetric CMKs.',
    );
}

/** Any plaintext that Encrypt accepts is short enough for a symmetric key. */
export function checkLength(key: Key, algorithm: EncryptionAlgorithmSpec, plaintext: Uint8Array): void {
  if (algorithm !== symmetric) checkOaepLength(key.key_spec, algorithm, plaintext);
}
