import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

/** The trail's tables. */
export interface TrailTables {
  trail_events: {
    /** Grows with time: ms since the epoch × 4096 + a counter (event-id.ts). Pages of a lookup run along it. */
    seq: number;
    event_id: string;
    account: string;
    region: string;
    /** ms since the epoch */
    time: number;
    event_name: string;
    event_source: string;
    read_only: number;
    user_name: string;
    access_key_id: string;
    /** The CloudTrail record as JSON. */
    document: string;
  };
  /** Which resources an event names, as LookupEvents shows and finds them. */
  trail_resources: { account: string; region: string; name: string; seq: number; type: string };
}

export const trailMigrations: readonly Migration[] = [
  {
    id: 'cloudtrail-001-events',
    async up(db) {
      await sql`create table trail_events (
        seq integer primary key, event_id text not null, account text not null, region text not null, time integer not null,
        event_name text not null, event_source text not null, read_only integer not null, user_name text not null,
        access_key_id text not null, document text not null) strict`.execute(db);
      await sql`create index trail_events_account on trail_events (account, region, seq)`.execute(db);
      await sql`create index trail_events_name on trail_events (account, region, event_name, seq)`.execute(db);
      await sql`create table trail_resources (
        account text not null, region text not null, name text not null, seq integer not null, type text not null,
        primary key (seq, name)) strict, without rowid`.execute(db);
      await sql`create index trail_resources_name on trail_resources (account, region, name, seq)`.execute(db);
    },
  },
];
