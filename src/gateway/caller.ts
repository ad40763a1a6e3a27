/** Who a call is from, as it comes to the pipeline. */
import { randomUUID } from 'node:crypto';
import type { Call } from '../aws/call.ts';
import type { Service } from '../aws/service.ts';

/** The fields of a call that come from outside. */
export type Caller = Pick<
  Call,
  'principal' | 'account' | 'region' | 'sourceIp' | 'userAgent' | 'requestId' | 'cancelled' | 'via' | 'isSecure'
>;

/** What the trail shows for address and agent of calls that come from within. */
export const internalAgent = 'AWS Internal';

/** The same caller, for whom a service calls another one. */
export function onBehalf(who: Caller, from: Service): Caller {
  return {
    principal: who.principal,
    account: who.account,
    region: who.region,
    cancelled: who.cancelled,
    requestId: randomUUID(),
    sourceIp: internalAgent,
    userAgent: internalAgent,
    via: from.eventSource,
  };
}

/** A service acting for no caller, in one account and region: a host's report, housekeeping. */
export function asService(service: Service, account: string, region: string, cancelled: AbortSignal): Caller {
  return {
    principal: {
      type: 'AWSService',
      account,
      arn: `arn:aws:iam::aws:service/${service.eventSource}`,
      principalId: service.eventSource,
    },
    account,
    region,
    cancelled,
    sourceIp: internalAgent,
    userAgent: internalAgent,
    requestId: randomUUID(),
  };
}
