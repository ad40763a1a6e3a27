import {
  DataKeyPairSpec,
  type GenerateDataKeyPairRequest,
  type GenerateDataKeyPairResponse,
  type GenerateDataKeyPairWithoutPlaintextRequest,
  type GenerateDataKeyPairWithoutPlaintextResponse,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { boolean, type Constraint, oneOf, required, structure, textMap } from '../aws/validate.ts';
import { sealEnvelope } from '../crypto/envelope.ts';
import { type Conditions, contextConditions } from './access.ts';
import { checkContext, grantTokenList, keyIdText } from './constraints.ts';
import { recipient, refuseRecipient } from './data-keys.ts';
import { keyNotFound } from './identifiers.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { type Material, newMaterial, requireSupportedSpec } from './key-specs.ts';
import { requireEnabled, requireSymmetric } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';

type PairInput = GenerateDataKeyPairWithoutPlaintextRequest;

const members: Readonly<Record<string, Constraint>> = {
  EncryptionContext: textMap(),
  KeyId: required(keyIdText),
  KeyPairSpec: required(oneOf(Object.values(DataKeyPairSpec))),
  GrantTokens: grantTokenList,
  DryRun: boolean(),
};

/** What both operations share. Making an RSA key takes long, and nothing else may wait for it. */
const common = {
  effect: 'waits',
  readOnly: true,
  usesKey: true,
  conditions,
  parameters: ['KeyId', 'EncryptionContext', 'KeyPairSpec', 'DryRun'],
  additional: ({ KeyMaterialId }: GenerateDataKeyPairWithoutPlaintextResponse) => ({ keyMaterialId: KeyMaterialId }),
} as const;

export const dataKeyPairOperations = (store: KeyStore) => [
  keyOperation<GenerateDataKeyPairRequest, GenerateDataKeyPairResponse>(store, {
    ...common,
    name: 'GenerateDataKeyPair',
    input: structure({ ...members, Recipient: recipient }),
    check(input) {
      checkPairInput(input);
      refuseRecipient(input);
    },
    async handle(call, input, key) {
      const pair = await newPair(input, key, 'GenerateDataKeyPair');
      try {
        return { ...(await encryptPair(call, store, key, pair, input)), PrivateKeyPlaintext: pair.secret };
      } catch (error) {
        pair.secret.fill(0);
        throw error;
      }
    },
  }),
  keyOperation<GenerateDataKeyPairWithoutPlaintextRequest, GenerateDataKeyPairWithoutPlaintextResponse>(store, {
    ...common,
    name: 'GenerateDataKeyPairWithoutPlaintext',
    input: structure(members),
    check: checkPairInput,
    async handle(call, input, key) {
      const pair = await newPair(input, key, 'GenerateDataKeyPairWithoutPlaintext');
      try {
        return await encryptPair(call, store, key, pair, input);
      } finally {
        pair.secret.fill(0);
      }
    },
  }),
];

function checkPairInput(input: PairInput): void {
  checkContext('EncryptionContext', input.EncryptionContext);
  requireSupportedSpec(input.KeyPairSpec!);
}

function conditions(_call: Call, input: PairInput): Conditions {
  return {
    'kms:DataKeyPairSpec': input.KeyPairSpec!,
    'kms:EncryptionAlgorithm': 'SYMMETRIC_DEFAULT',
    ...contextConditions(input.EncryptionContext),
  };
}

/**
 * The caller wipes `secret`. Beside it there is the key in OpenSSL's memory, which OpenSSL wipes when the garbage collector
 * frees it; nothing in Node.js can hasten that.
 */
function newPair(input: PairInput, key: Key, operationName: string): Promise<Material> {
  requireEnabled(key);
  requireSymmetric(key, operationName);
  stopIfDryRun(input);
  return newMaterial(input.KeyPairSpec!);
}

/** Encrypts the private key, under the key as it is by now: it may have been disabled while the pair was made. */
async function encryptPair(call: Call, store: KeyStore, found: Key, pair: Material, input: PairInput) {
  return call.transaction(async (inside) => {
    const { db } = inside;
    const key = await store.byId(inside, found.region, found.key_id);
    if (!key) throw keyNotFound(found.arn);
    requireEnabled(key);
    const ciphertext = await store.withMaterial(db, key, key.material_id!, (material) =>
      sealEnvelope(material, key.sender!, pair.secret, input.EncryptionContext ?? undefined),
    );
    return {
      PrivateKeyCiphertextBlob: ciphertext!,
      PublicKey: pair.publicKey!,
      KeyId: key.arn,
      KeyPairSpec: input.KeyPairSpec!,
      KeyMaterialId: key.keyMaterialId,
    };
  });
}
