/** The `Condition` element: all its operators must be met, each for all its keys, each by one of the policy's values. */
import type { RequestContext } from './context.ts';
import { type Operator, operators } from './operators.ts';
import { resolveVariables } from './variables.ts';

export interface Condition {
  readonly key: string;
  readonly values: readonly string[];
  readonly test: 'null' | 'value' | 'unknown';
  readonly operator: Operator;
  readonly set: 'any' | 'all' | undefined;
  readonly ifExists: boolean;
}

const never: Operator = { matches: () => false, isNegated: false };

/**
 * Compiles a `Condition` block. An operator that does not exist compiles to a test that the evaluator treats as never met
 * in an Allow and always met in a Deny.
 */
export function compileConditions(
  block: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>,
): readonly Condition[] {
  return Object.entries(block).flatMap(([name, keys]) =>
    Object.entries(keys).map(([key, values]) => ({
      key,
      values: (Array.isArray(values) ? values : [values]).map(String),
      ...parseOperator(name),
    })),
  );
}

function parseOperator(name: string): Pick<Condition, 'test' | 'operator' | 'set' | 'ifExists'> {
  const match = /^(?:(forallvalues|foranyvalue):)?(.+?)(ifexists)?$/.exec(name.toLowerCase())!;
  const set = match[1] === 'forallvalues' ? 'all' : match[1] === 'foranyvalue' ? 'any' : undefined;
  const ifExists = match[3] !== undefined;
  if (match[2] === 'null' && !ifExists) return { test: 'null', operator: never, set, ifExists };
  const operator = Object.hasOwn(operators, match[2]!) ? operators[match[2]!] : undefined;
  return operator ? { test: 'value', operator, set, ifExists } : { test: 'unknown', operator: never, set, ifExists };
}

/** Whether the request meets every condition; an unknown operator is met as `unknownIs` says. */
export function meetsConditions(
  conditions: readonly Condition[],
  context: RequestContext,
  hasVariables: boolean,
  unknownIs: boolean,
): boolean {
  return conditions.every((condition) =>
    condition.test === 'unknown' ? unknownIs : meets(condition, context, hasVariables),
  );
}

function meets(condition: Condition, context: RequestContext, hasVariables: boolean): boolean {
  const actual = context.get(condition.key);
  const isMissing = actual === undefined || actual.length === 0;
  if (condition.test === 'null') {
    return condition.values.some((value) => (value.toLowerCase() === 'true') === isMissing);
  }
  const { matches, isNegated } = condition.operator;
  if (isMissing) {
    if (condition.ifExists || condition.set === 'all') return true;
    return isNegated && condition.set !== 'any';
  }
  const wanted = condition.values
    .map((value) => (hasVariables ? resolveVariables(value, context) : value))
    .filter((value) => value !== undefined);
  const isMet = (value: string) => wanted.some((pattern) => matches(value, pattern)) !== isNegated;
  if (condition.set === 'any') return actual.some(isMet);
  if (condition.set === 'all') return actual.every(isMet);
  // Without a set operator a key with several values meets a positive test by one of them, a negated one by all.
  return isNegated ? actual.every(isMet) : actual.some(isMet);
}
