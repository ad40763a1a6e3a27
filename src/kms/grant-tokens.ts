/**
 * Grant tokens. A grant works at once here, so a token adds no permission; it names its grant (RetireGrant), and a request
 * that carries one which is not genuine is refused, as in AWS.
 */
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { RootKey } from '../crypto/root-key.ts';

const purpose = 'kms-grant-token';

/** What a token says: which grant, on which key. */
export interface TokenGrant {
  readonly region: string;
  readonly keyId: string;
  readonly grantId: string;
}

/** A new token for a grant; every call gives another one. */
export function newGrantToken(rootKey: RootKey, grant: TokenGrant): string {
  return rootKey.seal(purpose, Buffer.from(JSON.stringify(grant)), '').toString('base64');
}

/** @throws {AwsError} InvalidGrantTokenException for anything that `newGrantToken` did not make, here or in another region */
export function openGrantToken(call: Call, rootKey: RootKey, token: string): TokenGrant {
  try {
    const grant = JSON.parse(rootKey.open(purpose, Buffer.from(token, 'base64'), '').toString()) as TokenGrant;
    if (grant.region === call.region) return grant;
  } catch {
    // Not one of ours; said below.
  }
  throw new AwsError('InvalidGrantTokenException', 'The grant token is not valid.');
}
