/**
 * Where time comes from. Every rule that depends on time (signatures, expiry, deletion windows) reads the clock of its
 * call, so that a test can move it without waiting.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };

/** A clock that tests set and advance by hand. */
export class ManualClock implements Clock {
  #now: number;
  constructor(nowMs = Date.now()) {
    this.#now = nowMs;
  }
  now(): number {
    return this.#now;
  }
  advance(ms: number): void {
    this.#now += ms;
  }
}
