/** KMS: keys, what may be done with them, and what is done. */
import * as sdk from '@aws-sdk/client-kms';
import { catalogueOf } from '../aws/catalogue.ts';
import type { Operation, Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { accessDenied } from './access.ts';
import { aliasOperations } from './aliases.ts';
import { ciphertextOperations } from './ciphertexts.ts';
import { createKey } from './create-key.ts';
import { customKeyStoreOperations } from './custom-key-stores.ts';
import { dataKeyPairOperations } from './data-key-pairs.ts';
import { dataKeyOperations } from './data-keys.ts';
import { deletionOperations } from './deletion.ts';
import { encapsulationOperations } from './encapsulation.ts';
import { grantOperations } from './grants.ts';
import { housekeeping } from './housekeeping.ts';
import { importOperations } from './import-material.ts';
import { importParameterOperations } from './import-parameters.ts';
import { KeyStore } from './key-store.ts';
import { keyOperations } from './keys.ts';
import { lastUsageOperations } from './last-usage.ts';
import { macOperations } from './macs.ts';
import { deleteExpiredKeyMaterial } from './material-expiry.ts';
import { policyOperations } from './policies.ts';
import { publicKeyOperations } from './public-keys.ts';
import { kmsMigrations } from './records.ts';
import { replicationOperations } from './replication.ts';
import { rotateKeyOperations } from './rotate-key.ts';
import { rotationOperations } from './rotation.ts';
import { sharedSecretOperations } from './shared-secrets.ts';
import { signatureOperations } from './signatures.ts';
import { tagOperations } from './tags.ts';

export function createKms({ rootKey }: { rootKey: RootKey }): Service {
  const store = new KeyStore(rootKey);
  const catalogue = catalogueOf(sdk);
  const operations: Operation[] = [
    createKey(store),
    ...keyOperations(store),
    ...deletionOperations(store),
    ...aliasOperations(store),
    ...tagOperations(store),
    ...policyOperations(store),
    ...rotationOperations(store),
    ...rotateKeyOperations(store),
    ...importParameterOperations(store),
    ...importOperations(store),
    deleteExpiredKeyMaterial(store),
    ...replicationOperations(store),
    ...ciphertextOperations(store),
    ...dataKeyOperations(store),
    ...publicKeyOperations(store),
    ...signatureOperations(store),
    ...macOperations(store),
    ...dataKeyPairOperations(store),
    ...sharedSecretOperations(store),
    ...encapsulationOperations(store),
    ...grantOperations(store),
    ...customKeyStoreOperations(),
    ...lastUsageOperations(store),
  ];
  return {
    name: 'kms',
    eventSource: 'kms.amazonaws.com',
    protocol: 'awsJson1_1',
    targetPrefixes: ['TrentService'],
    operations: Object.fromEntries(
      operations.map((operation) => [operation.name, { ...operation, schema: catalogue[operation.name] }]),
    ),
    catalogue,
    migrations: kmsMigrations,
    accessDenied,
    housekeeping,
  };
}
