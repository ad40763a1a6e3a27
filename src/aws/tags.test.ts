import { describe, expect, test } from 'vitest';
import { validateTags } from './tags.ts';

describe('tags', () => {
  test('are pairs; a missing value is empty', () => {
    expect([...validateTags([{ Key: 'a', Value: '1' }, { Key: 'b' }])]).toEqual([
      ['a', '1'],
      ['b', ''],
    ]);
  });

  test.each([
    ['no key', [{ Value: 'x' }], /cannot be null or empty/],
    ['a long key', [{ Key: 'k'.repeat(129) }], /maximum length of 128/],
    ['a long value', [{ Key: 'k', Value: 'v'.repeat(257) }], /maximum length of 256/],
    ['a reserved key', [{ Key: 'AWS:x' }], /reserved for internal use/],
    ['a control character', [{ Key: 'k', Value: 'a\u0001' }], /control characters/],
    ['a key twice', [{ Key: 'k' }, { Key: 'k' }], /Duplicate tag key 'k'/],
    ['more than 50', Array.from({ length: 51 }, (_, index) => ({ Key: `k${index}` })), /maximum number of Tags.*50/],
  ])('with %s are refused', (_, tags, message) => {
    expect(() => validateTags(tags)).toThrow(message);
  });
});
