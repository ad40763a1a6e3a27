/**
 * Filter values as conditions of SQL. What SQLite says in its own way (GLOB, strftime) is said here and nowhere else, so
 * that another database needs another version of this file only.
 */
import { type RawBuilder, type SqlBool, sql } from 'kysely';
import { type Filter, literalsOf } from '../aws/filters.ts';

export type Condition = RawBuilder<SqlBool>;
export type Expression = RawBuilder<unknown>;

export const always: Condition = sql<SqlBool>`1 = 1`;
export const never: Condition = sql<SqlBool>`1 = 0`;

/** The order in which rows of a table without a sequence came. */
export const rowOrder: Expression = sql`rowid`;

/** No text that is filtered by is longer. SQLite refuses patterns of more than 50,000 bytes, instead of finding nothing. */
const textLengthMax = 2000;

/** Whether the text is one of the filter's values, wildcards included; case counts. */
export function textMatches(filter: Filter, text: Expression): Condition {
  const literals = literalsOf(filter);
  const patterns = filter.values.filter(
    ({ text, literal }) => literal === undefined && leastLength(text) <= textLengthMax,
  );
  const parts = patterns.map((value) => sql<SqlBool>`${text} glob ${globPattern(value.text)}`);
  if (literals.length > 0) parts.push(sql<SqlBool>`${text} in (${sql.join(literals)})`);
  return anyOf(parts);
}

/** A filter on tags as a condition on `ec2_tags t`; undefined for another. */
export function tagMatches(filter: Filter): Condition | undefined {
  if (filter.name === 'tag-key') return textMatches(filter, sql.ref('t.key'));
  if (!filter.name.startsWith('tag:')) return undefined;
  return sql<SqlBool>`t.key = ${filter.name.slice(4)} and ${textMatches(filter, sql.ref('t.value'))}`;
}

/** The length of the shortest text that a pattern matches. */
const leastLength = (pattern: string) => pattern.replace(/\\.|\*/gs, (part) => (part === '*' ? '' : '.')).length;

/** One of the conditions, nested evenly: SQLite bounds the depth of an expression, and a chain of `or` is all depth. */
function anyOf(conditions: readonly Condition[]): Condition {
  if (conditions.length <= 1) return conditions[0] ?? never;
  const half = conditions.length >> 1;
  return sql<SqlBool>`(${anyOf(conditions.slice(0, half))} or ${anyOf(conditions.slice(half))})`;
}

/** `2026-08-01T12:00:00.000Z`, from ms since the epoch. */
export function timeText(column: Expression): Expression {
  return sql`strftime('%Y-%m-%dT%H:%M:%S', ${column} / 1000, 'unixepoch') || '.' || substr('00' || (${column} % 1000), -3) || 'Z'`;
}

/** `true` or `false`, from a flag. */
export function flagText(column: Expression): Expression {
  return sql`case ${column} when 1 then 'true' else 'false' end`;
}

export function numberText(column: Expression): Expression {
  return sql`cast(${column} as text)`;
}

/** A filter value with wildcards as a pattern of SQLite's GLOB, where brackets take the place of escapes. */
export function globPattern(text: string): string {
  let glob = '';
  for (let i = 0; i < text.length; i++) {
    const isEscaped = text[i] === '\\' && i + 1 < text.length;
    const character = isEscaped ? text[++i]! : text[i]!;
    const isSpecial = character === '[' || (isEscaped && (character === '*' || character === '?'));
    glob += isSpecial ? `[${character}]` : character;
  }
  return glob;
}
