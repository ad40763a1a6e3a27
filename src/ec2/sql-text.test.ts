import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { Kysely, sql } from 'kysely';
import { expect, test } from 'vitest';
import { matchesPattern } from '../aws/filters.ts';
import { sqliteDialect } from '../database/sqlite-dialect.ts';
import { globPattern, textMatches } from './sql-text.ts';

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

test('a thousand values with wildcards are not too deep for SQLite', () => {
  const values = Array.from({ length: 1000 }, (_, i) => ({ text: `*x${i}`, literal: undefined }));
  const filter = { name: 'k', values };
  const db = new Kysely({ dialect: sqliteDialect(new DatabaseSync(':memory:')) });
  const found = (text: string) =>
    sql<{ found: number }>`select ${textMatches(filter, sql`${text}`)} as found`.execute(db);
  const matches = async (text: string) => (await found(text)).rows[0]!.found === 1;
  return expect(Promise.all(['x0', 'x998', 'yx999', 'x1000'].map(matches))).resolves.toEqual([true, true, true, false]);
});
