import { sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

/** The tables of the key service. Times are ms since the epoch. */
export interface KmsTables {
  kms_keys: {
    /** The API's KeyId: a UUID, or `mrk-` and 32 hexadecimal digits. Related multi-Region keys share it. */
    key_id: string;
    region: string;
    account: string;
    /** A random number, new with every change of the key, its aliases or tags: what caches are checked by. */
    revision: number;
    created_at: number;
    description: string;
    key_usage: string;
    key_spec: string;
    origin: 'AWS_KMS' | 'EXTERNAL';
    key_manager: 'AWS' | 'CUSTOMER';
    /** For an AWS managed key: its alias (`alias/aws/ebs`), which no row of kms_aliases has. */
    managed_alias: string | null;
    state: KeyState;
    /** When it will be deleted; only in state PendingDeletion. */
    deletion_at: number | null;
    /** How long it then waits; only in state PendingReplicaDeletion. */
    deletion_window_days: number | null;
    /** The current material; null until material is first imported. */
    material_id: string | null;
    /** Materials that it has had imported for good, and that are not there now. */
    materials_missing: number;
    /** When the first of its imported materials expires; null when none does. */
    material_expires_at: number | null;
    /** For a multi-Region key: where the primary key is. */
    primary_region: string | null;
    /** Days between automatic rotations; null while they are off. The same for related multi-Region keys. */
    rotation_period_days: number | null;
    next_rotation_at: number | null;
    /** The key policy as it was put, byte for byte. */
    policy: string;
    /** The unique ids of the users, roles and sessions that it names (JSON: PrincipalIds); null where they are not kept. */
    principals: string | null;
    grant_count: number;
  };
  kms_material: {
    /** A UUID, as in ciphertext blobs; of imported material it follows from the bytes. Related multi-Region keys share it. */
    material_id: string;
    key_id: string;
    region: string;
    /** 1 for the key's first material, 2 for the next … */
    ordinal: number;
    state: 'CURRENT' | 'NON_CURRENT' | 'PENDING_ROTATION';
    /**
     * Sealed by the root key for purpose `kms-material`, bound to `key id/material id`. Asymmetric: a PKCS #8 private key. Null
     * while imported material is not there (deleted, expired, not yet imported into a replica).
     */
    sealed: Uint8Array | null;
    /** Asymmetric keys: SubjectPublicKeyInfo, DER. */
    public_key: Uint8Array | null;
    created_at: number;
    /** When a rotation made it current; null for the first. */
    rotated_at: number | null;
    rotation_type: 'AUTOMATIC' | 'ON_DEMAND' | null;
    /** Imported material: what its importer calls it, and when it expires if it does. */
    description: string | null;
    expires_at: number | null;
  };
  /** Key pairs made for an import, whose public halves are out. */
  kms_wrapping_keys: {
    /** A UUID, as in import tokens. */
    wrapping_id: string;
    key_id: string;
    region: string;
    algorithm: string;
    /** The private key (PKCS #8), sealed by the root key for purpose `kms-wrapping-key`, bound to the id. */
    sealed: Uint8Array;
    expires_at: number;
  };
  kms_aliases: {
    account: string;
    region: string;
    /** `alias/…` */
    alias_name: string;
    key_id: string;
    created_at: number;
    updated_at: number;
  };
  kms_tags: { key_id: string; region: string; tag_key: string; tag_value: string };
  kms_grants: {
    grant_id: string;
    key_id: string;
    region: string;
    /** The key's account. */
    account: string;
    /** Whom it is for: a unique id (`AIDA…`, `AROA…`), or what has none: an account's ARN, a service. */
    grantee: string;
    /** Likewise. */
    retiring: string | null;
    /** JSON: GrantOperation[] */
    operations: string;
    /** JSON: GrantConstraints */
    constraints: string | null;
    name: string;
    created_at: number;
    issuing_account: string;
    /** The service that made it for a caller (`ec2.amazonaws.com`), or null. */
    created_via: string | null;
  };
}

export type KeyState = 'Enabled' | 'Disabled' | 'PendingDeletion' | 'PendingReplicaDeletion' | 'PendingImport';

export const kmsMigrations: readonly Migration[] = [
  {
    id: 'kms-001-keys',
    async up(db) {
      await sql`create table kms_keys (key_id text not null, region text not null, account text not null,
        revision integer not null, created_at integer not null, description text not null, key_usage text not null,
        key_spec text not null, origin text not null, key_manager text not null, managed_alias text, state text not null,
        deletion_at integer, material_id text, policy text not null, grant_count integer not null,
        primary key (key_id, region)) strict`.execute(db);
      await sql`create unique index kms_keys_managed on kms_keys (account, region, managed_alias)
        where managed_alias is not null`.execute(db);
      await sql`create index kms_keys_list on kms_keys (account, region, key_id)`.execute(db);
      await sql`create index kms_keys_due on kms_keys (deletion_at) where deletion_at is not null`.execute(db);
      await sql`create table kms_material (material_id text primary key, key_id text not null, region text not null,
        sealed blob not null, public_key blob, created_at integer not null) strict`.execute(db);
      await sql`create index kms_material_key on kms_material (key_id, region)`.execute(db);
      await sql`create table kms_aliases (account text not null, region text not null, alias_name text not null,
        key_id text not null, created_at integer not null, updated_at integer not null,
        primary key (account, region, alias_name)) strict`.execute(db);
      await sql`create index kms_aliases_key on kms_aliases (key_id, region, alias_name)`.execute(db);
      await sql`create table kms_tags (key_id text not null, region text not null, tag_key text not null,
        tag_value text not null, primary key (key_id, region, tag_key)) strict`.execute(db);
      await sql`create table kms_grants (grant_id text primary key, key_id text not null, region text not null,
        account text not null, grantee text not null, retiring text, operations text not null, constraints text,
        name text not null, created_at integer not null, issuing_account text not null, created_via text) strict`.execute(
        db,
      );
      await sql`create index kms_grants_key on kms_grants (key_id, region, grant_id)`.execute(db);
      await sql`create index kms_grants_grantee on kms_grants (key_id, region, grantee)`.execute(db);
      await sql`create index kms_grants_name on kms_grants (key_id, region, name) where name <> ''`.execute(db);
      await sql`create index kms_grants_retiring on kms_grants (retiring, region, grant_id)
        where retiring is not null`.execute(db);
    },
  },
  {
    id: 'kms-002-material',
    async up(db) {
      // Keys of several regions share a material, and material can be imported, rotated and gone.
      await sql`alter table kms_material rename to kms_material_001`.execute(db);
      await sql`create table kms_material (material_id text not null, key_id text not null, region text not null,
        ordinal integer not null, state text not null, sealed blob, public_key blob, created_at integer not null,
        rotated_at integer, rotation_type text, description text, expires_at integer,
        primary key (key_id, region, material_id)) strict`.execute(db);
      await sql`insert into kms_material (material_id, key_id, region, ordinal, state, sealed, public_key, created_at)
        select material_id, key_id, region, 1, 'CURRENT', sealed, public_key, created_at from kms_material_001`.execute(
        db,
      );
      await sql`drop table kms_material_001`.execute(db);
      await sql`create index kms_material_expiring on kms_material (expires_at) where expires_at is not null`.execute(
        db,
      );
      for (const column of [
        'deletion_window_days integer',
        'materials_missing integer not null default 0',
        'material_expires_at integer',
        'primary_region text',
        'rotation_period_days integer',
        'next_rotation_at integer',
      ])
        await sql`alter table kms_keys add column ${sql.raw(column)}`.execute(db);
      await sql`create index kms_keys_rotating on kms_keys (state, next_rotation_at)
        where next_rotation_at is not null`.execute(db);
      // AWS managed keys rotate by themselves.
      await sql`update kms_keys set rotation_period_days = 365, next_rotation_at = created_at + 365 * 86400000
        where key_manager = 'AWS'`.execute(db);
      await sql`create table kms_wrapping_keys (wrapping_id text primary key, key_id text not null, region text not null,
        algorithm text not null, sealed blob not null, expires_at integer not null) strict`.execute(db);
      await sql`create index kms_wrapping_keys_key on kms_wrapping_keys (key_id, region)`.execute(db);
      await sql`create index kms_wrapping_keys_expiring on kms_wrapping_keys (expires_at)`.execute(db);
    },
  },
  {
    id: 'kms-003-principals',
    async up(db) {
      await sql`alter table kms_keys add column principals text`.execute(db);
    },
  },
];
