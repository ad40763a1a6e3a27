import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { matchesPattern } from '../aws/filters.ts';
import { globPattern } from './sql-text.ts';

test('SQL matches a filter value exactly as the rest of the code does', () => {
  const sqlite = new DatabaseSync(':memory:');
  const statement = sqlite.prepare('select ? glob ? as matches');
  const character = fc.constantFrom('a', 'A', 'b', '*', '?', '[', ']', '^', '\\', '%', '_', '-', ' ');
  const text = fc.array(character, { maxLength: 8 }).map((characters) => characters.join(''));
  fc.assert(
    fc.property(text, text, (pattern, value) => {
      const { matches } = statement.get(value, globPattern(pattern)) as { matches: number };
      expect([pattern, value, matches === 1]).toEqual([pattern, value, matchesPattern(pattern, value)]);
    }),
    { numRuns: 5000 },
  );
});
