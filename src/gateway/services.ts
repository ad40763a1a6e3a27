/** All the services of a control plane. The list is what the gateway speaks and what docs/api-coverage.md counts. */
import type { Service } from '../aws/service.ts';
import { createCloudTrail } from '../cloudtrail/index.ts';
import type { RootKey } from '../crypto/root-key.ts';
import type { Database } from '../database/database.ts';
import { createEbs } from '../ebs/index.ts';
import { createCofferHost, createEc2, internalOperations } from '../ec2/index.ts';
import { createIam, createSts } from '../iam/index.ts';
import { createKms } from '../kms/index.ts';
import { createCoffer } from './coffer-service.ts';

export function createServices(parts: {
  rootKey: RootKey;
  database: Database;
  /** Called after access keys changed (one, or any), so that nothing keeps an old one in memory. */
  forgetCredentials: (accessKeyId?: string) => void;
}): readonly Service[] {
  const { rootKey, forgetCredentials } = parts;
  const ebs = createEbs({ rootKey });
  const host = createCofferHost();
  return [
    createKms({ rootKey }),
    createEc2(),
    ebs.service,
    createSts({ rootKey }),
    createIam({ rootKey, forgetCredentials }),
    createCloudTrail(),
    createCoffer({ rootKey, forgetCredentials, contributed: internalOperations }),
    { ...host, operations: { ...host.operations, ...ebs.hostOperations } },
  ];
}
