/** Identities: accounts, their access keys, temporary credentials (STS), and the decision who may do what. */
import * as sdk from '@aws-sdk/client-sts';
import { catalogueOf } from '../aws/catalogue.ts';
import { AwsError } from '../aws/errors.ts';
import type { Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { iamMigrations } from './records.ts';
import { assumeInfrastructureRole, getCallerIdentity } from './sts.ts';

export function createSts({ rootKey }: { rootKey: RootKey }): Service {
  return {
    name: 'sts',
    eventSource: 'sts.amazonaws.com',
    protocol: 'awsQuery',
    apiVersion: '2011-06-15',
    xmlNamespace: 'https://sts.amazonaws.com/doc/2011-06-15/',
    operations: {
      GetCallerIdentity: getCallerIdentity,
      AssumeInfrastructureRole: assumeInfrastructureRole(rootKey),
    },
    catalogue: catalogueOf(sdk),
    migrations: iamMigrations,
    accessDenied: (call, { request, reason }) =>
      new AwsError(
        'AccessDenied',
        `User: ${call.principal.arn} is not authorized to perform: ${request.action} on resource: ${request.resource} because ${reason}`,
        { httpStatus: 403 },
      ),
  };
}
