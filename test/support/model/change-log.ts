/** Which changes of volumes are in flight, so that the model knows what a point in time may have of them. */
import { type Change, Sequence, unitsOf } from './contents.ts';

/** A change that was begun. */
export interface Begun<Volume> {
  readonly volume: Volume;
  readonly change: Change;
  readonly sequence: Sequence;
  readonly position: number;
}

export class ChangeLog<Volume> {
  readonly #all: Begun<Volume>[] = [];
  readonly #inFlight = new Set<Begun<Volume>>();
  readonly #units = new Map<Volume, Set<number>>();
  #observers = 0;

  /**
   * Begins a change of, or a look at, some units of a volume, unless one of them is in flight. The answer ends it.
   * @param sequence what the change comes after
   */
  begin(volume: Volume, change: Change, sequence?: Sequence): (() => void) | undefined {
    const busy = this.#units.get(volume) ?? new Set();
    this.#units.set(volume, busy);
    const units = [...unitsOf(change)];
    if (units.some((unit) => busy.has(unit))) return undefined;
    for (const unit of units) busy.add(unit);
    const own = sequence ?? new Sequence();
    const begun = { volume, change, sequence: own, position: own.length++ };
    this.#inFlight.add(begun);
    if (this.#observers > 0) this.#all.push(begun);
    return () => {
      for (const unit of units) busy.delete(unit);
      this.#inFlight.delete(begun);
    };
  }

  /** Whether something of a volume is in flight. */
  isBusy(volume: Volume): boolean {
    return (this.#units.get(volume)?.size ?? 0) > 0;
  }

  /**
   * From now on: what is in flight, and what is begun until the answer is called for the first time. Its sequences are the
   * observer's own: another point in time has another part of the same changes.
   */
  observe(): () => readonly Begun<Volume>[] {
    if (this.#observers++ === 0) this.#all.length = 0;
    const inFlight = [...this.#inFlight];
    const position = this.#all.length;
    let seen: readonly Begun<Volume>[] | undefined;
    return () => {
      if (seen) return seen;
      this.#observers--;
      const sequences = new Map<Sequence, Sequence>();
      seen = [...inFlight, ...this.#all.slice(position)].map((begun) => {
        const sequence = sequences.get(begun.sequence) ?? new Sequence();
        sequences.set(begun.sequence, sequence);
        return { ...begun, sequence };
      });
      return seen;
    };
  }
}
