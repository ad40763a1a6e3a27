/**
 * How much of an account one request looks at. All work on the database is done one after the other, and a wildcard is tried
 * on everything that it could match: a request with many of them over very many rows gets a part of the answer and a token.
 */
import type { Filter } from '../aws/filters.ts';

/** About 0.1 s of a processor's time: a piece of a short text that is looked for in one row takes 10 to 25 ns. */
const effortMax = 4_000_000;
/** So much longer than other texts may be tags and descriptions. */
const longTextFactor = 4;
/** More rows than this an account does not have. */
const rowsMax = 250_000;

/** How many rows a request with these filters may look at, or undefined when it may look at all that there can be. */
export function rowsAtOnce(filters: readonly Filter[]): number | undefined {
  let effort = 0;
  for (const { name, values } of filters) {
    const factor = name.startsWith('tag') || name === 'description' || name === 'value' ? longTextFactor : 1;
    for (const { text, literal } of values)
      if (literal === undefined) effort += factor * (1 + text.split('*').length - 1);
  }
  const rows = Math.max(1, Math.floor(effortMax / Math.max(1, effort)));
  return rows < rowsMax ? rows : undefined;
}
