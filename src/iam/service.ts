/** IAM: users, groups, roles, access keys, policies. One for all regions. */
import * as sdk from '@aws-sdk/client-iam';
import { catalogueOf } from '../aws/catalogue.ts';
import type { Operation, Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { boundaryOperations } from './boundaries.ts';
import { accessDenied } from './denial.ts';
import { groupOperations } from './groups.ts';
import { describeInstanceProfile, instanceProfileOperations } from './instance-profiles.ts';
import { managedPolicyOperations } from './managed-policies.ts';
import { withoutUserSessions } from './mfa.ts';
import { identityPolicyOperations } from './policies-of-identities.ts';
import { policyVersionOperations } from './policy-versions.ts';
import { describePrincipals, resolvePrincipals } from './principal-ids.ts';
import { roleOperations } from './roles.ts';
import { simulateCustomPolicy, simulatePrincipalPolicy } from './simulate.ts';
import { tagOperations } from './tags.ts';
import { userKeyOperations } from './user-keys.ts';
import { userOperations } from './users.ts';

export function createIam(parts: {
  rootKey: RootKey;
  /** Called after access keys or the users behind them changed: of one key, or of any. */
  forgetCredentials: (accessKeyId?: string) => void;
}): Service {
  const catalogue = catalogueOf(sdk);
  const operations: readonly Operation[] = [
    ...userOperations(parts.forgetCredentials),
    ...userKeyOperations(parts.rootKey, parts.forgetCredentials),
    ...groupOperations,
    ...roleOperations,
    ...instanceProfileOperations,
    ...identityPolicyOperations,
    ...boundaryOperations,
    ...managedPolicyOperations,
    ...policyVersionOperations,
    ...tagOperations,
    simulatePrincipalPolicy,
    simulateCustomPolicy,
  ];
  return {
    name: 'iam',
    eventSource: 'iam.amazonaws.com',
    protocol: 'awsQuery',
    apiVersion: '2010-05-08',
    xmlNamespace: 'https://iam.amazonaws.com/doc/2010-05-08/',
    operations: {
      ...Object.fromEntries(
        operations
          .map(withoutUserSessions)
          .map((operation) => [operation.name, { ...operation, schema: catalogue[operation.name] }]),
      ),
      [resolvePrincipals.name]: resolvePrincipals,
      [describePrincipals.name]: describePrincipals,
      [describeInstanceProfile.name]: describeInstanceProfile,
    },
    catalogue,
    migrations: [],
    accessDenied,
  };
}
