/** The `Condition` element: all its operators must be met, each for all its keys, each by one of the policy's values. */
import type { RequestContext } from './context.ts';
import { type Operator, operators } from './operators.ts';
import { resolveVariables } from './variables.ts';

export interface Condition {
  readonly key: string;
  readonly values: readonly string[];
  /** Whether `${` is in one of the values. */
  readonly mayHaveVariables: boolean;
  readonly test: 'null' | 'value' | 'unknown';
  readonly operator: Operator;
  readonly set: 'any' | 'all' | undefined;
  readonly ifExists: boolean;
}

const never: Operator = { matches: () => false, isNegated: false, takesVariables: false, isOfKind: () => false };

/**
 * Compiles a `Condition` block. An operator that does not exist compiles to a test that the evaluator treats as never met
 * in an Allow and always met in a Deny.
 */
export function compileConditions(
  block: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>,
): readonly Condition[] {
  return Object.entries(block).flatMap(([name, keys]) =>
    Object.entries(keys).map(([key, listed]) => {
      const values = (Array.isArray(listed) ? listed : [listed]).map(String);
      const mayHaveVariables = values.some((value) => value.includes('${'));
      return { key, values, mayHaveVariables, ...parseOperator(name) };
    }),
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

/**
 * Whether the request meets every condition.
 * @param whenInDoubt what counts where a condition can't be decided for certain: an operator that doesn't exist, something
 *   that is to be unequal to a number, date, address or ARN and one of the two is none, a value that should be one and is
 *   several. False for an Allow and true for a Deny.
 */
export function meetsConditions(
  conditions: readonly Condition[],
  context: RequestContext,
  hasVariables: boolean,
  whenInDoubt: boolean,
): boolean {
  return conditions.every((condition) =>
    condition.test === 'unknown' ? whenInDoubt : meets(condition, context, hasVariables, whenInDoubt),
  );
}

function meets(condition: Condition, context: RequestContext, hasVariables: boolean, whenInDoubt: boolean): boolean {
  const actual = context.get(condition.key);
  const isMissing = actual === undefined || actual.length === 0;
  if (condition.test === 'null') {
    return condition.values.some((value) => (value.toLowerCase() === 'true') === isMissing);
  }
  const { matches, isNegated, takesVariables, isOfKind } = condition.operator;
  if (isMissing) {
    if (condition.ifExists || condition.set === 'all') return true;
    return isNegated && condition.set !== 'any';
  }
  const wanted =
    hasVariables && takesVariables && condition.mayHaveVariables
      ? condition.values.map((value) => resolveVariables(value, context)).filter((value) => value !== undefined)
      : condition.values;
  const isMet = (value: string) => {
    if (isNegated && !(isOfKind(value) && wanted.every(isOfKind))) return whenInDoubt;
    return wanted.some((pattern) => matches(value, pattern)) !== isNegated;
  };
  if (condition.set === 'any') return actual.some(isMet);
  if (condition.set === 'all') return actual.every(isMet);
  // "Multivalued context keys require a condition set operator" (IAM user guide, "Single-valued vs. multivalued context
  // keys"), which doesn't say what happens without one.
  if (context.isMultivalued(condition.key)) return whenInDoubt && actual.some(isMet);
  return whenInDoubt ? actual.some(isMet) : actual.every(isMet);
}
