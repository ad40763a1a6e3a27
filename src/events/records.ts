import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

/** The bus's tables. */
export interface EventTables {
  bus_events: {
    /** Grows by one with each event; followers continue after the last they saw. */
    seq: number;
    account: string;
    region: string;
    /** ms since the epoch */
    time: number;
    document: string;
  };
}

export const eventMigrations: readonly Migration[] = [
  {
    id: 'events-001-bus',
    async up(db) {
      await sql`create table bus_events (seq integer primary key autoincrement, account text not null, region text not null,
        time integer not null, document text not null) strict`.execute(db);
      await sql`create index bus_events_account on bus_events (account, seq)`.execute(db);
      await sql`create index bus_events_time on bus_events (time)`.execute(db);
    },
  },
];
