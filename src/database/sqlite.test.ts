import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DatabaseUnavailable } from './database.ts';
import { forgetForGood } from './forgetting.ts';
import { migrate } from './migrations.ts';
import { SqliteDatabase } from './sqlite.ts';

let directory: string;
let path: string;
let database: SqliteDatabase;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-db-'));
  path = join(directory, 'coffer.db');
  database = new SqliteDatabase(path);
  await database.run((db) => sql`create table t (k text primary key, v integer) strict`.execute(db));
});
afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true });
});

const put = (k: string, v: number) => database.run((db) => db.insertInto('t').values({ k, v }).execute());
const all = () => database.run((db) => db.selectFrom('t').select('k').orderBy('k').execute());

describe('SqliteDatabase', () => {
  it('keeps nothing of what was deleted or replaced: a data key that is destroyed is in no free page', async () => {
    const secret = (n: number) => `secret-${n}-${'x'.repeat(5000 * (n % 2))}`;
    for (let n = 0; n < 60; n++) await put(secret(n), n);
    await database.run((db) => db.deleteFrom('t').where('v', '<', 30).execute());
    await database.run((db) => db.updateTable('t').set({ k: sql`'gone-' || v` }).execute());
    await database.close();
    for (const name of readdirSync(directory))
      expect([name, readFileSync(join(directory, name)).includes('secret-')]).toEqual([name, false]);
    database = new SqliteDatabase(path);
    expect(await all()).toHaveLength(30);
  });

  it('has nothing of a secret in its files, the log included, once the work that destroyed it is durable', async () => {
    const filesWith = (text: string) =>
      readdirSync(directory).filter((name) => readFileSync(join(directory, name)).includes(text));
    await put('secret-1', 1);
    await put('secret-2', 2);
    await database.durable();
    expect(filesWith('secret-1')).toEqual(['coffer.db-wal']);
    await database.run(async (db) => {
      await db.deleteFrom('t').where('v', '=', 1).execute();
      forgetForGood(db);
    });
    await database.durable();
    expect(filesWith('secret-1')).toEqual([]);
    expect(await all()).toEqual([{ k: 'secret-2' }]);
    expect(filesWith('secret-2')).toEqual(['coffer.db']);
  });

  it('empties the log when it opens, whatever the server died over', async () => {
    await put('secret', 1);
    await database.durable();
    const copy = mkdtempSync(join(tmpdir(), 'coffer-db-'));
    for (const name of readdirSync(directory)) copyFileSync(join(directory, name), join(copy, name));
    const other = new SqliteDatabase(join(copy, 'coffer.db'));
    expect(statSync(join(copy, 'coffer.db-wal')).size).toBe(0);
    expect(await other.run((db) => db.selectFrom('t').select('k').execute())).toEqual([{ k: 'secret' }]);
    await other.close();
    rmSync(copy, { recursive: true });
  });

  it('undoes exactly the work that throws, and nothing of its group', async () => {
    const outcomes = await Promise.allSettled([
      put('a', 1),
      database.run(async (db) => {
        await db.insertInto('t').values({ k: 'b', v: 2 }).execute();
        throw new Error('changed my mind');
      }),
      put('c', 3),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(await all()).toEqual([{ k: 'a' }, { k: 'c' }]);
  });

  it('undoes nested work alone', async () => {
    await database.run(async (db) => {
      await db.insertInto('t').values({ k: 'outer', v: 1 }).execute();
      const nested = database.nested(db, async () => {
        await db.insertInto('t').values({ k: 'inner', v: 1 }).execute();
        throw new Error('no');
      });
      await expect(nested).rejects.toThrow('no');
    });
    expect(await all()).toEqual([{ k: 'outer' }]);
  });

  it('runs work one at a time even when it waits in the middle', async () => {
    const trace: string[] = [];
    const slow = (name: string) =>
      database.run(async () => {
        trace.push(`${name} starts`);
        await new Promise((resolve) => setTimeout(resolve, 5));
        trace.push(`${name} ends`);
      });
    await Promise.all([slow('first'), slow('second')]);
    expect(trace).toEqual(['first starts', 'first ends', 'second starts', 'second ends']);
  });

  it('has on disk what durable answered for, before it is closed', async () => {
    await put('kept', 1);
    await database.durable();
    // Another reader of the files as they are now: a copy, because the server holds the original exclusively.
    const copy = join(directory, 'copy.db');
    copyFileSync(path, copy);
    copyFileSync(`${path}-wal`, `${copy}-wal`);
    const reader = new DatabaseSync(copy);
    expect(reader.prepare('select k from t').all()).toEqual([{ k: 'kept' }]);
    reader.close();
  });

  it('makes what waits for durability fail when the group cannot be written, and says so to caches', async () => {
    let undone = 0;
    database.onUndone(() => undone++);
    await put('before', 1);
    await database.durable();
    // A deferred constraint fails at the commit itself, like a full disk would.
    await database.run(async (db) => {
      await sql`create table parent (id integer primary key)`.execute(db);
      await sql`create table child (p integer references parent (id) deferrable initially deferred)`.execute(db);
    });
    await database.durable();
    const doomed = put('doomed', 2);
    const breaking = database.run((db) => sql`insert into child values (42)`.execute(db));
    await Promise.all([doomed, breaking]);
    await expect(database.durable()).rejects.toThrow(DatabaseUnavailable);
    expect(undone).toBe(1);
    expect(await all()).toEqual([{ k: 'before' }]);
    await put('after', 3);
    await database.durable();
    expect(await all()).toEqual([{ k: 'after' }, { k: 'before' }]);
  });

  it('undoes the whole group, and runs nothing more in it, when SQLite gives the transaction up by itself', async () => {
    await database.durable();
    let undone = 0;
    database.onUndone(() => undone++);
    const outcomes = await Promise.allSettled([
      put('before', 1).then(() => database.durable()),
      // What SQLite does when the disk fills up, or a page can't be read, in the middle of a statement.
      database.run((db) => sql`rollback`.execute(db)).then(() => database.durable()),
      put('after', 2).then(() => database.durable()),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'rejected', 'fulfilled']);
    for (const outcome of outcomes.slice(0, 2))
      expect(outcome).toMatchObject({ reason: expect.any(DatabaseUnavailable) });
    expect(undone).toBe(1);
    expect(await all()).toEqual([{ k: 'after' }]);
  });

  it('refuses a second server on the same file, in words that help', () => {
    expect(() => new SqliteDatabase(path)).toThrow(/in use by another coffer server/);
  });

  it('keeps its file from other users', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(`${path}-wal`).mode & 0o777).toBe(0o600);
  });
});

describe('migrate', () => {
  const first = { id: 'x-001', up: async (db: never) => void (await sql`create table x (a)`.execute(db)) };
  const second = { id: 'x-002', up: async (db: never) => void (await sql`alter table x add column b`.execute(db)) };

  it('applies each step once, also over restarts', async () => {
    await database.run((db) => migrate(db, [first]));
    await database.run((db) => migrate(db, [first, second]));
    await database.run((db) => db.insertInto('x').values({ a: 1, b: 2 }).execute());
    expect(await database.run((db) => db.selectFrom('x').selectAll().execute())).toEqual([{ a: 1, b: 2 }]);
  });

  it('refuses a database that a newer version wrote', async () => {
    await database.run((db) => migrate(db, [first, second]));
    await expect(database.run((db) => migrate(db, [first]))).rejects.toThrow(
      /newer version of coffer \(it has x-002\)/,
    );
  });

  it('leaves nothing of a step that fails', async () => {
    const broken = {
      id: 'x-002',
      up: async (db: never) => {
        await sql`create table half (a)`.execute(db);
        throw new Error('disk fell off');
      },
    };
    await expect(database.run((db) => migrate(db, [first, broken]))).rejects.toThrow('disk fell off');
    await database.run((db) => migrate(db, [first]));
    await expect(database.run((db) => db.selectFrom('half').selectAll().execute())).rejects.toThrow(/no such table/);
  });
});
