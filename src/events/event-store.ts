import type { Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import type { BusEvent } from './bus-event.ts';
import type { EventTables } from './records.ts';

/** Rows of one insert at most: SQLite takes 32,766 parameters, four a row. */
const rowsMax = 1000;

/** Puts events on the bus, in the transaction of the calls that raised them. */
export async function putEvents(db: AnyDatabase, events: readonly BusEvent[]): Promise<void> {
  const bus: Kysely<Omit<EventTables, 'bus_events'> & { bus_events: Omit<EventTables['bus_events'], 'seq'> }> = db;
  const rows = events.map((event) => ({
    account: event.account,
    region: event.region,
    time: Date.parse(event.time),
    document: JSON.stringify(event),
  }));
  for (let at = 0; at < rows.length; at += rowsMax)
    await bus
      .insertInto('bus_events')
      .values(rows.slice(at, at + rowsMax))
      .execute();
}
