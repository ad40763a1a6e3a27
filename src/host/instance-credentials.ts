/** The temporary credentials of instances, kept in memory only while a volume of theirs waits to be opened. */
import type { HeldCredentials, InstanceCredentials } from '../aws/host-protocol.ts';

/** Credentials that end sooner than this are asked for anew. */
const renewBeforeMs = 5 * 60_000;

export class HeldInstanceCredentials {
  readonly #byInstance = new Map<string, InstanceCredentials>();

  take(credentials: readonly InstanceCredentials[]): void {
    for (const one of credentials) this.#byInstance.set(one.instanceId, one);
  }

  /** Good credentials of an instance, or undefined when they must be asked for. */
  get(instanceId: string, now = Date.now()): InstanceCredentials | undefined {
    const held = this.#byInstance.get(instanceId);
    if (!held || Date.parse(held.expiration) - now > renewBeforeMs) return held;
    this.#byInstance.delete(instanceId);
    return undefined;
  }

  forget(instanceId: string): void {
    this.#byInstance.delete(instanceId);
  }

  /** Forgets those of every instance that is not in `needed`. */
  keepOnly(needed: ReadonlySet<string>): void {
    for (const id of [...this.#byInstance.keys()]) if (!needed.has(id)) this.#byInstance.delete(id);
  }

  list(): HeldCredentials[] {
    return [...this.#byInstance.keys()]
      .map((id) => this.get(id))
      .filter((held) => held !== undefined)
      .map(({ instanceId, expiration }) => ({ instanceId, expiration }));
  }
}
