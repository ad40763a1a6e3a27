/**
 * Wake-ups inside one control plane: an operation that changed something raises a topic, one that waits for changes
 * remembers the topic's version, reads, and waits for a later version. Nothing is lost between reading and waiting.
 */
export class Signals {
  readonly #versions = new Map<string, number>();
  readonly #waiters = new Map<string, Set<() => void>>();

  /** A number that grows each time `topic` is raised. */
  version(topic: string): number {
    return this.#versions.get(topic) ?? 0;
  }

  raise(topic: string): void {
    this.#versions.set(topic, this.version(topic) + 1);
    const waiters = this.#waiters.get(topic);
    this.#waiters.delete(topic);
    for (const wake of waiters ?? []) wake();
  }

  /**
   * Resolves true as soon as `topic` is newer than `version`, false after `timeoutMs` or when `cancelled` aborts.
   */
  async changed(topic: string, version: number, timeoutMs: number, cancelled?: AbortSignal): Promise<boolean> {
    if (this.version(topic) !== version) return true;
    if (cancelled?.aborted || timeoutMs <= 0) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = () => resolve(true);
    const giveUp = () => resolve(false);
    const timer = setTimeout(giveUp, timeoutMs);
    cancelled?.addEventListener('abort', giveUp, { once: true });
    const waiters = this.#waiters.get(topic) ?? new Set();
    this.#waiters.set(topic, waiters.add(wake));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      cancelled?.removeEventListener('abort', giveUp);
      const left = this.#waiters.get(topic);
      if (left?.delete(wake) && left.size === 0) this.#waiters.delete(topic);
    }
  }
}
