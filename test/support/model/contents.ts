/**
 * What a volume or a snapshot shall read, as far as it was ever written: 4 KiB units, each the remains of numbered writes.
 * The bytes are made from the number, so that millions of steps need no memory for them.
 *
 * What was in flight at a moment (of a snapshot, of a kill) may have been carried out by then or not. Such a unit has several
 * possible values until it is read for the first time; from then on it must stay what it was seen to be.
 */
import { createCipheriv } from 'node:crypto';

export const unitBytes = 4096;
export const blockBytes = 512 * 1024;
export const unitsPerBlock = blockBytes / unitBytes;

/** The bytes up to `end` (in the unit) come from the write of this number; 0: zeros. */
interface Run {
  readonly end: number;
  readonly write: number;
}
/** The contents of a unit. */
export type Value = readonly Run[];

const zeroValue: Value = [{ end: unitBytes, write: 0 }];

const poolBytes = 4 * 1024 * 1024;
const pool = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16)).update(Buffer.alloc(poolBytes));

/** Puts what write `write` wrote at `offset` of the volume into `target`. */
export function fillFromWrite(target: Buffer, write: number, offset: number): void {
  if (write === 0) {
    target.fill(0);
    return;
  }
  const start = Math.imul(write, 0x9e3779b1) >>> 0;
  for (let done = 0; done < target.length; ) {
    const from = (start + offset + done) % poolBytes;
    done += pool.copy(target, done, from, Math.min(poolBytes, from + target.length - done));
  }
}

/** A value with the bytes from `from` to `to` replaced by those of a write. */
function overlay(value: Value, from: number, to: number, write: number): Value {
  const runs: { end: number; write: number }[] = [];
  const add = (end: number, write: number) => {
    const last = runs.at(-1);
    if (end <= (last?.end ?? 0)) return;
    if (last?.write === write) last.end = end;
    else runs.push({ end, write });
  };
  for (const run of value) add(Math.min(run.end, from), run.write);
  add(to, write);
  for (const run of value) add(run.end, run.write);
  return runs;
}

const same = (one: Value, other: Value) =>
  one.length === other.length &&
  one.every((run, position) => run.end === other[position]!.end && run.write === other[position]!.write);

function distinct(values: readonly Value[]): Value[] {
  return values.filter((value, position) => values.findIndex((other) => same(other, value)) === position);
}

/** Changes that were made one after the other while a point in time was being fixed: it has a first part of them. */
export class Sequence {
  #firstMissing = Number.POSITIVE_INFINITY;
  #lastPresent = -1;
  length = 0;

  /** @throws when the point in time has a later change without an earlier one */
  saw(position: number, isPresent: boolean): void {
    if (isPresent) this.#lastPresent = Math.max(this.#lastPresent, position);
    else this.#firstMissing = Math.min(this.#firstMissing, position);
    if (this.#firstMissing < this.#lastPresent)
      throw new Error(
        `the point in time lacks change ${this.#firstMissing}, and has change ${this.#lastPresent}, which came after it`,
      );
  }
}

/** Where in a sequence of changes the possible new values of a cell come from. */
interface Link {
  readonly sequence: Sequence;
  readonly position: number;
  readonly olds: readonly Value[];
}

const compared = Buffer.alloc(unitBytes);

/** One unit of everything that has it from the same origin: a volume's, its snapshots', their copies'. */
export class Cell {
  #values: readonly Value[];
  #link: Link | undefined;

  constructor(values: readonly Value[], link?: Link) {
    this.#values = values.length > 1 ? distinct(values) : values;
    this.#link = this.#values.length > 1 ? link : undefined;
  }

  get values(): readonly Value[] {
    return this.#values;
  }

  /**
   * Compares what was read with what may be there, and remembers which it was.
   * @param bytes from `at` on in the unit, which is the volume's `unit`th
   */
  matches(bytes: Buffer, at: number, unit: number): boolean {
    const left = this.#values.filter((value) => isSame(value, bytes, at, unit));
    if (left.length === 0) return false;
    if (left.length < this.#values.length) {
      this.#values = left;
      this.#noteSeen(left);
    }
    return true;
  }

  #noteSeen(left: readonly Value[]): void {
    if (!this.#link) return;
    const { sequence, position, olds } = this.#link;
    const isOld = left.map((value) => olds.some((old) => same(old, value)));
    // Some partial reads leave both possible.
    if (isOld.includes(true) && isOld.includes(false)) return;
    this.#link = undefined;
    sequence.saw(position, !isOld[0]);
  }

  /** For failures. */
  toString(): string {
    return this.#values
      .map((value) => value.map(({ end, write }) => `${write === 0 ? 'zeros' : `write ${write}`} to ${end}`).join(', '))
      .join(' | ');
  }
}

function isSame(value: Value, bytes: Buffer, at: number, unit: number): boolean {
  let from = 0;
  for (const { end, write } of value) {
    const first = Math.max(from, at);
    const last = Math.min(end, at + bytes.length);
    from = end;
    if (last <= first) continue;
    const expected = compared.subarray(0, last - first);
    fillFromWrite(expected, write, unit * unitBytes + first);
    if (bytes.compare(expected, 0, expected.length, first - at, last - at) !== 0) return false;
  }
  return true;
}

const zeroCell = new Cell([zeroValue]);

export interface Change {
  /** `allocate`: zeros, but no hole. */
  readonly kind: 'write' | 'zero' | 'allocate' | 'trim' | 'read';
  readonly offset: number;
  readonly length: number;
  /** The write's number. */
  readonly write: number;
}

export class Contents {
  #sizeBytes: number;
  readonly #cells: Map<number, Cell>;

  constructor(sizeBytes: number, cells = new Map<number, Cell>()) {
    this.#sizeBytes = sizeBytes;
    this.#cells = cells;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Another that has the same now; larger, if wished. */
  clone(sizeBytes = this.#sizeBytes): Contents {
    return new Contents(sizeBytes, new Map(this.#cells));
  }

  grow(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
  }

  cell(unit: number): Cell {
    return this.#cells.get(unit) ?? zeroCell;
  }

  /** Blocks that were ever changed, in order. */
  touchedBlocks(): number[] {
    const blocks = new Set<number>();
    for (const unit of this.#cells.keys()) blocks.add(Math.floor(unit / unitsPerBlock));
    return [...blocks].sort((one, other) => one - other);
  }

  /** Whether a block is another one than that of `other` for sure. */
  differs(other: Contents, block: number): boolean {
    for (let unit = block * unitsPerBlock; unit < (block + 1) * unitsPerBlock; unit++) {
      const theirs = other.cell(unit).values;
      if (!this.cell(unit).values.some((value) => theirs.some((their) => same(their, value)))) return true;
    }
    return false;
  }

  /** `isDone` false: nobody knows whether it was carried out. */
  apply(change: Change, isDone: boolean): void {
    for (const unit of unitsOf(change)) {
      const old = this.cell(unit).values;
      const fresh = changed(old, unit, change);
      this.#cells.set(unit, new Cell(isDone ? fresh : [...old, ...fresh]));
    }
  }

  /** A change of the volume that came before or after this point in time. */
  applyToPoint(change: Change, sequence: Sequence, position: number): void {
    for (const unit of unitsOf(change)) {
      const olds = this.cell(unit).values;
      const fresh = changed(olds, unit, change);
      // What looks the same before and after says nothing about the order.
      const canTell = !fresh.some((value) => olds.some((old) => same(old, value)));
      this.#cells.set(unit, new Cell([...olds, ...fresh], canTell ? { sequence, position, olds } : undefined));
    }
  }

  /** @throws when what was read can't be right */
  check(offset: number, bytes: Buffer, what: string): void {
    for (let done = 0; done < bytes.length; ) {
      const unit = Math.floor((offset + done) / unitBytes);
      const at = offset + done - unit * unitBytes;
      const length = Math.min(unitBytes - at, bytes.length - done);
      const part = bytes.subarray(done, done + length);
      const cell = this.cell(unit);
      try {
        if (!cell.matches(part, at, unit)) throw new Error(`it is ${guess(part, at, unit)}`);
      } catch (error) {
        const where = `unit ${unit} (block ${Math.floor(unit / unitsPerBlock)}, bytes ${at} to ${at + length})`;
        throw new Error(`${what}: ${where} should be ${cell}: ${(error as Error).message}`);
      }
      done += length;
    }
  }
}

export function* unitsOf({ offset, length }: Pick<Change, 'offset' | 'length'>): Generator<number> {
  for (let unit = Math.floor(offset / unitBytes); unit * unitBytes < offset + length; unit++) yield unit;
}

/** What the possible values of a unit become. */
function changed(values: readonly Value[], unit: number, { kind, offset, length, write }: Change): Value[] {
  const from = Math.max(0, offset - unit * unitBytes);
  const to = Math.min(unitBytes, offset + length - unit * unitBytes);
  const fresh = values.map((value) => overlay(value, from, to, kind === 'write' ? write : 0));
  // Whole units that are trimmed become zeros; of the others the volume may keep what it likes.
  return kind === 'trim' && to - from < unitBytes ? [...values, ...fresh] : fresh;
}

/** Which write the bytes are from, for failures. */
function guess(bytes: Buffer, at: number, unit: number): string {
  if (!bytes.some((byte) => byte !== 0)) return 'zeros';
  const position = pool.indexOf(bytes.subarray(0, Math.min(16, bytes.length)));
  if (position < 0) return `something that was never written: ${bytes.toString('hex', 0, 16)}…`;
  const start = (position - (unit * unitBytes + at)) % poolBytes;
  for (let write = 1; write < 4_000_000; write++) {
    if (((Math.imul(write, 0x9e3779b1) >>> 0) - start) % poolBytes === 0) return `write ${write} at its beginning`;
  }
  return 'bytes of a write at another place';
}
