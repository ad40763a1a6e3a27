import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';
import { firstPlaceAt } from './event-id.ts';

/** The trail's tables. Each record costs a handful of inserts before its call may be answered, so there are no more. */
export interface TrailTables {
  trail_events: {
    /** Grows with time: ms since 2021 × 4096 + a counter (event-id.ts). Pages of a lookup run along it. */
    seq: number;
    account: string;
    region: string;
    /** ms since the epoch */
    time: number;
    event_name: string;
    user_name: string;
    /** What LookupEvents lists as the event's resources: JSON, `[{name, type}]`. */
    resources: string;
    /** The CloudTrail record as JSON. */
    document: string;
  };
  /** By what events are found without reading all: `EventName=…`, `ResourceName=…`. */
  trail_terms: { account: string; region: string; term: string; seq: number };
}

export const trailMigrations: readonly Migration[] = [
  {
    id: 'cloudtrail-001-events',
    async up(db) {
      await sql`create table trail_events (
        seq integer primary key, account text not null, region text not null, time integer not null,
        event_name text not null, user_name text not null, resources text not null, document text not null) strict`.execute(
        db,
      );
      await sql`create index trail_events_account on trail_events (account, region, seq)`.execute(db);
      await sql`create table trail_terms (
        account text not null, region text not null, term text not null, seq integer not null,
        primary key (account, region, term, seq)) strict, without rowid`.execute(db);
    },
  },
  {
    id: 'cloudtrail-002-places-since-2021',
    async up(db) {
      // Before, places counted from 1970.
      const moved = -firstPlaceAt(0);
      await sql`update trail_events set seq = seq - ${moved}`.execute(db);
      await sql`update trail_terms set seq = seq - ${moved}`.execute(db);
    },
  },
];
