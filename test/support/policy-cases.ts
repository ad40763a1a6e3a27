/**
 * Random authorization cases: who asks for what, the policies that apply, and the condition keys of the request. Drawn from
 * alphabets so small that what policies say and what requests have often meet.
 */
import fc from 'fast-check';
import type { Principal } from '../../src/aws/call.ts';
import type { PolicyDocument } from '../../src/aws/service.ts';

export const own = '111122223333';
export const other = '444455556666';
export const region = 'us-east-1';

export interface PolicyCase {
  readonly principal: Principal;
  readonly action: string;
  readonly resource: string;
  /** Of the resource; the caller's may be another. */
  readonly account: string;
  readonly identity: readonly PolicyDocument[];
  readonly boundary: PolicyDocument | undefined;
  readonly session: PolicyDocument | undefined;
  /** Keys have one; other resources here don't. */
  readonly resourcePolicy: PolicyDocument | undefined;
  /** Condition keys of the request; a list where the key is one that takes several values. */
  readonly context: Readonly<Record<string, string | readonly string[]>>;
}

const userOf = (account: string): Principal => ({
  type: 'IAMUser',
  account,
  arn: `arn:aws:iam::${account}:user/alice`,
  principalId: 'AIDAEXAMPLEALICE0001',
  userName: 'alice',
});
const sessionOf = (account: string): Principal => ({
  type: 'AssumedRole',
  account,
  arn: `arn:aws:sts::${account}:assumed-role/worker/s1`,
  principalId: 'AROAEXAMPLEWORKER001:s1',
  sessionIssuer: {
    arn: `arn:aws:iam::${account}:role/worker`,
    principalId: 'AROAEXAMPLEWORKER001',
    userName: 'worker',
  },
});

const key = `arn:aws:kms:${region}:${own}:key/red`;
const volume = `arn:aws:ec2:${region}:${own}:volume/vol-red`;

const asked = fc.oneof(
  fc.constantFrom('kms:Decrypt', 'kms:Encrypt', 'kms:CreateGrant').map((action) => ({ action, resource: key })),
  fc.constantFrom('ec2:AttachVolume', 'ec2:DeleteVolume').map((action) => ({ action, resource: volume })),
);

const actionPattern = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('*', 'kms:*', 'ec2:*') },
  { weight: 4, arbitrary: fc.constantFrom('kms:Decrypt', 'kms:Encrypt', 'ec2:AttachVolume', 'ec2:DeleteVolume') },
  { weight: 3, arbitrary: fc.constantFrom('kms:?ncrypt', 'kms:*crypt', 'ec2:A*', 'KMS:De*', 'ec2:*ch?olume', 'iam:*') },
);
const resourcePattern = fc.oneof(
  { weight: 5, arbitrary: fc.constant('*') },
  { weight: 4, arbitrary: fc.constantFrom(key, volume, `arn:aws:kms:*:*:key/*`, `arn:aws:ec2:*:${own}:volume/*`) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      `arn:aws:kms:${region}:${own}:key/r?d`,
      `arn:aws:kms:us-*-1:${own}:key/*d`,
      `arn:aws:ec2:us-????-1:*:volume/vol-*`,
      `arn:aws:kms:${region}:${other}:key/red`,
      `arn:aws:ec2:*:*:snapshot/*`,
      `arn:aws:kms:*:*:key/blue`,
      'arn:aws:kms:*',
      'arn:aws:kms:us*3:key/red',
      'arn:aws:ec2:*:volume/vol-red',
    ),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      `arn:aws:kms:*:*:key/\${aws:PrincipalTag/team}`,
      `arn:aws:ec2:*:*:volume/vol-\${aws:PrincipalTag/team, 'red'}`,
      `arn:aws:kms:*:*:key/\${aws:TagKeys}`,
      `arn:aws:ec2:*:*:volume/\${*}`,
    ),
  },
);

/** The condition keys of requests, and the values that they and policies have for them. */
const strings = ['red', 'blue', 'Red', 'r*d'];
const numbers = ['1', '2', '10', '1.5', '-3', 'ten'];
const dates = ['2026-01-01T00:00:00Z', '2026-01-01', '2026-06-01T12:00:00Z', '2025-12-31T23:59:59Z', 'soon'];
const addresses = ['10.0.0.1', '10.0.1.1', '192.0.2.1', '2001:db8::1'];
const arns = [
  `arn:aws:ec2:${region}:${own}:volume/red`,
  `arn:aws:ec2:eu-west-1:${own}:instance/blue`,
  `arn:aws:sns:${region}:${other}:red:blue`,
];
const keys = {
  string: ['aws:PrincipalTag/team', 'aws:PrincipalTag/site'],
  number: ['aws:MultiFactorAuthAge'],
  date: ['aws:TokenIssueTime'],
  bool: ['aws:SecureTransport', 'aws:MultiFactorAuthPresent'],
  address: ['aws:SourceIp'],
  arn: ['aws:SourceArn'],
  list: ['aws:TagKeys', 'aws:CalledVia'],
} as const;

/** What is no number, date, address or ARN where one is expected. */
export const nonsense: ReadonlySet<string> = new Set([
  'ten',
  'soon',
  '10.0.0.0/33',
  'anywhere',
  'red',
  `\${aws:MultiFactorAuthAge}`,
]);
export const conditionKeys: readonly string[] = Object.values(keys).flat();
/** Whether a condition key is one that can have several values. */
export const isList = (key: string) => (keys.list as readonly string[]).includes(key);

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 4 });
const context = fc
  .record({
    team: optional(fc.constantFrom(...strings)),
    site: optional(fc.constantFrom(...strings)),
    age: optional(fc.constantFrom(...numbers)),
    issued: optional(fc.constantFrom(...dates)),
    secure: optional(fc.constantFrom('true', 'false', 'True')),
    mfa: optional(fc.constantFrom('true', 'false')),
    address: fc.constantFrom(...addresses),
    arn: optional(fc.constantFrom(...arns)),
    tags: optional(fc.uniqueArray(fc.constantFrom(...strings), { minLength: 1, maxLength: 3 })),
    via: optional(fc.constantFrom(['ec2.amazonaws.com'], ['ec2.amazonaws.com', 'kms.amazonaws.com'])),
  })
  .map((value) => {
    const all = {
      [keys.string[0]]: value.team,
      [keys.string[1]]: value.site,
      [keys.number[0]]: value.age,
      [keys.date[0]]: value.issued,
      [keys.bool[0]]: value.secure,
      [keys.bool[1]]: value.mfa,
      [keys.address[0]]: value.address,
      [keys.arn[0]]: value.arn,
      [keys.list[0]]: value.tags,
      [keys.list[1]]: value.via,
    };
    return Object.fromEntries(Object.entries(all).filter(([, found]) => found !== undefined)) as PolicyCase['context'];
  });

const oneOrMore = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: value }, { weight: 1, arbitrary: fc.array(value, { minLength: 1, maxLength: 3 }) });

/** Operators of one kind, the keys they are meant for, and what policies compare with. */
const family = (operators: readonly string[], on: readonly string[], values: readonly string[]) => ({
  operator: fc.constantFrom(...operators),
  on: fc.constantFrom(...on),
  value: fc.constantFrom(...values),
});
const families = [
  family(
    ['StringEquals', 'StringNotEquals', 'StringEqualsIgnoreCase', 'StringNotEqualsIgnoreCase'],
    [...keys.string, ...keys.list],
    [
      ...strings,
      'ec2.amazonaws.com',
      `\${aws:PrincipalTag/site}`,
      `\${aws:PrincipalTag/none, 'red'}`,
      `\${aws:TagKeys}`,
    ],
  ),
  family(
    ['StringLike', 'StringNotLike'],
    [...keys.string, ...keys.list],
    ['r*', '*', '?ed', 'R??', `\${aws:PrincipalTag/site}*`, `r\${*}d`, 'ec2*', 'blue'],
  ),
  family(
    ['Equals', 'NotEquals', 'LessThan', 'LessThanEquals', 'GreaterThan', 'GreaterThanEquals'].map(
      (it) => `Numeric${it}`,
    ),
    keys.number,
    [...numbers, `\${aws:MultiFactorAuthAge}`],
  ),
  family(
    ['Equals', 'NotEquals', 'LessThan', 'LessThanEquals', 'GreaterThan', 'GreaterThanEquals'].map((it) => `Date${it}`),
    keys.date,
    [...dates, '1767225600'],
  ),
  family(['Bool'], keys.bool, ['true', 'false', 'TRUE', 'yes']),
  family(['BinaryEquals'], keys.string, ['red', 'blue', 'cmVk']),
  family(['IpAddress', 'NotIpAddress'], keys.address, [
    '10.0.0.0/8',
    '10.0.0.0/24',
    '10.0.0.1',
    '0.0.0.0/0',
    '2001:db8::/32',
    '::/0',
    '10.0.0.0/33',
    'anywhere',
  ]),
  family(['ArnEquals', 'ArnLike', 'ArnNotEquals', 'ArnNotLike'], keys.arn, [
    ...arns,
    'arn:aws:ec2:*:*:volume/*',
    'arn:aws:*:*:*:*',
    `arn:aws:*:*:${own}:*/blue`,
    'arn:aws:sns:*:*:red:*',
    'red',
  ]),
];
const test = fc.oneof(
  ...families.map(({ operator, on, value }) =>
    fc
      .tuple(
        operator,
        on,
        oneOrMore(value),
        fc.constantFrom('', '', '', 'IfExists'),
        fc.constantFrom('', '', '', 'ForAnyValue:', 'ForAllValues:'),
      )
      .map(([name, on, value, ifExists, set]) => ({ operator: `${set}${name}${ifExists}`, on, value })),
  ),
  fc
    .tuple(fc.constantFrom(...conditionKeys), fc.constantFrom('true', 'false'))
    .map(([on, value]) => ({ operator: 'Null', on, value })),
);
const condition = fc.array(test, { minLength: 0, maxLength: 2 }).map((tests) => {
  const block: Record<string, Record<string, string | readonly string[]>> = {};
  for (const { operator, on, value } of tests) {
    block[operator] ??= {};
    block[operator][on] = value;
  }
  return block;
});

const effect = fc.constantFrom('Allow', 'Allow', 'Allow', 'Allow', 'Deny') as fc.Arbitrary<'Allow' | 'Deny'>;
const mostly = <T>(first: string, second: string, value: fc.Arbitrary<T>) =>
  fc.tuple(fc.constantFrom(first, first, first, first, second), value).map(([name, it]) => ({ [name]: it }));
const statementParts = fc.record({
  Effect: effect,
  action: mostly('Action', 'NotAction', oneOrMore(actionPattern)),
  resource: mostly('Resource', 'NotResource', oneOrMore(resourcePattern)),
  condition: fc.oneof({ weight: 1, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: condition }),
});
const plainStatement = statementParts.map(({ Effect, action, resource, condition }) => ({
  Effect,
  ...action,
  ...resource,
  ...(Object.keys(condition).length > 0 ? { Condition: condition } : {}),
}));
const everything = { Effect: 'Allow' as const, Action: '*', Resource: '*' };
const documentOf = <T>(statement: fc.Arbitrary<T>, sizes: { minLength: number; maxLength: number }) =>
  fc
    .tuple(
      fc.constantFrom('2012-10-17', '2012-10-17', '2012-10-17', '2012-10-17', '2008-10-17'),
      fc.array(statement, sizes),
    )
    .map(([Version, Statement]) => ({ Version, Statement }) as unknown as PolicyDocument);
const policy = documentOf(
  fc.oneof({ weight: 2, arbitrary: fc.constant(everything) }, { weight: 3, arbitrary: plainStatement }),
  { minLength: 1, maxLength: 4 },
);

const principalNames = (account: string) => [
  `arn:aws:iam::${account}:root`,
  account,
  `arn:aws:iam::${account}:user/alice`,
  `arn:aws:iam::${account}:user/bob`,
  `arn:aws:iam::${account}:role/worker`,
  `arn:aws:sts::${account}:assumed-role/worker/s1`,
  `arn:aws:sts::${account}:assumed-role/worker/s2`,
];
const principalElement = fc.oneof(
  { weight: 1, arbitrary: fc.constant('*') },
  { weight: 1, arbitrary: fc.constant({ AWS: '*' }) },
  {
    weight: 8,
    arbitrary: oneOrMore(fc.constantFrom(...principalNames(own), ...principalNames(other))).map((AWS) => ({ AWS })),
  },
  { weight: 1, arbitrary: fc.constant({ Service: 'ec2.amazonaws.com' }) },
);
/** Not `NotPrincipal` with everybody: that is nobody at all, which validators refuse. */
const naming = (name: string, element: unknown) => ({
  [name === 'NotPrincipal' && JSON.stringify(element).includes('"*"') ? 'Principal' : name]: element,
});
const keyStatement = fc
  .tuple(plainStatement, fc.constantFrom('Principal', 'Principal', 'Principal', 'NotPrincipal'), principalElement)
  .map(([statement, name, element]) => ({ ...statement, ...naming(name, element) }));
const keyPolicy = documentOf(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.constant({ ...everything, Principal: { AWS: [`arn:aws:iam::${own}:root`, other] } }),
    },
    { weight: 3, arbitrary: keyStatement },
  ),
  { minLength: 1, maxLength: 3 },
);

const principal = fc.constantFrom(
  userOf(own),
  userOf(own),
  sessionOf(own),
  sessionOf(own),
  userOf(other),
  sessionOf(other),
);
type Parts = Pick<PolicyCase, 'principal' | 'identity' | 'boundary' | 'session' | 'context'> & {
  readonly asked: { readonly action: string; readonly resource: string };
  readonly resourcePolicy: PolicyDocument;
};
const caseOf = ({ asked: { action, resource }, session, resourcePolicy, ...rest }: Parts): PolicyCase => ({
  ...rest,
  action,
  resource,
  account: own,
  session: rest.principal.type === 'AssumedRole' ? session : undefined,
  resourcePolicy: action.startsWith('kms:') ? resourcePolicy : undefined,
});
const of = (...Statement: object[]) => ({ Version: '2012-10-17', Statement }) as unknown as PolicyDocument;
const openKey = of({ ...everything, Principal: { AWS: [`arn:aws:iam::${own}:root`, other] } });
const noLimits = { boundary: fc.constant(undefined), session: fc.constant(undefined) };

/** Many policies at once. */
const anyCase = fc.record({
  principal,
  asked,
  identity: fc.array(policy, { minLength: 0, maxLength: 3 }),
  boundary: fc.option(policy, { nil: undefined, freq: 1 }),
  session: fc.option(policy, { nil: undefined, freq: 1 }),
  resourcePolicy: keyPolicy,
  context,
});

/** Nothing but a condition decides. */
const conditionCase = fc.record({
  principal: fc.constant(userOf(own)),
  asked,
  identity: fc
    .tuple(fc.constantFrom('Allow', 'Allow', 'Allow', 'Deny'), condition)
    .map(([Effect, Condition]) => [
      of({ ...everything, Effect, Condition }, ...(Effect === 'Deny' ? [everything] : [])),
    ]),
  ...noLimits,
  resourcePolicy: fc.constant(openKey),
  context,
});

/** Nothing but the action and the resource decide. */
const targetCase = fc.record({
  principal: fc.constant(userOf(own)),
  asked,
  identity: plainStatement.map(({ Condition: _, ...statement }: { Condition?: unknown; Effect: string }) => [
    of(statement, ...(statement.Effect === 'Deny' ? [everything] : [])),
  ]),
  ...noLimits,
  resourcePolicy: fc.constant(openKey),
  context,
});

/** Nothing but whom the key policy names, and the limits of those, decide. */
const limit = fc.constantFrom(
  undefined,
  undefined,
  of(everything),
  of({ ...everything, Action: 'ec2:*' }),
  of(everything, { ...everything, Effect: 'Deny' }),
);
const namingCase = fc.record({
  principal,
  asked: fc.constant({ action: 'kms:Decrypt', resource: key }),
  identity: fc.constantFrom([], [of(everything)], [of(everything)]),
  boundary: limit,
  session: limit,
  resourcePolicy: fc
    .array(
      fc
        .tuple(effect, fc.constantFrom('Principal', 'Principal', 'NotPrincipal'), principalElement)
        .map(([Effect, name, element]) => ({ ...everything, Effect, ...naming(name, element) })),
      { minLength: 1, maxLength: 2 },
    )
    .map((statements) => of(...statements)),
  context: fc.constant({ 'aws:SourceIp': '10.0.0.1' } as PolicyCase['context']),
});

export const policyCase: fc.Arbitrary<PolicyCase> = fc
  .oneof<fc.Arbitrary<Parts>[]>(anyCase, conditionCase, targetCase, namingCase)
  .map(caseOf);
