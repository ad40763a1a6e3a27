import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Bitmap } from './bitmap.ts';
import { readSector, sectorBytes, writeSector } from './sector.ts';
import { createVolumeMap, readMapHeader, VolumeMap } from './volume-map.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-map-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

describe('bits in a file', () => {
  it('are those that were set, found in order, there for whoever opens the file next', () => {
    const change = fc.record({ index: fc.nat(299_999), set: fc.boolean() });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 40 }), fc.boolean(), (changes, cleared) => {
        const fd = openSync(join(directory, 'bits'), 'w+');
        try {
          const bits = new Bitmap(fd, 8192, 300_000);
          const model = new Set<number>();
          for (const { index, set } of changes) {
            if (set) bits.set(index);
            else bits.clear(index);
            model[set ? 'add' : 'delete'](index);
          }
          if (cleared) {
            bits.clearAll();
            model.clear();
          }
          const sorted = [...model].sort((a, b) => a - b);
          for (const one of [bits, new Bitmap(fd, 8192, 300_000)]) {
            const found: number[] = [];
            for (let index = one.next(0); index < one.length; index = one.next(index + 1)) found.push(index);
            expect(found).toEqual(sorted);
            expect(one.count()).toBe(sorted.length);
            expect(changes.every(({ index }) => one.has(index) === model.has(index))).toBe(true);
          }
        } finally {
          closeSync(fd);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('grow, and take over those of others', () => {
    const fd = openSync(join(directory, 'bits'), 'w+');
    const [one, other] = [new Bitmap(fd, 0, 100), new Bitmap(fd, 65_536, 100)];
    one.set(99);
    other.set(5);
    other.assign(one);
    expect([other.has(5), other.has(99)]).toEqual([false, true]);
    one.grow(100_000);
    one.set(99_999);
    expect(new Bitmap(fd, 0, 100_000).next(100)).toBe(99_999);
    closeSync(fd);
  });
});

describe('a sector', () => {
  it('is what was written, or nothing', () => {
    const fd = openSync(join(directory, 'sector'), 'w+');
    const value = { text: 'é'.repeat(100), number: 2 ** 40 };
    writeSector(fd, sectorBytes, 'MAGIC---', value);
    expect(readSector(fd, sectorBytes, 'MAGIC---')).toEqual(value);
    expect(readSector(fd, sectorBytes, 'OTHER---')).toBeUndefined();
    expect(readSector(fd, 0, 'MAGIC---')).toBeUndefined();
    for (const at of [9, 13, 40]) {
      writeSector(fd, sectorBytes, 'MAGIC---', value);
      writeSync(fd, Buffer.from([0xff]), 0, 1, sectorBytes + at);
      expect(readSector(fd, sectorBytes, 'MAGIC---')).toBeUndefined();
    }
    expect(() => writeSector(fd, 0, 'MAGIC---', { text: 'x'.repeat(500) })).toThrow(RangeError);
    closeSync(fd);
  });
});

describe('a map', () => {
  const gib = 1024 ** 3;
  const path = () => join(directory, 'vol-1.map');

  it('takes little room, however large the volume, and nobody else may read it', () => {
    createVolumeMap(path(), 64 * 1024 * gib, { snapshotId: 'snap-1', blocks: [0, 2 ** 27 - 1] });
    const { mode, blocks } = statSync(path());
    expect(mode & 0o777).toBe(0o600);
    expect(blocks * 512).toBeLessThan(256 * 1024);
    const map = new VolumeMap(path());
    expect([map.unrestored.next(0), map.unrestored.next(1), map.unsafe.count()]).toEqual([0, 2 ** 27 - 1, 2]);
    map.close();
    expect(() => createVolumeMap(path(), 65 * 1024 * gib)).toThrow(RangeError);
    const larger = { snapshotId: 'snap-1', blocks: [2048] };
    expect(() => createVolumeMap(path(), gib, larger)).toThrow('larger than the volume');
  });

  it('says when it is damaged, rather than that nothing is missing', () => {
    createVolumeMap(path(), gib, { snapshotId: 'snap-1', blocks: [1] });
    const fd = openSync(path(), 'r+');
    writeSync(fd, Buffer.from('x'), 0, 1, 30);
    closeSync(fd);
    expect(() => new VolumeMap(path())).toThrow(expect.objectContaining({ code: 'MapDamaged' }));
    expect(() => readMapHeader(path())).toThrow('damaged');
    expect(readMapHeader(join(directory, 'none'))).toBeUndefined();
  });
});
