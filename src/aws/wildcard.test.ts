import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lowerCaseAscii, matchesArn, matchesWildcard } from './wildcard.ts';

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

describe('matchesArn', () => {
  const arn = 'arn:aws:kms:us-east-1:111122223333:key/a:b';
  it.each([
    ['arn:aws:kms:*', true],
    ['arn:aws:kms:*:key/a:b', true],
    ['arn:aws:kms:*:*:key/*', true],
    ['arn:aws:kms:us-*-1:111122223333:key/a?b', true],
    ['arn:aws:kms:us-*3:key/a:b', false],
    ['arn:aws:kms:us-east-1?111122223333:key/a:b', false],
    ['arn:aws:kms:us-east-1:1*3:key/*b', true],
    ['*', true],
    ['arn:aws:kms:us-*:key/a:c', false],
  ])('%s: %s', (pattern, expected) => expect(matchesArn(pattern, arn)).toBe(expected));
  it('does not explode on hostile patterns', () => {
    const began = process.threadCpuUsage();
    const stars = '*'.repeat(30_000);
    expect(matchesArn(`${stars}?`, arn)).toBe(false);
    expect(matchesArn(`arn:*:kms:*:*:${stars}?`, arn)).toBe(true);
    expect(matchesArn(`${'*?'.repeat(30)}${stars}`, arn)).toBe(false);
    expect(process.threadCpuUsage(began).user / 1000).toBeLessThan(1000);
  });
  it('matches nothing that the plain wildcards do not, and all of it where no wildcard stands inside a segment', () => {
    const unit = fc.constantFrom('a', ':', '*', '?');
    const text = fc.string({ unit: fc.constantFrom('a', ':'), maxLength: 14 });
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 10 }), text, (p, t) => {
        if (matchesArn(p, t)) expect(matchesWildcard(p, t)).toBe(true);
        const open = p.replaceAll('?', '*').replaceAll(/[*]a/g, '*:a');
        expect(matchesArn(open, t)).toBe(matchesWildcard(open, t));
      }),
      { numRuns: 2000 },
    );
  });
});

it('lowerCaseAscii leaves look-alikes as they are', () => {
  expect(lowerCaseAscii('KMS:Decrypt')).toBe('kms:decrypt');
  expect(lowerCaseAscii('\u212AMS')).toBe('\u212Ams');
});
