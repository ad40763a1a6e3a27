/** What a grant may say. Source: API_CreateGrant; KMS developer guide, "Grants in AWS KMS". */
import { type CreateGrantRequest, GrantOperation } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import type { GrantStatement } from '../aws/service.ts';
import { boolean, listOf, required, structure, text, textMap } from '../aws/validate.ts';
import { checkContext, grantTokenList, keyIdText, principalText, servicePrincipalText } from './constraints.ts';
import { grantOperationsOf } from './key-specs.ts';
import type { Key } from './key-store.ts';

export const createGrantInput = structure({
  KeyId: required(keyIdText),
  GranteePrincipal: principalText,
  RetiringPrincipal: principalText,
  GranteeServicePrincipal: servicePrincipalText,
  RetiringServicePrincipal: servicePrincipalText,
  Operations: required(listOf(Object.values(GrantOperation))),
  Constraints: structure({
    EncryptionContextSubset: textMap(),
    EncryptionContextEquals: textMap(),
    SourceArn: text({ min: 20, max: 512, pattern: /^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$/ }),
  }),
  GrantTokens: grantTokenList,
  Name: text({ min: 1, max: 256, pattern: /^[a-zA-Z0-9:/_-]+$/ }),
  DryRun: boolean(),
});

/** One encryption context in a constraint. */
const pairsMax = 8;
const contextLengthMax = 384;

/**
 * What can be said of the request alone. Source: API_CreateGrant.
 * @throws {AwsError} ValidationException
 */
export function checkGrantRequest(input: CreateGrantRequest): void {
  checkOneOf(input, ['GranteePrincipal', 'GranteeServicePrincipal']);
  checkOneOf(input, ['RetiringPrincipal', 'RetiringServicePrincipal']);
  checkOneOf(input.Constraints ?? {}, ['EncryptionContextEquals', 'EncryptionContextSubset']);
  if (!input.GranteePrincipal && !input.GranteeServicePrincipal)
    throw new AwsError(
      'ValidationException',
      "1 validation error detected: Value null at 'granteePrincipal' failed to satisfy constraint: Member must not be null",
    );
  if (input.GranteeServicePrincipal && !input.Constraints?.SourceArn)
    throw new AwsError('ValidationException', 'A grant to a GranteeServicePrincipal needs a SourceArn constraint.');
  if (input.GranteeServicePrincipal && !input.RetiringPrincipal && !input.RetiringServicePrincipal)
    throw new AwsError(
      'ValidationException',
      'A grant to a GranteeServicePrincipal needs a RetiringPrincipal or a RetiringServicePrincipal.',
    );
  if (input.Operations!.length === 0)
    throw new AwsError('ValidationException', 'A grant must allow at least one operation.');
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset } = input.Constraints ?? {};
  if (equals ?? subset) checkConstraintLength((equals ?? subset)!);
}

function checkConstraintLength(context: Readonly<Record<string, string>>): void {
  checkContext('Constraints', context);
  const pairs = Object.entries(context);
  const length = pairs.reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  if (pairs.length > pairsMax || length > contextLengthMax)
    throw new AwsError(
      'ValidationException',
      `The encryption context of a grant constraint can have at most ${pairsMax} pairs and ${contextLengthMax} characters.`,
    );
}

/** @throws {AwsError} ValidationException for a request that has both members */
export function checkOneOf<Input extends object>(
  input: Input,
  members: readonly [keyof Input & string, keyof Input & string],
) {
  if (members.every((member) => input[member] !== undefined && input[member] !== null))
    throw new AwsError('ValidationException', `You can specify either ${members[0]} or ${members[1]}, but not both.`);
}

/** @throws {AwsError} InvalidArnException or ValidationException */
export function checkGrant(input: CreateGrantRequest, key: Key): void {
  if (input.GranteePrincipal) checkPrincipal(input.GranteePrincipal);
  if (input.RetiringPrincipal) checkPrincipal(input.RetiringPrincipal);
  const allowed = grantOperationsOf(key.key_spec, key.key_usage);
  const wrong = input.Operations!.find((operation) => !allowed.includes(operation));
  if (wrong)
    throw new AwsError(
      'ValidationException',
      `Operation ${wrong} is not valid in a grant on ${key.arn}, a key with key spec ${key.key_spec} and key usage ${key.key_usage}.`,
    );
  checkConstraints(input, key);
}

function checkConstraints(input: CreateGrantRequest, key: Key): void {
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset } = input.Constraints ?? {};
  if (!equals && !subset) return;
  if (key.key_spec !== 'SYMMETRIC_DEFAULT')
    throw new AwsError(
      'ValidationException',
      `Encryption context constraints are valid only for symmetric encryption keys; the key spec of ${key.arn} is ${key.key_spec}.`,
    );
}

const principalArn =
  /^arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)\/[\w+=,.@/-]+)|sts::\d{12}:(?:assumed-role\/[\w+=,.@:-]+\/[\w+=,.@:-]+|federated-user\/[\w+=,.@-]+))$/;

/** @throws {AwsError} InvalidArnException unless the ARN is one of an account, user, role or session */
export function checkPrincipal(principal: string): void {
  if (!principalArn.test(principal))
    throw new AwsError('InvalidArnException', `ARN does not refer to a valid principal: ${principal}`);
}

/**
 * Whether the grant asked for is no wider than `grant`, from which the caller has the permission to create grants: only
 * its operations, and its constraint or a stricter one. Source: KMS developer guide, "Granting CreateGrant permission".
 */
export function isWithin(input: CreateGrantRequest, grant: GrantStatement): boolean {
  if (!input.Operations!.every((operation) => grant.operations.includes(operation))) return false;
  if (grant.sourceArn !== undefined && input.Constraints?.SourceArn !== grant.sourceArn) return false;
  const { EncryptionContextEquals: equals, EncryptionContextSubset: subset } = input.Constraints ?? {};
  if (grant.encryptionContextEquals) return equals !== undefined && isSame(equals, grant.encryptionContextEquals);
  if (grant.encryptionContextSubset) {
    const context = equals ?? subset;
    return context !== undefined && includes(context, grant.encryptionContextSubset);
  }
  return true;
}

type Context = Readonly<Record<string, string>>;

const includes = (context: Context, part: Context) =>
  Object.entries(part).every(([name, value]) => Object.hasOwn(context, name) && context[name] === value);
const isSame = (a: Context, b: Context) => includes(a, b) && includes(b, a);
