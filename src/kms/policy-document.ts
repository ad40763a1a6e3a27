/** The grammar of key policies, and the check that one does not lock its author out. */
import { partitionOf } from '../aws/arn.ts';
import type { Call, Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { PolicyDocument, PolicyStatement } from '../aws/service.ts';

/** Source: KMS developer guide, "Key policy document size". UTF-8 bytes. */
const policyBytesMax = 32_768;

/** What a key gets whose creator gives no policy: the account decides by its identity policies. */
export function defaultPolicy(call: Call): string {
  return JSON.stringify(
    {
      Version: '2012-10-17',
      Id: 'key-default-1',
      Statement: [
        {
          Sid: 'Enable IAM User Permissions',
          Effect: 'Allow',
          Principal: { AWS: `arn:${partitionOf(call.region)}:iam::${call.account}:root` },
          Action: 'kms:*',
          Resource: '*',
        },
      ],
    },
    null,
    2,
  );
}

/**
 * Checks a policy that is to be put on a key.
 * @throws {AwsError} MalformedPolicyDocumentException or LimitExceededException
 */
export function checkPolicy(call: Call, text: string, keyArn: string, bypassLockoutCheck: boolean): void {
  if (Buffer.byteLength(text) > policyBytesMax)
    throw new AwsError('LimitExceededException', `The key policy is longer than ${policyBytesMax} bytes.`);
  const policy = parsePolicy(text);
  if (bypassLockoutCheck || mayPutPolicy(policy, call.principal, keyArn)) return;
  throw malformed('The new key policy will not allow you to update the key policy in the future.');
}

/** @throws {AwsError} MalformedPolicyDocumentException */
export function parsePolicy(text: string): PolicyDocument {
  let policy: unknown;
  try {
    policy = JSON.parse(text);
  } catch {
    throw malformed('The policy is not valid JSON.');
  }
  if (!isObject(policy)) throw malformed('The policy is not a JSON object.');
  onlyMembers(policy, ['Version', 'Id', 'Statement'], 'The policy');
  if (policy.Version !== undefined && policy.Version !== '2012-10-17' && policy.Version !== '2008-10-17')
    throw malformed('The policy Version must be 2012-10-17 or 2008-10-17.');
  if (policy.Id !== undefined && typeof policy.Id !== 'string') throw malformed('The policy Id must be a string.');
  const statements = statementsOf(policy.Statement);
  if (statements.length === 0) throw malformed('The policy has no Statement.');
  for (const statement of statements) checkStatement(statement);
  return policy as unknown as PolicyDocument;
}

const statementMembers = [
  'Sid',
  'Effect',
  'Principal',
  'NotPrincipal',
  'Action',
  'NotAction',
  'Resource',
  'NotResource',
  'Condition',
];

function checkStatement(statement: unknown): void {
  if (!isObject(statement)) throw malformed('A policy Statement is not a JSON object.');
  onlyMembers(statement, statementMembers, 'A policy statement');
  if (statement.Effect !== 'Allow' && statement.Effect !== 'Deny')
    throw malformed('The Effect of a policy statement must be Allow or Deny.');
  if (statement.Sid !== undefined && typeof statement.Sid !== 'string')
    throw malformed('The Sid of a policy statement must be a string.');
  for (const [yes, no] of [
    ['Principal', 'NotPrincipal'],
    ['Action', 'NotAction'],
    ['Resource', 'NotResource'],
  ] as const) {
    if (statement[yes] !== undefined && statement[no] !== undefined)
      throw malformed(`A policy statement has both ${yes} and ${no}.`);
  }
  const principal = statement.Principal ?? statement.NotPrincipal;
  if (principal === undefined) throw malformed('A policy statement has no Principal.');
  checkPrincipal(principal);
  // A statement without Action or Resource is accepted, and has no effect (API_PutKeyPolicy).
  for (const name of ['Action', 'NotAction', 'Resource', 'NotResource'] as const) {
    if (statement[name] !== undefined && !isStrings(statement[name]))
      throw malformed(`The ${name} of a policy statement must be a string or a list of strings.`);
  }
  if (statement.Condition !== undefined) checkCondition(statement.Condition);
}

const principalArn =
  /^arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)\/[\w+=,.@/-]+)|sts::\d{12}:(?:assumed-role|federated-user)\/[\w+=,.@:/-]+)$/;
const isAwsPrincipal = (text: string) =>
  text === '*' || /^\d{12}$/.test(text) || /^A[A-Z0-9]{15,127}$/.test(text) || principalArn.test(text);
const isServicePrincipal = (text: string) => /^[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?$/.test(text);

function checkPrincipal(principal: unknown): void {
  const invalid = malformed('Policy contains a statement with one or more invalid principals.');
  if (principal === '*') return;
  if (!isObject(principal) || Object.keys(principal).length === 0) throw invalid;
  for (const [kind, names] of Object.entries(principal)) {
    if (!isStrings(names) || names.length === 0) throw invalid;
    const list = strings(names);
    const isValid =
      kind === 'AWS'
        ? list.every(isAwsPrincipal)
        : kind === 'Service'
          ? list.every(isServicePrincipal)
          : kind === 'Federated' || kind === 'CanonicalUser';
    if (!isValid) throw invalid;
  }
}

function checkCondition(condition: unknown): void {
  const wrong = malformed('The Condition of a policy statement must map operators to condition keys and their values.');
  if (!isObject(condition)) throw wrong;
  for (const block of Object.values(condition)) {
    if (!isObject(block)) throw wrong;
    for (const value of Object.values(block)) {
      const values = Array.isArray(value) ? value : [value];
      if (!values.every((item) => ['string', 'number', 'boolean'].includes(typeof item))) throw wrong;
    }
  }
}

/**
 * Whether the policy lets the principal, or its account as a whole, call PutKeyPolicy afterwards. A statement with a
 * condition does not count as permission, since it may not be met then; a denial counts unless it has one.
 */
function mayPutPolicy(policy: PolicyDocument, principal: Principal, keyArn: string): boolean {
  const applies = statementsOf(policy.Statement).filter((statement): statement is PolicyStatement => {
    const {
      Principal: named,
      NotPrincipal,
      Action,
      NotAction,
      Resource,
      NotResource,
      Condition,
    } = statement as PolicyStatement;
    if (Condition && Object.keys(Condition).length > 0) return false;
    const forPrincipal =
      named !== undefined ? namesPrincipal(named, principal) : !namesPrincipal(NotPrincipal, principal);
    const forAction = Action
      ? strings(Action).some((pattern) => matches(pattern, 'kms:PutKeyPolicy', true))
      : NotAction !== undefined && !strings(NotAction).some((pattern) => matches(pattern, 'kms:PutKeyPolicy', true));
    const forKey = Resource
      ? strings(Resource).some((pattern) => matches(pattern, keyArn))
      : NotResource !== undefined && !strings(NotResource).some((pattern) => matches(pattern, keyArn));
    return forPrincipal && forAction && forKey;
  });
  return (
    applies.some((statement) => statement.Effect === 'Allow') &&
    !applies.some((statement) => statement.Effect === 'Deny')
  );
}

function namesPrincipal(named: unknown, principal: Principal): boolean {
  if (named === '*') return true;
  const names = isObject(named) ? named.AWS : undefined;
  if (!isStrings(names)) return false;
  const { account, arn, sessionIssuer } = principal;
  return strings(names).some(
    (name) =>
      name === '*' ||
      name === account ||
      name === arn ||
      name === sessionIssuer?.arn ||
      (name.endsWith(`:iam::${account}:root`) && name.startsWith('arn:')),
  );
}

/** IAM's `*` and `?`; action names are compared without regard to case. */
function matches(pattern: string, text: string, ignoreCase = false): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`, ignoreCase ? 'is' : 's').test(text);
}

function statementsOf(statement: unknown): readonly unknown[] {
  if (statement === undefined || statement === null) return [];
  return Array.isArray(statement) ? statement : [statement];
}

function onlyMembers(object: object, members: readonly string[], what: string): void {
  const other = Object.keys(object).find((name) => !members.includes(name));
  if (other !== undefined) throw malformed(`${what} has an element that policies do not have: ${other.slice(0, 64)}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is string | readonly string[] {
  return typeof value === 'string' || (Array.isArray(value) && value.every((item) => typeof item === 'string'));
}

const strings = (value: string | readonly string[]): readonly string[] => (typeof value === 'string' ? [value] : value);

const malformed = (message: string) => new AwsError('MalformedPolicyDocumentException', message);
