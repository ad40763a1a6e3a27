import { createHmac, timingSafeEqual } from 'node:crypto';
import {
  type GenerateMacRequest,
  type GenerateMacResponse,
  MacAlgorithmSpec,
  type VerifyMacRequest,
  type VerifyMacResponse,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { blob, boolean, type Constraint, oneOf, required, structure } from '../aws/validate.ts';
import type { Conditions } from './access.ts';
import { grantTokenList, keyIdText } from './constraints.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { requireAlgorithm, requireEnabled } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';

const members: Readonly<Record<string, Constraint>> = {
  Message: required(blob({ min: 1, max: 4096 })),
  KeyId: required(keyIdText),
  MacAlgorithm: required(oneOf(Object.values(MacAlgorithmSpec))),
  GrantTokens: grantTokenList,
  DryRun: boolean(),
};
const recorded = ['KeyId', 'MacAlgorithm', 'DryRun'];

const hashes: Readonly<Record<MacAlgorithmSpec, string>> = {
  HMAC_SHA_224: 'sha224',
  HMAC_SHA_256: 'sha256',
  HMAC_SHA_384: 'sha384',
  HMAC_SHA_512: 'sha512',
};

type MacInput = Pick<GenerateMacRequest, 'Message' | 'MacAlgorithm' | 'DryRun'>;

export const macOperations = (store: KeyStore) => [
  keyOperation<GenerateMacRequest, GenerateMacResponse>(store, {
    name: 'GenerateMac',
    effect: 'reads',
    usesKey: true,
    input: structure(members),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      const Mac = await macOf(call, store, key, input, 'GenerateMac');
      return { Mac, MacAlgorithm: input.MacAlgorithm!, KeyId: key.arn };
    },
  }),
  keyOperation<VerifyMacRequest, VerifyMacResponse>(store, {
    name: 'VerifyMac',
    effect: 'reads',
    usesKey: true,
    input: structure({ ...members, Mac: required(blob({ min: 1, max: 6144 })) }),
    conditions,
    parameters: recorded,
    async handle(call, input, key) {
      const mac = await macOf(call, store, key, input, 'VerifyMac');
      const given = input.Mac!;
      if (given.length !== mac.length || !timingSafeEqual(given, mac)) throw new AwsError('KMSInvalidMacException', '');
      return { KeyId: key.arn, MacValid: true, MacAlgorithm: input.MacAlgorithm! };
    },
  }),
];

const conditions = (_call: Call, input: MacInput): Conditions => ({ 'kms:MacAlgorithm': input.MacAlgorithm! });

/** @throws {AwsError} when the key and the algorithm do not go together, or the caller only asks */
async function macOf(call: Call, store: KeyStore, key: Key, input: MacInput, operationName: string): Promise<Buffer> {
  const algorithm = input.MacAlgorithm!;
  requireEnabled(key);
  requireAlgorithm(key, 'GENERATE_VERIFY_MAC', operationName, algorithm);
  stopIfDryRun(input);
  const mac = await store.withMaterial(call.db, key, key.material_id!, (material) =>
    createHmac(hashes[algorithm], material).update(input.Message!).digest(),
  );
  return mac!;
}
