import {
  type DecryptRequest,
  type DecryptResponse,
  DryRunModifierType,
  type EncryptionAlgorithmSpec,
  type EncryptRequest,
  type EncryptResponse,
  type ReEncryptRequest,
  type ReEncryptResponse,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Later, operation } from '../aws/service.ts';
import { blob, boolean, listOf, required, structure, textMap, validate } from '../aws/validate.ts';
import { type EncryptionContext, envelopeSender, openEnvelope, sealEnvelope } from '../crypto/envelope.ts';
import { type Conditions, contextConditions, keyAccess, requireSeen } from './access.ts';
import { checkContext, encryptionAlgorithm, grantTokenList, keyIdText } from './constraints.ts';
import { recipient, refuseRecipient } from './data-keys.ts';
import { laterAnswer } from './elsewhere.ts';
import { findKey, type KeySubject, missingKey } from './identifiers.ts';
import { keyIdOf, keyMaterialId, uuidText } from './key-ids.ts';
import { checkGrantTokens, keyOperation, stopIfDryRun } from './key-operation.ts';
import { algorithmsOf } from './key-specs.ts';
import { requireAlgorithm, requireEnabled, requireUsage } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { checkOaepLength, openingOaep, sealOaep } from './rsa-encryption.ts';
import { keyResource, parameters } from './trail.ts';

const ciphertext = blob({ min: 1, max: 6144 });
const dryRunModifiers = listOf(Object.values(DryRunModifierType));
const symmetric: EncryptionAlgorithmSpec = 'SYMMETRIC_DEFAULT';

const encrypt = (store: KeyStore) =>
  keyOperation<EncryptRequest, EncryptResponse>(store, {
    name: 'Encrypt',
    effect: 'reads',
    aliases: true,
    otherAccounts: true,
    grantTokens: true,
    input: structure({
      KeyId: required(keyIdText),
      Plaintext: required(blob({ min: 1, max: 4096 })),
      EncryptionContext: textMap(),
      GrantTokens: grantTokenList,
      EncryptionAlgorithm: encryptionAlgorithm,
      DryRun: boolean(),
    }),
    check: (input) => checkContext('EncryptionContext', input.EncryptionContext),
    conditions: (_call, input) => conditionsOf(input.EncryptionAlgorithm, input.EncryptionContext),
    parameters: (input) => ({
      encryptionAlgorithm: symmetric,
      ...parameters(input, ['KeyId', 'EncryptionContext', 'EncryptionAlgorithm', 'DryRun']),
    }),
    additional: ({ EncryptionAlgorithm }, key) =>
      EncryptionAlgorithm === symmetric ? { keyMaterialId: key.keyMaterialId } : undefined,
    async handle(call, input, key) {
      const algorithm = input.EncryptionAlgorithm ?? symmetric;
      requireEnabled(key);
      checkAlgorithm(key, 'Encrypt', algorithm, input.EncryptionContext);
      checkLength(key, algorithm, input.Plaintext!);
      stopIfDryRun(input);
      const CiphertextBlob = await seal(call, store, key, algorithm, input.Plaintext!, input.EncryptionContext);
      return { CiphertextBlob, KeyId: key.arn, EncryptionAlgorithm: algorithm };
    },
  });

/** Where a ciphertext comes from: the key that the caller named, or that the blob itself names; and its material. */
interface Source extends KeySubject {
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

const decryptInput = structure({
  CiphertextBlob: ciphertext,
  EncryptionContext: textMap(),
  GrantTokens: grantTokenList,
  KeyId: keyIdText,
  EncryptionAlgorithm: encryptionAlgorithm,
  Recipient: recipient,
  DryRun: boolean(),
  DryRunModifiers: dryRunModifiers,
});

const decrypt = (store: KeyStore) =>
  operation<DecryptRequest, DecryptResponse, Source>({
    name: 'Decrypt',
    effect: 'reads',
    resolve(call, input) {
      validate(input, decryptInput);
      checkContext('EncryptionContext', input.EncryptionContext);
      refuseRecipient(input);
      checkGrantTokens(call, store, input.GrantTokens);
      return findSource(call, store, input, input.KeyId ?? undefined, input.EncryptionAlgorithm ?? symmetric);
    },
    access: (call, input, source) => [
      keyAccess(call, source, 'Decrypt', conditionsOf(input.EncryptionAlgorithm, input.EncryptionContext)),
    ],
    async handle(call, input, source) {
      const { key, algorithm } = source;
      requireSeen(call, source, 'Decrypt');
      checkSource(source, 'Decrypt', input.EncryptionContext);
      return openSource(call, store, source, input.EncryptionContext, (plaintext) => {
        if (input.DryRun) plaintext?.fill(0);
        stopIfDryRun(input);
        return {
          KeyId: key.arn,
          Plaintext: plaintext!,
          EncryptionAlgorithm: algorithm,
          ...(algorithm === symmetric ? { KeyMaterialId: sourceMaterialId(source) } : {}),
        };
      });
    },
    record: (_call, input, output, source) => ({
      requestParameters: {
        encryptionAlgorithm: symmetric,
        ...parameters(input, ['KeyId', 'EncryptionContext', 'EncryptionAlgorithm', 'DryRun', 'DryRunModifiers']),
      },
      resources: source ? [keyResource(source.key)] : [],
      ...(output?.KeyMaterialId ? { additionalEventData: { keyMaterialId: output.KeyMaterialId } } : {}),
    }),
  });

const reEncryptInput = structure({
  CiphertextBlob: ciphertext,
  SourceEncryptionContext: textMap(),
  SourceKeyId: keyIdText,
  DestinationKeyId: required(keyIdText),
  DestinationEncryptionContext: textMap(),
  SourceEncryptionAlgorithm: encryptionAlgorithm,
  DestinationEncryptionAlgorithm: encryptionAlgorithm,
  GrantTokens: grantTokenList,
  DryRun: boolean(),
  DryRunModifiers: dryRunModifiers,
});

const reEncrypt = (store: KeyStore) =>
  operation<ReEncryptRequest, ReEncryptResponse, { source: Source; destination: KeySubject }>({
    name: 'ReEncrypt',
    effect: 'reads',
    async resolve(call, input) {
      validate(input, reEncryptInput);
      checkContext('SourceEncryptionContext', input.SourceEncryptionContext);
      checkContext('DestinationEncryptionContext', input.DestinationEncryptionContext);
      checkGrantTokens(call, store, input.GrantTokens);
      const algorithm = input.SourceEncryptionAlgorithm ?? symmetric;
      const source = await findSource(call, store, input, input.SourceKeyId ?? undefined, algorithm);
      const destination = await findKey(call, store, input.DestinationKeyId!, { aliases: true, otherAccounts: true });
      return { source, destination };
    },
    access(call, input, { source, destination }) {
      const same = { 'kms:ReEncryptOnSameKey': String(source.key.arn === destination.key.arn) };
      return [
        keyAccess(call, source, 'ReEncryptFrom', {
          ...conditionsOf(input.SourceEncryptionAlgorithm, input.SourceEncryptionContext),
          ...same,
        }),
        keyAccess(call, destination, 'ReEncryptTo', {
          ...conditionsOf(input.DestinationEncryptionAlgorithm, input.DestinationEncryptionContext),
          ...same,
        }),
      ];
    },
    async handle(call, input, { source, destination }) {
      requireSeen(call, source, 'ReEncryptFrom');
      requireSeen(call, destination, 'ReEncryptTo');
      const { key } = destination;
      const algorithm = input.DestinationEncryptionAlgorithm ?? symmetric;
      const context = input.DestinationEncryptionContext;
      checkSource(source, 'ReEncryptFrom', input.SourceEncryptionContext);
      requireEnabled(key);
      checkAlgorithm(key, 'ReEncryptTo', algorithm, context);
      const sealer = await sealerOf(call, store, key, algorithm, context);
      const answer = (plaintext: Buffer | undefined) => {
        try {
          if (plaintext) checkLength(key, algorithm, plaintext);
          stopIfDryRun(input);
          return {
            CiphertextBlob: sealer.seal(plaintext!),
            SourceKeyId: source.key.arn,
            KeyId: key.arn,
            SourceEncryptionAlgorithm: source.algorithm,
            DestinationEncryptionAlgorithm: algorithm,
            ...(source.algorithm === symmetric ? { SourceKeyMaterialId: sourceMaterialId(source) } : {}),
            ...(algorithm === symmetric ? { DestinationKeyMaterialId: key.keyMaterialId } : {}),
          };
        } finally {
          plaintext?.fill(0);
        }
      };
      return openSource(call, store, source, input.SourceEncryptionContext, answer, sealer.end);
    },
    record: (_call, input, output, subject) => ({
      requestParameters: {
        sourceEncryptionAlgorithm: symmetric,
        destinationEncryptionAlgorithm: symmetric,
        ...parameters(input, reEncryptRecorded),
      },
      resources: subject ? [keyResource(subject.source.key), keyResource(subject.destination.key)] : [],
      ...(output?.SourceKeyMaterialId || output?.DestinationKeyMaterialId
        ? {
            additionalEventData: {
              sourceKeyMaterialId: output.SourceKeyMaterialId,
              destinationKeyMaterialId: output.DestinationKeyMaterialId,
            },
          }
        : {}),
    }),
  });

const reEncryptRecorded = [
  'SourceEncryptionContext',
  'SourceKeyId',
  'DestinationKeyId',
  'DestinationEncryptionContext',
  'SourceEncryptionAlgorithm',
  'DestinationEncryptionAlgorithm',
  'DryRun',
  'DryRunModifiers',
];

export const ciphertextOperations = (store: KeyStore) => [encrypt(store), decrypt(store), reEncrypt(store)];

function conditionsOf(
  algorithm: EncryptionAlgorithmSpec | undefined,
  context: EncryptionContext | undefined,
): Conditions {
  return { 'kms:EncryptionAlgorithm': algorithm ?? symmetric, ...contextConditions(context) };
}

/**
 * Finds the key of a ciphertext. A blob that names a key which is not here is taken for one of a key that the caller may
 * not use: nobody learns which keys there are.
 * @throws {AwsError} InvalidCiphertextException for a blob that names no key; ValidationException for a missing member;
 * what `findKey` throws
 */
async function findSource(
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
function sourceMaterialId({ key, materialId }: Source): string | undefined {
  if (!materialId || materialId === key.material_id) return key.keyMaterialId;
  return keyMaterialId(key.key_id, materialId);
}

function checkSource(source: Source, operationName: string, context: EncryptionContext | undefined): void {
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
async function openSource<Output>(
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

/** What encrypts under a key without the database, for the time until `end`. */
async function sealerOf(
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

async function seal(
  call: Call,
  store: KeyStore,
  key: Key,
  algorithm: EncryptionAlgorithmSpec,
  plaintext: Uint8Array,
  context: EncryptionContext | undefined,
): Promise<Uint8Array> {
  if (algorithm !== symmetric) return sealOaep(await store.publicKey(call.db, key), algorithm, plaintext);
  const sealed = await store.withMaterial(call.db, key, key.material_id!, (material) =>
    sealEnvelope(material, key.sender!, plaintext, context ?? undefined),
  );
  return sealed!;
}

/** @throws {AwsError} unless the key encrypts with the algorithm, and the algorithm takes the context */
function checkAlgorithm(
  key: Key,
  operationName: string,
  algorithm: EncryptionAlgorithmSpec,
  context: EncryptionContext | undefined,
): void {
  requireUsage(key, 'ENCRYPT_DECRYPT', operationName);
  requireAlgorithm(key, algorithm, algorithmsOf(key.key_spec, key.key_usage).EncryptionAlgorithms);
  if (algorithm !== symmetric && context && Object.keys(context).length > 0)
    throw new AwsError(
      'ValidationException',
      'EncryptionContext is not supported when encrypting/decrypting with asymmetric CMKs.',
    );
}

/** Any plaintext that Encrypt accepts is short enough for a symmetric key. */
function checkLength(key: Key, algorithm: EncryptionAlgorithmSpec, plaintext: Uint8Array): void {
  if (algorithm !== symmetric) checkOaepLength(key.key_spec, algorithm, plaintext);
}

const invalidCiphertext = () => new AwsError('InvalidCiphertextException', '');
