/** The newest record of some calls about one resource; the AWS API can only look up by one of both. */
import type { Kysely } from 'kysely';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { firstPlaceAt } from './event-id.ts';
import { historyMs } from './lookup.ts';
import { resourceTerm } from './record-store.ts';
import type { TrailTables } from './records.ts';

export interface LastEventInput {
  readonly ResourceName: string;
  readonly EventNames: readonly string[];
  /** Where to go on looking, as an earlier answer has it. */
  readonly NextToken?: string | undefined;
}

export interface LastEvent {
  /** The CloudTrail record as JSON; absent while none is found. */
  readonly CloudTrailEvent?: string;
  /** There is older history to look through: what other calls about the resource left is read piece by piece. */
  readonly NextToken?: string;
}

/** Records about the resource that one call reads: some milliseconds. */
const readMax = 2_000;

/** FindLastEvent (internal): for who may look events up. Calls that failed do not count. */
export const findLastEvent = operation<LastEventInput, LastEvent>({
  name: 'FindLastEvent',
  effect: 'reads',
  audience: 'service',
  recorded: false,
  access: (call) => [{ action: 'cloudtrail:LookupEvents', resource: '*', resourceAccount: call.account }],
  async handle(call, { ResourceName, EventNames, NextToken }) {
    const before = NextToken === undefined ? Number.MAX_SAFE_INTEGER : Number(NextToken);
    if (!Number.isSafeInteger(before)) throw new AwsError('InvalidNextTokenException', 'The NextToken is not valid.');
    const trail: Kysely<TrailTables> = call.db;
    const rows = await trail
      .selectFrom('trail_terms as t')
      .innerJoin('trail_events as e', 'e.seq', 't.seq')
      .select(['e.seq', 'e.event_name', 'e.document'])
      .where('t.account', '=', call.account)
      .where('t.region', '=', call.region)
      .where('t.term', '=', resourceTerm(ResourceName))
      .where('t.seq', '<', before)
      .where('t.seq', '>=', firstPlaceAt(call.clock.now() - historyMs))
      .orderBy('t.seq', 'desc')
      .limit(readMax)
      .execute();
    const found = rows.find(
      (row) => EventNames.includes(row.event_name) && JSON.parse(row.document).errorCode === undefined,
    );
    if (found) return { CloudTrailEvent: found.document };
    return rows.length < readMax ? {} : { NextToken: String(rows.at(-1)!.seq) };
  },
});
