/**
 * What a point in time has saved: records one after the other, each a run of units inside one block.
 *
 *     magic u32 LE | flags and count u32 LE | first unit u64 LE | count × 4096 bytes, unless the flag says zeros
 *
 * Appended, never changed: a record that is not whole yet (or never will be, its writer having been killed) is the last one,
 * and what it saves has not been overwritten yet.
 */
import { fstatSync, readSync } from 'node:fs';
import { blockBytes } from './store.ts';

export const unitBytes = 4096;
export const unitsPerBlock = blockBytes / unitBytes;
export const recordHeaderBytes = 16;
const recordMagic = 0x57_4f_43_43;
const zerosFlag = 0x8000_0000;

/** Puts the header of a record at the beginning of `bytes`. */
export function putRecordHeader(bytes: Buffer, unit: number, count: number, zeros: boolean): void {
  bytes.writeUInt32LE(recordMagic, 0);
  bytes.writeUInt32LE((zeros ? zerosFlag | count : count) >>> 0, 4);
  bytes.writeUInt32LE(unit >>> 0, 8);
  bytes.writeUInt32LE(Math.floor(unit / 2 ** 32), 12);
}

export type RecordVisitor = (unit: number, count: number, dataOffset: number, zeros: boolean) => void;

const windowBytes = 64 * 1024;

/** Reads a log from its beginning, and later what has been added since. */
export class LogScanner {
  readonly #fd: number;
  readonly #window = Buffer.allocUnsafeSlow(windowBytes);
  #position: number;

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
    if (size <= this.#position) return;
    let windowStart = 0;
    let windowEnd = 0;
    for (;;) {
      const at = this.#position;
      if (at + recordHeaderBytes > size) return;
      if (at < windowStart || at + recordHeaderBytes > windowEnd) {
        const length = readSync(this.#fd, this.#window, 0, Math.min(windowBytes, size - at), at);
        if (length < recordHeaderBytes) return;
        windowStart = at;
        windowEnd = at + length;
      }
      const header = at - windowStart;
      if (this.#window.readUInt32LE(header) !== recordMagic) throw new Error('the log of saved blocks is damaged');
      const word = this.#window.readUInt32LE(header + 4);
      const zeros = (word & zerosFlag) !== 0;
      const count = (word & ~zerosFlag) >>> 0;
      const unit = this.#window.readUInt32LE(header + 8) + this.#window.readUInt32LE(header + 12) * 2 ** 32;
      const end = at + recordHeaderBytes + (zeros ? 0 : count * unitBytes);
      if (end > size) return;
      visit(unit, count, at + recordHeaderBytes, zeros);
      this.#position = end;
    }
  }
}
