import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { firstPlaceAt } from './event-id.ts';
import { historyMs } from './lookup.ts';
import { termsOf } from './record-store.ts';
import type { TrailTables } from './records.ts';

/** Bound of one transaction, so that a large purge never holds up API calls. */
const recordsPerStep = 500;

/** Deletes what is older than the 90 days that CloudTrail's event history keeps. */
export async function purgeHistory(call: Call): Promise<void> {
  const oldest = firstPlaceAt(call.clock.now() - historyMs);
  for (let more = true; more && !call.cancelled.aborted; ) {
    more = await call.transaction(async ({ db }) => {
      const trail: Kysely<TrailTables> = db;
      const old = await trail
        .selectFrom('trail_events')
        .select(['seq', 'account', 'region', 'event_name', 'resources'])
        .where('seq', '<', oldest)
        .orderBy('seq')
        .limit(recordsPerStep)
        .execute();
      for (const { seq, account, region, event_name, resources } of old) {
        for (const term of termsOf(event_name, JSON.parse(resources))) {
          await trail
            .deleteFrom('trail_terms')
            .where('account', '=', account)
            .where('region', '=', region)
            .where('term', '=', term)
            .where('seq', '=', seq)
            .execute();
        }
      }
      const last = old[old.length - 1];
      if (last) await trail.deleteFrom('trail_events').where('seq', '<=', last.seq).execute();
      return old.length === recordsPerStep;
    });
  }
}
