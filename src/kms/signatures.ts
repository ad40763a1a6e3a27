import {
  MessageType,
  SigningAlgorithmSpec,
  type SignRequest,
  type SignResponse,
  type VerifyRequest,
  type VerifyResponse,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { blob, boolean, type Constraint, oneOf, required, structure } from '../aws/validate.ts';
import type { Conditions } from './access.ts';
import { grantTokenList, keyIdText } from './constraints.ts';
import { laterAnswer } from './elsewhere.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireAlgorithm, requireEnabled } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import {
  checkMessage,
  type SigningPlan,
  signing,
  signMessage,
  takesLong,
  verification,
  verifyMessage,
} from './signing-algorithms.ts';
import { parameters } from './trail.ts';

const members: Readonly<Record<string, Constraint>> = {
  KeyId: required(keyIdText),
  Message: required(blob({ min: 1, max: 4096 })),
  MessageType: oneOf(Object.values(MessageType)),
  SigningAlgorithm: required(oneOf(Object.values(SigningAlgorithmSpec))),
  GrantTokens: grantTokenList,
  DryRun: boolean(),
};

type SigningInput = Pick<SignRequest, 'Message' | 'MessageType' | 'SigningAlgorithm'>;

export const signatureOperations = (store: KeyStore) => [sign(store), verify(store)];

const sign = (store: KeyStore) =>
  keyOperation<SignRequest, SignResponse>(store, {
    name: 'Sign',
    effect: 'reads',
    usesKey: true,
    input: structure(members),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      const plan = planOf(key, input, 'Sign');
      stopIfDryRun(input);
      const message = input.Message!;
      const answer = (Signature: Buffer) => ({ KeyId: key.arn, Signature, SigningAlgorithm: plan.algorithm });
      return store.withPrivateKey(call.db, key, (privateKey) =>
        takesLong(plan, 'sign')
          ? laterAnswer(call, signing(plan, privateKey, message), answer)
          : answer(signMessage(plan, privateKey, message)),
      );
    },
  });

const verify = (store: KeyStore) =>
  keyOperation<VerifyRequest, VerifyResponse>(store, {
    name: 'Verify',
    effect: 'reads',
    usesKey: true,
    input: structure({ ...members, Signature: required(blob({ min: 1, max: 6144 })) }),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      const plan = planOf(key, input, 'Verify');
      stopIfDryRun(input);
      const publicKey = await store.publicKey(call.db, key);
      const [message, signature] = [input.Message!, input.Signature!];
      const answer = (isValid: boolean) => {
        if (!isValid) throw new AwsError('KMSInvalidSignatureException', '');
        return { KeyId: key.arn, SignatureValid: true, SigningAlgorithm: plan.algorithm };
      };
      return takesLong(plan, 'verify')
        ? laterAnswer(call, verification(plan, publicKey, message, signature), answer)
        : answer(verifyMessage(plan, publicKey, message, signature));
    },
  });

/** @throws {AwsError} when the key, the algorithm and the message do not go together */
function planOf(key: Key, input: SigningInput, operationName: string): SigningPlan {
  const algorithm = input.SigningAlgorithm!;
  requireEnabled(key);
  requireAlgorithm(key, 'SIGN_VERIFY', operationName, algorithm);
  const plan = { spec: key.key_spec, algorithm, messageType: input.MessageType ?? 'RAW' };
  checkMessage(plan, input.Message!);
  return plan;
}

/** Source: KMS developer guide, `kms:SigningAlgorithm`, `kms:MessageType`. */
function conditions(_call: Call, input: SigningInput): Conditions {
  return { 'kms:SigningAlgorithm': input.SigningAlgorithm!, 'kms:MessageType': input.MessageType ?? 'RAW' };
}

function recorded(input: SigningInput): Record<string, unknown> {
  return { messageType: 'RAW', ...parameters(input, ['KeyId', 'MessageType', 'SigningAlgorithm', 'DryRun']) };
}
