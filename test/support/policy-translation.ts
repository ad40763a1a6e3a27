/**
 * Cases in the words of `@cloud-copilot/iam-simulate`: where it reads a policy otherwise than AWS documents, or than we do
 * where AWS documents nothing, the policy is rewritten to what means the same to it. Each rule names its reason.
 */
import type { PolicyDocument, PolicyStatement } from '../../src/aws/service.ts';
import { isList, nonsense, type PolicyCase } from './policy-cases.ts';

type Context = Readonly<Record<string, string | readonly string[]>>;
type Values = string | readonly string[];
type Rule = (statement: PolicyStatement, document: PolicyDocument, context: Context) => PolicyStatement;

const each = (values: Values, change: (value: string) => string): Values =>
  typeof values === 'string' ? change(values) : values.map(change);
const listOf = (values: Values): readonly string[] => (typeof values === 'string' ? [values] : values);

/** Rewrites every text in which a variable may stand. */
function everywhere(statement: PolicyStatement, change: (value: string) => string): PolicyStatement {
  const { Resource, NotResource, Condition } = statement;
  return {
    ...statement,
    ...(Resource ? { Resource: each(Resource, change) } : {}),
    ...(NotResource ? { NotResource: each(NotResource, change) } : {}),
    ...(Condition
      ? {
          Condition: Object.fromEntries(
            Object.entries(Condition).map(([operator, keys]) => [
              operator,
              Object.fromEntries(Object.entries(keys).map(([key, values]) => [key, each(values, change)])),
            ]),
          ),
        }
      : {}),
  };
}

/** What a condition is rewritten to: another operator and values, itself, or nothing where it is met anyway. */
type Rewritten = readonly [operator: string, values: Values] | 'same' | 'met';

/** Rewrites conditions one by one. */
function eachTest(
  statement: PolicyStatement,
  change: (operator: string, key: string, values: Values) => Rewritten,
): PolicyStatement {
  if (!statement.Condition) return statement;
  const { Condition, ...rest } = statement;
  const block: Record<string, Record<string, Values>> = {};
  const tests = Object.entries(Condition).flatMap(([operator, keys]) =>
    Object.entries(keys).map(([key, values]) => ({ operator, key, values, to: change(operator, key, values) })),
  );
  // Those that keep their names first, so that the others can make way.
  for (const { operator, key, values } of tests.filter(({ to }) => to === 'same'))
    block[operator] = { ...block[operator], [key]: values };
  for (const { key, to } of tests) {
    if (to === 'same' || to === 'met') continue;
    // The key is there: with IfExists or without, it is the same test.
    const other = to[0].endsWith('IfExists') ? to[0].slice(0, -'IfExists'.length) : `${to[0]}IfExists`;
    const name = block[to[0]]?.[key] === undefined ? to[0] : other;
    if (block[name]?.[key] !== undefined) throw new Error(`two tests ${name} of ${key}`);
    block[name] = { ...block[name], [key]: to[1] };
  }
  return Object.keys(block).length > 0 ? { ...rest, Condition: block } : rest;
}

/** IAM user guide, "Variables and tags": without Version 2012-10-17 variables are literal text. */
const noVariablesInOldVersions: Rule = (statement, { Version }) =>
  Version === '2012-10-17' ? statement : everywhere(statement, (value) => value.replaceAll(`\${`, `\${$}{`));

/**
 * IAM user guide, "IAM JSON policy elements: Resource": a `*` at the end of a segment can match beyond the colon. The
 * simulator matches segment by segment, and what has too few is to it an ARN cut short, never sure enough for NotResource.
 */
const starsReachOverColons: Rule = (statement) =>
  everywhere(statement, (value) =>
    value
      .replace(/^arn:aws:ec2:\*:volume/, 'arn:aws:ec2:*:*:volume')
      .replace(/^arn:aws:kms:\*$/, 'arn:aws:kms:*:*:*')
      .replace(/^arn:aws:kms:us\*3:key/, 'arn:aws:kms:us*3:*:key'),
  );

/**
 * AWS documents no meaning for "not equal" where one side is no number, date, address or ARN. The simulator never takes it
 * as met; with us it is met in a Deny, to be on the safe side.
 */
const nonsenseIsDenied: Rule = (statement, _document, context) =>
  statement.Effect === 'Allow'
    ? statement
    : eachTest(statement, (operator, key, values) => {
        const isNegated = /Numeric|Date|Ip|Arn/.test(operator) && operator.includes('Not');
        const compared = [...listOf(values), ...listOf(context[key] ?? [])];
        return isNegated && key in context && compared.some((value) => nonsense.has(value)) ? 'met' : 'same';
      });

/**
 * IAM user guide, "Single-valued vs. multivalued context keys": a key with several values needs a set operator; what is
 * without one isn't said. The simulator never takes it as met; with us it is met in a Deny by any of the values.
 */
const listsNeedSetOperators: Rule = (statement, _document, context) =>
  statement.Effect === 'Allow'
    ? statement
    : eachTest(statement, (operator, key, values) =>
        isList(key) && key in context && operator !== 'Null' && !operator.startsWith('For')
          ? [`ForAnyValue:${operator}`, values]
          : 'same',
      );

/**
 * IAM user guide, "Condition operators", …IfExists: "If the key is not present, evaluate the condition element as true."
 * The simulator doesn't after ForAnyValue.
 */
const ifExistsHoldsForAnyValueToo: Rule = (statement, _document, context) =>
  eachTest(statement, (operator, key) =>
    /^ForAnyValue:.*IfExists$/.test(operator) && !(key in context) ? 'met' : 'same',
  );

/**
 * RFC 4632: a prefix of length 0 is all addresses; the simulator shifts by 32 bits, which in JavaScript is to shift by none.
 * IAM user guide, "Condition operators": an address without a prefix has the prefix /32; the simulator takes no IPv6 address
 * for other than it.
 */
const addressRanges: Record<string, readonly string[]> = {
  '0.0.0.0/0': ['0.0.0.0/1', '128.0.0.0/1'],
  '10.0.0.1': ['10.0.0.1/32'],
};
const rangesInFull: Rule = (statement) =>
  eachTest(statement, (operator, _key, values) =>
    /IpAddress/.test(operator)
      ? [operator, listOf(values).flatMap((value) => addressRanges[value] ?? [value])]
      : 'same',
  );

/** IAM user guide, "Condition operators": dates can be in epoch time, which is seconds. To the simulator it is milliseconds. */
const epochIsInSeconds: Rule = (statement) =>
  eachTest(statement, (operator, _key, values) =>
    /Date/.test(operator)
      ? [operator, each(values, (value) => (value === '1767225600' ? '2026-01-01T00:00:00Z' : value))]
      : 'same',
  );

/** Whether a pattern has a variable that this request gives no value. */
function isWithoutValue(pattern: string, context: Context): boolean {
  const [, name, fallback] = /\$\{([a-z]+:[^,}]+)(,)?/i.exec(pattern) ?? [];
  return name !== undefined && fallback === undefined && typeof context[name] !== 'string';
}

/**
 * IAM user guide, "Variables and tags": in NotResource, what has a variable without a value "will not match any resource",
 * so a Deny leaves nothing out for its sake. The simulator takes no statement with one as met.
 */
const variablesWithoutValueLeaveNothingOut: Rule = (statement, { Version }, context) =>
  statement.Effect === 'Allow' || !statement.NotResource || Version !== '2012-10-17'
    ? statement
    : {
        ...statement,
        NotResource: each(statement.NotResource, (pattern) =>
          isWithoutValue(pattern, context) ? 'arn:aws:kms:none:none:key/none' : pattern,
        ),
      };

/**
 * IAM user guide, "Variables and tags": "Inverted condition operators like StringNotEquals or StringNotLike do match
 * against a null value". The simulator takes none as met.
 */
const nothingEqualsNoValue: Rule = (statement, { Version }, context) =>
  Version !== '2012-10-17'
    ? statement
    : eachTest(statement, (operator, _key, values) =>
        operator.includes('StringNot') && listOf(values).some((value) => isWithoutValue(value, context))
          ? [operator, each(values, (value) => (isWithoutValue(value, context) ? 'equal to nothing' : value))]
          : 'same',
      );

/**
 * IAM user guide, "NotPrincipal", its first example: to name a user and its account exempts that user alone from a Deny,
 * not everyone in the account. The simulator exempts whomever the account stands for.
 */
const accountsExemptNoUsers: Rule = (statement) => {
  const { AWS } = (statement.NotPrincipal ?? {}) as { AWS?: Values };
  if (statement.Effect === 'Allow' || AWS === undefined) return statement;
  const rest = listOf(AWS).filter((name) => !/:root$|^\d+$/.test(name));
  return { ...statement, NotPrincipal: { AWS: rest.length > 0 ? rest : 'arn:aws:iam::999999999999:user/nobody' } };
};

const rules: readonly Rule[] = [
  accountsExemptNoUsers,
  nothingEqualsNoValue,
  variablesWithoutValueLeaveNothingOut,
  starsReachOverColons,
  nonsenseIsDenied,
  listsNeedSetOperators,
  ifExistsHoldsForAnyValueToo,
  rangesInFull,
  epochIsInSeconds,
  // The others know values as the case has them.
  noVariablesInOldVersions,
];

export function inTheirWords(
  { identity, boundary, session, resourcePolicy }: PolicyCase,
  context: Context,
): Pick<PolicyCase, 'identity' | 'boundary' | 'session' | 'resourcePolicy'> {
  const translate = (document: PolicyDocument): PolicyDocument => ({
    ...document,
    Statement: [document.Statement]
      .flat()
      .map((statement) => rules.reduce((changed, rule) => rule(changed, document, context), statement)),
  });
  return {
    identity: identity.map(translate),
    boundary: boundary && translate(boundary),
    session: session && translate(session),
    resourcePolicy: resourcePolicy && translate(resourcePolicy),
  };
}

/** A policy that names nowhere the role behind a session, only the session itself. */
export function withoutRole(document: PolicyDocument | undefined): PolicyDocument | undefined {
  if (!document) return undefined;
  const nobody = (element: unknown) =>
    JSON.parse(JSON.stringify(element).replace(/("arn:aws:iam::\d+:role\/)worker"/g, '$1nobody"'));
  const statements = [document.Statement].flat() as PolicyStatement[];
  return {
    ...document,
    Statement: statements.map((each) => ('Principal' in each ? { ...each, Principal: nobody(each.Principal) } : each)),
  };
}

/** A policy that allows everything that it does not deny. */
export function withEverything(document: PolicyDocument): PolicyDocument {
  const all: PolicyStatement = { Effect: 'Allow', Action: '*', Resource: '*' };
  return { ...document, Statement: [all, ...[document.Statement].flat()] };
}
