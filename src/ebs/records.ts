/** The tables of EBS direct: snapshots being written, and the client tokens of StartSnapshot. Times are ms since the epoch. */
import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

export interface EbsTables {
  ebs_uploads: {
    snapshot_id: string;
    account: string;
    region: string;
    /** How long nothing may be written before the snapshot is given up, ms. */
    timeout_ms: number;
    /** The last block, or the start. */
    active_at: number;
  };
  ebs_client_tokens: {
    account: string;
    region: string;
    token: string;
    parameters_digest: string;
    snapshot_id: string;
    /** JSON: what StartSnapshot answered. */
    answer: string;
    created_at: number;
  };
}

export const ebsMigrations: readonly Migration[] = [
  {
    id: 'ebs-001-uploads',
    async up(db) {
      await sql`create table ebs_uploads (snapshot_id text primary key, account text not null, region text not null,
        timeout_ms integer not null, active_at integer not null) strict`.execute(db);
      await sql`create table ebs_client_tokens (account text not null, region text not null, token text not null,
        parameters_digest text not null, snapshot_id text not null, answer text not null, created_at integer not null,
        primary key (account, region, token)) strict`.execute(db);
    },
  },
];
