import type { Kysely } from 'kysely';
import { sql } from 'kysely';

/** One step of a service's tables, applied once, in the order given. */
export interface Migration {
  /** Unique over all services, sorted within its own: `kms-001-keys`. Never renamed once released. */
  readonly id: string;
  // biome-ignore lint/suspicious/noExplicitAny: a migration knows no tables.
  up(db: Kysely<any>): Promise<void>;
}

/**
 * Applies the migrations that this database has not seen, all in one transaction.
 * @throws when the database has seen a migration that this version does not know: it was written by a newer one.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above.
export async function migrate(db: Kysely<any>, migrations: readonly Migration[]): Promise<void> {
  await sql`create table if not exists schema_migrations (id text primary key, applied_at integer not null)`.execute(
    db,
  );
  const seen = await sql<{ id: string }>`select id from schema_migrations`.execute(db);
  const applied = new Set(seen.rows.map((row) => row.id));
  const known = new Set(migrations.map((migration) => migration.id));
  const unknown = [...applied].filter((id) => !known.has(id));
  if (unknown.length > 0)
    throw new Error(
      `the database was written by a newer version of coffer (it has ${unknown.join(', ')}); use that version`,
    );
  for (const migration of migrations) {
    if (applied.has(migration.id)) continue;
    await migration.up(db);
    await sql`insert into schema_migrations (id, applied_at) values (${migration.id}, ${Date.now()})`.execute(db);
  }
}
