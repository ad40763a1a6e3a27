/**
 * The memory that blocks pass through. There are only so many slabs, so this is also what bounds the blocks under way, of all
 * jobs together: whoever wants one waits for its turn.
 */
import { alignedBuffer } from '../../blocks/aligned.ts';
import { blockBytes } from '../../blocks/store.ts';
import { type Slab, slabOver } from '../../crypto/native.ts';

export class Slabs {
  readonly #free: Slab[];
  readonly #waiting: ((slab: Slab) => void)[] = [];

  constructor(count: number) {
    this.#free = Array.from({ length: count }, () => slabOver(alignedBuffer(blockBytes)));
  }

  /** Lends a slab of one block to `work`. Its contents are whatever was there. */
  async lend<Result>(work: (slab: Slab) => Promise<Result>): Promise<Result> {
    const slab = this.#free.pop() ?? (await new Promise<Slab>((resolve) => this.#waiting.push(resolve)));
    try {
      return await work(slab);
    } finally {
      const next = this.#waiting.shift();
      if (next) next(slab);
      else this.#free.push(slab);
    }
  }
}
