/** What depends on a KMS key, and when it was last used: more than the AWS API tells, for those whom it may be told. */
import { type DescribeKeyResponse, KeyLastUsageTrackingOperation } from '@aws-sdk/client-kms';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { integer, required, structure, text, validate } from '../aws/validate.ts';
import type { LastEvent, LastEventInput } from '../cloudtrail/last-event.ts';
import type { KeyDependents, KeyDependentsInput } from '../ec2/key-dependents.ts';

export interface KeyUsage extends KeyDependents {
  readonly KeyArn: string;
  readonly KeyState: string;
  readonly Description: string;
  readonly LastUse: LastUse;
}

/** `used`: by whom. `unused`: not in the 90 days that the trail keeps. `unknown`: the caller may not look events up. */
export type LastUse =
  | {
      readonly Known: 'used';
      readonly Time: string;
      readonly Operation: string;
      /** The caller's ARN; where the record has none, what it has. */
      readonly By: string;
      /** The service on whose way it came (`ec2.amazonaws.com`). */
      readonly Via?: string;
      readonly EventId: string;
    }
  | { readonly Known: 'unused' }
  | { readonly Known: 'unknown'; readonly Reason: string };

export interface KeyUsageInput {
  readonly KeyId: string;
  readonly MaxResults?: number;
  readonly NextToken?: string;
}

const input = structure({
  KeyId: required(text({ min: 1, max: 2048 })),
  MaxResults: integer({ min: 1, max: 1000 }),
  NextToken: text({ min: 1, max: 64 }),
});
const dependentsDefault = 100;

/** What counts as a use: the operations that AWS counts, ReEncrypt's included, by the names that the trail has for them. */
const uses: readonly string[] = Object.values(KeyLastUsageTrackingOperation);

/**
 * DescribeKeyUsage (internal). It takes no permission of its own: the caller needs kms:DescribeKey on the key,
 * ec2:DescribeVolumes and ec2:DescribeSnapshots, and sees the last use with cloudtrail:LookupEvents.
 */
export const describeKeyUsage = operation<KeyUsageInput, KeyUsage>({
  name: 'DescribeKeyUsage',
  effect: 'waits',
  readOnly: true,
  resolve: (_call, request) => validate(request, input) as undefined,
  access: () => [],
  async handle(call, { KeyId, MaxResults = dependentsDefault, NextToken }) {
    const { KeyMetadata: key } = await call.invoke<DescribeKeyResponse>('kms', 'DescribeKey', { KeyId });
    const ask: KeyDependentsInput = { KeyArn: key!.Arn!, MaxResults, NextToken };
    const dependents = await call.invoke<KeyDependents>('ec2', 'DescribeKeyDependents', ask);
    return {
      KeyArn: key!.Arn!,
      KeyState: key!.KeyState!,
      Description: key!.Description ?? '',
      LastUse: await lastUse(call, key!.Arn!),
      ...dependents,
    };
  },
  record: (_call, { KeyId }, output) => ({
    requestParameters: { keyId: KeyId ?? null },
    responseElements: null,
    resources: output ? [{ ARN: output.KeyArn, accountId: output.KeyArn.split(':')[4]!, type: 'AWS::KMS::Key' }] : [],
  }),
});

async function lastUse(call: Call, keyArn: string): Promise<LastUse> {
  let NextToken: string | undefined;
  do {
    const ask: LastEventInput = { ResourceName: keyArn, EventNames: uses, NextToken };
    let answer: LastEvent;
    try {
      answer = await call.invoke<LastEvent>('cloudtrail', 'FindLastEvent', ask);
    } catch (error) {
      if (error instanceof AwsError && error.code === 'AccessDeniedException')
        return { Known: 'unknown', Reason: error.message };
      throw error;
    }
    if (answer.CloudTrailEvent) return useOf(answer.CloudTrailEvent);
    NextToken = answer.NextToken;
  } while (NextToken !== undefined && !call.cancelled.aborted);
  return { Known: 'unused' };
}

function useOf(document: string): LastUse {
  const { eventTime, eventName, eventID, userIdentity } = JSON.parse(document) as {
    eventTime: string;
    eventName: string;
    eventID: string;
    userIdentity: { type?: string; arn?: string; accountId?: string; principalId?: string; invokedBy?: string };
  };
  const { type, arn, accountId, principalId, invokedBy } = userIdentity;
  return {
    Known: 'used',
    Time: eventTime,
    Operation: eventName,
    By: arn ?? principalId ?? accountId ?? type ?? '',
    ...(invokedBy ? { Via: invokedBy } : {}),
    EventId: eventID,
  };
}
