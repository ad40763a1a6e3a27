import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';
import { insertAwsPolicies } from './aws-policies.ts';

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
    /** Whose key it is: an account's root, a host, or an IAM user. */
    owner: 'root' | 'host' | 'user';
    /** For a host: its id. */
    host_id: string | null;
    /** The secret access key, sealed under the root key for purpose `access-key`, bound to the access key id. */
    sealed_secret: Uint8Array;
    status: 'Active' | 'Inactive';
    created_at: number;
    /** For an IAM user: its unique id (`AIDA…`). */
    identity_id: string | null;
    /** When it last signed a request, to a quarter of an hour; ms since the epoch. */
    last_used_at: number | null;
    last_used_service: string | null;
    last_used_region: string | null;
  };
  /** Users, groups and roles. */
  iam_identities: {
    /** `AIDA…`, `AGPA…`, `AROA…` */
    id: string;
    account: string;
    kind: IdentityKind;
    name: string;
    /** The name in lower case: names are unique without regard to it. */
    name_key: string;
    /** `/` or `/division/team/` */
    path: string;
    created_at: number;
    /** The ARN of the managed policy that bounds what identity policies can give. */
    boundary_arn: string | null;
    /** Roles: who may assume it, as JSON. */
    trust_policy: string | null;
    /** Roles: the unique ids of those whom the trust policy names, as JSON. */
    trusted_ids: string | null;
    description: string | null;
    /** Roles: the longest session, seconds. */
    session_max_s: number | null;
  };
  iam_memberships: { group_id: string; user_id: string };
  iam_inline_policies: { identity_id: string; name: string; document: string };
  /** Managed policies; those of account `aws` are every account's. */
  iam_policies: {
    arn: string;
    /** `ANPA…` */
    id: string;
    account: string;
    name: string;
    name_key: string;
    path: string;
    description: string | null;
    default_version: number;
    /** The number of the version made last; numbers are not used again. */
    last_version: number;
    created_at: number;
    updated_at: number;
  };
  iam_policy_versions: { arn: string; version: number; document: string; created_at: number };
  iam_attachments: { identity_id: string; arn: string };
  iam_tags: { resource_id: string; tag_key: string; key_lower: string; tag_value: string };
  iam_instance_profiles: {
    /** `AIPA…` */
    id: string;
    account: string;
    name: string;
    name_key: string;
    path: string;
    created_at: number;
    role_id: string | null;
  };
  /** Changes at random with every change to an account's identities; what was read under it holds while it stands. */
  iam_revisions: { account: string; revision: string };
}

export type IdentityKind = 'user' | 'group' | 'role';
export type Identity = IamTables['iam_identities'];

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
  {
    id: 'iam-002-identities',
    async up(db) {
      await sql`alter table access_keys add column identity_id text`.execute(db);
      await sql`alter table access_keys add column last_used_at integer`.execute(db);
      await sql`alter table access_keys add column last_used_service text`.execute(db);
      await sql`alter table access_keys add column last_used_region text`.execute(db);
      await sql`create index access_keys_identity on access_keys (identity_id)`.execute(db);
      await sql`create table iam_identities (id text primary key, account text not null, kind text not null,
        name text not null, name_key text not null, path text not null, created_at integer not null, boundary_arn text,
        trust_policy text, description text, session_max_s integer, unique (account, kind, name_key)) strict`.execute(
        db,
      );
      await sql`create table iam_memberships (group_id text not null, user_id text not null,
        primary key (user_id, group_id)) strict`.execute(db);
      await sql`create index iam_memberships_group on iam_memberships (group_id)`.execute(db);
      await sql`create table iam_inline_policies (identity_id text not null, name text not null, document text not null,
        primary key (identity_id, name)) strict`.execute(db);
      await sql`create table iam_policies (arn text primary key, id text not null, account text not null,
        name text not null, name_key text not null, path text not null, description text,
        default_version integer not null, last_version integer not null, created_at integer not null,
        updated_at integer not null, unique (account, name_key)) strict`.execute(db);
      await sql`create table iam_policy_versions (arn text not null, version integer not null, document text not null,
        created_at integer not null, primary key (arn, version)) strict`.execute(db);
      await sql`create table iam_attachments (identity_id text not null, arn text not null,
        primary key (identity_id, arn)) strict`.execute(db);
      await sql`create index iam_attachments_policy on iam_attachments (arn)`.execute(db);
      await sql`create index iam_identities_boundary on iam_identities (boundary_arn)`.execute(db);
      await sql`create table iam_tags (resource_id text not null, tag_key text not null, key_lower text not null,
        tag_value text not null, primary key (resource_id, key_lower)) strict`.execute(db);
      await sql`create table iam_revisions (account text primary key, revision text not null) strict`.execute(db);
      await insertAwsPolicies(db);
    },
  },
  {
    id: 'iam-003-instance-profiles',
    async up(db) {
      await sql`create table iam_instance_profiles (id text primary key, account text not null, name text not null,
        name_key text not null, path text not null, created_at integer not null, role_id text,
        unique (account, name_key)) strict`.execute(db);
      await sql`create index iam_instance_profiles_role on iam_instance_profiles (role_id)`.execute(db);
    },
  },
  {
    id: 'iam-004-trusted-ids',
    async up(db) {
      await sql`alter table iam_identities add column trusted_ids text`.execute(db);
    },
  },
];
