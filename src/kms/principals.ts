/**
 * The users and roles that key policies and grants name. IAM knows their unique ids, under which they are kept and compared,
 * and what they are called now.
 */
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { hasUniqueId, isUniqueId, type PrincipalIds, principalsIn, shownPolicy } from '../aws/policy-principals.ts';
import type { PolicyDocument } from '../aws/service.ts';
import type { Key } from './key-store.ts';

/**
 * The unique ids of those whom a key policy names, for `Key.principals`.
 * @param policy as `checkPolicy` has it
 * @throws {AwsError} MalformedPolicyDocumentException when one of them is not there: who takes the name later is not meant
 */
export async function policyPrincipals(call: Call, policy: string): Promise<string> {
  const names = principalsIn(JSON.parse(policy) as PolicyDocument);
  const ids = await idsOf(call, names);
  if (names.some((name) => !Object.hasOwn(ids, name)))
    throw new AwsError(
      'MalformedPolicyDocumentException',
      'Policy contains a statement with one or more invalid principals.',
    );
  return JSON.stringify(ids);
}

/** A key's policy for people to read: ids only of those who are gone. */
export async function readablePolicy(call: Call, key: Pick<Key, 'policy' | 'principals'>): Promise<string> {
  const ids: PrincipalIds = JSON.parse(key.principals ?? '{}');
  return shownPolicy(key.policy, ids, await arnsOf(call, Object.values(ids)));
}

/**
 * How a grant keeps a principal: by unique id, where it has one.
 * @throws {AwsError} InvalidArnException when there is no such principal
 */
export async function grantPrincipal(call: Call, arn: string): Promise<string> {
  if (!hasUniqueId(arn)) return arn;
  const id = (await idsOf(call, [arn]))[arn];
  if (id === undefined) throw new AwsError('InvalidArnException', `ARN does not refer to a valid principal: ${arn}`);
  return id;
}

/** The name under which grants keep a principal; none when there is no such principal. */
export async function namesInGrants(call: Call, arn: string): Promise<readonly string[]> {
  return hasUniqueId(arn) ? Object.values(await idsOf(call, [arn])) : [arn];
}

/** The ARNs of the principals with unique ids among `names`; those that are gone are left out. */
export async function arnsOf(
  call: Call,
  names: ReadonlyArray<string | null>,
): Promise<Readonly<Record<string, string>>> {
  const ids = names.filter((name): name is string => name !== null && isUniqueId(name));
  if (ids.length === 0) return {};
  const { Arns } = await call.invoke<{ Arns: Record<string, string> }>('iam', 'DescribePrincipals', { Ids: ids });
  return Arns;
}

async function idsOf(call: Call, names: readonly string[]): Promise<PrincipalIds> {
  if (names.length === 0) return {};
  return (await call.invoke<{ Ids: PrincipalIds }>('iam', 'ResolvePrincipals', { Names: names })).Ids;
}
