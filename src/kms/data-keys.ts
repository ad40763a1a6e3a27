import {
  DataKeySpec,
  type GenerateDataKeyRequest,
  type GenerateDataKeyResponse,
  type GenerateDataKeyWithoutPlaintextRequest,
  type GenerateDataKeyWithoutPlaintextResponse,
  type GenerateRandomRequest,
  type GenerateRandomResponse,
  KeyEncryptionMechanism,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import {
  blob,
  boolean,
  type Constraint,
  integer,
  oneOf,
  required,
  structure,
  text,
  textMap,
  validate,
} from '../aws/validate.ts';
import { sealEnvelope } from '../crypto/envelope.ts';
import { secretRandom } from '../crypto/random.ts';
import { accountAccess, type Conditions, contextConditions } from './access.ts';
import { checkContext, grantTokenList, keyIdText } from './constraints.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireEnabled, requireSymmetric } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { parameters } from './trail.ts';

const numberOfBytes = integer({ min: 1, max: 1024 });
export const recipient = structure({
  KeyEncryptionAlgorithm: oneOf(Object.values(KeyEncryptionMechanism)),
  AttestationDocument: blob({ min: 1, max: 262_144 }),
});

const dataKeyMembers: Readonly<Record<string, Constraint>> = {
  KeyId: required(keyIdText),
  EncryptionContext: textMap(),
  NumberOfBytes: numberOfBytes,
  KeySpec: oneOf(Object.values(DataKeySpec)),
  GrantTokens: grantTokenList,
  DryRun: boolean(),
};

/** What both operations share. */
const common = {
  effect: 'reads',
  usesKey: true,
  conditions,
  parameters: ['KeyId', 'EncryptionContext', 'NumberOfBytes', 'KeySpec', 'DryRun'],
  additional: ({ KeyMaterialId }: GenerateDataKeyWithoutPlaintextResponse) => ({ keyMaterialId: KeyMaterialId }),
} as const;

export const dataKeyOperations = (store: KeyStore) => [
  keyOperation<GenerateDataKeyRequest, GenerateDataKeyResponse>(store, {
    ...common,
    name: 'GenerateDataKey',
    input: structure({ ...dataKeyMembers, Recipient: recipient }),
    check(input) {
      checkDataKeyInput(input);
      refuseRecipient(input);
    },
    async handle(call, input, key) {
      const plaintext = newDataKey(input, key, 'GenerateDataKey');
      const encrypted = await encryptDataKey(call, store, key, plaintext, input);
      return { ...encrypted, Plaintext: plaintext };
    },
  }),
  keyOperation<GenerateDataKeyWithoutPlaintextRequest, GenerateDataKeyWithoutPlaintextResponse>(store, {
    ...common,
    name: 'GenerateDataKeyWithoutPlaintext',
    input: structure(dataKeyMembers),
    check: checkDataKeyInput,
    async handle(call, input, key) {
      const plaintext = newDataKey(input, key, 'GenerateDataKeyWithoutPlaintext');
      try {
        return await encryptDataKey(call, store, key, plaintext, input);
      } finally {
        plaintext.fill(0);
      }
    },
  }),
  generateRandom,
];

type DataKeyInput = GenerateDataKeyWithoutPlaintextRequest;

function checkDataKeyInput(input: DataKeyInput): void {
  checkContext('EncryptionContext', input.EncryptionContext);
  if (Boolean(input.KeySpec) === Boolean(input.NumberOfBytes))
    throw new AwsError('ValidationException', 'Please specify either number of bytes or key spec.');
}

/**
 * A request for the enclave that an attestation document names is never answered otherwise: the plaintext would go to
 * someone it was not meant for. No document can be one of this system, which has no Nitro enclaves.
 * @throws {AwsError} ValidationException
 */
export function refuseRecipient(input: { Recipient?: object | undefined }): void {
  if (input.Recipient)
    throw new AwsError(
      'ValidationException',
      'Recipient: the attestation document is not valid, because this system has no AWS Nitro Enclaves.',
    );
}

function conditions(_call: Call, input: DataKeyInput): Conditions {
  return { 'kms:EncryptionAlgorithm': 'SYMMETRIC_DEFAULT', ...contextConditions(input.EncryptionContext) };
}

/** The caller wipes it. */
function newDataKey(input: DataKeyInput, key: Key, operationName: string): Buffer {
  requireEnabled(key);
  requireSymmetric(key, operationName);
  stopIfDryRun(input);
  const length = input.NumberOfBytes ?? (input.KeySpec === 'AES_128' ? 16 : 32);
  return secretRandom(length);
}

async function encryptDataKey(call: Call, store: KeyStore, key: Key, plaintext: Buffer, input: DataKeyInput) {
  const ciphertext = await store.withMaterial(call.db, key, key.material_id!, (material) =>
    sealEnvelope(material, key.sender!, plaintext, input.EncryptionContext ?? undefined),
  );
  return { CiphertextBlob: ciphertext!, KeyId: key.arn, KeyMaterialId: key.keyMaterialId };
}

const generateRandomInput = structure({
  NumberOfBytes: numberOfBytes,
  CustomKeyStoreId: text({ min: 1, max: 64 }),
  Recipient: recipient,
});

const generateRandom = operation<GenerateRandomRequest, GenerateRandomResponse>({
  name: 'GenerateRandom',
  effect: 'reads',
  resolve(_call, input) {
    validate(input, generateRandomInput);
    refuseRecipient(input);
    if (input.CustomKeyStoreId)
      throw new AwsError('CustomKeyStoreNotFoundException', `Custom key store ${input.CustomKeyStoreId} is not found.`);
    if (!input.NumberOfBytes) throw new AwsError('ValidationException', 'NumberOfBytes is required.');
    return undefined;
  },
  access: (call) => [accountAccess(call, 'GenerateRandom')],
  handle: (_call, input) => ({ Plaintext: secretRandom(input.NumberOfBytes!) }),
  record: (_call, input) => ({ requestParameters: parameters(input, ['NumberOfBytes']), resources: [] }),
});
