import { randomUUID } from 'node:crypto';
import type { Call, Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, RecordDetails, Service } from '../aws/service.ts';
import { nextEventId } from './event-id.ts';

/** One record of the trail: the columns that lookups use, and the CloudTrail document itself as JSON text. */
export interface TrailRecord {
  readonly seq: number;
  readonly account: string;
  readonly region: string;
  /** ms since the epoch */
  readonly time: number;
  readonly eventName: string;
  readonly userName: string;
  readonly resources: ReadonlyArray<{ readonly name: string; readonly type: string }>;
  readonly document: string;
}

/**
 * What a record holds at most, characters: a text of the caller's own, the whole document, and the resources that it is
 * found by. Source: CloudTrail user guide, "CloudTrail record contents", which leaves out what is longer; its quotas.
 */
const textLengthMax = 1024;
const documentLengthMax = 256 * 1024;
const resourceNameLengthMax = 2048;
const resourcesMax = 1000;

/** What is known of a call when it is recorded. */
interface Outcome {
  readonly output?: unknown;
  readonly error?: unknown;
  readonly subject?: unknown;
  /** Whether everything it needs was allowed; it may have failed all the same. */
  readonly isAuthorized?: boolean;
}

/**
 * The records of one call, in the form of CloudTrail's record contents, version 1.11: the caller's, and one for each other
 * account whose resources it was allowed to use; these have a `sharedEventID`. An account gets none of calls that it, or
 * the caller's own, refused: strangers could fill its trail.
 * Source: CloudTrail user guide, "CloudTrail record contents", "sharedEventID example".
 */
export function trailRecords(
  call: Call,
  service: Service,
  operation: Operation,
  input: object,
  outcome: Outcome,
): TrailRecord[] {
  const details = detailsOf(call, operation, input, outcome);
  const readOnly = operation.readOnly ?? operation.effect === 'reads';
  const time = call.clock.now();
  const failure = outcome.error === undefined ? undefined : describeError(outcome.error);
  const { resources, serviceEventDetails } = details;
  const others = outcome.isAuthorized ? otherAccounts(call, resources) : [];
  const sharedEventID = others.length > 0 ? randomUUID() : undefined;
  const recordFor = (account: string, identity: string, user: string): TrailRecord => {
    const { seq, eventId } = nextEventId(time);
    const rest = {
      eventTime: wholeSecond(time),
      eventSource: service.eventSource,
      eventName: operation.eventName ?? operation.name,
      awsRegion: call.region,
      sourceIPAddress: call.sourceIp,
      userAgent: call.userAgent.slice(0, textLengthMax),
      errorCode: failure?.errorCode,
      errorMessage: failure?.errorMessage.slice(0, textLengthMax),
      requestParameters: details.requestParameters ?? null,
      responseElements: failure ? null : (details.responseElements ?? null),
      additionalEventData: details.additionalEventData,
      requestID: serviceEventDetails ? undefined : call.requestId,
      eventID: eventId,
      readOnly,
      resources,
      eventType: serviceEventDetails ? 'AwsServiceEvent' : 'AwsApiCall',
      serviceEventDetails:
        serviceEventDetails && (Object.keys(serviceEventDetails).length > 0 ? serviceEventDetails : null),
      managementEvent: true,
      recipientAccountId: account,
      sharedEventID,
      eventCategory: 'Management',
    };
    return {
      seq,
      account,
      region: call.region,
      time,
      eventName: operation.eventName ?? operation.name,
      userName: user,
      resources: (
        details.lookupResources ?? (resources ?? []).map(({ ARN, type }) => ({ name: ARN, type: type ?? '' }))
      )
        .filter(({ name }) => typeof name === 'string' && name.length <= resourceNameLengthMax)
        .slice(0, resourcesMax),
      document: `{"eventVersion":"1.11","userIdentity":${identity},${boundedJson(rest).slice(1)}`,
    };
  };
  const identity = serviceEventDetails ? serviceIdentity(call) : userIdentity(call);
  const own = recordFor(call.account, identity, userName(call.principal));
  if (others.length === 0) return [own];
  const stranger = strangerIdentity(call);
  return [own, ...others.map((account) => recordFor(account, stranger, call.principal.principalId))];
}

function otherAccounts(call: Call, resources: RecordDetails['resources']): string[] {
  const accounts = new Set((resources ?? []).map(({ accountId }) => accountId));
  accounts.delete(call.account);
  return [...accounts];
}

/** As JSON, for the accounts whose resources someone of another one used: they get no names of that account. */
function strangerIdentity({ principal, via }: Call): string {
  if (principal.type === 'AWSService') return JSON.stringify(describePrincipal(principal));
  return JSON.stringify({
    type: 'AWSAccount',
    principalId: principal.principalId,
    accountId: principal.account,
    ...(via === undefined ? {} : { invokedBy: 'AWS Internal' }),
  });
}

/** A record as JSON, without what the caller fills when that is too much, or too deep to be written. */
function boundedJson(record: object): string {
  try {
    const json = JSON.stringify(record);
    if (json.length <= documentLengthMax) return json;
  } catch {
    // Nested deeper than the stack is.
  }
  return JSON.stringify({ ...record, requestParameters: null, responseElements: null, resources: undefined });
}

function detailsOf(call: Call, operation: Operation, input: object, outcome: Outcome): RecordDetails {
  try {
    return operation.record?.(call, input, outcome.output, outcome.subject) ?? {};
  } catch (error) {
    if (outcome.error === undefined) throw error;
    // A call that failed goes on record in any case; its input may have any form.
    return {};
  }
}

let lastSecond = -1;
let lastSecondText = '';

/** ISO 8601 without fractions. Thousands of records share a second. */
function wholeSecond(timeMs: number): string {
  const second = Math.floor(timeMs / 1000);
  if (second !== lastSecond) {
    lastSecondText = new Date(second * 1000).toISOString().replace('.000Z', 'Z');
    lastSecond = second;
  }
  return lastSecondText;
}

function describeError(error: unknown): { errorCode: string; errorMessage: string } {
  if (error instanceof AwsError) return { errorCode: error.code, errorMessage: error.message };
  return { errorCode: 'InternalFailure', errorMessage: 'The request failed because of an internal error.' };
}

/** One principal makes many calls: its part of the record is put into JSON once, as itself and through a service. */
const identities = new WeakMap<Principal, { own?: string; invoked?: string }>();

/** As JSON. Source: CloudTrail user guide, "CloudTrail userIdentity element". */
function userIdentity({ principal, via }: Call): string {
  let known = identities.get(principal);
  if (!known) {
    known = {};
    identities.set(principal, known);
  }
  if (via === undefined) return (known.own ??= JSON.stringify(describePrincipal(principal)));
  // A service that acts for itself says who it is, not on whose behalf.
  return (known.invoked ??= JSON.stringify({ invokedBy: 'AWS Internal', ...describePrincipal(principal) }));
}

/** Who does what no request asked for. Source: CloudTrail user guide, "AWS service events". */
const serviceIdentity = ({ account }: Call) => JSON.stringify({ accountId: account, invokedBy: 'AWS Internal' });

function describePrincipal(principal: Principal): Record<string, unknown> {
  if (principal.type === 'AWSService') return { type: 'AWSService', invokedBy: principal.principalId };
  return {
    type: principal.type,
    principalId: principal.principalId,
    arn: principal.arn,
    accountId: principal.account,
    accessKeyId: principal.accessKeyId,
    userName: principal.userName,
    sessionContext: principal.session && sessionContext(principal),
  };
}

/** Of temporary credentials: how they came about. Source: CloudTrail user guide, "CloudTrail userIdentity element". */
function sessionContext({ account, sessionIssuer, session }: Principal): Record<string, unknown> {
  return {
    sessionIssuer: sessionIssuer && {
      type: 'Role',
      principalId: sessionIssuer.principalId,
      arn: sessionIssuer.arn,
      accountId: account,
      userName: sessionIssuer.userName,
    },
    attributes: {
      creationDate: wholeSecond(session?.createdAt ?? 0),
      mfaAuthenticated: 'false',
    },
    sourceIdentity: session?.sourceIdentity,
  };
}

/** What LookupEvents shows and finds as `Username`. */
function userName(principal: Principal): string {
  if (principal.type === 'Root') return 'root';
  if (principal.type === 'AssumedRole') return principal.arn.slice(principal.arn.lastIndexOf('/') + 1);
  return principal.userName ?? principal.principalId;
}
