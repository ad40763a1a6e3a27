import { GetCallerIdentity$, type GetCallerIdentityResponse } from '@aws-sdk/client-sts';
import { operation } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { infrastructurePrincipal } from './principals.ts';
import { createSession, type SessionCredentials } from './sessions.ts';

/** How long a host's credentials for one instance last; a host asks anew when they are near their end. */
const infrastructureSessionMs = 3600 * 1000;

/** GetCallerIdentity needs no permission. Source: STS API reference, GetCallerIdentity. */
export const getCallerIdentity = operation<object, GetCallerIdentityResponse>({
  name: 'GetCallerIdentity',
  schema: GetCallerIdentity$,
  effect: 'reads',
  access: () => [],
  handle: ({ principal }) => ({ UserId: principal.principalId, Account: principal.account, Arn: principal.arn }),
});

/**
 * AssumeInfrastructureRole (internal, for EC2): temporary credentials of `aws:ec2-infrastructure/‹instance›`, with which
 * the instance's host asks KMS for data keys. Grants alone decide what they open.
 */
export function assumeInfrastructureRole(rootKey: RootKey) {
  return operation<{ InstanceId: string; Account: string; Region: string }, SessionCredentials>({
    name: 'AssumeInfrastructureRole',
    effect: 'reads',
    recorded: false,
    audience: 'service',
    access: () => [],
    handle(call, { InstanceId, Account, Region }) {
      const now = call.clock.now();
      return createSession(
        rootKey,
        infrastructurePrincipal(Account, Region, InstanceId),
        now,
        now + infrastructureSessionMs,
      );
    },
  });
}
