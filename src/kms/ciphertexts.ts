/** Encrypt, Decrypt and ReEncrypt. Source: their pages in the KMS API reference. */
import {
  type DecryptRequest,
  type DecryptResponse,
  DryRunModifierType,
  type EncryptRequest,
  type EncryptResponse,
  type ReEncryptRequest,
  type ReEncryptResponse,
} from '@aws-sdk/client-kms';
import { operation } from '../aws/service.ts';
import { blob, boolean, listOf, required, structure, textMap, validate } from '../aws/validate.ts';
import { keyAccess, requireSeen } from './access.ts';
import { checkSource, findSource, openSource, type Source, sourceMaterialId } from './ciphertext-sources.ts';
import { checkContext, encryptionAlgorithm, grantTokenList, keyIdText } from './constraints.ts';
import { recipient, refuseRecipient } from './data-keys.ts';
import { findKey, type KeySubject } from './identifiers.ts';
import { checkGrantTokens, keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireEnabled } from './key-states.ts';
import type { KeyStore } from './key-store.ts';
import { checkAlgorithm, checkLength, encryptionConditions, sealerOf, symmetric } from './sealing.ts';
import { keyResource, parameters } from './trail.ts';

const ciphertext = blob({ min: 1, max: 6144 });
const dryRunModifiers = listOf(Object.values(DryRunModifierType));

const encrypt = (store: KeyStore) =>
  keyOperation<EncryptRequest, EncryptResponse>(store, {
    name: 'Encrypt',
    effect: 'reads',
    usesKey: true,
    input: structure({
      KeyId: required(keyIdText),
      Plaintext: required(blob({ min: 1, max: 4096 })),
      EncryptionContext: textMap(),
      GrantTokens: grantTokenList,
      EncryptionAlgorithm: encryptionAlgorithm,
      DryRun: boolean(),
    }),
    check: (input) => checkContext('EncryptionContext', input.EncryptionContext),
    conditions: (_call, input) => encryptionConditions(input.EncryptionAlgorithm, input.EncryptionContext),
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
      const sealer = await sealerOf(call, store, key, algorithm, input.EncryptionContext);
      try {
        return { CiphertextBlob: sealer.seal(input.Plaintext!), KeyId: key.arn, EncryptionAlgorithm: algorithm };
      } finally {
        sealer.end();
      }
    },
  });

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
      keyAccess(call, source, 'Decrypt', encryptionConditions(input.EncryptionAlgorithm, input.EncryptionContext)),
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
          ...encryptionConditions(input.SourceEncryptionAlgorithm, input.SourceEncryptionContext),
          ...same,
        }),
        keyAccess(call, destination, 'ReEncryptTo', {
          ...encryptionConditions(input.DestinationEncryptionAlgorithm, input.DestinationEncryptionContext),
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
