import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { systemClock } from '../aws/clock.ts';
import { RootKey } from '../crypto/root-key.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { ensureAdministrator } from './accounts.ts';
import { CredentialStore } from './credential-store.ts';
import { iamMigrations } from './records.ts';

test('a secret that was handed out stays whole for whoever is verifying with it, and is wiped right after', async () => {
  const database = new SqliteDatabase(':memory:');
  const rootKey = new RootKey(randomBytes(32));
  const key = await database.run(async (db) => {
    await migrate(db, iamMigrations);
    return ensureAdministrator(db, rootKey, 0, { makeKey: true });
  });
  const { accessKeyId, secretAccessKey } = key!;
  const store = new CredentialStore({ database, rootKey, clock: systemClock });
  await store.find(accessKeyId, undefined);
  const finding = store.find(accessKeyId, undefined);
  store.forget();
  const found = await finding;
  if ('problem' in found) throw new Error(found.problem);
  // Zeros in its place would be a secret that everyone knows.
  expect(found.secretAccessKey.toString()).toBe(secretAccessKey);
  await turn();
  expect(found.secretAccessKey.every((byte) => byte === 0)).toBe(true);
  await database.close();
});
