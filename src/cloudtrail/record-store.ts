import { type CompiledQuery, type Kysely, sql } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import { continueAfter } from './event-id.ts';
import type { TrailRecord } from './record.ts';
import type { TrailTables } from './records.ts';

let insertEvent: CompiledQuery | undefined;
let insertResource: CompiledQuery | undefined;

/** Appends records to the trail, in the transaction of the calls they describe. */
export async function putRecords(db: AnyDatabase, records: readonly TrailRecord[]): Promise<void> {
  const trail: Kysely<TrailTables> = db;
  insertEvent ??= trail.insertInto('trail_events').values(emptyEvent).compile();
  insertResource ??= trail
    .insertInto('trail_resources')
    .values({ account: '', region: '', name: '', seq: 0, type: '' })
    .onConflict((conflict) => conflict.doNothing())
    .compile();
  for (const record of records) {
    const { seq, account, region } = record;
    await trail.executeQuery({
      ...insertEvent,
      parameters: [
        seq,
        record.eventId,
        account,
        region,
        record.time,
        record.eventName,
        record.eventSource,
        record.readOnly ? 1 : 0,
        record.userName,
        record.accessKeyId,
        record.document,
      ],
    });
    for (const { name, type } of record.resources)
      await trail.executeQuery({ ...insertResource, parameters: [account, region, name, seq, type] });
  }
}

/** Makes new records continue after those that a database already has. */
export async function continueTrail(db: AnyDatabase): Promise<void> {
  const last = await sql<{ seq: number | null }>`select max(seq) as seq from trail_events`.execute(db);
  continueAfter(last.rows[0]?.seq ?? 0);
}

/** Gives the columns their order; Kysely lists them as they stand here. */
const emptyEvent: TrailTables['trail_events'] = {
  seq: 0,
  event_id: '',
  account: '',
  region: '',
  time: 0,
  event_name: '',
  event_source: '',
  read_only: 0,
  user_name: '',
  access_key_id: '',
  document: '',
};
