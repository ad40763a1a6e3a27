/** Identities: accounts, their access keys, temporary credentials (STS), and the decision who may do what. */
import * as sdk from '@aws-sdk/client-sts';
import { catalogueOf } from '../aws/catalogue.ts';
import type { Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { assumeRole } from './assume-role.ts';
import { accessDenied } from './denial.ts';
import { withoutUserSessions } from './mfa.ts';
import { iamMigrations } from './records.ts';
import { assumeInfrastructureRole, getAccessKeyInfo, getCallerIdentity, getSessionToken } from './sts.ts';

export { createIam } from './service.ts';

export function createSts({ rootKey }: { rootKey: RootKey }): Service {
  const catalogue = catalogueOf(sdk);
  return {
    name: 'sts',
    eventSource: 'sts.amazonaws.com',
    protocol: 'awsQuery',
    apiVersion: '2011-06-15',
    xmlNamespace: 'https://sts.amazonaws.com/doc/2011-06-15/',
    operations: {
      ...Object.fromEntries(
        [getCallerIdentity, assumeRole(rootKey), getSessionToken(rootKey), withoutUserSessions(getAccessKeyInfo)].map(
          (operation) => [operation.name, { ...operation, schema: catalogue[operation.name] }],
        ),
      ),
      AssumeInfrastructureRole: assumeInfrastructureRole(rootKey),
    },
    catalogue,
    migrations: iamMigrations,
    accessDenied,
  };
}
