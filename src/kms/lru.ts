/** A map that keeps the entries used last, at most `max` of them, and says which it drops. */
export class Lru<Key, Value> {
  readonly #entries = new Map<Key, Value>();
  readonly #max: number;
  readonly #dropped: ((value: Value) => void) | undefined;

  constructor(max: number, dropped?: (value: Value) => void) {
    this.#max = max;
    this.#dropped = dropped;
  }

  get(key: Key): Value | undefined {
    const value = this.#entries.get(key);
    if (value !== undefined) {
      this.#entries.delete(key);
      this.#entries.set(key, value);
    }
    return value;
  }

  set(key: Key, value: Value): void {
    this.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size > this.#max) this.delete(this.#entries.keys().next().value as Key);
  }

  delete(key: Key): void {
    const value = this.#entries.get(key);
    if (value === undefined) return;
    this.#entries.delete(key);
    this.#dropped?.(value);
  }

  get size(): number {
    return this.#entries.size;
  }
}
