/**
 * The grammar of identity policies and of roles' trust policies.
 * Source: IAM user guide, "Grammar of the IAM JSON policy language"; the messages are AWS's.
 */
import type { PolicyDocument } from '../aws/service.ts';
import { malformedPolicy } from './errors.ts';

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
const operatorName =
  /^(?:(?:ForAllValues|ForAnyValue):)?(?:String(?:Not)?(?:Equals(?:IgnoreCase)?|Like)|Numeric(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Date(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Bool|BinaryEquals|(?:Not)?IpAddress|Arn(?:Not)?(?:Equals|Like))(?:IfExists)?$|^Null$/i;
const awsPrincipal =
  /^(?:\*|\d{12}|A[A-Z0-9]{15,127}|arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)\/[\w+=,.@/-]+)|sts::\d{12}:(?:assumed-role|federated-user)\/[\w+=,.@:/-]+))$/;

/**
 * Checks a policy that is to be given to a user, group or role.
 * @throws {AwsError} MalformedPolicyDocument
 */
export function parseIdentityPolicy(text: string): PolicyDocument {
  const statements = parseStatements(text);
  for (const statement of statements.list) {
    if (statement.Principal !== undefined || statement.NotPrincipal !== undefined)
      throw malformedPolicy('Policy document should not specify a principal.');
    requireOneOf(statement, 'Resource', 'Policy statement must contain resources.');
    const resources = strings(statement.Resource ?? statement.NotResource);
    const wrong = resources.find((resource) => resource !== '*' && !isResource(resource));
    if (wrong !== undefined)
      throw malformedPolicy(
        wrong.startsWith('arn:')
          ? 'The policy failed legacy parsing'
          : `Resource ${wrong} must be in ARN format or "*".`,
      );
  }
  return statements.document;
}

/**
 * Checks a policy that says who may assume a role.
 * @throws {AwsError} MalformedPolicyDocument
 */
export function parseTrustPolicy(text: string): PolicyDocument {
  const statements = parseStatements(text);
  for (const statement of statements.list) {
    if (statement.Resource !== undefined || statement.NotResource !== undefined)
      throw malformedPolicy('Has prohibited field Resource');
    if (strings(statement.Action ?? statement.NotAction).some((action) => action !== '*' && !/^sts:/i.test(action)))
      throw malformedPolicy('AssumeRole policy may only specify STS AssumeRole actions.');
    requireOneOf(statement, 'Principal', 'AssumeRolepolicy contained an invalid principal');
    checkPrincipal(statement.Principal ?? statement.NotPrincipal);
  }
  return statements.document;
}

function parseStatements(text: string): { document: PolicyDocument; list: readonly Record<string, unknown>[] } {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw malformedPolicy('This policy contains invalid Json');
  }
  const syntax = malformedPolicy('Syntax errors in policy.');
  if (!isObject(document)) throw syntax;
  if (Object.keys(document).some((name) => !['Version', 'Id', 'Statement'].includes(name))) throw syntax;
  if (document.Version !== undefined && document.Version !== '2012-10-17' && document.Version !== '2008-10-17')
    throw malformedPolicy('The policy must contain a valid version string');
  if (document.Id !== undefined && typeof document.Id !== 'string') throw syntax;
  const list = Array.isArray(document.Statement) ? document.Statement : [document.Statement];
  if (document.Statement === undefined || list.length === 0) throw syntax;
  const sids = new Set<string>();
  for (const statement of list) {
    if (!isObject(statement)) throw syntax;
    checkStatement(statement);
    if (statement.Sid === undefined) continue;
    if (sids.has(statement.Sid as string))
      throw malformedPolicy('Statement IDs (SID) in a single policy must be unique.');
    sids.add(statement.Sid as string);
  }
  return { document: document as unknown as PolicyDocument, list };
}

function checkStatement(statement: Record<string, unknown>): void {
  const syntax = malformedPolicy('Syntax errors in policy.');
  if (Object.keys(statement).some((name) => !statementMembers.includes(name))) throw syntax;
  if (statement.Effect !== 'Allow' && statement.Effect !== 'Deny') throw syntax;
  if (statement.Sid !== undefined && (typeof statement.Sid !== 'string' || !/^[A-Za-z0-9]*$/.test(statement.Sid)))
    throw malformedPolicy(
      'Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*',
    );
  requireOneOf(statement, 'Action', 'Policy statement must contain actions.');
  for (const action of strings(statement.Action ?? statement.NotAction)) {
    if (action === '*') continue;
    const parts = action.split(':');
    if (parts.length === 1)
      throw malformedPolicy('Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.');
    if (parts.length > 2) throw malformedPolicy('Actions/Condition can contain only one colon.');
    if (!/^[a-zA-Z0-9-.]+$/.test(parts[0]!) || !/^[\w*?-]+$/.test(parts[1]!))
      throw malformedPolicy(`Vendor ${parts[0]} is not valid`);
  }
  checkCondition(statement.Condition);
}

/** One of `X` and `NotX`, and not both, of strings (`Principal` has a check of its own). */
function requireOneOf(statement: Record<string, unknown>, name: string, message: string): void {
  const [yes, no] = [statement[name], statement[`Not${name}`]];
  if (yes !== undefined && no !== undefined) throw malformedPolicy('Syntax errors in policy.');
  const value = yes ?? no;
  if (value === undefined || (Array.isArray(value) && value.length === 0)) throw malformedPolicy(message);
  if (name !== 'Principal' && !isStrings(value)) throw malformedPolicy('Syntax errors in policy.');
}

function checkPrincipal(principal: unknown): void {
  if (principal === '*') return;
  if (!isObject(principal) || Object.keys(principal).length === 0)
    throw malformedPolicy('AssumeRolepolicy contained an invalid principal');
  for (const [kind, names] of Object.entries(principal)) {
    if (!isStrings(names) || names.length === 0 || !['AWS', 'Service', 'Federated', 'CanonicalUser'].includes(kind))
      throw malformedPolicy('AssumeRolepolicy contained an invalid principal');
    const wrong = kind === 'AWS' ? strings(names).find((name) => !awsPrincipal.test(name)) : undefined;
    if (wrong !== undefined) throw malformedPolicy(`Invalid principal in policy: "AWS":"${wrong}"`);
  }
}

function checkCondition(condition: unknown): void {
  if (condition === undefined) return;
  const syntax = malformedPolicy('Syntax errors in policy.');
  if (!isObject(condition)) throw syntax;
  for (const [operator, block] of Object.entries(condition)) {
    if (!operatorName.test(operator)) throw malformedPolicy(`Invalid Condition type : ${operator}`);
    if (!isObject(block)) throw syntax;
    for (const [key, value] of Object.entries(block)) {
      if (!key.includes(':')) throw malformedPolicy('Conditions must be prefaced by a vendor');
      const values = Array.isArray(value) ? value : [value];
      if (!values.every((item) => ['string', 'number', 'boolean'].includes(typeof item))) throw syntax;
    }
  }
}

function isResource(resource: string): boolean {
  return /^[*?]/.test(resource) || /^arn:[^:]*:[^:]*:[^:]*:[^:]*:.+$/s.test(resource) || /^arn:.*\*/.test(resource);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is string | readonly string[] {
  return typeof value === 'string' || (Array.isArray(value) && value.every((item) => typeof item === 'string'));
}

function strings(value: unknown): readonly string[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value as string];
}
