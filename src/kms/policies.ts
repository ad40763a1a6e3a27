import type {
  GetKeyPolicyRequest,
  GetKeyPolicyResponse,
  ListKeyPoliciesRequest,
  ListKeyPoliciesResponse,
  PutKeyPolicyRequest,
} from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { boolean, required, structure } from '../aws/validate.ts';
import { keyIdText, markerText, pageLimit, policyNameText, policyText } from './constraints.ts';
import { keyOperation } from './key-operation.ts';
import type { KeyStore } from './key-store.ts';
import { pageOf, pageResult } from './markers.ts';
import { checkPolicy } from './policy-document.ts';
import { policyPrincipals, readablePolicy } from './principals.ts';

/** The one policy that a key has. */
const defaultName = 'default';

export const policyOperations = (store: KeyStore) => [
  keyOperation<GetKeyPolicyRequest, GetKeyPolicyResponse>(store, {
    name: 'GetKeyPolicy',
    effect: 'reads',
    input: structure({ KeyId: required(keyIdText), PolicyName: policyNameText }),
    parameters: ['KeyId', 'PolicyName'],
    async handle(call, input, key) {
      if ((input.PolicyName ?? defaultName) !== defaultName)
        throw new AwsError('NotFoundException', 'No such policy exists');
      return { Policy: await readablePolicy(call, key), PolicyName: defaultName };
    },
  }),
  keyOperation<PutKeyPolicyRequest, object>(store, {
    name: 'PutKeyPolicy',
    effect: 'writes',
    changesKey: true,
    input: structure({
      KeyId: required(keyIdText),
      PolicyName: policyNameText,
      Policy: required(policyText),
      BypassPolicyLockoutSafetyCheck: boolean(),
    }),
    conditions: (_call, input) => ({
      'kms:BypassPolicyLockoutSafetyCheck': String(input.BypassPolicyLockoutSafetyCheck ?? false),
    }),
    parameters: ['KeyId', 'PolicyName', 'Policy', 'BypassPolicyLockoutSafetyCheck'],
    async handle(call, input, key) {
      if ((input.PolicyName ?? defaultName) !== defaultName)
        throw new AwsError('UnsupportedOperationException', 'Only default policy is supported');
      checkPolicy(call, input.Policy!, key.arn, input.BypassPolicyLockoutSafetyCheck ?? false);
      const principals = await policyPrincipals(call, input.Policy!);
      await store.update(call.db, key, { policy: input.Policy!, principals });
      return {};
    },
  }),
  keyOperation<ListKeyPoliciesRequest, ListKeyPoliciesResponse>(store, {
    name: 'ListKeyPolicies',
    effect: 'reads',
    input: structure({ KeyId: required(keyIdText), Limit: pageLimit, Marker: markerText }),
    parameters: ['KeyId', 'Limit', 'Marker'],
    handle(_call, input, key) {
      const list = `policies ${key.key_id}`;
      const page = pageOf(list, input, { default: 100, max: 1000 });
      const { items, end } = pageResult(
        list,
        page,
        [defaultName].filter((name) => name > page.after),
        (name) => name,
      );
      return { PolicyNames: [...items], ...end };
    },
  }),
];
