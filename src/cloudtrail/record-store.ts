import { type CompiledQuery, type Kysely, sql } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { continueAfter } from './event-id.ts';
import type { TrailRecord } from './record.ts';
import type { TrailTables } from './records.ts';

let insertEvent: CompiledQuery | undefined;
let insertTerm: CompiledQuery | undefined;

/** Appends records to the trail, in the transaction of the calls they describe. */
export async function putRecords(db: AnyDatabase, records: readonly TrailRecord[]): Promise<void> {
  const trail: Kysely<TrailTables> = db;
  insertEvent ??= trail.insertInto('trail_events').values(emptyEvent).compile();
  insertTerm ??= trail
    .insertInto('trail_terms')
    .values({ account: '', region: '', term: '', seq: 0 })
    .onConflict((conflict) => conflict.doNothing())
    .compile();
  for (const record of records) {
    const { seq, account, region, time, eventName, userName, resources, document } = record;
    const parameters = [seq, account, region, time, eventName, userName, JSON.stringify(resources), document];
    await trail.executeQuery({ ...insertEvent, parameters });
    for (const term of termsOf(eventName, resources))
      await trail.executeQuery({ ...insertTerm, parameters: [account, region, term, seq] });
  }
}

/** The terms by which a record is found; also what has to go when the record does. */
export function termsOf(eventName: string, resources: TrailRecord['resources']): string[] {
  return [nameTerm(eventName), ...resources.map(({ name }) => resourceTerm(name))];
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
