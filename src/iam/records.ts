import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

/** The tables of identities. */
export interface IamTables {
  accounts: {
    /** Twelve digits. */
    account: string;
    name: string;
    /** 1 for the first administrator's account, whose root operates the system. */
    operator: number;
    /** ms since the epoch */
    created_at: number;
  };
  access_keys: {
    access_key_id: string;
    account: string;
    /** Whose key it is: an account's root, or a host. */
    owner: 'root' | 'host';
    /** For a host: its id. */
    host_id: string | null;
    /** The secret access key, sealed under the root key for purpose `access-key`, bound to the access key id. */
    sealed_secret: Uint8Array;
    status: 'Active' | 'Inactive';
    created_at: number;
  };
}

export const iamMigrations: readonly Migration[] = [
  {
    id: 'iam-001-accounts',
    async up(db) {
      await sql`create table accounts (account text primary key, name text not null, operator integer not null,
        created_at integer not null) strict`.execute(db);
      await sql`create table access_keys (access_key_id text primary key, account text not null references accounts (account),
        owner text not null, host_id text, sealed_secret blob not null, status text not null, created_at integer not null)
        strict`.execute(db);
    },
  },
];
