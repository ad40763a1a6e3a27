/** A line in which accounts take turns: who asks for much waits longer for it, and nobody else does. */

export interface InLine {
  readonly requestId: string;
  readonly account: string;
}

export class FairLine<Item extends InLine> {
  /** Whose turn is next comes first. Nobody's list is empty. */
  readonly #byAccount = new Map<string, Item[]>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(item: Item): void {
    const own = this.#byAccount.get(item.account);
    if (own) own.push(item);
    else this.#byAccount.set(item.account, [item]);
    this.#length += 1;
  }

  /** Whose turn it is. */
  first(): Item | undefined {
    for (const [item] of this.#byAccount.values()) return item;
    return undefined;
  }

  /** Takes the first out; its account's next turn comes after that of all others. */
  shift(): Item | undefined {
    for (const [account, own] of this.#byAccount) {
      const item = own.shift()!;
      this.#byAccount.delete(account);
      if (own.length > 0) this.#byAccount.set(account, own);
      this.#length -= 1;
      return item;
    }
    return undefined;
  }

  remove(item: Item): void {
    const own = this.#byAccount.get(item.account);
    const position = own?.indexOf(item) ?? -1;
    if (position < 0) return;
    own!.splice(position, 1);
    if (own!.length === 0) this.#byAccount.delete(item.account);
    this.#length -= 1;
  }

  /** What is to go so that `account` can have one more: the last of whoever has the most, if that is somebody who has more. */
  toMakeRoomFor(account: string): Item | undefined {
    const most = [...this.#byAccount.values()].reduce<Item[]>((a, b) => (b.length > a.length ? b : a), []);
    const own = this.#byAccount.get(account)?.length ?? 0;
    return most.length > own + 1 ? most.at(-1) : undefined;
  }

  *[Symbol.iterator](): Generator<Item> {
    for (const own of this.#byAccount.values()) yield* own;
  }
}
