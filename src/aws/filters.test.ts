import { describe, expect, test } from 'vitest';
import { matchesFilters, matchesPattern, parseFilters } from './filters.ts';

describe('filter values', () => {
  test.each([
    ['vol-*', 'vol-123', true],
    ['*', '', true],
    ['', '', true],
    ['', 'a', false],
    ['a?c', 'abc', true],
    ['a?c', 'ac', false],
    ['*b*d', 'abcd', true],
    ['*b*d', 'abcde', false],
    ['a\\*c', 'a*c', true],
    ['a\\*c', 'abc', false],
    ['\\?', '?', true],
    ['ab\\', 'ab\\', true],
    ['Name', 'name', false],
    ['a**b', 'ab', true],
  ])('%s matches %s: %s', (pattern, value, expected) => {
    expect(matchesPattern(pattern, value)).toBe(expected);
  });

  test('a pattern of many stars takes no exponential time', () => {
    const began = process.threadCpuUsage();
    expect(matchesPattern(`${'*a'.repeat(200)}*b`, 'a'.repeat(5000))).toBe(false);
    expect(process.threadCpuUsage(began).user / 1000).toBeLessThan(1000);
  });
});

describe('filters', () => {
  const known = new Set(['status', 'size', 'tag:']);

  test('are ANDed, their values ORed', () => {
    const filters = parseFilters(
      [
        { Name: 'status', Values: ['available', 'in-use'] },
        { Name: 'size', Values: ['1*'] },
      ],
      known,
    );
    const values = (status: string, size: string) => (name: string) => [name === 'status' ? status : size];
    expect(matchesFilters(filters, values('in-use', '10'))).toBe(true);
    expect(matchesFilters(filters, values('in-use', '20'))).toBe(false);
    expect(matchesFilters(filters, values('deleting', '10'))).toBe(false);
  });

  test('of a name that the operation lacks are refused by name', () => {
    expect(() => parseFilters([{ Name: 'colour', Values: ['x'] }], known)).toThrow(/The filter 'colour' is invalid/);
    expect(() => parseFilters([{ Name: 'tag:', Values: ['x'] }], known)).toThrow(/'tag:' is invalid/);
    expect(parseFilters([{ Name: 'tag:Owner', Values: ['x'] }], known)).toHaveLength(1);
  });

  test('take 200 values with wildcards in all: each is tried on everything that the account has', () => {
    const values = (count: number) => Array.from({ length: count }, (_, index) => `*${index}`);
    const status = (count: number) => ({ Name: 'status', Values: values(count) });
    expect(parseFilters([status(200)], known)).toHaveLength(1);
    expect(() => parseFilters([status(201)], known)).toThrow(/200 filter values with wildcards; this one has 201/);
    expect(() => parseFilters([status(101), status(100)], known)).toThrow(/this one has 201/);
  });

  test('keep one of several stars in a row, which match the same', () => {
    const [filter] = parseFilters([{ Name: 'status', Values: ['a***b', '\\**', '\\*\\*', '**?**'] }], known);
    expect(filter!.values.map(({ text }) => text)).toEqual(['a*b', '\\**', '\\*\\*', '*?*']);
    expect(matchesFilters([filter!], () => ['a.b'])).toBe(true);
  });

  test('take 500 values', () => {
    const values = Array.from({ length: 500 }, (_, index) => `v${index}`);
    expect(parseFilters([{ Name: 'status', Values: values }], known)[0]!.values).toHaveLength(500);
  });
});
