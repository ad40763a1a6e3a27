/** How the tables of EC2 came to be. What has landed stays as it is: data directories of all versions open. */
import type { Migration } from '../database/migrations.ts';
import {
  keyIndexMigration,
  modificationIndexMigration,
  snapshotMigration,
  taskAccountIndexMigration,
  taskIndexMigration,
} from './snapshot-records.ts';

export const ec2Migrations: readonly Migration[] = [
  {
    id: 'ec2-001-start',
    async up(db) {
      await db.schema
        .createTable('ec2_volumes')
        .addColumn('seq', 'integer', (column) => column.primaryKey().autoIncrement())
        .addColumn('volume_id', 'text', (column) => column.notNull().unique())
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('zone', 'text', (column) => column.notNull())
        .addColumn('size_gib', 'integer', (column) => column.notNull())
        .addColumn('volume_type', 'text', (column) => column.notNull())
        .addColumn('iops', 'integer')
        .addColumn('throughput', 'integer')
        .addColumn('multi_attach', 'integer', (column) => column.notNull())
        .addColumn('encrypted', 'integer', (column) => column.notNull())
        .addColumn('key_arn', 'text')
        .addColumn('encrypted_data_key', 'blob')
        .addColumn('state', 'text', (column) => column.notNull())
        .addColumn('created_at', 'integer', (column) => column.notNull())
        .addColumn('auto_enable_io', 'integer', (column) => column.notNull().defaultTo(0))
        .addColumn('image_host_id', 'text')
        .addColumn('has_image', 'integer', (column) => column.notNull().defaultTo(0))
        .execute();
      await db.schema
        .createIndex('ec2_volumes_by_account')
        .on('ec2_volumes')
        .columns(['account', 'region', 'seq'])
        .execute();
      await db.schema
        .createTable('ec2_attachments')
        .addColumn('volume_id', 'text', (column) => column.notNull())
        .addColumn('instance_id', 'text', (column) => column.notNull())
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('device', 'text', (column) => column.notNull())
        .addColumn('status', 'text', (column) => column.notNull())
        .addColumn('attached_at', 'integer', (column) => column.notNull())
        .addColumn('delete_on_termination', 'integer', (column) => column.notNull())
        .addColumn('grant_id', 'text')
        .addColumn('desired', 'text', (column) => column.notNull())
        .addColumn('generation', 'integer', (column) => column.notNull())
        .addColumn('force', 'integer', (column) => column.notNull())
        .addColumn('observed', 'text', (column) => column.notNull())
        .addColumn('error_message', 'text')
        .addColumn('request_id', 'text', (column) => column.notNull())
        .addPrimaryKeyConstraint('ec2_attachments_key', ['volume_id', 'instance_id'])
        .execute();
      await db.schema
        .createIndex('ec2_attachments_by_instance')
        .on('ec2_attachments')
        .columns(['instance_id', 'device'])
        .execute();
      await db.schema
        .createTable('ec2_failures')
        .addColumn('generation', 'integer', (column) => column.primaryKey())
        .addColumn('code', 'text', (column) => column.notNull())
        .addColumn('message', 'text', (column) => column.notNull())
        .addColumn('created_at', 'integer', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('ec2_instances')
        .addColumn('seq', 'integer', (column) => column.primaryKey().autoIncrement())
        .addColumn('instance_id', 'text', (column) => column.notNull().unique())
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('zone', 'text', (column) => column.notNull())
        .addColumn('reservation_id', 'text', (column) => column.notNull())
        .addColumn('launch_index', 'integer', (column) => column.notNull())
        .addColumn('instance_type', 'text', (column) => column.notNull())
        .addColumn('image_id', 'text', (column) => column.notNull())
        .addColumn('state', 'text', (column) => column.notNull())
        .addColumn('reason_code', 'text', (column) => column.notNull())
        .addColumn('reason_message', 'text', (column) => column.notNull())
        .addColumn('transition_reason', 'text', (column) => column.notNull())
        .addColumn('launched_at', 'integer', (column) => column.notNull())
        .addColumn('ended_at', 'integer')
        .addColumn('client_token', 'text', (column) => column.notNull())
        .addColumn('private_ip', 'text', (column) => column.notNull())
        .addColumn('echoed', 'text', (column) => column.notNull())
        .addColumn('disable_api_termination', 'integer', (column) => column.notNull())
        .addColumn('host_id', 'text')
        .execute();
      await db.schema
        .createIndex('ec2_instances_by_account')
        .on('ec2_instances')
        .columns(['account', 'region', 'seq'])
        .execute();
      await db.schema.createIndex('ec2_instances_by_host').on('ec2_instances').columns(['host_id', 'state']).execute();
      await db.schema
        .createTable('ec2_tags')
        .addColumn('resource_id', 'text', (column) => column.notNull())
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('resource_type', 'text', (column) => column.notNull())
        .addColumn('key', 'text', (column) => column.notNull())
        .addColumn('value', 'text', (column) => column.notNull())
        .addPrimaryKeyConstraint('ec2_tags_key', ['resource_id', 'key'])
        .execute();
      await db.schema
        .createIndex('ec2_tags_by_value')
        .on('ec2_tags')
        .columns(['account', 'region', 'key', 'value'])
        .execute();
      await db.schema
        .createTable('ec2_client_tokens')
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('operation', 'text', (column) => column.notNull())
        .addColumn('token', 'text', (column) => column.notNull())
        .addColumn('parameters_digest', 'text', (column) => column.notNull())
        .addColumn('resource_id', 'text', (column) => column.notNull())
        .addColumn('created_at', 'integer', (column) => column.notNull())
        .addPrimaryKeyConstraint('ec2_client_tokens_key', ['account', 'region', 'operation', 'token'])
        .execute();
      await db.schema
        .createTable('ec2_settings')
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('encryption_by_default', 'integer', (column) => column.notNull())
        .addColumn('default_key_arn', 'text')
        .addPrimaryKeyConstraint('ec2_settings_key', ['account', 'region'])
        .execute();
      await db.schema
        .createTable('ec2_usage')
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('volumes', 'integer', (column) => column.notNull())
        .addPrimaryKeyConstraint('ec2_usage_key', ['account', 'region'])
        .execute();
      await db.schema
        .createTable('ec2_counters')
        .addColumn('name', 'text', (column) => column.primaryKey())
        .addColumn('value', 'integer', (column) => column.notNull())
        .execute();
      await db.insertInto('ec2_counters').values({ name: 'generation', value: 0 }).execute();
      await db.schema
        .createTable('ec2_hosts')
        .addColumn('host_id', 'text', (column) => column.primaryKey())
        .addColumn('zones', 'text', (column) => column.notNull())
        .addColumn('data_dir', 'text', (column) => column.notNull())
        .addColumn('version', 'text', (column) => column.notNull())
        .addColumn('session_id', 'text', (column) => column.notNull())
        .addColumn('started_at', 'integer', (column) => column.notNull())
        .addColumn('first_seen_at', 'integer', (column) => column.notNull())
        .addColumn('last_seen_at', 'integer', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('ec2_tasks')
        .addColumn('task_id', 'text', (column) => column.primaryKey())
        .addColumn('kind', 'text', (column) => column.notNull())
        .addColumn('volume_id', 'text', (column) => column.notNull())
        .addColumn('account', 'text', (column) => column.notNull())
        .addColumn('region', 'text', (column) => column.notNull())
        .addColumn('zone', 'text', (column) => column.notNull())
        .addColumn('host_id', 'text', (column) => column.notNull())
        .addColumn('request_id', 'text', (column) => column.notNull())
        .addColumn('created_at', 'integer', (column) => column.notNull())
        .addColumn('error', 'text')
        .execute();
    },
  },
  snapshotMigration,
  modificationIndexMigration,
  keyIndexMigration,
  taskIndexMigration,
  {
    id: 'ec2-005-block-store-in-words',
    async up(db) {
      await db.schema.alterTable('ec2_hosts').addColumn('block_store', 'text').execute();
    },
  },
  taskAccountIndexMigration,
];
