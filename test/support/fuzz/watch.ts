/**
 * Sees what a request leaves in the database: triggers count the rows that are inserted, updated or deleted in every table
 * but the trail's and the event bus's. The counters are a part of the transactions, so what is undone is not counted.
 */
import { sql } from 'kysely';
import type { AnyDatabase } from '../../../src/aws/call.ts';
import type { SqliteDatabase } from '../../../src/database/sqlite.ts';

/** What every request may leave behind. */
const records = /^(?:trail_|bus_)/;

export class Watch {
  readonly #database: SqliteDatabase;

  private constructor(database: SqliteDatabase) {
    this.#database = database;
  }

  static async on(database: SqliteDatabase): Promise<Watch> {
    await database.run(async (db) => {
      const execute = (text: string) => sql.raw(text).execute(db as AnyDatabase);
      await execute('create temp table watched (name text primary key, changes integer not null)');
      const tables = (await db.introspection.getTables()).map(({ name }) => name).filter((name) => !records.test(name));
      for (const name of tables) {
        await execute(`insert into watched values ('${name}', 0)`);
        for (const event of ['insert', 'update', 'delete'])
          await execute(
            `create temp trigger "watch_${name}_${event}" after ${event} on main."${name}" begin update watched set changes = changes + 1 where name = '${name}'; end`,
          );
      }
    });
    return new Watch(database);
  }

  /** How many changes each table has seen. */
  async look(): Promise<ReadonlyMap<string, number>> {
    const rows = await this.#database.run((db) => db.selectFrom('watched').selectAll().execute());
    return new Map((rows as Array<{ name: string; changes: number }>).map(({ name, changes }) => [name, changes]));
  }

  /** Changes of all tables together. */
  async count(): Promise<number> {
    return [...(await this.look()).values()].reduce((sum, changes) => sum + changes, 0);
  }
}

/** The tables that changed between two looks. */
export function changedTables(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): string[] {
  return [...after].filter(([name, changes]) => changes !== before.get(name)).map(([name]) => name);
}
