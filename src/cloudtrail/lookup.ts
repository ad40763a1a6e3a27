import {
  type Event,
  type LookupAttribute,
  LookupEvents$,
  type LookupEventsCommandInput,
  type LookupEventsCommandOutput,
} from '@aws-sdk/client-cloudtrail';
import { type Kysely, sql } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { firstPlaceAt, placesOf } from './event-id.ts';
import { nameTerm, resourceTerm } from './record-store.ts';
import type { TrailTables } from './records.ts';

const resultsMax = 50;
/** CloudTrail keeps 90 days of event history; so do we (retention.ts). */
export const historyMs = 90 * 24 * 3600 * 1000;

/**
 * LookupEvents: the account's records of this region, newest first, by at most one attribute and a range of times.
 * Source: CloudTrail API reference, LookupEvents.
 */
export const lookupEvents = operation<LookupEventsCommandInput, Partial<LookupEventsCommandOutput>>({
  name: 'LookupEvents',
  schema: LookupEvents$,
  effect: 'reads',
  access: (call) => [{ action: 'cloudtrail:LookupEvents', resource: '*', resourceAccount: call.account }],
  async handle(call, input) {
    const attribute = checkAttributes(input);
    const limit = checkMaxResults(input.MaxResults);
    const range = checkTimes(call, input);
    const fingerprint = JSON.stringify([attribute, input.StartTime, input.EndTime]);
    const before = input.NextToken === undefined ? undefined : readToken(input.NextToken, fingerprint);

    const trail: Kysely<TrailTables> = call.db;
    let query = trail
      .selectFrom('trail_events as e')
      .selectAll('e')
      .where('e.account', '=', call.account)
      .where('e.region', '=', call.region)
      .where('e.seq', '>=', firstPlaceAt(range.from))
      // The clock may have gone back, and places never do; so the upper bound is on the time itself.
      .where('e.time', '<=', range.until)
      .orderBy('e.seq', 'desc')
      .limit(limit + 1);
    if (before !== undefined) query = query.where('e.seq', '<', before);
    const value = attribute?.AttributeValue ?? '';
    const found = (term: string) =>
      query.where('e.seq', 'in', (inner) =>
        inner
          .selectFrom('trail_terms as t')
          .select('t.seq')
          .where('t.account', '=', call.account)
          .where('t.region', '=', call.region)
          .where('t.term', '=', term),
      );
    // What has no term is found by reading the account's records, newest first.
    const inDocument = (path: string) => sql`e.document ->> ${path}`;
    switch (attribute?.AttributeKey) {
      case undefined:
        break;
      case 'EventId': {
        const places = placesOf(value) ?? { from: 0, until: 0 };
        query = query
          .where('e.seq', '>=', places.from)
          .where('e.seq', '<', places.until)
          .where(inDocument('$.eventID'), '=', value);
        break;
      }
      case 'EventName':
        query = found(nameTerm(value));
        break;
      case 'ResourceName':
        query = found(resourceTerm(value));
        break;
      case 'ResourceType':
        query = query.where(
          sql<boolean>`exists (select 1 from json_each(e.resources) as r where r.value ->> '$.type' = ${value})`,
        );
        break;
      case 'EventSource':
        query = query.where(inDocument('$.eventSource'), '=', value);
        break;
      case 'ReadOnly':
        query = query.where(inDocument('$.readOnly'), '=', value === 'true' ? 1 : 0);
        break;
      case 'Username':
        query = query.where('e.user_name', '=', value);
        break;
      case 'AccessKeyId':
        query = query.where(inDocument('$.userIdentity.accessKeyId'), '=', value);
        break;
    }
    const rows = await query.execute();
    const page = rows.slice(0, limit);
    return {
      Events: page.map(eventOf),
      NextToken: rows.length > limit ? makeToken(page[page.length - 1]!.seq, fingerprint) : undefined,
    };
  },
  record: (_call, input) => ({
    requestParameters: {
      ...(input.LookupAttributes
        ? {
            lookupAttributes: input.LookupAttributes.map(({ AttributeKey, AttributeValue }) => ({
              attributeKey: AttributeKey,
              attributeValue: AttributeValue,
            })),
          }
        : {}),
      ...(input.StartTime ? { startTime: input.StartTime.toISOString() } : {}),
      ...(input.EndTime ? { endTime: input.EndTime.toISOString() } : {}),
      ...(input.MaxResults ? { maxResults: input.MaxResults } : {}),
    },
  }),
});

function checkAttributes(input: LookupEventsCommandInput): LookupAttribute | undefined {
  const attributes = input.LookupAttributes ?? [];
  if (attributes.length > 1)
    throw new AwsError('InvalidLookupAttributesException', 'LookupEvents takes one lookup attribute at a time.');
  const [attribute] = attributes;
  if (!attribute) return undefined;
  const keys = [
    'EventId',
    'EventName',
    'ReadOnly',
    'Username',
    'ResourceType',
    'ResourceName',
    'EventSource',
    'AccessKeyId',
  ];
  if (!attribute.AttributeKey || !keys.includes(attribute.AttributeKey))
    throw new AwsError('InvalidLookupAttributesException', `AttributeKey must be one of ${keys.join(', ')}.`);
  if (!attribute.AttributeValue || attribute.AttributeValue.length > 2000)
    throw new AwsError('InvalidLookupAttributesException', 'AttributeValue must have 1 to 2000 characters.');
  if (attribute.AttributeKey === 'ReadOnly' && !/^(true|false)$/.test(attribute.AttributeValue))
    throw new AwsError('InvalidLookupAttributesException', 'The AttributeValue of ReadOnly must be true or false.');
  return attribute;
}

function checkMaxResults(maxResults: number | undefined): number {
  if (maxResults === undefined) return resultsMax;
  if (!Number.isInteger(maxResults) || maxResults < 1 || maxResults > resultsMax)
    throw new AwsError('InvalidMaxResultsException', `MaxResults must be between 1 and ${resultsMax}.`);
  return maxResults;
}

function checkTimes(call: Call, input: LookupEventsCommandInput): { from: number; until: number } {
  const from = input.StartTime?.getTime() ?? call.clock.now() - historyMs;
  // Times arrive in whole seconds and records show whole seconds: an end time includes its second.
  const until = input.EndTime === undefined ? Number.MAX_SAFE_INTEGER : input.EndTime.getTime() + 999;
  if (from > until) throw new AwsError('InvalidTimeRangeException', 'StartTime must not be after EndTime.');
  return { from: Math.max(0, Math.floor(from / 1000) * 1000), until };
}

function eventOf(row: TrailTables['trail_events']): Event {
  const document = JSON.parse(row.document) as {
    eventID: string;
    eventSource: string;
    readOnly: boolean;
    userIdentity: { accessKeyId?: string };
  };
  const resources = JSON.parse(row.resources) as Array<{ name: string; type: string }>;
  return {
    EventId: document.eventID,
    EventName: row.event_name,
    ReadOnly: String(document.readOnly),
    AccessKeyId: document.userIdentity.accessKeyId,
    EventTime: new Date(row.time),
    EventSource: document.eventSource,
    Username: row.user_name,
    Resources: resources.map(({ name, type }) => ({ ResourceName: name, ResourceType: type || undefined })),
    CloudTrailEvent: row.document,
  };
}

function makeToken(seq: number, fingerprint: string): string {
  return Buffer.from(JSON.stringify([seq, fingerprint])).toString('base64url');
}

function readToken(token: string, fingerprint: string): number {
  try {
    const [seq, of] = JSON.parse(Buffer.from(token, 'base64url').toString()) as [number, string];
    if (Number.isSafeInteger(seq) && of === fingerprint) return seq;
  } catch {
    // Not a token of ours: said below, in the same words.
  }
  throw new AwsError(
    'InvalidNextTokenException',
    'The NextToken is not valid for this request; it belongs to other parameters.',
  );
}
