/** ML-KEM (FIPS 203). Source: API_Encapsulate, API_Decapsulate. */
import { createPrivateKey, createPublicKey, decapsulate, encapsulate } from 'node:crypto';
import {
  type DecapsulateRequest,
  type DecapsulateResponse,
  type EncapsulateRequest,
  type EncapsulateResponse,
  EncapsulationAlgorithmSpec,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { blob, boolean, type Constraint, oneOf, required, structure } from '../aws/validate.ts';
import type { Conditions } from './access.ts';
import { grantTokenList, keyIdText } from './constraints.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireAlgorithm, requireEnabled } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';

/** Bytes of an encapsulated secret. Source: FIPS 203, table 3. */
const ciphertextBytes: Readonly<Record<string, number>> = { ML_KEM_512: 768, ML_KEM_768: 1088, ML_KEM_1024: 1568 };

const members: Readonly<Record<string, Constraint>> = {
  KeyId: required(keyIdText),
  EncapsulationAlgorithm: required(oneOf(Object.values(EncapsulationAlgorithmSpec))),
  GrantTokens: grantTokenList,
  DryRun: boolean(),
};
const recorded = ['KeyId', 'EncapsulationAlgorithm', 'DryRun'];

type EncapsulationInput = Pick<EncapsulateRequest, 'EncapsulationAlgorithm'>;

export const encapsulationOperations = (store: KeyStore) => [
  keyOperation<EncapsulateRequest, EncapsulateResponse>(store, {
    name: 'Encapsulate',
    effect: 'reads',
    usesKey: true,
    input: structure(members),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      checkKey(key, input, 'Encapsulate');
      stopIfDryRun(input);
      const publicKey = await store.publicKey(call.db, key);
      const secret = encapsulate(createPublicKey({ key: publicKey, format: 'der', type: 'spki' }));
      return {
        KeyId: key.arn,
        SharedSecret: secret.sharedKey,
        SharedSecretCiphertextBlob: secret.ciphertext,
        EncapsulationAlgorithm: input.EncapsulationAlgorithm!,
      };
    },
  }),
  keyOperation<DecapsulateRequest, DecapsulateResponse>(store, {
    name: 'Decapsulate',
    effect: 'reads',
    usesKey: true,
    input: structure({ ...members, SharedSecretCiphertextBlob: required(blob({ min: 1, max: 6144 })) }),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      checkKey(key, input, 'Decapsulate');
      const ciphertext = input.SharedSecretCiphertextBlob!;
      if (ciphertext.length !== ciphertextBytes[key.key_spec]) throw new AwsError('InvalidCiphertextException', '');
      stopIfDryRun(input);
      // A ciphertext of another key, or a changed one, gives a secret that no one else has: ML-KEM rejects implicitly.
      const SharedSecret = await store.withPrivateKey(call.db, key, (privateKey) =>
        decapsulate(createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' }), ciphertext),
      );
      return { KeyId: key.arn, SharedSecret, EncapsulationAlgorithm: input.EncapsulationAlgorithm! };
    },
  }),
];

function conditions(_call: Call, input: EncapsulationInput): Conditions {
  return { 'kms:EncapsulationAlgorithm': input.EncapsulationAlgorithm! };
}

function checkKey(key: Key, input: EncapsulationInput, operationName: string): void {
  requireEnabled(key);
  requireAlgorithm(key, 'ENCAPSULATE_DECAPSULATE', operationName, input.EncapsulationAlgorithm!);
}
