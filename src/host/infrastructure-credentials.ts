/** Temporary infrastructure credentials, kept in memory only while something that needs a data key waits for it. */
import type { HeldCredentials, InfrastructureCredentials } from '../aws/host-protocol.ts';

/** Credentials that end sooner than this are asked for anew. */
const renewBeforeMs = 5 * 60_000;

export class HeldInfrastructureCredentials {
  readonly #bySession = new Map<string, InfrastructureCredentials>();

  take(credentials: readonly InfrastructureCredentials[]): void {
    for (const one of credentials) this.#bySession.set(one.sessionName, one);
  }

  /** Good credentials of a session, or undefined when they must be asked for. */
  get(sessionName: string, now = Date.now()): InfrastructureCredentials | undefined {
    const held = this.#bySession.get(sessionName);
    if (!held || Date.parse(held.expiration) - now > renewBeforeMs) return held;
    this.#bySession.delete(sessionName);
    return undefined;
  }

  forget(sessionName: string): void {
    this.#bySession.delete(sessionName);
  }

  /** Forgets those of every session that is not in `needed`. */
  keepOnly(needed: ReadonlySet<string>): void {
    for (const id of [...this.#bySession.keys()]) if (!needed.has(id)) this.#bySession.delete(id);
  }

  list(): HeldCredentials[] {
    return [...this.#bySession.keys()]
      .map((id) => this.get(id))
      .filter((held) => held !== undefined)
      .map(({ sessionName, expiration }) => ({ sessionName, expiration }));
  }
}
