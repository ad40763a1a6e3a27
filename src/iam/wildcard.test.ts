import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { matchesWildcard } from './wildcard.ts';

describe('matchesWildcard', () => {
  it('agrees with a regular expression', () => {
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?', '.'), maxLength: 10 });
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '.'), maxLength: 12 });
    fc.assert(
      fc.property(pattern, text, (p, t) => {
        const source = p.replace(/[.]/g, '\\.').replace(/\*/g, '.*').replace(/\?/g, '.');
        expect(matchesWildcard(p, t)).toBe(new RegExp(`^${source}$`, 's').test(t));
      }),
      { numRuns: 2000 },
    );
  });
  it('does not explode on hostile patterns', () => {
    // A backtracking matcher would not come back from this within the test's time limit.
    expect(matchesWildcard('*a'.repeat(200), `${'a'.repeat(5000)}b`)).toBe(false);
  });
});
