// Sets of block names: one bit a block, and only where there are blocks. A snapshot of a terabyte takes 256 KiB.

import type { BlockName } from './store.ts';

const groupBlocks = 4096;

export class BlockSet {
  readonly #owners = new Map<string, Map<number, Uint8Array>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has({ owner, index }: BlockName): boolean {
    const group = this.#owners.get(owner)?.get(Math.floor(index / groupBlocks));
    return group !== undefined && (group[(index % groupBlocks) >>> 3]! & (1 << (index & 7))) !== 0;
  }

  /** False when it is in the set already. */
  add({ owner, index }: BlockName): boolean {
    let groups = this.#owners.get(owner);
    if (!groups) this.#owners.set(owner, (groups = new Map()));
    const number = Math.floor(index / groupBlocks);
    let group = groups.get(number);
    if (!group) groups.set(number, (group = new Uint8Array(groupBlocks / 8)));
    const bit = 1 << (index & 7);
    if ((group[(index % groupBlocks) >>> 3]! & bit) !== 0) return false;
    group[(index % groupBlocks) >>> 3]! |= bit;
    this.#size += 1;
    return true;
  }

  owners(): IterableIterator<string> {
    return this.#owners.keys();
  }

  /** The blocks of one owner, ascending within the order in which their groups came. */
  *indexesOf(owner: string): Generator<number> {
    for (const [number, group] of this.#owners.get(owner) ?? []) {
      for (let offset = 0; offset < groupBlocks; offset++) {
        if ((group[offset >>> 3]! & (1 << (offset & 7))) !== 0) yield number * groupBlocks + offset;
      }
    }
  }
}
