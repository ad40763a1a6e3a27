/**
 * Secrets that are destroyed. SQLite's log keeps what a page was before it was overwritten until the log is written anew,
 * which on an idle server may be never: what is destroyed must be told, so that the log is emptied at once.
 */
import type { AnyDatabase } from '../aws/call.ts';

const listeners = new WeakMap<AnyDatabase, () => void>();

/** For the database itself: `listener` is told when work destroys a secret. */
export function onForgetting(db: AnyDatabase, listener: () => void): void {
  listeners.set(db, listener);
}

/**
 * To be called by work that deletes or overwrites a secret (an encrypted data key, key material): once that work is durable,
 * none of the database's files has the secret any more.
 */
export function forgetForGood(db: AnyDatabase): void {
  listeners.get(db)?.();
}
