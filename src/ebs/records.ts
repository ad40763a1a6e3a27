/** The table of EBS direct: the client tokens of StartSnapshot. Times are ms since the epoch. */
import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

export interface EbsTables {
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
    id: 'ebs-001-client-tokens',
    async up(db) {
      await sql`create table ebs_client_tokens (account text not null, region text not null, token text not null,
        parameters_digest text not null, snapshot_id text not null, answer text not null, created_at integer not null,
        primary key (account, region, token)) strict`.execute(db);
    },
  },
];
