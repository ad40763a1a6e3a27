import type { Call } from './call.ts';
import type { Denial } from './service.ts';

/**
 * The sentence in which every service refuses: who may not do what to which resource, and for want of which kind of
 * policy, or against which. A resource is named where the action knows one.
 * Source: IAM user guide, "Troubleshoot access denied error messages".
 */
export function denialSentence(
  call: Pick<Call, 'principal'>,
  { request, explicit, reason }: Pick<Denial, 'request' | 'reason'> & Partial<Pick<Denial, 'explicit'>>,
): string {
  const resource = request.resource === '*' ? '' : ` on resource: ${request.resource}`;
  return (
    `User: ${call.principal.arn} is not authorized to perform: ${request.action}${resource} ` +
    `${explicit ? 'with' : 'because'} ${reason}`
  );
}
