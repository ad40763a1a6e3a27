/** What key policies must say beyond the grammar that all policies share, and the check that one does not lock its author out. */
import { partitionOf } from '../aws/arn.ts';
import type { Call, Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import {
  isObject,
  isStrings,
  type PolicyFault,
  parsePolicyDocument,
  principalFault,
  strings,
} from '../aws/policy-document.ts';
import { isUniqueId } from '../aws/policy-principals.ts';
import type { PolicyStatement } from '../aws/service.ts';
import { lowerCaseAscii, matchesArn, matchesWildcard } from '../aws/wildcard.ts';

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
  const statements = parsePolicy(text);
  if (bypassLockoutCheck || mayPutPolicy(statements, call.principal, keyArn)) return;
  throw malformed('The new key policy will not allow you to update the key policy in the future.');
}

const isServicePrincipal = (text: string) => /^[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?$/.test(text);

/** @throws {AwsError} MalformedPolicyDocumentException */
function parsePolicy(text: string): readonly PolicyStatement[] {
  const { statements } = parsePolicyDocument(text, (fault, element) => malformed(wording[fault](element)));
  for (const { Principal, NotPrincipal } of statements) {
    const principal = Principal ?? NotPrincipal;
    if (principal === undefined) throw malformed('A policy statement has no Principal.');
    const services = isObject(principal) && isStrings(principal.Service) ? strings(principal.Service) : [];
    if (principalFault(principal) || !services.every(isServicePrincipal))
      throw malformed('Policy contains a statement with one or more invalid principals.');
  }
  // A statement without Action or Resource is accepted, and has no effect (API_PutKeyPolicy).
  return statements;
}

const foreign = (what: string) => (element: string) =>
  `${what} has an element that policies do not have: ${element.slice(0, 64)}`;
const wording: Readonly<Record<PolicyFault, (element: string) => string>> = {
  json: () => 'The policy is not valid JSON.',
  repeated: () => 'The policy has an element twice in the same place.',
  document: () => 'The policy is not a JSON object.',
  documentElement: foreign('The policy'),
  version: () => 'The policy Version must be 2012-10-17 or 2008-10-17.',
  id: () => 'The policy Id must be a string.',
  noStatement: () => 'The policy has no Statement.',
  statement: () => 'A policy Statement is not a JSON object.',
  statementElement: foreign('A policy statement'),
  effect: () => 'The Effect of a policy statement must be Allow or Deny.',
  sid: () => 'The Sid of a policy statement must be a string.',
  both: (element) => `A policy statement has both ${element} and Not${element}.`,
  strings: (element) => `The ${element} of a policy statement must be a string or a list of strings.`,
  condition: () => 'The Condition of a policy statement must map operators to condition keys and their values.',
};

/**
 * Whether the policy lets the principal, or its account as a whole, call PutKeyPolicy afterwards. A statement with a
 * condition does not count as permission, since it may not be met then; a denial counts unless it has one.
 */
function mayPutPolicy(statements: readonly PolicyStatement[], principal: Principal, keyArn: string): boolean {
  const applies = statements.filter((statement) => {
    const { Principal: named, NotPrincipal, Action, NotAction, Resource, NotResource, Condition } = statement;
    if (Condition && Object.keys(Condition).length > 0) return false;
    const forPrincipal =
      named !== undefined ? namesPrincipal(named, principal) : !namesPrincipal(NotPrincipal, principal);
    const isAction = (pattern: string) => matchesWildcard(lowerCaseAscii(pattern), 'kms:putkeypolicy');
    const isKey = (pattern: string) => matchesArn(pattern, keyArn);
    const forAction = Action
      ? strings(Action).some(isAction)
      : NotAction !== undefined && !strings(NotAction).some(isAction);
    const forKey = Resource
      ? strings(Resource).some(isKey)
      : NotResource !== undefined && !strings(NotResource).some(isKey);
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
  const { account, arn, principalId, sessionIssuer } = principal;
  return strings(names).some(
    (name) =>
      name === '*' ||
      name === account ||
      name === arn ||
      name === sessionIssuer?.arn ||
      (isUniqueId(name) && (name === principalId || name === sessionIssuer?.principalId)) ||
      (name.endsWith(`:iam::${account}:root`) && name.startsWith('arn:')),
  );
}

const malformed = (message: string) => new AwsError('MalformedPolicyDocumentException', message);
