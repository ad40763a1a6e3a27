import type {
  CustomerMasterKeySpec,
  GetPublicKeyRequest,
  GetPublicKeyResponse,
  KeySpec,
  KeyUsageType,
} from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { required, structure } from '../aws/validate.ts';
import { grantTokenList, keyIdText } from './constraints.ts';
import { keyOperation } from './key-operation.ts';
import { algorithmsOf, isAsymmetric } from './key-specs.ts';
import { requireMaterial, requireNotPendingDeletion } from './key-states.ts';
import type { KeyStore } from './key-store.ts';

export const publicKeyOperations = (store: KeyStore) => [getPublicKey(store)];

const getPublicKey = (store: KeyStore) =>
  keyOperation<GetPublicKeyRequest, GetPublicKeyResponse>(store, {
    name: 'GetPublicKey',
    effect: 'reads',
    usesKey: true,
    input: structure({ KeyId: required(keyIdText), GrantTokens: grantTokenList }),
    parameters: ['KeyId'],
    async handle(call, _input, key) {
      // A disabled key gives its public half all the same: AWS does so too, whatever its table of key states says.
      requireNotPendingDeletion(key);
      if (!isAsymmetric(key.key_spec))
        throw new AwsError(
          'UnsupportedOperationException',
          `${key.arn} key spec is ${key.key_spec} which is not valid for GetPublicKey.`,
        );
      requireMaterial(key);
      return {
        KeyId: key.arn,
        PublicKey: await store.publicKey(call.db, key),
        CustomerMasterKeySpec: key.key_spec as CustomerMasterKeySpec,
        KeySpec: key.key_spec as KeySpec,
        KeyUsage: key.key_usage as KeyUsageType,
        ...algorithmsOf(key.key_spec, key.key_usage),
      };
    },
  });
