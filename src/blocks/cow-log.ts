/**
 * What a point in time has saved: records one after the other, each a run of units inside one block.
 *
 *     magic u32 LE | flags and count u32 LE | first unit u64 LE | count × 4096 bytes, unless the flag says zeros
 *         | end magic u32 LE | first unit, low half u32 LE
 *
 * Appended, never changed, one or several with one write. A write goes from the first byte to the last, so a record without
 * its end is not whole yet (or never will be, its writer having been killed), and what it saves has not been overwritten yet.
 * Zeros follow the last one, or the end of the file.
 */
import { fstatSync, readSync } from 'node:fs';
import { blockBytes } from './store.ts';

export const unitBytes = 4096;
export const unitsPerBlock = blockBytes / unitBytes;
export const recordHeaderBytes = 16;
export const recordTrailerBytes = 8;
const recordMagic = 0x57_4f_43_43;
const endMagic = 0x45_4f_43_43;
const zerosFlag = 0x8000_0000;

/** Puts header and end of the record at `at` around its data in `bytes`, if it has any. Answers the record's length. */
export function putRecordFrame(bytes: Buffer, at: number, unit: number, count: number, zeros: boolean): number {
  bytes.writeUInt32LE(recordMagic, at);
  bytes.writeUInt32LE((zeros ? zerosFlag | count : count) >>> 0, at + 4);
  bytes.writeUInt32LE(unit >>> 0, at + 8);
  bytes.writeUInt32LE(Math.floor(unit / 2 ** 32), at + 12);
  const end = at + recordHeaderBytes + (zeros ? 0 : count * unitBytes);
  bytes.writeUInt32LE(endMagic, end);
  bytes.writeUInt32LE(unit >>> 0, end + 4);
  return end + recordTrailerBytes - at;
}

export type RecordVisitor = (unit: number, count: number, dataOffset: number, zeros: boolean) => void;

const windowBytes = 64 * 1024;

/** Reads a log from its beginning, and later what has been added since. */
export class LogScanner {
  readonly #fd: number;
  readonly #window = Buffer.allocUnsafeSlow(windowBytes);
  #position: number;
  #windowStart = 0;
  #windowEnd = 0;

  constructor(fd: number, start: number) {
    this.#fd = fd;
    this.#position = start;
  }

  /** Where the last whole record that was seen ends. */
  get position(): number {
    return this.#position;
  }

  /** Visits the whole records from `position` on. @throws when the log is damaged */
  scan(visit: RecordVisitor): void {
    const { size } = fstatSync(this.#fd);
    // What was seen as zeros then may be a record now.
    this.#windowStart = this.#windowEnd = 0;
    for (;;) {
      const at = this.#position;
      const header = this.#look(at, recordHeaderBytes, size);
      const magic = header < 0 ? 0 : this.#window.readUInt32LE(header);
      if (magic === 0) return;
      if (magic !== recordMagic) throw new Error('the log of saved blocks is damaged');
      const word = this.#window.readUInt32LE(header + 4);
      const zeros = (word & zerosFlag) !== 0;
      const count = (word & ~zerosFlag) >>> 0;
      const unitLow = this.#window.readUInt32LE(header + 8);
      const unit = unitLow + this.#window.readUInt32LE(header + 12) * 2 ** 32;
      const end = at + recordHeaderBytes + (zeros ? 0 : count * unitBytes);
      const trailer = this.#look(end, recordTrailerBytes, size);
      if (trailer < 0 || this.#window.readUInt32LE(trailer) !== endMagic) return;
      if (this.#window.readUInt32LE(trailer + 4) !== unitLow) return;
      visit(unit, count, at + recordHeaderBytes, zeros);
      this.#position = end + recordTrailerBytes;
    }
  }

  /** Brings some bytes into the window. Answers where they are in it, or -1 when the file ends before. */
  #look(at: number, length: number, size: number): number {
    if (at + length > size) return -1;
    if (at < this.#windowStart || at + length > this.#windowEnd) {
      this.#windowStart = at;
      this.#windowEnd = at + readSync(this.#fd, this.#window, 0, Math.min(windowBytes, size - at), at);
      if (at + length > this.#windowEnd) return -1;
    }
    return at - this.#windowStart;
  }
}
