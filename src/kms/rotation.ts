import type { GetKeyRotationStatusRequest, GetKeyRotationStatusResponse } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { required, structure } from '../aws/validate.ts';
import { keyIdText } from './constraints.ts';
import { keyOperation } from './key-operation.ts';
import type { KeyStore } from './key-store.ts';

export const rotationOperations = (store: KeyStore) => [
  keyOperation<GetKeyRotationStatusRequest, GetKeyRotationStatusResponse>(store, {
    name: 'GetKeyRotationStatus',
    effect: 'reads',
    input: structure({ KeyId: required(keyIdText) }),
    parameters: ['KeyId'],
    handle(_call, _input, key) {
      if (key.origin === 'EXTERNAL')
        throw new AwsError(
          'UnsupportedOperationException',
          `${key.arn} origin is EXTERNAL which is not valid for this operation.`,
        );
      return { KeyId: key.arn, KeyRotationEnabled: false };
    },
  }),
];
