/** When a key was last used, as the trail has it. Source: API_GetKeyLastUsage. */
import {
  type GetKeyLastUsageRequest,
  type GetKeyLastUsageResponse,
  type KeyLastUsageData,
  KeyLastUsageTrackingOperation,
} from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { required, structure } from '../aws/validate.ts';
import { keyIdText } from './constraints.ts';
import { keyOperation } from './key-operation.ts';
import type { Key, KeyStore } from './key-store.ts';

/** How long the trail keeps its records, ms. */
const trailMs = 90 * 24 * 3600 * 1000;

export const lastUsageOperations = (store: KeyStore) => [
  keyOperation<GetKeyLastUsageRequest, GetKeyLastUsageResponse>(store, {
    name: 'GetKeyLastUsage',
    // Much-used keys have much history, which is read piece by piece; others go on in between.
    effect: 'waits',
    readOnly: true,
    input: structure({ KeyId: required(keyIdText) }),
    parameters: ['KeyId'],
    async handle(call, _input, key) {
      return {
        KeyId: key.key_id,
        KeyLastUsage: await lastUsage(call, key),
        TrackingStartDate: new Date(Math.max(key.created_at, call.clock.now() - trailMs)),
        KeyCreationDate: new Date(key.created_at),
      };
    },
  }),
];

/** Empty when there was none. The key service looks at the trail itself: the caller's permission is for the key. */
async function lastUsage(call: Call, key: Key): Promise<KeyLastUsageData> {
  const itself = call.asItself(key.account, key.region);
  const ask = { ResourceName: key.arn, EventNames: Object.values(KeyLastUsageTrackingOperation) };
  let NextToken: string | undefined;
  do {
    const answer: { CloudTrailEvent?: string; NextToken?: string } = await itself.invoke(
      'cloudtrail',
      'FindLastEvent',
      {
        ...ask,
        NextToken,
      },
    );
    if (answer.CloudTrailEvent) return usageOf(answer.CloudTrailEvent);
    NextToken = answer.NextToken;
  } while (NextToken !== undefined && !call.cancelled.aborted);
  return {};
}

function usageOf(document: string): KeyLastUsageData {
  const event = JSON.parse(document) as { eventName: string; eventTime: string; eventID: string; requestID: string };
  return {
    Operation: event.eventName as KeyLastUsageTrackingOperation,
    Timestamp: new Date(event.eventTime),
    CloudTrailEventId: event.eventID,
    KmsRequestId: event.requestID,
  };
}
