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
import { operation } from '../aws/service.ts';
import { blob, boolean, listOf, required, structure, textMap, validate } from '../aws/validate.ts';
import { type EncryptionContext, envelopeSender, openEnvelope, sealEnvelope } from '../crypto/envelope.ts';
import { type Conditions, contextConditions, keyAccess } from './access.ts';
import { checkContext, encryptionAlgorithm, grantTokenList, keyIdText } from './constraints.ts';
import { refuseRecipient } from './data-keys.ts';
import { findKey, type KeySubject } from './identifiers.ts';
import { checkGrantTokens, keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireEnabled } from './key-states.ts';
import { type Key, type KeyStore, keyMaterialId, uuidText } from './key-store.ts';
import { keyResource, parameters } from './trail.ts';

const ciphertext = blob({ min: 1, max: 6144 });
const dryRunModifiers = listOf(Object.values(DryRunModifierType));
const symmetric: EncryptionAlgorithmSpec = 'SYMMETRIC_DEFAULT';

const encrypt = (store: KeyStore) =>
  keyOperation<EncryptRequest, EncryptResponse>(store, {
    name: 'Encrypt',
    effect: 'reads',
    aliases: true,
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
    async handle(call, input, key) {
      requireEnabled(key);
      requireAlgorithm(key, 'Encrypt', input.EncryptionAlgorithm);
      stopIfDryRun(input);
      const sealed = await store.withMaterial(call.db, key, key.material_id!, (material) =>
        sealEnvelope(material, key.sender!, input.Plaintext!, input.EncryptionContext ?? undefined),
      );
      return { CiphertextBlob: sealed!, KeyId: key.arn, EncryptionAlgorithm: symmetric };
    },
  });

/** Where a ciphertext comes from: the key that the caller named, or that the blob itself names; and its material. */
interface Source extends KeySubject {
  /** The named key is not the one that the blob names. */
  readonly isOtherKey: boolean;
  /** Absent when a dry run ignores the ciphertext. */
  readonly materialId?: string;
}

const decryptInput = structure({
  CiphertextBlob: ciphertext,
  EncryptionContext: textMap(),
  GrantTokens: grantTokenList,
  KeyId: keyIdText,
  EncryptionAlgorithm: encryptionAlgorithm,
  Recipient: structure({}),
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
      return findSource(call, store, input, input.KeyId ?? undefined);
    },
    access: (call, input, source) => [
      keyAccess(call, source, 'Decrypt', conditionsOf(input.EncryptionAlgorithm, input.EncryptionContext)),
    ],
    async handle(call, input, source) {
      const { key } = source;
      checkSource(source, 'Decrypt', input.EncryptionAlgorithm);
      const plaintext = await openSource(call, store, source, input.CiphertextBlob, input.EncryptionContext);
      if (input.DryRun) plaintext?.fill(0);
      stopIfDryRun(input);
      return {
        KeyId: key.arn,
        Plaintext: plaintext!,
        EncryptionAlgorithm: symmetric,
        KeyMaterialId: sourceMaterialId(source),
      };
    },
    record: (_call, input, _output, source) => ({
      requestParameters: {
        encryptionAlgorithm: symmetric,
        ...parameters(input, ['KeyId', 'EncryptionContext', 'EncryptionAlgorithm', 'DryRun', 'DryRunModifiers']),
      },
      resources: source ? [keyResource(source.key)] : [],
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
      const source = await findSource(call, store, input, input.SourceKeyId ?? undefined);
      const destination = await findKey(call, store, input.DestinationKeyId!, { aliases: true });
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
    async handle(call, input, { source, destination: { key } }) {
      checkSource(source, 'ReEncryptFrom', input.SourceEncryptionAlgorithm);
      requireEnabled(key);
      requireAlgorithm(key, 'ReEncryptTo', input.DestinationEncryptionAlgorithm);
      const plaintext = await openSource(call, store, source, input.CiphertextBlob, input.SourceEncryptionContext);
      try {
        stopIfDryRun(input);
        const sealed = await store.withMaterial(call.db, key, key.material_id!, (material) =>
          sealEnvelope(material, key.sender!, plaintext!, input.DestinationEncryptionContext ?? undefined),
        );
        return {
          CiphertextBlob: sealed!,
          SourceKeyId: source.key.arn,
          KeyId: key.arn,
          SourceEncryptionAlgorithm: symmetric,
          DestinationEncryptionAlgorithm: symmetric,
          SourceKeyMaterialId: sourceMaterialId(source),
          DestinationKeyMaterialId: key.keyMaterialId,
        };
      } finally {
        plaintext?.fill(0);
      }
    },
    record: (_call, input, _output, subject) => ({
      requestParameters: {
        sourceEncryptionAlgorithm: symmetric,
        destinationEncryptionAlgorithm: symmetric,
        ...parameters(input, reEncryptRecorded),
      },
      resources: subject ? [keyResource(subject.source.key), keyResource(subject.destination.key)] : [],
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
 * Finds the key of a ciphertext. What is wrong with a blob is not said: not ours, another region's, an unknown key.
 * @throws {AwsError} InvalidCiphertextException; ValidationException for a missing member; what `findKey` throws
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
): Promise<Source> {
  const ignoresCiphertext = input.DryRun && input.DryRunModifiers?.includes('IGNORE_CIPHERTEXT');
  if (input.DryRunModifiers?.length && !input.DryRun)
    throw new AwsError('ValidationException', 'DryRunModifiers can be specified only together with DryRun.');
  const subject = named === undefined ? undefined : await findKey(call, store, named, { aliases: true });
  if (ignoresCiphertext) {
    if (subject) return { ...subject, isOtherKey: false };
    throw new AwsError('ValidationException', 'A key ID is required when the ciphertext is ignored.');
  }
  if (!input.CiphertextBlob)
    throw new AwsError(
      'ValidationException',
      "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null",
    );
  const sender = envelopeSender(input.CiphertextBlob);
  if (subject) {
    if (subject.key.key_spec !== symmetric) return { ...subject, isOtherKey: true };
    if (!sender) throw invalidCiphertext();
    const isOtherKey = uuidText(sender.keyId) !== subject.key.key_id;
    return { ...subject, isOtherKey, materialId: uuidText(sender.materialId) };
  }
  const key = sender && (await store.byId(call.db, call.region, uuidText(sender.keyId)));
  if (!key || key.account !== call.account) throw invalidCiphertext();
  return { key, isOtherKey: false, materialId: uuidText(sender.materialId) };
}

/** The API's name of the material that a ciphertext was made with, which need not be the key's current one. */
function sourceMaterialId({ key, materialId }: Source): string | undefined {
  if (!materialId || materialId === key.material_id) return key.keyMaterialId;
  return keyMaterialId(key.key_id, materialId);
}

function checkSource(source: Source, operationName: string, algorithm: EncryptionAlgorithmSpec | undefined): void {
  if (source.isOtherKey)
    throw new AwsError(
      'IncorrectKeyException',
      'The key ID in the request does not identify a CMK that can perform this operation.',
    );
  requireEnabled(source.key);
  requireAlgorithm(source.key, operationName, algorithm);
}

/**
 * Decrypts; undefined when a dry run ignores the ciphertext. The caller wipes the plaintext.
 * @throws {AwsError} InvalidCiphertextException
 */
async function openSource(
  call: Call,
  store: KeyStore,
  { key, materialId }: Source,
  blob: Uint8Array | undefined,
  context: EncryptionContext | undefined,
): Promise<Buffer | undefined> {
  if (!materialId) return undefined;
  const plaintext = await store.withMaterial(call.db, key, materialId, (material) =>
    openEnvelope(material, blob!, context ?? undefined),
  );
  if (!plaintext) throw invalidCiphertext();
  return plaintext;
}

/** @throws {AwsError} InvalidKeyUsageException unless the key encrypts with the algorithm */
function requireAlgorithm(key: Key, operationName: string, algorithm: EncryptionAlgorithmSpec = symmetric): void {
  if (key.key_usage !== 'ENCRYPT_DECRYPT')
    throw new AwsError(
      'InvalidKeyUsageException',
      `${key.arn} key usage is ${key.key_usage} which is not valid for ${operationName}.`,
    );
  if ((key.key_spec === symmetric) !== (algorithm === symmetric))
    throw new AwsError(
      'InvalidKeyUsageException',
      `Algorithm ${algorithm} is incompatible with key spec ${key.key_spec}.`,
    );
  if (key.key_spec !== symmetric)
    throw new AwsError('UnsupportedOperationException', `${operationName} with ${key.key_spec} keys is not supported.`);
}

const invalidCiphertext = () => new AwsError('InvalidCiphertextException', '');
