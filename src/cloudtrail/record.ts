import type { Call, Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, RecordDetails, Service } from '../aws/service.ts';
import { nextEventId } from './event-id.ts';

/** One record of the trail: the columns that lookups use, and the CloudTrail document itself as JSON text. */
export interface TrailRecord {
  readonly seq: number;
  readonly eventId: string;
  readonly account: string;
  readonly region: string;
  /** ms since the epoch */
  readonly time: number;
  readonly eventName: string;
  readonly eventSource: string;
  readonly readOnly: boolean;
  readonly userName: string;
  readonly accessKeyId: string;
  readonly resources: ReadonlyArray<{ readonly name: string; readonly type: string }>;
  readonly document: string;
}

/**
 * The record of one call, in the form of CloudTrail's record contents, version 1.11.
 * Source: CloudTrail user guide, "CloudTrail record contents".
 */
export function trailRecord(
  call: Call,
  service: Service,
  operation: Operation,
  input: object,
  outcome: { output?: unknown; error?: unknown; subject?: unknown },
): TrailRecord {
  const details: RecordDetails = operation.record?.(call, input, outcome.output, outcome.subject) ?? {};
  const readOnly = operation.readOnly ?? operation.effect === 'reads';
  const time = call.clock.now();
  const { seq, eventId } = nextEventId(time);
  const failure = outcome.error === undefined ? undefined : describeError(outcome.error);
  const document = {
    eventVersion: '1.11',
    userIdentity: userIdentity(call),
    eventTime: new Date(time).toISOString().replace(/\.\d{3}Z$/, 'Z'),
    eventSource: service.eventSource,
    eventName: operation.name,
    awsRegion: call.region,
    sourceIPAddress: call.sourceIp,
    userAgent: call.userAgent,
    ...failure,
    requestParameters: details.requestParameters ?? null,
    responseElements: failure ? null : (details.responseElements ?? null),
    requestID: call.requestId,
    eventID: eventId,
    readOnly,
    ...(details.resources ? { resources: details.resources } : {}),
    eventType: 'AwsApiCall',
    managementEvent: true,
    recipientAccountId: call.account,
    eventCategory: 'Management',
  };
  return {
    seq,
    eventId,
    account: call.account,
    region: call.region,
    time,
    eventName: operation.name,
    eventSource: service.eventSource,
    readOnly,
    userName: userName(call.principal),
    accessKeyId: call.principal.accessKeyId ?? '',
    resources:
      details.lookupResources ?? (details.resources ?? []).map(({ ARN, type }) => ({ name: ARN, type: type ?? '' })),
    document: JSON.stringify(document),
  };
}

function describeError(error: unknown): { errorCode: string; errorMessage: string } {
  if (error instanceof AwsError) return { errorCode: error.code, errorMessage: error.message };
  return { errorCode: 'InternalFailure', errorMessage: 'The request failed because of an internal error.' };
}

/** Source: CloudTrail user guide, "CloudTrail userIdentity element". */
function userIdentity(call: Call): Record<string, unknown> {
  const { principal } = call;
  if (principal.type === 'AWSService') return { type: 'AWSService', invokedBy: principal.principalId };
  return {
    type: principal.type,
    principalId: principal.principalId,
    arn: principal.arn,
    accountId: principal.account,
    ...(principal.accessKeyId ? { accessKeyId: principal.accessKeyId } : {}),
    ...(principal.userName ? { userName: principal.userName } : {}),
    ...(principal.sessionIssuer ? { sessionContext: sessionContext(principal) } : {}),
    ...(call.via ? { invokedBy: 'AWS Internal' } : {}),
  };
}

function sessionContext(principal: Principal): Record<string, unknown> {
  const issuer = principal.sessionIssuer!;
  return {
    sessionIssuer: {
      type: 'Role',
      principalId: issuer.principalId,
      arn: issuer.arn,
      accountId: principal.account,
      userName: issuer.userName,
    },
    attributes: {
      creationDate: new Date(principal.session?.createdAt ?? 0).toISOString().replace(/\.\d{3}Z$/, 'Z'),
      mfaAuthenticated: 'false',
    },
  };
}

/** What LookupEvents shows and finds as `Username`. */
function userName(principal: Principal): string {
  if (principal.type === 'Root') return 'root';
  if (principal.type === 'AssumedRole') return principal.arn.slice(principal.arn.lastIndexOf('/') + 1);
  return principal.userName ?? principal.principalId;
}
