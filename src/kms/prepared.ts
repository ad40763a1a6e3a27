import type { Compilable, CompiledQuery, Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import type { KmsTables } from './records.ts';

/**
 * A query of the hot path, compiled once: building it anew costs more than running it. `build` gives placeholders where
 * the parameters go; callers give the parameters in the order in which the SQL has them.
 */
export function prepared<Row>(build: (db: Kysely<KmsTables>) => Compilable<Row>) {
  let compiled: CompiledQuery<Row> | undefined;
  let compiledFor: object | undefined;
  return async (db: AnyDatabase, parameters: readonly unknown[]): Promise<readonly Row[]> => {
    // SQL differs between databases, and a process may see more than one.
    const { adapter } = db.getExecutor();
    if (!compiled || compiledFor !== adapter) {
      compiled = build(db).compile();
      compiledFor = adapter;
    }
    return (await db.executeQuery<Row>({ ...compiled, parameters })).rows;
  };
}
