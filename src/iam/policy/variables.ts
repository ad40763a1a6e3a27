import type { RequestContext } from './context.ts';

/** Characters that stand for what a variable gave, so that a `*` in a tag's value is no wildcard. */
const literalStar = '\u{E000}';
const literalQuestion = '\u{E001}';
/** In place of those two characters themselves, so that nobody passes them off as a wildcard. */
const privateUse = /[\u{E000}\u{E001}]/gu;
/** Most texts have none of this. */
const special = /[*?\u{E000}\u{E001}]/u;

/**
 * Puts the request's values in place of policy variables (`${aws:username}`, `${aws:PrincipalTag/team, 'none'}`).
 * What comes out of a variable is literal: wildcards in it match only themselves.
 * @returns undefined when a variable has no value (or several) and no default: the pattern then matches nothing
 * Source: IAM user guide, "IAM policy elements: Variables and tags".
 */
export function resolveVariables(pattern: string, context: RequestContext): string | undefined {
  if (!pattern.includes('${')) return pattern;
  let isMissing = false;
  const resolved = pattern.replace(/\$\{([^}]*)\}/g, (_whole, inside: string) => {
    if (inside === '*' || inside === '?' || inside === '$') return inside === '$' ? '$' : literally(inside);
    const match = /^\s*([^,]+?)\s*(?:,\s*'([^']*)'\s*)?$/.exec(inside);
    const value = (match && singleValue(match[1]!, context)) ?? match?.[2];
    if (value === undefined) {
      isMissing = true;
      return '';
    }
    return literally(value);
  });
  return isMissing ? undefined : resolved;
}

/** The value of a key that has one; a key that can have several is no variable, however many it has. */
function singleValue(key: string, context: RequestContext): string | undefined {
  const values = context.get(key);
  return values?.length === 1 && !context.isMultivalued(key) ? values[0] : undefined;
}

/** The pattern of everything that `pattern` could come to, whatever the values of its variables. */
export function withAnyValues(pattern: string): string {
  return pattern.replace(/\$\{[^}]*\}/g, '*');
}

/** Makes a text match only itself in `matchesPattern`. */
export function literally(text: string): string {
  if (!special.test(text)) return text;
  return text.replace(privateUse, '\u{FFFD}').replaceAll('*', literalStar).replaceAll('?', literalQuestion);
}

/** What a pattern without wildcards of its own says, its literals put back. */
export function plainText(pattern: string): string {
  return pattern.replaceAll(literalStar, '*').replaceAll(literalQuestion, '?');
}
