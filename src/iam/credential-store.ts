import type { Principal } from '../aws/call.ts';
import type { Clock } from '../aws/clock.ts';
import type { RootKey } from '../crypto/root-key.ts';
import type { Database } from '../database/database.ts';
import { findAccessKey } from './access-keys.ts';
import { findIdentityById } from './identities.ts';
import { hostPrincipal, rootPrincipal, userPrincipal } from './principals.ts';
import { openSession } from './sessions.ts';

export type FoundCredentials =
  | { readonly secretAccessKey: Buffer; readonly principal: Principal; readonly audience: 'account' | 'host' }
  | { readonly problem: 'unknown' | 'inactive' | 'expired' | 'token' };

/** How many access keys are kept unsealed in memory, so that a signature costs no decryption. */
const cachedMax = 10_000;

/**
 * Finds who is behind an access key id. Long-term keys come from the database, temporary ones out of their own token.
 * Every change to access keys must call `forget`.
 */
export class CredentialStore {
  readonly #database: Database;
  readonly #rootKey: RootKey;
  readonly #clock: Clock;
  readonly #cache = new Map<string, FoundCredentials & { secretAccessKey: Buffer }>();

  /** Counts calls of `forget`: what was read before one is not kept after it. */
  #changes = 0;

  constructor(parts: { database: Database; rootKey: RootKey; clock: Clock }) {
    this.#database = parts.database;
    this.#rootKey = parts.rootKey;
    this.#clock = parts.clock;
    this.#database.onUndone(() => this.forget());
  }

  async find(accessKeyId: string, sessionToken: string | undefined): Promise<FoundCredentials> {
    if (accessKeyId.startsWith('ASIA')) return this.#findSession(accessKeyId, sessionToken);
    if (sessionToken !== undefined) return { problem: 'token' };
    const cached = this.#cache.get(accessKeyId);
    if (cached) return cached;
    const changes = this.#changes;
    const found = await this.#database.run(
      async (db) => {
        const key = await findAccessKey(db, this.#rootKey, accessKeyId);
        const user = key?.row.identity_id ? await findIdentityById(db, key.row.identity_id) : undefined;
        return key && { ...key, user };
      },
      { atomic: false },
    );
    if (!found) return { problem: 'unknown' };
    const { row, secret, user } = found;
    if (row.owner === 'user' && !user) {
      secret.fill(0);
      return { problem: 'unknown' };
    }
    if (row.status !== 'Active') {
      secret.fill(0);
      return { problem: 'inactive' };
    }
    const principal =
      row.owner === 'host'
        ? hostPrincipal(row.account, row.host_id!, accessKeyId)
        : user
          ? userPrincipal(user, accessKeyId)
          : rootPrincipal(row.account, accessKeyId);
    const audience = row.owner === 'host' ? ('host' as const) : ('account' as const);
    const credentials = { secretAccessKey: secret, principal, audience };
    if (this.#changes !== changes) return credentials;
    if (this.#cache.size >= cachedMax) this.forget();
    this.#cache.set(accessKeyId, credentials);
    return credentials;
  }

  /** Drops (and wipes) what is kept in memory, of one access key or of all. */
  forget(accessKeyId?: string): void {
    this.#changes++;
    const ids = accessKeyId === undefined ? [...this.#cache.keys()] : [accessKeyId];
    for (const id of ids) {
      const secret = this.#cache.get(id)?.secretAccessKey;
      this.#cache.delete(id);
      // Not before the turn ends: someone may have it in hand, and with zeros in its place anyone could sign.
      if (secret) setImmediate(() => secret.fill(0));
    }
  }

  async #findSession(accessKeyId: string, sessionToken: string | undefined): Promise<FoundCredentials> {
    if (!sessionToken) return { problem: 'token' };
    const opened = openSession(this.#rootKey, accessKeyId, sessionToken);
    if (!opened) return { problem: 'token' };
    const { session } = opened.principal;
    if ((session?.expiresAt ?? 0) <= this.#clock.now()) return { problem: 'expired' };
    const principal = await this.#asNow(opened.principal);
    if (!principal) return { problem: 'unknown' };
    return { secretAccessKey: Buffer.from(opened.secret, 'utf8'), principal, audience: 'account' };
  }

  /** The user of a session may have another name by now, and somebody else the old one; undefined when the user is gone. */
  async #asNow(principal: Principal): Promise<Principal | undefined> {
    if (principal.type !== 'IAMUser') return principal;
    const user = await this.#database.run((db) => findIdentityById(db, principal.principalId), { atomic: false });
    return user && { ...userPrincipal(user, principal.accessKeyId), session: principal.session };
  }
}
