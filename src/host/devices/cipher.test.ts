import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createSlab, type Slab } from '../../crypto/native.ts';
import { createXts, dataUnitBytes } from '../../crypto/xts.ts';
import { cipherDevice } from './cipher.ts';
import type { Device, Extent, Outcome } from './device.ts';

const units = 8;
const size = units * dataUnitBytes;

/** A device in memory that makes callers wait whenever `delays` says so, and fails when told to. */
class MemoryDevice implements Device {
  readonly size = size;
  readonly zeroesFast = true;
  readonly expectsWrites = false;
  readonly bytes = Buffer.alloc(size);
  readonly trimmed: [number, number][] = [];
  delays: boolean[] = [];

  #late(): Outcome {
    return this.delays.shift() ? { start: (done) => done() } : undefined;
  }

  read(memory: Slab, at: number, offset: number, length: number): Outcome {
    const wait = this.#late();
    if (wait) memory.bytes.fill(0xee, at, at + length);
    else this.bytes.copy(memory.bytes, at, offset, offset + length);
    return wait;
  }

  write(memory: Slab, at: number, offset: number, length: number): Outcome {
    const wait = this.#late();
    if (!wait) memory.bytes.copy(this.bytes, offset, at, at + length);
    return wait;
  }

  zero(offset: number, length: number): Outcome {
    const wait = this.#late();
    if (!wait) this.bytes.fill(0, offset, offset + length);
    return wait;
  }

  trim(offset: number, length: number): Outcome {
    this.trimmed.push([offset, length]);
    this.bytes.fill(0, offset, offset + length);
    return undefined;
  }

  cache(): void {}
  expectWrite(): void {}
  extents(_offset: number, length: number): Extent[] {
    return [{ length, hole: false }];
  }
  flush(done: () => void): void {
    done();
  }
  close(): void {}
}

/** Asks again until nothing has to be waited for. */
function insist(ask: () => Outcome): void {
  for (let turns = 0; ask(); turns++) if (turns > 100) throw new Error('waited for ever');
}

const range = fc.tuple(fc.nat(size), fc.nat(size)).map(([a, b]) => ({ offset: Math.min(a, b), end: Math.max(a, b) }));
const step = fc.record({
  kind: fc.constantFrom('write', 'zero', 'trim', 'read'),
  range,
  delays: fc.array(fc.boolean()),
});

describe('the cipher device', () => {
  it('keeps what is written through any requests and waits, and stores only ciphertext that the key opens', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const key = randomBytes(64);
        const below = new MemoryDevice();
        const device = cipherDevice(below, createXts(key));
        const model = Buffer.alloc(size);
        const memory = createSlab(size + 10);
        for (const { kind, range, delays } of steps) {
          const { offset, end } = range;
          const length = end - offset;
          below.delays = [...delays];
          if (kind === 'write') {
            const data = randomBytes(length);
            data.copy(memory.bytes, 10);
            data.copy(model, offset);
            insist(() => device.write(memory, 10, offset, length));
          } else if (kind === 'zero') {
            model.fill(0, offset, end);
            insist(() => device.zero(offset, length, false));
          } else if (kind === 'trim') {
            insist(() => device.trim(offset, length));
            for (const [at, count] of below.trimmed.splice(0)) model.fill(0, at, at + count);
          }
          below.delays = [...delays];
          insist(() => device.read(memory, 10, offset, length));
          expect(memory.bytes.subarray(10, 10 + length).equals(model.subarray(offset, end))).toBe(true);
        }
        const plain = createSlab(size);
        below.bytes.copy(plain.bytes);
        const xts = createXts(key);
        for (let unit = 0; unit < units; unit++) {
          const at = unit * dataUnitBytes;
          const stored = plain.bytes.subarray(at, at + dataUnitBytes);
          if (stored.some((byte) => byte !== 0)) xts.decrypt(plain, at, unit, 1);
        }
        expect(plain.bytes.equals(model)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  it('stores zeros that were written as ciphertext, like anything else', () => {
    const below = new MemoryDevice();
    const device = cipherDevice(below, createXts(randomBytes(64)));
    device.write(createSlab(dataUnitBytes), 0, 0, dataUnitBytes);
    expect(below.bytes.subarray(0, dataUnitBytes).some((byte) => byte !== 0)).toBe(true);
  });

  it('reads a unit that begins with zero bytes but is not all zeros as ciphertext', () => {
    const below = new MemoryDevice();
    below.bytes[dataUnitBytes - 1] = 1;
    const device = cipherDevice(below, createXts(randomBytes(64)));
    const memory = createSlab(dataUnitBytes);
    device.read(memory, 0, 0, dataUnitBytes);
    expect(memory.bytes.subarray(0, 100).some((byte) => byte !== 0)).toBe(true);
  });

  it('trims whole units only', () => {
    const below = new MemoryDevice();
    const device = cipherDevice(below, createXts(randomBytes(64)));
    device.trim(1, dataUnitBytes);
    device.trim(1, 3 * dataUnitBytes);
    device.trim(0, dataUnitBytes);
    expect(below.trimmed).toEqual([
      [dataUnitBytes, 2 * dataUnitBytes],
      [0, dataUnitBytes],
    ]);
  });

  it('can not be used after close', () => {
    const device = cipherDevice(new MemoryDevice(), createXts(randomBytes(64)));
    device.close();
    expect(() => device.write(createSlab(dataUnitBytes), 0, 0, dataUnitBytes)).toThrow('closed');
  });
});
