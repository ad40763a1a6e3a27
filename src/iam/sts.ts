import type {
  GetAccessKeyInfoRequest,
  GetAccessKeyInfoResponse,
  GetCallerIdentityResponse,
  GetSessionTokenRequest,
  GetSessionTokenResponse,
} from '@aws-sdk/client-sts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { integer, required, text } from '../aws/validate.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { check, validationError } from './errors.ts';
import { tablesOf } from './identities.ts';
import { mfaRules, refuseMfa } from './mfa.ts';
import { infrastructurePrincipal } from './principals.ts';
import { createSession, type SessionCredentials } from './sessions.ts';

/** How long a host's credentials for one instance last; a host asks anew when they are near their end. */
const infrastructureSessionMs = 3600 * 1000;

/** GetCallerIdentity needs no permission. Source: STS API reference, GetCallerIdentity. */
export const getCallerIdentity = operation<object, GetCallerIdentityResponse>({
  name: 'GetCallerIdentity',
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

/** GetSessionToken: temporary credentials of the caller itself; needs no permission. Source: STS API reference. */
export function getSessionToken(rootKey: RootKey) {
  return operation<GetSessionTokenRequest, GetSessionTokenResponse>({
    name: 'GetSessionToken',
    effect: 'reads',
    resolve(_call, input) {
      check(input, { DurationSeconds: integer({ min: 900, max: 129_600 }), ...mfaRules });
      refuseMfa(input);
    },
    access: () => [],
    handle({ principal, clock }, input) {
      if (principal.session)
        throw new AwsError('AccessDenied', 'Cannot call GetSessionToken with session credentials', { httpStatus: 403 });
      const { accessKeyId: _, ...who } = principal;
      const longest = principal.type === 'Root' ? 3600 : 129_600;
      const seconds = Math.min(input.DurationSeconds ?? 43_200, longest);
      const now = clock.now();
      return { Credentials: createSession(rootKey, who, now, now + seconds * 1000) };
    },
    record: (_call, input, output) => ({
      requestParameters: input.DurationSeconds ? { durationSeconds: input.DurationSeconds } : null,
      responseElements: output
        ? {
            credentials: {
              accessKeyId: output.Credentials!.AccessKeyId,
              expiration: output.Credentials!.Expiration,
            },
          }
        : null,
    }),
  });
}

/** GetAccessKeyInfo: the account of a long-term access key. Source: STS API reference. */
export const getAccessKeyInfo = operation<GetAccessKeyInfoRequest, GetAccessKeyInfoResponse>({
  name: 'GetAccessKeyInfo',
  effect: 'reads',
  resolve: (_call, input) => check(input, { AccessKeyId: required(text({ min: 16, max: 128, pattern: /[\w]*/ })) }),
  access: (call) => [{ action: 'sts:GetAccessKeyInfo', resource: '*', resourceAccount: call.account }],
  async handle(call, input) {
    const key = await tablesOf(call)
      .selectFrom('access_keys')
      .select('account')
      .where('access_key_id', '=', input.AccessKeyId!)
      .executeTakeFirst();
    if (!key) throw validationError(`Invalid access key id ${input.AccessKeyId}`);
    return { Account: key.account };
  },
  record: (_call, input) => ({ requestParameters: { accessKeyId: input.AccessKeyId ?? null } }),
});
