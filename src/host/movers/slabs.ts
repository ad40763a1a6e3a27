/**
 * The memory that blocks pass through. There are only so many slabs, so this is also what bounds the blocks under way, of all
 * jobs together: whoever wants one waits for its turn. And it is what paces them.
 */
import { alignedBuffer } from '../../blocks/aligned.ts';
import { blockBytes } from '../../blocks/store.ts';
import { type Slab, slabOver } from '../../crypto/native.ts';

/**
 * Blocks that pass at once where there is a pace, before a rest. Clients' threads get a processor that has nothing to do for a
 * while, and not one that has a little to do all the time: the kernel leaves two threads that wake each other (a client and
 * its volume) on one processor rather than look for another again and again.
 */
export const burstBlocks = 24;

export class Slabs {
  readonly #free: Slab[];
  readonly #waiting: ((slab: Slab) => void)[] = [];
  readonly #pace: () => number;
  /** Of the burst that has begun. */
  #left = 0;
  /** When the next burst may begin, in terms of performance.now(). */
  #dueMs = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param pace MB/s that may pass; 0: as many as can */
  constructor(count: number, pace: () => number = () => 0) {
    this.#pace = pace;
    this.#free = Array.from({ length: count }, () => slabOver(alignedBuffer(blockBytes)));
  }

  /** Lends a slab of one block to `work`. Its contents are whatever was there. */
  async lend<Result>(work: (slab: Slab) => Promise<Result>): Promise<Result> {
    const slab = await new Promise<Slab>((resolve) => {
      this.#waiting.push(resolve);
      this.#serve();
    });
    try {
      return await work(slab);
    } finally {
      this.#free.push(slab);
      this.#serve();
    }
  }

  #serve(): void {
    while (this.#waiting.length > 0 && this.#free.length > 0) {
      const now = performance.now();
      const pace = this.#pace();
      if (pace === 0) this.#dueMs = this.#left = 0;
      else if (this.#left > 0) this.#left--;
      else if (this.#dueMs > now) {
        this.#timer ??= setTimeout(() => {
          this.#timer = undefined;
          this.#serve();
        }, this.#dueMs - now);
        return;
      } else {
        this.#left = burstBlocks - 1;
        this.#dueMs = now + (burstBlocks * blockBytes) / 1000 / pace;
      }
      this.#waiting.shift()!(this.#free.pop()!);
    }
  }
}
