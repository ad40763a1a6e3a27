/**
 * What identity policies and roles' trust policies must say beyond the grammar that all policies share.
 * Source: IAM user guide, "Grammar of the IAM JSON policy language"; the messages are AWS's.
 */
import { type PolicyFault, parsePolicyDocument, principalFault, strings } from '../aws/policy-document.ts';
import type { PolicyDocument, PolicyStatement } from '../aws/service.ts';
import { malformedPolicy } from './errors.ts';

const operatorName =
  /^(?:(?:ForAllValues|ForAnyValue):)?(?:String(?:Not)?(?:Equals(?:IgnoreCase)?|Like)|Numeric(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Date(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Bool|BinaryEquals|(?:Not)?IpAddress|Arn(?:Not)?(?:Equals|Like))(?:IfExists)?$|^Null$/i;
const sidForm =
  'Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*';
const invalidPrincipal = 'AssumeRolepolicy contained an invalid principal';

/**
 * Checks a policy that is to be given to a user, group or role.
 * @throws {AwsError} MalformedPolicyDocument
 */
export function parseIdentityPolicy(text: string): PolicyDocument {
  const { document, statements } = parse(text);
  for (const { Principal, NotPrincipal, Resource, NotResource } of statements) {
    if (Principal !== undefined || NotPrincipal !== undefined)
      throw malformedPolicy('Policy document should not specify a principal.');
    const resources = strings(Resource ?? NotResource);
    if (resources.length === 0) throw malformedPolicy('Policy statement must contain resources.');
    const wrong = resources.find((resource) => resource !== '*' && !isResource(resource));
    if (wrong !== undefined)
      throw malformedPolicy(
        wrong.startsWith('arn:')
          ? 'The policy failed legacy parsing'
          : `Resource ${wrong} must be in ARN format or "*".`,
      );
  }
  return document;
}

/**
 * Checks a policy that says who may assume a role.
 * @throws {AwsError} MalformedPolicyDocument
 */
export function parseTrustPolicy(text: string): PolicyDocument {
  const { document, statements } = parse(text);
  for (const { Principal, NotPrincipal, Action, NotAction, Resource, NotResource } of statements) {
    if (Resource !== undefined || NotResource !== undefined) throw malformedPolicy('Has prohibited field Resource');
    if (strings(Action ?? NotAction).some((action) => action !== '*' && !/^sts:/i.test(action)))
      throw malformedPolicy('AssumeRole policy may only specify STS AssumeRole actions.');
    const fault = principalFault(Principal ?? NotPrincipal);
    if (fault === 'form') throw malformedPolicy(invalidPrincipal);
    if (fault) throw malformedPolicy(`Invalid principal in policy: "AWS":"${fault.name}"`);
  }
  return document;
}

/**
 * Checks a policy that is to be on a resource, whichever it is: more its service may ask for.
 * @throws {AwsError} MalformedPolicyDocument
 */
export function parseResourcePolicy(text: string): PolicyDocument {
  const { document, statements } = parsePolicyDocument(text, refusal);
  if (statements.some(({ Principal, NotPrincipal }) => principalFault(Principal ?? NotPrincipal) !== undefined))
    throw malformedPolicy('Policy contains a statement with one or more invalid principals.');
  return document;
}

function parse(text: string): { document: PolicyDocument; statements: readonly PolicyStatement[] } {
  const { document, statements } = parsePolicyDocument(text, refusal);
  const sids = new Set<string>();
  for (const { Sid, Action, NotAction, Condition } of statements) {
    if (Sid !== undefined && !/^[A-Za-z0-9]*$/.test(Sid)) throw malformedPolicy(sidForm);
    if (Sid !== undefined && sids.has(Sid))
      throw malformedPolicy('Statement IDs (SID) in a single policy must be unique.');
    if (Sid !== undefined) sids.add(Sid);
    checkActions(strings(Action ?? NotAction));
    for (const [operator, keys] of Object.entries(Condition ?? {})) {
      if (!operatorName.test(operator)) throw malformedPolicy(`Invalid Condition type : ${operator}`);
      if (Object.keys(keys).some((key) => !key.includes(':')))
        throw malformedPolicy('Conditions must be prefaced by a vendor');
    }
  }
  return { document, statements };
}

function refusal(fault: PolicyFault) {
  if (fault === 'json') return malformedPolicy('This policy contains invalid Json');
  if (fault === 'version') return malformedPolicy('The policy must contain a valid version string');
  if (fault === 'sid') return malformedPolicy(sidForm);
  return malformedPolicy('Syntax errors in policy.');
}

function checkActions(actions: readonly string[]): void {
  if (actions.length === 0) throw malformedPolicy('Policy statement must contain actions.');
  for (const action of actions) {
    if (action === '*') continue;
    const parts = action.split(':');
    if (parts.length === 1)
      throw malformedPolicy('Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.');
    if (parts.length > 2) throw malformedPolicy('Actions/Condition can contain only one colon.');
    if (!/^[a-zA-Z0-9-.]+$/.test(parts[0]!) || !/^[\w*?-]+$/.test(parts[1]!))
      throw malformedPolicy(`Vendor ${parts[0]} is not valid`);
  }
}

function isResource(resource: string): boolean {
  return /^[*?]/.test(resource) || /^arn:[^:]*:[^:]*:[^:]*:[^:]*:.+$/s.test(resource) || /^arn:.*\*/.test(resource);
}
