import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { Denial } from '../aws/service.ts';

/** A refusal as IAM and STS word it. */
export function accessDenied(call: Call, { request, reason }: Denial): AwsError {
  return new AwsError(
    'AccessDenied',
    `User: ${call.principal.arn} is not authorized to perform: ${request.action} on resource: ${request.resource} because ${reason}`,
    { httpStatus: 403 },
  );
}
