/**
 * Random bytes, drawn from the operating system's generator in one go for many uses: a draw costs several microseconds,
 * whatever its size.
 */
import { randomFillSync } from 'node:crypto';

/** Bytes of one draw. In memory of its own: the garbage collector moves small arrays, and leaves copies behind. */
class Pool {
  readonly #bytes = Buffer.from(new ArrayBuffer(8192));
  #used = this.#bytes.length;

  /** Moves `length` bytes to `target`; they are wiped here. */
  move(target: Uint8Array, start: number, length: number): void {
    if (this.#used + length > this.#bytes.length) {
      randomFillSync(this.#bytes);
      this.#used = 0;
    }
    const taken = this.#bytes.subarray(this.#used, this.#used + length);
    target.set(taken, start);
    taken.fill(0);
    this.#used += length;
  }
}

/** Bytes that are published and bytes that stay secret never come out of one draw. */
const published = new Pool();
const secret = new Pool();
/** What is larger is drawn by itself. */
const pooledMax = 1024;

/** Fills `length` bytes of `target` from `start` with random bytes that are published anyway: salts, nonces. */
export function fillPublicRandom(target: Uint8Array, start: number, length: number): void {
  if (length > pooledMax) randomFillSync(target, start, length);
  else published.move(target, start, length);
}

/** `length` random bytes for a key, in memory of their own that the caller wipes. */
export function secretRandom(length: number): Buffer {
  const bytes = Buffer.from(new ArrayBuffer(length));
  if (length > pooledMax) randomFillSync(bytes);
  else secret.move(bytes, 0, length);
  return bytes;
}
