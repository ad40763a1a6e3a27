import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import type { EventTables } from './records.ts';

/** How long the bus remembers events for `coffer events`. */
const keptMs = 30 * 24 * 3600 * 1000;

/** Forgets events older than thirty days. */
export async function purgeEvents(call: Call): Promise<void> {
  await call.transaction(async ({ db }) => {
    const bus: Kysely<EventTables> = db;
    await bus
      .deleteFrom('bus_events')
      .where('time', '<', call.clock.now() - keptMs)
      .execute();
  });
}
