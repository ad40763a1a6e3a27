import { describe, expect, test } from 'vitest';
import { pageSize, pageStart, pageToken } from './pagination.ts';

describe('pages', () => {
  test('go on after the item that the token stands for', () => {
    expect(pageStart(undefined)).toBe(0);
    expect(pageStart(pageToken(12345))).toBe(12345);
  });

  test.each(['x', 'djE6', Buffer.from('v1:-1').toString('base64url'), Buffer.from('v2:1').toString('base64url')])(
    'do not start at the token %s, which is not ours',
    (token) => {
      expect(() => pageStart(token)).toThrow(/NextToken is not valid/);
    },
  );

  test('have a size within bounds', () => {
    expect(pageSize(undefined, 5, 1000)).toBe(1000);
    expect(pageSize(5, 5, 1000)).toBe(5);
    expect(pageSize(5000, 5, 1000)).toBe(1000);
    expect(() => pageSize(4, 5, 1000)).toThrow(/greater than or equal to 5/);
  });
});
