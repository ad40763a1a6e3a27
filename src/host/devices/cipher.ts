// Encrypts what goes down and decrypts what comes up: AES-256-XTS over 4096-byte data units (src/crypto/xts.ts).
//
// A unit that is all zeros below was never written, or was discarded, and reads as zeros. Ciphertext that happens to be
// all zeros has probability 2^-32768. Requests that touch part of a unit read, modify and write the whole of it; since
// nothing else runs in between (see device.ts), two such writes to one unit can't lose each other's bytes.

import type { Slab } from '../../crypto/native.ts';
import { createSlab } from '../../crypto/native.ts';
import { dataUnitBytes, type Xts } from '../../crypto/xts.ts';
import type { Device, Extent, Outcome } from './device.ts';

const zeroUnit = Buffer.alloc(dataUnitBytes);

class CipherDevice implements Device {
  readonly #below: Device;
  readonly #xts: Xts;
  /** Two units for the cut ones at the head and the tail of a request. */
  readonly #edges = createSlab(2 * dataUnitBytes);

  constructor(below: Device, xts: Xts) {
    if (below.size % dataUnitBytes !== 0) throw new RangeError('an encrypted device has whole data units');
    this.#below = below;
    this.#xts = xts;
  }

  get size(): number {
    return this.#below.size;
  }

  get zeroesFast(): boolean {
    return this.#below.zeroesFast;
  }

  get expectsWrites(): boolean {
    return this.#below.expectsWrites;
  }

  read(memory: Slab, at: number, offset: number, length: number): Outcome {
    const end = offset + length;
    let position = offset;
    while (position < end) {
      const skip = position % dataUnitBytes;
      const remaining = end - position;
      if (skip === 0 && remaining >= dataUnitBytes) {
        const body = wholeUnits(remaining);
        const wait = this.#readUnits(memory, at, position, body);
        if (wait) return wait;
        position += body;
        at += body;
      } else {
        const count = Math.min(dataUnitBytes - skip, remaining);
        const wait = this.#readUnits(this.#edges, 0, position - skip, dataUnitBytes);
        if (wait) return wait;
        this.#edges.bytes.copy(memory.bytes, at, skip, skip + count);
        position += count;
        at += count;
      }
    }
    return undefined;
  }

  write(memory: Slab, at: number, offset: number, length: number): Outcome {
    const { head, body, tail } = split(offset, length);
    // The cut units first: if one has to wait, the caller's bytes have not been touched yet.
    if (head > 0) {
      const wait = this.#modify(offset, head, memory.bytes, at);
      if (wait) return wait;
    }
    if (tail > 0) {
      const wait = this.#modify(offset + head + body, tail, memory.bytes, at + head + body);
      if (wait) return wait;
    }
    return body > 0 ? this.#writeUnits(memory, at + head, offset + head, body) : undefined;
  }

  zero(offset: number, length: number, allocate: boolean): Outcome {
    const { head, body, tail } = split(offset, length);
    if (head > 0) {
      const wait = this.#modify(offset, head, zeroUnit, 0);
      if (wait) return wait;
    }
    if (tail > 0) {
      const wait = this.#modify(offset + head + body, tail, zeroUnit, 0);
      if (wait) return wait;
    }
    return body > 0 ? this.#below.zero(offset + head, body, allocate) : undefined;
  }

  trim(offset: number, length: number): Outcome {
    const { head, body } = split(offset, length);
    return body > 0 ? this.#below.trim(offset + head, body) : undefined;
  }

  cache(offset: number, length: number): void {
    this.#below.cache(offset, length);
  }

  expectWrite(offset: number, length: number): void {
    this.#below.expectWrite(offset, length);
  }

  // A hole below is whole units of zeros (the file rounds to units), so a hole here, too.
  extents(offset: number, length: number, count: number): Extent[] {
    return this.#below.extents(offset, length, count);
  }

  flush(done: (error?: Error) => void): void {
    this.#below.flush(done);
  }

  close(): void {
    this.#xts.close();
    this.#edges.bytes.fill(0);
    this.#below.close();
  }

  #readUnits(memory: Slab, at: number, offset: number, length: number): Outcome {
    const wait = this.#below.read(memory, at, offset, length);
    if (wait) return wait;
    const { bytes } = memory;
    const units = length / dataUnitBytes;
    const firstUnit = offset / dataUnitBytes;
    let run = 0;
    for (let index = 0; index < units; index++) {
      if (!isZeroUnit(bytes, at + index * dataUnitBytes)) continue;
      if (index > run) this.#xts.decrypt(memory, at + run * dataUnitBytes, firstUnit + run, index - run);
      run = index + 1;
    }
    if (units > run) this.#xts.decrypt(memory, at + run * dataUnitBytes, firstUnit + run, units - run);
    return undefined;
  }

  #writeUnits(memory: Slab, at: number, offset: number, length: number): Outcome {
    const unit = offset / dataUnitBytes;
    const units = length / dataUnitBytes;
    this.#xts.encrypt(memory, at, unit, units);
    const wait = this.#below.write(memory, at, offset, length);
    // The caller will come back with the same memory, and counts on finding its plaintext there.
    if (wait) this.#xts.decrypt(memory, at, unit, units);
    return wait;
  }

  /** Replaces `length` bytes inside one unit. */
  #modify(offset: number, length: number, from: Buffer, at: number): Outcome {
    const skip = offset % dataUnitBytes;
    const wait = this.#readUnits(this.#edges, dataUnitBytes, offset - skip, dataUnitBytes);
    if (wait) return wait;
    from.copy(this.#edges.bytes, dataUnitBytes + skip, at, at + length);
    return this.#writeUnits(this.#edges, dataUnitBytes, offset - skip, dataUnitBytes);
  }
}

/** Cuts a range at data units: `head` and `tail` bytes are parts of a unit, `body` is whole units. */
function split(offset: number, length: number): { head: number; body: number; tail: number } {
  const skip = offset % dataUnitBytes;
  const head = skip === 0 ? 0 : Math.min(dataUnitBytes - skip, length);
  const body = wholeUnits(length - head);
  return { head, body, tail: length - head - body };
}

const wholeUnits = (length: number) => length - (length % dataUnitBytes);

// Ciphertext begins with a zero byte once in 256 units, so the full comparison is rare.
function isZeroUnit(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0 && bytes.compare(zeroUnit, 0, dataUnitBytes, at, at + dataUnitBytes) === 0;
}

/** Puts encryption over `below`. The device owns both from now on. */
export function cipherDevice(below: Device, xts: Xts): Device {
  return new CipherDevice(below, xts);
}
