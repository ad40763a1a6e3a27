/**
 * Custom key stores: keys whose material is kept in an AWS CloudHSM cluster or in a key manager outside of AWS. There are
 * none here. The operations exist all the same, so that whoever asks for them needs the permission, leaves a record, and is
 * told why. Source: KMS API reference, the operations on custom key stores.
 */
import { CustomKeyStoreType, XksProxyConnectivityType } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { type Constraint, oneOf, required, structure, text, validate } from '../aws/validate.ts';
import { accountAccess } from './access.ts';
import { markerText, pageLimit } from './constraints.ts';
import { parameters } from './trail.ts';

const storeId = text({ min: 1, max: 64 });
const storeName = text({ min: 1, max: 256 });
const onlyId = { CustomKeyStoreId: required(storeId) };

/** What CreateCustomKeyStore and UpdateCustomKeyStore share. Passwords and credentials are kept out of error messages. */
const settings = {
  CloudHsmClusterId: text({ min: 19, max: 24, pattern: /cluster-[2-7a-zA-Z]{11,16}/ }),
  KeyStorePassword: text({ min: 7, max: 32, secret: true }),
  XksProxyUriEndpoint: text({ min: 10, max: 128, pattern: /^https:\/\/[a-zA-Z0-9.-]+$/ }),
  XksProxyUriPath: text({
    min: 10,
    max: 128,
    pattern: /^(\/[a-zA-Z0-9/_-]+\/kms\/xks\/v\d{1,2})$|^(\/kms\/xks\/v\d{1,2})$/,
  }),
  XksProxyVpcEndpointServiceName: text({
    min: 20,
    max: 64,
    pattern: /^(com|eu)\.amazonaws\.vpce\.([a-z]+-){2,3}\d+\.vpce-svc-[0-9a-z]+$/,
  }),
  XksProxyVpcEndpointServiceOwner: text({ min: 12, max: 12, pattern: /[0-9]{12}/ }),
  XksProxyAuthenticationCredential: structure({
    AccessKeyId: required(text({ min: 20, max: 30, pattern: /^[A-Z2-7]+$/ })),
    RawSecretAccessKey: required(text({ min: 43, max: 64, pattern: /^[a-zA-Z0-9/+=]+$/, secret: true })),
  }),
  XksProxyConnectivity: oneOf(Object.values(XksProxyConnectivityType)),
};
/** Of these the trail shows all but the secrets. */
const recordedSettings = Object.keys(settings).filter(
  (name) => name !== 'KeyStorePassword' && name !== 'XksProxyAuthenticationCredential',
);

const inputs: Readonly<Record<string, Readonly<Record<string, Constraint>>>> = {
  CreateCustomKeyStore: {
    CustomKeyStoreName: required(storeName),
    TrustAnchorCertificate: text({ min: 1, max: 5000 }),
    CustomKeyStoreType: oneOf(Object.values(CustomKeyStoreType)),
    ...settings,
  },
  ConnectCustomKeyStore: onlyId,
  DeleteCustomKeyStore: onlyId,
  DescribeCustomKeyStores: {
    CustomKeyStoreId: storeId,
    CustomKeyStoreName: storeName,
    Limit: pageLimit,
    Marker: markerText,
  },
  DisconnectCustomKeyStore: onlyId,
  UpdateCustomKeyStore: { ...onlyId, NewCustomKeyStoreName: storeName, ...settings },
};

const recorded = [
  'CustomKeyStoreId',
  'CustomKeyStoreName',
  'NewCustomKeyStoreName',
  'CustomKeyStoreType',
  'Limit',
  'Marker',
  ...recordedSettings,
];

export const customKeyStoreOperations = () =>
  Object.entries(inputs).map(([name, members]) =>
    operation<object, object>({
      name,
      effect: name === 'DescribeCustomKeyStores' ? 'reads' : 'writes',
      resolve: (_call, input) => validate(input, structure(members)) as undefined,
      access: (call) => [accountAccess(call, name)],
      handle() {
        throw noCustomKeyStores();
      },
      record: (_call, input) => ({ requestParameters: parameters(input, recorded), resources: [] }),
    }),
  );

/** What is said to anyone who wants something of a custom key store. */
export function noCustomKeyStores(): AwsError {
  return new AwsError(
    'UnsupportedOperationException',
    'Custom key stores are not supported: this system keeps all key material itself, in its database and under its root key. ' +
      'There is no AWS CloudHSM here, and external key stores are not supported. To use key material of your own, create a ' +
      'key with Origin EXTERNAL and import it.',
  );
}
