import type { Call } from '../aws/call.ts';
import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { Denial } from '../aws/service.ts';

/** A refusal as IAM and STS word it. */
export function accessDenied(call: Call, denial: Denial): AwsError {
  return new AwsError('AccessDenied', denialSentence(call, denial), { httpStatus: 403 });
}
