/** A computation that takes long, with the secrets it needs, ready to start on another thread. */
export interface Computation<T> {
  start(): Promise<T>;
  /** Frees the secrets; called once, after `start` or instead of it. */
  end(): void;
}
