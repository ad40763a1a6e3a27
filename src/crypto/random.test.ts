import { describe, expect, it } from 'vitest';
import { fillPublicRandom, secretRandom } from './random.ts';

describe('fillPublicRandom', () => {
  it('fills exactly the range asked for, and never gives the same bytes twice', () => {
    const seen = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const target = Buffer.alloc(20);
      fillPublicRandom(target, 2, 16);
      expect([target[0], target[1], target[18], target[19]]).toEqual([0, 0, 0, 0]);
      seen.add(target.toString('hex'));
    }
    expect(seen.size).toBe(2000);
  });
  it('fills large ranges, too', () => {
    const target = Buffer.alloc(20_000);
    fillPublicRandom(target, 0, 20_000);
    expect(target.subarray(19_000).some((byte) => byte !== 0)).toBe(true);
  });
});

describe('secretRandom', () => {
  it('gives each key memory of its own', () => {
    const [a, b] = [secretRandom(64), secretRandom(64)];
    expect(a.equals(b)).toBe(false);
    expect(a.buffer.byteLength).toBe(64);
    expect(a.buffer).not.toBe(b.buffer);
    expect(new Set(Array.from({ length: 5000 }, () => secretRandom(16).toString('hex'))).size).toBe(5000);
    expect(
      secretRandom(5000)
        .subarray(4000)
        .some((byte) => byte !== 0),
    ).toBe(true);
  });
});
