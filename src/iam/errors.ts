/** IAM's errors, in its codes, statuses and words. Source: IAM API reference, the errors of each operation. */
import { AwsError } from '../aws/errors.ts';
import { type Constraint, structure, validate } from '../aws/validate.ts';
import type { IdentityKind } from './records.ts';

export const noSuchEntity = (message: string) => new AwsError('NoSuchEntity', message, { httpStatus: 404 });
export const entityAlreadyExists = (message: string) =>
  new AwsError('EntityAlreadyExists', message, { httpStatus: 409 });
export const deleteConflict = (message: string) => new AwsError('DeleteConflict', message, { httpStatus: 409 });
export const limitExceeded = (message: string) => new AwsError('LimitExceeded', message, { httpStatus: 409 });
export const malformedPolicy = (message: string) => new AwsError('MalformedPolicyDocument', message);
export const invalidInput = (message: string) => new AwsError('InvalidInput', message);
export const validationError = (message: string) => new AwsError('ValidationError', message);

export const missing = (kind: IdentityKind, name: string) =>
  noSuchEntity(`The ${kind} with name ${name} cannot be found.`);

/**
 * Checks an input as `validate` does, with the code that query services have for it.
 * @throws {AwsError} ValidationError
 */
export function check(input: object, members: Readonly<Record<string, Constraint>>): undefined {
  try {
    validate(input, structure(members));
    return undefined;
  } catch (error) {
    throw error instanceof AwsError ? validationError(error.message) : error;
  }
}
