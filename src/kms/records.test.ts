import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { RootKey } from '../crypto/root-key.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { kmsMigrations } from './records.ts';

test('keys of the first version of the tables keep their material, and AWS managed ones begin to rotate', async () => {
  const database = new SqliteDatabase(':memory:');
  const sealed = new RootKey(randomBytes(32)).seal('kms-material', randomBytes(32), 'a/b');
  const key = {
    region: 'us-east-1',
    account: '123456789012',
    revision: 1,
    created_at: 1000,
    description: '',
    key_usage: 'ENCRYPT_DECRYPT',
    key_spec: 'SYMMETRIC_DEFAULT',
    origin: 'AWS_KMS',
    state: 'Enabled',
    policy: '{}',
    grant_count: 0,
  };
  await database.run(async (db) => {
    await migrate(db, kmsMigrations.slice(0, 1));
    const own = { ...key, key_id: 'a', material_id: 'b', key_manager: 'CUSTOMER' };
    await db.insertInto('kms_keys').values(own).execute();
    const managed = { ...key, key_id: 'c', key_manager: 'AWS', managed_alias: 'alias/aws/ebs' };
    await db.insertInto('kms_keys').values(managed).execute();
    const material = { material_id: 'b', key_id: 'a', region: 'us-east-1', sealed, created_at: 1000 };
    await db.insertInto('kms_material').values(material).execute();
    await migrate(db, kmsMigrations);
    const [row] = await db.selectFrom('kms_material').selectAll().execute();
    expect(row).toMatchObject({ material_id: 'b', key_id: 'a', ordinal: 1, state: 'CURRENT', rotated_at: null });
    expect(Buffer.from(row!.sealed)).toEqual(sealed);
    const keys = await db.selectFrom('kms_keys').selectAll().orderBy('key_id').execute();
    expect(keys).toMatchObject([
      { materials_missing: 0, primary_region: null, next_rotation_at: null },
      { rotation_period_days: 365, next_rotation_at: 1000 + 365 * 86_400_000 },
    ]);
  });
});
