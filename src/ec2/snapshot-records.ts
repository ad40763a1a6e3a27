/** The tables of snapshots, of what is restored from them, and of changes to volumes. */
import { type Generated, type Insertable, type Selectable, sql } from 'kysely';
import type { Migration } from '../database/migrations.ts';

/** Truth as it is stored: 0 or 1. */
type Flag = 0 | 1;

/** Times are ms since the epoch. */
export interface SnapshotTables {
  ec2_snapshots: {
    /** Order of creation; what pages continue by. */
    seq: Generated<number>;
    snapshot_id: string;
    account: string;
    region: string;
    /**
     * `volume`: made by CreateSnapshot(s). `copy`: by CopySnapshot. `direct`: written block by block. `internal`: the point
     * in time of a CopyVolumes, which the API does not show.
     */
    origin: 'volume' | 'copy' | 'direct' | 'internal';
    /** What the API shows: for copies an arbitrary one. */
    volume_id: string;
    size_gib: number;
    encrypted: Flag;
    key_arn: string | null;
    /** The snapshot's own; null for one that is not encrypted. */
    encrypted_data_key: Uint8Array | null;
    /** The value of the encryption context `aws:ebs:id` under which the data key is encrypted. */
    context_id: string | null;
    state: 'pending' | 'completed' | 'error';
    /** Whole percent. */
    progress: number;
    state_message: string | null;
    description: string;
    started_at: number;
    completed_at: number | null;
    /** The point in time is fixed; before that the API does not show the snapshot. */
    is_marked: Flag;
    /** The snapshot that unchanged blocks are taken from; it may be deleted by now. */
    parent_id: string | null;
    /** The first ancestor's id, the same for all snapshots that may share blocks. */
    family: string;
    /** Snapshots of one CreateSnapshots. */
    group_id: string | null;
    /** For copies: what is copied. */
    source_snapshot_id: string | null;
    source_region: string | null;
    /** CompletionDurationMinutes of a copy. */
    completion_minutes: number | null;
    /** For `direct`: the host that takes the blocks, and when it is given up, unless something is written. */
    host_id: string | null;
    idle_minutes: number | null;
    expires_at: number | null;
    /** Of the blocks that hold data; known once it is completed. */
    blocks: number | null;
    full_bytes: number | null;
    stored_bytes: number | null;
    request_id: string;
  };
  /** Who may make volumes from a snapshot beside its owner: an account, or `all`. */
  ec2_snapshot_permissions: {
    snapshot_id: string;
    region: string;
    account: string;
  };
  /** Grants for infrastructure principals that end with a task: a restore's, a copy's. */
  ec2_task_grants: {
    /** The volume or snapshot that the task is about. */
    resource_id: string;
    key_arn: string;
    grant_id: string;
  };
  ec2_volume_modifications: {
    seq: Generated<number>;
    volume_id: string;
    account: string;
    region: string;
    state: 'modifying' | 'optimizing' | 'completed';
    original_size: number;
    original_type: string;
    original_iops: number | null;
    original_throughput: number | null;
    original_multi_attach: Flag;
    target_size: number;
    target_type: string;
    target_iops: number | null;
    target_throughput: number | null;
    target_multi_attach: Flag;
    started_at: number;
    ended_at: number | null;
    request_id: string;
  };
  /** Facts about the installation as a whole: `block-store`, the id of the block store that all its hosts share. */
  ec2_installation: {
    name: string;
    value: string;
  };
}

export type SnapshotRow = Selectable<SnapshotTables['ec2_snapshots']>;
export type NewSnapshotRow = Insertable<SnapshotTables['ec2_snapshots']>;
export type ModificationRow = Selectable<SnapshotTables['ec2_volume_modifications']>;

export const snapshotMigration: Migration = {
  id: 'ec2-002-snapshots',
  async up(db) {
    await db.schema
      .createTable('ec2_snapshots')
      .addColumn('seq', 'integer', (column) => column.primaryKey().autoIncrement())
      .addColumn('snapshot_id', 'text', (column) => column.notNull().unique())
      .addColumn('account', 'text', (column) => column.notNull())
      .addColumn('region', 'text', (column) => column.notNull())
      .addColumn('origin', 'text', (column) => column.notNull())
      .addColumn('volume_id', 'text', (column) => column.notNull())
      .addColumn('size_gib', 'integer', (column) => column.notNull())
      .addColumn('encrypted', 'integer', (column) => column.notNull())
      .addColumn('key_arn', 'text')
      .addColumn('encrypted_data_key', 'blob')
      .addColumn('context_id', 'text')
      .addColumn('state', 'text', (column) => column.notNull())
      .addColumn('progress', 'integer', (column) => column.notNull())
      .addColumn('state_message', 'text')
      .addColumn('description', 'text', (column) => column.notNull())
      .addColumn('started_at', 'integer', (column) => column.notNull())
      .addColumn('completed_at', 'integer')
      .addColumn('is_marked', 'integer', (column) => column.notNull())
      .addColumn('parent_id', 'text')
      .addColumn('family', 'text', (column) => column.notNull())
      .addColumn('group_id', 'text')
      .addColumn('source_snapshot_id', 'text')
      .addColumn('source_region', 'text')
      .addColumn('completion_minutes', 'integer')
      .addColumn('host_id', 'text')
      .addColumn('idle_minutes', 'integer')
      .addColumn('expires_at', 'integer')
      .addColumn('blocks', 'integer')
      .addColumn('full_bytes', 'integer')
      .addColumn('stored_bytes', 'integer')
      .addColumn('request_id', 'text', (column) => column.notNull())
      .execute();
    const index = (name: string, columns: readonly string[]) =>
      db.schema
        .createIndex(`ec2_snapshots_${name}`)
        .on('ec2_snapshots')
        .columns([...columns]);
    await index('by_account', ['account', 'region', 'seq']).execute();
    await index('by_volume', ['volume_id', 'seq']).execute();
    await index('by_family', ['family']).execute();
    await index('pending', ['state', 'parent_id']).where(sql.ref('state'), '=', sql.lit('pending')).execute();
    await db.schema
      .createTable('ec2_snapshot_permissions')
      .addColumn('snapshot_id', 'text', (column) => column.notNull())
      .addColumn('region', 'text', (column) => column.notNull())
      .addColumn('account', 'text', (column) => column.notNull())
      .addPrimaryKeyConstraint('ec2_snapshot_permissions_key', ['snapshot_id', 'account'])
      .execute();
    await db.schema
      .createIndex('ec2_snapshot_permissions_by_account')
      .on('ec2_snapshot_permissions')
      .columns(['account', 'region'])
      .execute();
    await db.schema
      .createTable('ec2_task_grants')
      .addColumn('resource_id', 'text', (column) => column.notNull())
      .addColumn('key_arn', 'text', (column) => column.notNull())
      .addColumn('grant_id', 'text', (column) => column.notNull())
      .addPrimaryKeyConstraint('ec2_task_grants_key', ['resource_id', 'key_arn', 'grant_id'])
      .execute();
    await db.schema
      .createTable('ec2_volume_modifications')
      .addColumn('seq', 'integer', (column) => column.primaryKey().autoIncrement())
      .addColumn('volume_id', 'text', (column) => column.notNull())
      .addColumn('account', 'text', (column) => column.notNull())
      .addColumn('region', 'text', (column) => column.notNull())
      .addColumn('state', 'text', (column) => column.notNull())
      .addColumn('original_size', 'integer', (column) => column.notNull())
      .addColumn('original_type', 'text', (column) => column.notNull())
      .addColumn('original_iops', 'integer')
      .addColumn('original_throughput', 'integer')
      .addColumn('original_multi_attach', 'integer', (column) => column.notNull())
      .addColumn('target_size', 'integer', (column) => column.notNull())
      .addColumn('target_type', 'text', (column) => column.notNull())
      .addColumn('target_iops', 'integer')
      .addColumn('target_throughput', 'integer')
      .addColumn('target_multi_attach', 'integer', (column) => column.notNull())
      .addColumn('started_at', 'integer', (column) => column.notNull())
      .addColumn('ended_at', 'integer')
      .addColumn('request_id', 'text', (column) => column.notNull())
      .execute();
    await db.schema
      .createIndex('ec2_volume_modifications_by_volume')
      .on('ec2_volume_modifications')
      .columns(['volume_id', 'seq'])
      .execute();
    await db.schema
      .createTable('ec2_installation')
      .addColumn('name', 'text', (column) => column.primaryKey())
      .addColumn('value', 'text', (column) => column.notNull())
      .execute();
    for (const [column, type] of [
      ['snapshot_id', 'text'],
      ['source_volume_id', 'text'],
      ['initialization_type', 'text'],
      ['initialization_rate', 'integer'],
      ['initialization_progress', 'integer'],
      ['initialization_started_at', 'integer'],
      ['initialization_error', 'text'],
      ['restore_snapshot_id', 'text'],
      ['restore_size_gib', 'integer'],
      ['restore_encrypted_data_key', 'blob'],
    ] as const)
      await db.schema.alterTable('ec2_volumes').addColumn(column, type).execute();
    await db.schema
      .createIndex('ec2_volumes_restoring')
      .on('ec2_volumes')
      .column('restore_snapshot_id')
      .where(sql.ref('restore_snapshot_id'), 'is not', null)
      .execute();
    for (const column of ['snapshot_id', 'family', 'payload'] as const)
      await db.schema.alterTable('ec2_tasks').addColumn(column, 'text').execute();
    await db.schema.createIndex('ec2_tasks_by_host').on('ec2_tasks').columns(['host_id', 'created_at']).execute();
    await db.schema.alterTable('ec2_hosts').addColumn('block_store_id', 'text').execute();
    await db.schema
      .alterTable('ec2_usage')
      .addColumn('snapshots', 'integer', (column) => column.notNull().defaultTo(0))
      .execute();
  },
};

export const modificationIndexMigration: Migration = {
  id: 'ec2-003-open-modifications',
  async up(db) {
    await db.schema
      .createIndex('ec2_volume_modifications_open')
      .on('ec2_volume_modifications')
      .column('state')
      .where(sql.ref('state'), '!=', sql.lit('completed'))
      .execute();
  },
};

/** Found by their key, so that asking costs what the answer has. */
export const keyIndexMigration: Migration = {
  id: 'ec2-004-volumes-and-snapshots-by-key',
  async up(db) {
    for (const table of ['ec2_volumes', 'ec2_snapshots'])
      await db.schema.createIndex(`${table}_by_key`).on(table).columns(['key_arn', 'account', 'seq']).execute();
  },
};

export const taskIndexMigration: Migration = {
  id: 'ec2-005-task-indexes',
  async up(db) {
    for (const column of ['volume_id', 'snapshot_id'] as const)
      await db.schema.createIndex(`ec2_tasks_by_${column}`).on('ec2_tasks').column(column).execute();
  },
};

/** So that each account's tasks are found without going through those of the others. */
export const taskAccountIndexMigration: Migration = {
  id: 'ec2-006-tasks-by-account',
  async up(db) {
    const columns = ['host_id', 'kind', 'account', 'created_at'];
    await db.schema.createIndex('ec2_tasks_by_account').on('ec2_tasks').columns(columns).execute();
    await db.schema.createIndex('ec2_tasks_by_kind').on('ec2_tasks').columns(columns.slice(1)).execute();
  },
};
