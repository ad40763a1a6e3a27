/** A point in time's file, read while another thread may be adding to it. */
import { closeSync, constants, readSync } from 'node:fs';
import { Bitmap } from './bitmap.ts';
import {
  type CowIdentity,
  type CowState,
  changeSetOffset,
  logOffset,
  lossOf,
  openCow,
  PointInTimeError,
  readIdentity,
  watchState,
} from './copy-before-write.ts';
import { LogScanner, unitBytes, unitsPerBlock } from './cow-log.ts';
import type { WatchedSector } from './sector.ts';
import { blocksOf } from './volume-map.ts';

const none = -1;
const firstCapacity = 1024;

export class CowReader {
  readonly identity: CowIdentity;
  readonly #fd: number;
  readonly #state: WatchedSector<CowState>;
  readonly #scanner: LogScanner;
  /** The last record of each block; each record names the one before it of the same block. */
  readonly #last = new Map<number, number>();
  #count = 0;
  #before = new Int32Array(firstCapacity);
  #dataOffset = new Float64Array(firstCapacity);
  /** First unit in its block × 256 + number of units. */
  #run = new Uint16Array(firstCapacity);
  #next: string | undefined;

  private constructor(fd: number, identity: CowIdentity) {
    this.#fd = fd;
    this.identity = identity;
    this.#state = watchState(fd);
    this.#scanner = new LogScanner(fd, logOffset(identity.sizeBytes));
  }

  /** Undefined when there is no such file. @throws {PointInTimeError} `Lost` */
  static open(path: string): CowReader | undefined {
    const fd = openCow(path, constants.O_RDWR);
    if (fd === undefined) return undefined;
    const identity = readIdentity(fd);
    if (identity) return new CowReader(fd, identity);
    closeSync(fd);
    throw new PointInTimeError('Lost', lossOf(undefined)!);
  }

  get fd(): number {
    return this.#fd;
  }

  /** The snapshot whose point in time has taken this one's place, as of the last `update`. */
  get next(): string | undefined {
    return this.#next;
  }

  /** The change set, or undefined when every block counts as changed. */
  changeSet(): Bitmap | undefined {
    if (this.identity.changedSince === undefined) return undefined;
    return new Bitmap(this.#fd, changeSetOffset, blocksOf(this.identity.sizeBytes));
  }

  /** Takes in what has been saved since the last time. @throws {PointInTimeError} `Lost` */
  update(): void {
    const state = this.#state.read();
    const loss = lossOf(state);
    if (loss !== undefined) throw new PointInTimeError('Lost', loss);
    // Read before the log: when it says that another one saves now, the log below is complete.
    this.#next ??= state!.next;
    this.#scanner.scan((unit, count, dataOffset, zeros) => this.#add(unit, count, zeros ? none : dataOffset));
  }

  hasSaved(block: number): boolean {
    return this.#last.has(block);
  }

  /** Puts what was saved of a block over `bytes`, which hold the block. */
  overlay(block: number, bytes: Buffer): void {
    let record = this.#last.get(block) ?? none;
    while (record !== none) {
      const run = this.#run[record]!;
      const at = (run >>> 8) * unitBytes;
      // 128 units need eight bits, and 0 units none: a run of 256 can't be.
      const length = (run & 255) * unitBytes;
      const offset = this.#dataOffset[record]!;
      if (offset === none) bytes.fill(0, at, at + length);
      else if (readSync(this.#fd, bytes, at, length, offset) !== length) {
        throw new PointInTimeError('Lost', 'what the volume held at that time can not be read back');
      }
      record = this.#before[record]!;
    }
  }

  /** Forgets the blocks below `index`. */
  forget(block: number): void {
    this.#last.delete(block);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #add(unit: number, count: number, dataOffset: number): void {
    const block = Math.floor(unit / unitsPerBlock);
    const record = this.#count++;
    if (record === this.#before.length) this.#enlarge();
    this.#before[record] = this.#last.get(block) ?? none;
    this.#dataOffset[record] = dataOffset;
    this.#run[record] = (unit % unitsPerBlock) * 256 + count;
    this.#last.set(block, record);
  }

  #enlarge(): void {
    const capacity = this.#before.length * 2;
    const before = new Int32Array(capacity);
    before.set(this.#before);
    this.#before = before;
    const dataOffset = new Float64Array(capacity);
    dataOffset.set(this.#dataOffset);
    this.#dataOffset = dataOffset;
    const run = new Uint16Array(capacity);
    run.set(this.#run);
    this.#run = run;
  }
}
