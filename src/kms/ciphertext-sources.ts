/** Ciphertexts that come back: whose they are, and what is in them. */
import type { EncryptionAlgorithmSpec } from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { Later } from '../aws/service.ts';
import { type EncryptionContext, envelopeSender, openEnvelope } from '../crypto/envelope.ts';
import { laterAnswer } from './elsewhere.ts';
import { findKey, type KeySubject, missingKey } from './identifiers.ts';
import { keyIdOf, keyMaterialId, uuidText } from './key-ids.ts';
import { requireEnabled } from './key-states.ts';
import type { KeyStore } from './key-store.ts';
import { openingOaep } from './rsa-encryption.ts';
import { checkAlgorithm, symmetric } from './sealing.ts';

/** Where a ciphertext comes from: the key that the caller named, or that the blob itself names; and its material. */
export interface Source extends KeySubject {
  readonly algorithm: EncryptionAlgorithmSpec;
  /** The named key is not the one that the blob names. */
  readonly isOtherKey: boolean;
  /** The ciphertext is none that a symmetric key of this system could have made. */
  readonly isMalformed?: boolean;
  /** Absent when a dry run ignores it. */
  readonly ciphertext?: Uint8Array;
  /** The material of a symmetric key that the ciphertext names. */
  readonly materialId?: string;
}

/**
 * Finds the key of a ciphertext. A blob that names a key which is not here is taken for one of a key that the caller may
 * not use: nobody learns which keys there are.
 * @throws {AwsError} InvalidCiphertextException for a blob that names no key; ValidationException for a missing member;
 * what `findKey` throws
 */
export async function findSource(
  call: Call,
  store: KeyStore,
  input: {
    CiphertextBlob?: Uint8Array | undefined;
    DryRun?: boolean | undefined;
    DryRunModifiers?: readonly string[] | undefined;
  },
  named: string | undefined,
  algorithm: EncryptionAlgorithmSpec,
): Promise<Source> {
  const ignoresCiphertext = input.DryRun && input.DryRunModifiers?.includes('IGNORE_CIPHERTEXT');
  if (input.DryRunModifiers?.length && !input.DryRun)
    throw new AwsError('ValidationException', 'DryRunModifiers can be specified only together with DryRun.');
  if (!ignoresCiphertext && !input.CiphertextBlob)
    throw new AwsError(
      'ValidationException',
      "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null",
    );
  const subject =
    named === undefined ? undefined : await findKey(call, store, named, { aliases: true, otherAccounts: true });
  if (ignoresCiphertext) {
    if (subject) return { ...subject, algorithm, isOtherKey: false };
    throw new AwsError('ValidationException', 'A key ID is required when the ciphertext is ignored.');
  }
  const ciphertext = input.CiphertextBlob!;
  if (algorithm !== symmetric) {
    // Nothing in such a ciphertext says whose it is.
    if (!subject) throw new AwsError('ValidationException', `A key ID is required to decrypt with ${algorithm}.`);
    return { ...subject, algorithm, isOtherKey: false, ciphertext };
  }
  const sender = envelopeSender(ciphertext);
  if (subject) {
    // A key for RSA encryption is refused for the algorithm; any other has no ciphertexts that it could be the key of.
    if (subject.key.key_spec !== symmetric)
      return { ...subject, algorithm, isOtherKey: subject.key.key_usage !== 'ENCRYPT_DECRYPT' };
    if (!sender) return { ...subject, algorithm, isOtherKey: false, isMalformed: true };
    const isOtherKey = keyIdOf(sender.keyId) !== subject.key.key_id;
    return { ...subject, algorithm, isOtherKey, ciphertext, materialId: uuidText(sender.materialId) };
  }
  if (!sender) throw invalidCiphertext();
  const keyId = keyIdOf(sender.keyId);
  const key = await store.byId(call, call.region, keyId);
  const found: KeySubject = key ? { key } : missingKey(call.region, '', keyId);
  const hiddenAs = 'the resource associated with this ciphertext';
  return { ...found, hiddenAs, algorithm, isOtherKey: false, ciphertext, materialId: uuidText(sender.materialId) };
}

/** The API's name of the material that a ciphertext was made with, which need not be the key's current one. */
export function sourceMaterialId({ key, materialId }: Source): string | undefined {
  if (!materialId || materialId === key.material_id) return key.keyMaterialId;
  return keyMaterialId(key.key_id, materialId);
}

export function checkSource(source: Source, operationName: string, context: EncryptionContext | undefined): void {
  if (source.isOtherKey)
    throw new AwsError(
      'IncorrectKeyException',
      'The key ID in the request does not identify a CMK that can perform this operation.',
    );
  if (source.isMalformed) throw invalidCiphertext();
  requireEnabled(source.key);
  checkAlgorithm(source.key, operationName, source.algorithm, context);
}

/**
 * Answers with the plaintext, or with undefined when a dry run ignores the ciphertext; `answer` wipes the plaintext, or
 * passes it on. A private RSA key takes long: then it answers later.
 * @param end called when all is done
 * @throws {AwsError} InvalidCiphertextException
 */
export async function openSource<Output>(
  call: Call,
  store: KeyStore,
  { key, algorithm, ciphertext, materialId }: Source,
  context: EncryptionContext | undefined,
  answer: (plaintext: Buffer | undefined) => Output,
  end: () => void = () => {},
): Promise<Output | Later<Output>> {
  const checked = (plaintext: Buffer | undefined) => {
    if (!plaintext) throw invalidCiphertext();
    return answer(plaintext);
  };
  let isLater = false;
  try {
    if (!ciphertext) return answer(undefined);
    if (algorithm === symmetric) {
      const open = (material: Buffer) => openEnvelope(material, ciphertext, context ?? undefined);
      return checked(await store.withMaterial(call.db, key, materialId!, open));
    }
    const opening = await store.withPrivateKey(call.db, key, (secret) => openingOaep(secret, algorithm, ciphertext));
    isLater = true;
    return laterAnswer(call, { start: opening.start, end }, checked);
  } finally {
    if (!isLater) end();
  }
}

const invalidCiphertext = () => new AwsError('InvalidCiphertextException', '');
