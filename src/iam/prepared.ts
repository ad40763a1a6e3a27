import type { Compilable, CompiledQuery, Kysely } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import type { IamTables } from './records.ts';

/** A query of the hot path, built once; callers give the parameters in the order in which its SQL has them. */
export function prepared<Row>(build: (db: Kysely<IamTables>) => Compilable<Row>) {
  const compiled = new WeakMap<object, CompiledQuery<Row>>();
  return async (db: AnyDatabase, parameters: readonly unknown[]): Promise<readonly Row[]> => {
    // SQL differs between databases, and a process may see more than one.
    const { adapter } = db.getExecutor();
    let query = compiled.get(adapter);
    if (!query) {
      query = build(db).compile();
      compiled.set(adapter, query);
    }
    return (await db.executeQuery<Row>({ ...query, parameters })).rows;
  };
}
