/**
 * Temporary credentials. The session token carries everything about the session, sealed under the root key, so that
 * nothing has to be stored or looked up for it; whoever holds it and the secret is the principal until it expires.
 */
import type { Principal } from '../aws/call.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { newIamId, newSecret } from './access-keys.ts';

const purpose = 'session';

export interface SessionCredentials {
  readonly AccessKeyId: string;
  readonly SecretAccessKey: string;
  readonly SessionToken: string;
  readonly Expiration: Date;
}

interface Session {
  readonly secret: string;
  readonly principal: Principal;
}

/** Makes credentials for `principal` that end at `expiresAt` (ms since the epoch). */
export function createSession(
  rootKey: RootKey,
  principal: Omit<Principal, 'accessKeyId' | 'session'>,
  createdAt: number,
  expiresAt: number,
  more: Omit<NonNullable<Principal['session']>, 'createdAt' | 'expiresAt'> = {},
): SessionCredentials {
  const accessKeyId = newIamId('ASIA');
  const session: Session = {
    secret: newSecret(),
    principal: { ...principal, accessKeyId, session: { createdAt, expiresAt, ...more } },
  };
  const plaintext = Buffer.from(JSON.stringify(session), 'utf8');
  const token = rootKey.seal(purpose, plaintext, accessKeyId).toString('base64');
  plaintext.fill(0);
  return {
    AccessKeyId: accessKeyId,
    SecretAccessKey: session.secret,
    SessionToken: token,
    Expiration: new Date(expiresAt),
  };
}

/** The session behind a token, expired or not; undefined when the token is not one of ours for this access key. */
export function openSession(rootKey: RootKey, accessKeyId: string, token: string): Session | undefined {
  let plaintext: Buffer | undefined;
  try {
    plaintext = rootKey.open(purpose, Buffer.from(token, 'base64'), accessKeyId);
    return JSON.parse(plaintext.toString('utf8')) as Session;
  } catch {
    // Forged, truncated, or made under another root key: to the caller they are all the same.
    return undefined;
  } finally {
    plaintext?.fill(0);
  }
}
