/** Nobody has a second factor here. A request that brings a code of one is refused, so that nobody thinks that it counted. */
import { AwsError } from '../aws/errors.ts';
import type { Operation } from '../aws/service.ts';
import { text } from '../aws/validate.ts';

/** The members of a request that bring a code. Source: STS API reference, AssumeRole, GetSessionToken. */
export const mfaRules = {
  SerialNumber: text({ min: 9, max: 256, pattern: /[\w+=/:,.@-]*/ }),
  TokenCode: text({ min: 6, max: 6, pattern: /[\d]*/ }),
};

/** @throws {AwsError} AccessDenied */
export function refuseMfa(input: { SerialNumber?: string | undefined; TokenCode?: string | undefined }): void {
  if (input.SerialNumber === undefined && input.TokenCode === undefined) return;
  throw new AwsError(
    'AccessDenied',
    'MultiFactorAuthentication failed, unable to validate MFA code. Please verify your MFA serial number is valid and associated with this user.',
    { httpStatus: 403 },
  );
}

/**
 * Temporary credentials of a user or root (GetSessionToken) are good for IAM only if they were had with a second factor,
 * and never for most of STS: whoever gets hold of them can't make lasting ones of them.
 * Source: STS API reference, GetSessionToken, on what its credentials can't call.
 */
export function withoutUserSessions<Operations extends Operation>(operation: Operations): Operations {
  return {
    ...operation,
    resolve(call, input) {
      const { session, sessionIssuer } = call.principal;
      if (session && !sessionIssuer)
        throw new AwsError('InvalidClientTokenId', 'The security token included in the request is invalid', {
          httpStatus: 403,
        });
      return operation.resolve?.(call, input);
    },
  } as Operations;
}
