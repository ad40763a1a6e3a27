/**
 * Whether `text` matches `pattern`, in which `*` stands for any characters, also none, and `?` for exactly one.
 * Takes time in proportion to the product of both lengths at worst: a policy can't make it explode.
 */
export function matchesWildcard(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let resume = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

/**
 * The letters A to Z in lower case, and nothing else changed: names that match without regard to case (actions, condition
 * keys) must not be had by a look-alike that Unicode folds to the same letters (the Kelvin sign to `k`).
 */
export function lowerCaseAscii(text: string): string {
  return isAscii.test(text) ? text.toLowerCase() : text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

const isAscii = /^[\x00-\x7f]*$/;

/**
 * Whether the ARN `text` matches the ARN `pattern`. A wildcard stays within its segment (the text between two colons),
 * except for a `*` at the end of one, which may reach beyond the colon. In the resource's own part, after the fifth colon,
 * wildcards match anything. Source: IAM user guide, "IAM JSON policy elements: Resource", on wildcards.
 */
export function matchesArn(pattern: string, text: string): boolean {
  if (pattern === '*') return true;
  if (!matchesWildcard(pattern, text)) return false;
  // Only a wildcard inside a segment could have matched too much.
  if (!/[?]|[*](?![*]|:|$)/.test(pattern)) return true;
  // What matches has as many characters as the text, and stars; with one star for each run it can't be much longer.
  return matchesSegments(pattern.replace(/[*]{2,}/g, '*'), text);
}

function matchesSegments(pattern: string, text: string): boolean {
  const reachesOver = colonReaching(pattern);
  let states = new Set([0]);
  for (const character of text) {
    const next = new Set<number>();
    for (const state of withoutStars(pattern, states)) {
      const expected = pattern[state];
      const isWild = (expected === '*' || expected === '?') && (character !== ':' || reachesOver[state]!);
      if (expected === '*' && isWild) next.add(state);
      else if (isWild || expected === character) next.add(state + 1);
    }
    states = next;
  }
  return withoutStars(pattern, states).has(pattern.length);
}

/** The segments before the resource's own part: partition, service, region, account. */
const leadingColons = 5;

/** For each position of a pattern, whether a wildcard there may match a colon. */
function colonReaching(pattern: string): readonly boolean[] {
  let colons = 0;
  return Array.from(pattern, (character, index) => {
    if (character === ':') colons++;
    return colons >= leadingColons || (character === '*' && /^[*]+(?::|$)/.test(pattern.slice(index)));
  });
}

/** The states and those that they reach by letting a `*` match nothing. */
function withoutStars(pattern: string, states: ReadonlySet<number>): Set<number> {
  const all = new Set(states);
  for (const state of all) if (pattern[state] === '*') all.add(state + 1);
  return all;
}
