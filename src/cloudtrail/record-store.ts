import { type CompiledQuery, type Kysely, sql } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { continueAfter } from './event-id.ts';
import type { TrailRecord } from './record.ts';
import type { TrailTables } from './records.ts';

/** Rows of one insert at most. Inserts of each number of rows are compiled once. */
const rowsMax = 32;
const inserts = new Map<string, CompiledQuery>();

/** Appends records to the trail, in the transaction of the calls they describe. */
export async function putRecords(db: AnyDatabase, records: readonly TrailRecord[]): Promise<void> {
  const events = records.map((record) => [
    record.seq,
    record.account,
    record.region,
    record.time,
    record.eventName,
    record.userName,
    JSON.stringify(record.resources),
    record.document,
  ]);
  const terms = records.flatMap(({ seq, account, region, eventName, resources }) =>
    termsOf(eventName, resources).map((term) => [account, region, term, seq]),
  );
  await insertRows(db, 'trail_events', emptyEvent, events);
  await insertRows(db, 'trail_terms', emptyTerm, terms);
}

/** Inserts rows whose values stand in the order of `empty`'s members, many at a time: a statement costs more than a row. */
async function insertRows<Table extends keyof TrailTables>(
  trail: Kysely<TrailTables>,
  table: Table,
  empty: TrailTables[Table],
  rows: ReadonlyArray<readonly unknown[]>,
): Promise<void> {
  for (let at = 0; at < rows.length; at += rowsMax) {
    const some = rows.slice(at, at + rowsMax);
    const name = `${table} ${some.length}`;
    let insert = inserts.get(name);
    if (!insert) {
      const values = Array.from(some, () => empty);
      insert = trail
        .insertInto(table)
        .values(values as never)
        .compile();
      inserts.set(name, insert);
    }
    await trail.executeQuery({ ...insert, parameters: some.flat() });
  }
}

/** The terms by which a record is found; also what has to go when the record does. */
export function termsOf(eventName: string, resources: TrailRecord['resources']): string[] {
  return [...new Set([nameTerm(eventName), ...resources.map(({ name }) => resourceTerm(name))])];
}

export const nameTerm = (eventName: string) => `EventName=${eventName}`;
export const resourceTerm = (name: string) => `ResourceName=${name}`;

/** Makes new records continue after those that a database already has. */
export async function continueTrail(db: AnyDatabase): Promise<void> {
  const last = await sql<{ seq: number | null }>`select max(seq) as seq from trail_events`.execute(db);
  continueAfter(last.rows[0]?.seq ?? 0);
}

/** Gives the columns their order; Kysely lists them as they stand here. */
const emptyEvent: TrailTables['trail_events'] = {
  seq: 0,
  account: '',
  region: '',
  time: 0,
  event_name: '',
  user_name: '',
  resources: '',
  document: '',
};

const emptyTerm: TrailTables['trail_terms'] = { account: '', region: '', term: '', seq: 0 };
