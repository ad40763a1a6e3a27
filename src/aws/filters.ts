/**
 * The `Filter.N` parameter of the Describe operations: filters are combined with AND, the values of one with OR, and a
 * value may hold `*` (anything), `?` (one character) and `\` before either. Values are case-sensitive.
 * Source: EC2 API reference, Filter.
 */
import { AwsError } from './errors.ts';

/** At least 500 values must pass (clients batch by 500). */
const filtersMax = 50;
const filterValuesMax = 1000;
/** In all of a request; each is tried on everything that the account has, while a literal is looked up. */
const wildcardsMax = 200;

export interface FilterInput {
  readonly Name?: string | undefined;
  readonly Values?: readonly string[] | undefined;
}

export interface Filter {
  readonly name: string;
  readonly values: readonly FilterValue[];
}

export interface FilterValue {
  /** As given, escapes included, but of several stars in a row one. */
  readonly text: string;
  /** The one value that it matches, or undefined when it has wildcards. */
  readonly literal: string | undefined;
}

/**
 * @param known names of the filters that the operation has; names that begin with `tag:` pass as well when `tag:` is one
 * @throws {AwsError} InvalidParameterValue for another name, FilterLimitExceeded beyond the bounds
 */
export function parseFilters(filters: readonly FilterInput[] | undefined, known: ReadonlySet<string>): Filter[] {
  if (!filters) return [];
  if (filters.length > filtersMax)
    throw new AwsError(
      'FilterLimitExceeded',
      `A request can have ${filtersMax} filters; this one has ${filters.length}.`,
    );
  const parsed = filters.map(({ Name: name, Values: values }) => {
    if (!name) throw new AwsError('InvalidParameterValue', 'Each filter needs a name.');
    const isTag = name.startsWith('tag:') && name.length > 4 && known.has('tag:');
    if (!isTag && (!known.has(name) || name === 'tag:'))
      throw new AwsError('InvalidParameterValue', `The filter '${name}' is invalid`);
    if (!values || values.length === 0)
      throw new AwsError('InvalidParameterValue', `The filter '${name}' needs at least one value.`);
    if (values.length > filterValuesMax)
      throw new AwsError(
        'FilterLimitExceeded',
        `A filter can have ${filterValuesMax} values; '${name}' has ${values.length}.`,
      );
    return { name, values: values.map(filterValue) };
  });
  const wildcards = parsed.flatMap((filter) => filter.values).filter((value) => value.literal === undefined).length;
  if (wildcards > wildcardsMax)
    throw new AwsError(
      'FilterLimitExceeded',
      `A request can have ${wildcardsMax} filter values with wildcards; this one has ${wildcards}.`,
    );
  return parsed;
}

/** Whether every filter matches at least one of the values that `valuesOf` finds for its name. */
export function matchesFilters(filters: readonly Filter[], valuesOf: (name: string) => readonly string[]): boolean {
  return filters.every((filter) => valuesOf(filter.name).some((value) => matchesFilter(filter, value)));
}

export function matchesFilter(filter: Filter, value: string): boolean {
  return filter.values.some(({ text, literal }) =>
    literal === undefined ? matchesPattern(text, value) : literal === value,
  );
}

/** The values of a filter that have no wildcards. */
export function literalsOf(filter: Filter): string[] {
  return filter.values.flatMap(({ literal }) => (literal === undefined ? [] : [literal]));
}

/** Matches `*`, `?` and `\` escapes, in time proportional to the lengths' product at worst. */
export function matchesPattern(pattern: string, value: string): boolean {
  let p = 0;
  let v = 0;
  let starAt = -1;
  let resumeAt = 0;
  while (v < value.length) {
    const escaped = pattern[p] === '\\' && p + 1 < pattern.length;
    if (!escaped && pattern[p] === '*') {
      starAt = p++;
      resumeAt = v;
    } else if (
      p < pattern.length &&
      (escaped ? pattern[p + 1] === value[v] : pattern[p] === '?' || pattern[p] === value[v])
    ) {
      p += escaped ? 2 : 1;
      v++;
    } else if (starAt >= 0) {
      p = starAt + 1;
      v = ++resumeAt;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

function filterValue(given: string): FilterValue {
  // Of a run of stars each would be tried with every other.
  const text = given.replace(/(\\.)|\*+/gs, (_match, escaped) => escaped ?? '*');
  return { text, literal: literalOf(text) };
}

function literalOf(text: string): string | undefined {
  let literal = '';
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '*' || text[i] === '?') return undefined;
    if (text[i] === '\\' && i + 1 < text.length) i++;
    literal += text[i];
  }
  return literal;
}
