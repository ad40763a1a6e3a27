/** CloudTrail: the audit record. Every call leaves a record here before its answer leaves (gateway/pipeline.ts). */
import * as sdk from '@aws-sdk/client-cloudtrail';
import { catalogueOf } from '../aws/catalogue.ts';
import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { Service } from '../aws/service.ts';
import { findLastEvent } from './last-event.ts';
import { lookupEvents } from './lookup.ts';
import { trailMigrations } from './records.ts';
import { purgeHistory } from './retention.ts';

export function createCloudTrail(): Service {
  return {
    name: 'cloudtrail',
    eventSource: 'cloudtrail.amazonaws.com',
    protocol: 'awsJson1_1',
    targetPrefixes: ['CloudTrail_20131101', 'com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101'],
    operations: { LookupEvents: lookupEvents, FindLastEvent: findLastEvent },
    catalogue: catalogueOf(sdk),
    migrations: trailMigrations,
    accessDenied: (call, denial) => new AwsError('AccessDeniedException', denialSentence(call, denial)),
    housekeeping: purgeHistory,
  };
}
