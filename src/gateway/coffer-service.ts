/** The system's own operations, beside AWS's: what the `coffer` command asks a server. Bodies are plain JSON. */

import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { listEvents } from '../events/list.ts';
import { eventMigrations } from '../events/records.ts';
import { purgeEvents } from '../events/retention.ts';
import { createAccountOperation, requireOperator } from '../iam/accounts.ts';
import { createHostCredentials } from '../iam/hosts.ts';
import { describeKeyUsage } from './key-usage.ts';
import { namedPrincipals } from './named-principals.ts';

export function createCoffer(parts: {
  rootKey: RootKey;
  /** Called after access keys were replaced. */
  forgetCredentials: () => void;
  /** Operations that other services contribute (InspectVolume, DescribeHosts …). */
  contributed: Readonly<Record<string, Operation>>;
}): Service {
  return {
    name: 'coffer',
    eventSource: 'coffer.internal',
    protocol: 'internalJson',
    targetPrefixes: ['Coffer'],
    operations: {
      CreateAccount: createAccountOperation(parts.rootKey),
      CreateHostCredentials: createHostCredentials(parts.rootKey, parts.forgetCredentials),
      DescribeKeyUsage: describeKeyUsage,
      ListEvents: listEvents,
      ...Object.fromEntries(Object.entries(parts.contributed).map(([name, each]) => [name, guarded(each)])),
    },
    catalogue: {},
    migrations: [...eventMigrations, namedPrincipals],
    accessDenied: (call, denial) =>
      new AwsError('AccessDeniedException', denialSentence(call, denial), { httpStatus: 403 }),
    housekeeping: purgeEvents,
  };
}

/** Services know no accounts, so that an operation of theirs is for the operator only is seen to here. */
function guarded(operation: Operation): Operation {
  if (operation.audience !== 'operator') return operation;
  return {
    ...operation,
    async resolve(call, input) {
      await requireOperator(call);
      return operation.resolve?.(call, input);
    },
  };
}
