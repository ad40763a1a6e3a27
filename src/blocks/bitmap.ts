/**
 * Bits in a file, and in memory: reading one costs a memory access, changing one also a small write to the page cache, which
 * other threads see at once and which outlives this process (not the machine, before an fdatasync).
 */
import { getSystemErrorName } from 'node:util';
import { createSlab, type Slab } from '../crypto/native.ts';
import { type Libc, libc, seekData, seekHole } from './libc.ts';

/** What is compared and written at once where many bits change. */
const pageBytes = 4096;
const zeroPage = Buffer.alloc(pageBytes);

export class Bitmap {
  readonly #fd: number;
  readonly #fileOffset: number;
  readonly #libc: Libc = libc();
  #slab: Slab;
  #bits: number;

  /** `bits` bits at `fileOffset` of a file; what lies beyond the file's end is 0. */
  constructor(fd: number, fileOffset: number, bits: number) {
    this.#fd = fd;
    this.#fileOffset = fileOffset;
    this.#bits = bits;
    this.#slab = createSlab(bytesFor(bits));
    this.#load();
  }

  /** Number of bits. */
  get length(): number {
    return this.#bits;
  }

  /** The bits, eight a byte, the lowest first; for tests of single bits without a call. Replaced when it grows. */
  get bytes(): Buffer {
    return this.#slab.bytes;
  }

  has(index: number): boolean {
    return (this.#slab.bytes[index >>> 3]! & (1 << (index & 7))) !== 0;
  }

  /** @throws when the file can't take it; then nothing has changed */
  set(index: number): void {
    this.#change(index >>> 3, this.#slab.bytes[index >>> 3]! | (1 << (index & 7)));
  }

  clear(index: number): void {
    this.#change(index >>> 3, this.#slab.bytes[index >>> 3]! & ~(1 << (index & 7)));
  }

  /** Sets many bits in memory only; `storeAll` follows. */
  setInMemory(index: number): void {
    this.#slab.bytes[index >>> 3]! |= 1 << (index & 7);
  }

  /** Writes all that is not zero. For a file that holds zeros there. */
  storeAll(): void {
    this.#eachPage((at, length) => {
      if (!this.#isZero(at, length)) this.#store(at, length);
    });
  }

  clearAll(): void {
    this.#eachPage((at, length) => {
      if (this.#isZero(at, length)) return;
      this.#slab.bytes.fill(0, at, at + length);
      this.#store(at, length);
    });
  }

  /** Takes over the bits of another of the same length. */
  assign(other: Bitmap): void {
    this.#eachPage((at, length) => {
      if (this.#slab.bytes.compare(other.bytes, at, at + length, at, at + length) === 0) return;
      other.bytes.copy(this.#slab.bytes, at, at, at + length);
      this.#store(at, length);
    });
  }

  /** The first set bit from `index` on, or `length`. */
  next(index: number): number {
    const { bytes } = this.#slab;
    let position = index;
    while (position < this.#bits) {
      const rest = bytes[position >>> 3]! >>> (position & 7);
      if (rest !== 0) return Math.min(position + 31 - Math.clz32(rest & -rest), this.#bits);
      position = (position | 7) + 1;
      // Long stretches of zeros are skipped a page at a time.
      while ((position >>> 3) % pageBytes === 0 && position < this.#bits) {
        const at = position >>> 3;
        if (!this.#isZero(at, Math.min(pageBytes, bytes.length - at))) break;
        position += pageBytes * 8;
      }
    }
    return this.#bits;
  }

  /** How many bits are set. */
  count(): number {
    let count = 0;
    this.#eachPage((at, length) => {
      if (this.#isZero(at, length)) return;
      for (let index = at; index < at + length; index++) {
        for (let rest = this.#slab.bytes[index]!; rest !== 0; rest &= rest - 1) count++;
      }
    });
    return count;
  }

  /** Makes room for more bits, all 0. */
  grow(bits: number): void {
    if (bits <= this.#bits) return;
    const slab = createSlab(bytesFor(bits));
    this.#slab.bytes.copy(slab.bytes);
    this.#slab = slab;
    this.#bits = bits;
  }

  #load(): void {
    const end = this.#fileOffset + this.#slab.bytes.length;
    let position = this.#fileOffset;
    while (position < end) {
      const data = this.#libc.lseek(this.#fd, position, seekData);
      if (data < 0 || data >= end) return;
      position = Math.max(position, data);
      const hole = Math.min(this.#libc.lseek(this.#fd, position, seekHole), end);
      while (position < hole) {
        const at = position - this.#fileOffset;
        const count = this.#libc.pread(this.#fd, this.#slab.address + at, hole - position, position, 0);
        if (count <= 0) throw failure(count, 'read');
        position += count;
      }
    }
  }

  #change(at: number, byte: number): void {
    const before = this.#slab.bytes[at]!;
    this.#slab.bytes[at] = byte;
    try {
      this.#store(at, 1);
    } catch (error) {
      this.#slab.bytes[at] = before;
      throw error;
    }
  }

  #store(at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const address = this.#slab.address + at + done;
      const count = this.#libc.pwrite(this.#fd, address, length - done, this.#fileOffset + at + done);
      if (count <= 0) throw failure(count, 'write');
      done += count;
    }
  }

  #isZero(at: number, length: number): boolean {
    return this.#slab.bytes.compare(zeroPage, 0, length, at, at + length) === 0;
  }

  #eachPage(work: (at: number, length: number) => void): void {
    const { length } = this.#slab.bytes;
    for (let at = 0; at < length; at += pageBytes) work(at, Math.min(pageBytes, length - at));
  }
}

/** Bytes that hold so many bits. */
export function bytesFor(bits: number): number {
  return Math.ceil(bits / 8);
}

function failure(result: number, doing: string): Error {
  const code = result < 0 ? getSystemErrorName(result) : 'EIO';
  return Object.assign(new Error(`${doing} of the volume's map: ${code}`), { code });
}
