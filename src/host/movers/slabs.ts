/**
 * The memory that blocks pass through. There are only so many slabs, so this is also what bounds the blocks under way, of all
 * jobs together: whoever wants one waits for its turn. And it is what paces them: a slab may rest after its use.
 */
import { alignedBuffer } from '../../blocks/aligned.ts';
import { blockBytes } from '../../blocks/store.ts';
import { type Slab, slabOver } from '../../crypto/native.ts';

export class Slabs {
  readonly #free: Slab[];
  readonly #waiting: ((slab: Slab) => void)[] = [];

  readonly #restMs: (usedMs: number) => number;

  /** @param restMs how long a slab that was in use for so long is kept back */
  constructor(count: number, restMs: (usedMs: number) => number = () => 0) {
    this.#restMs = restMs;
    this.#free = Array.from({ length: count }, () => slabOver(alignedBuffer(blockBytes)));
  }

  /** Lends a slab of one block to `work`. Its contents are whatever was there. */
  async lend<Result>(work: (slab: Slab) => Promise<Result>): Promise<Result> {
    const slab = this.#free.pop() ?? (await new Promise<Slab>((resolve) => this.#waiting.push(resolve)));
    const began = performance.now();
    try {
      return await work(slab);
    } finally {
      const restMs = this.#restMs(performance.now() - began);
      if (restMs > 0) setTimeout(() => this.#release(slab), restMs);
      else this.#release(slab);
    }
  }

  #release(slab: Slab): void {
    const next = this.#waiting.shift();
    if (next) next(slab);
    else this.#free.push(slab);
  }
}
