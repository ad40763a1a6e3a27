// Fills a data directory whose server is stopped with keys, aliases and grants: copies of ones that the server made itself,
// so that the rows are what this version writes, with ids and key material of their own.

import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { sealEnvelope } from '../src/crypto/envelope.ts';
import { loadRootKeyFile } from '../src/crypto/root-key.ts';

export interface FillOrders {
  readonly dataDir: string;
  /** The key to copy; it stays, as the one with the most grants. It has an alias. */
  readonly keyId: string;
  /** A grant on it to copy: each key gets one for the same grantee, the others are for hosts of instances. */
  readonly grantId: string;
  /** How many keys there are in the end. */
  readonly keys: number;
  /** How many grants in the end; all but `grantsOnFirst` are spread evenly over the other keys. */
  readonly grants: number;
  readonly grantsOnFirst: number;
  /** Of how many keys ciphertexts are made, bound to `context`. */
  readonly samples: number;
  readonly context: Readonly<Record<string, string>>;
}

export interface FilledKey {
  readonly keyId: string;
  readonly alias: string;
  /** Base64. */
  readonly ciphertext: string;
}

type Row = Record<string, string | number | null | Uint8Array>;

/** @returns the sample, taken evenly from all the keys but the first */
export function fillKeys(orders: FillOrders): FilledKey[] {
  const { dataDir, keys, grants, grantsOnFirst, samples, context } = orders;
  const rootKey = loadRootKeyFile(join(dataDir, 'root.key'), { mayMake: false });
  const database = new DatabaseSync(join(dataDir, 'coffer.db'));
  try {
    // It is a benchmark's: when the machine dies meanwhile, it is made anew.
    database.exec('pragma synchronous = off; pragma cache_size = -1000000; begin');
    const rowOf = (table: string, column: string, value: string) =>
      database.prepare(`select * from ${table} where ${column} = ?`).get(value) as Row;
    const key = rowOf('kms_keys', 'key_id', orders.keyId);
    const material = rowOf('kms_material', 'key_id', orders.keyId);
    const alias = rowOf('kms_aliases', 'key_id', orders.keyId);
    const grant = rowOf('kms_grants', 'grant_id', orders.grantId);
    const restoreIndexes = dropIndexes(database, 'kms_grants');
    const insertKey = inserter(database, 'kms_keys', key);
    const insertMaterial = inserter(database, 'kms_material', material);
    const insertAlias = inserter(database, 'kms_aliases', alias);
    const insertGrant = inserter(database, 'kms_grants', grant);

    const addGrants = (keyId: string, first: number, count: number) => {
      for (let i = first; i < count; i++) {
        const host = `arn:aws:sts::${grant.account}:assumed-role/aws:ec2-infrastructure/i-${hex(17)}`;
        const grantee = i === 0 ? grant.grantee! : host;
        insertGrant({ key_id: keyId, grant_id: hex(64), grantee });
      }
    };
    addGrants(orders.keyId, 1, grantsOnFirst);
    const sample: FilledKey[] = [];
    const others = keys - 1;
    const sampleEvery = Math.max(1, Math.floor(others / samples));
    for (let i = 0; i < others; i++) {
      const [keyId, materialId] = [randomUUID(), randomUUID()];
      // As many to each as go, and one more to the first ones.
      const ofKey = Math.floor((grants - grantsOnFirst) / others) + (i < (grants - grantsOnFirst) % others ? 1 : 0);
      const secret = randomBytes(32);
      insertKey({ key_id: keyId, material_id: materialId, grant_count: ofKey });
      const sealed = rootKey.seal('kms-material', secret, `${keyId}/${materialId}`);
      insertMaterial({ key_id: keyId, material_id: materialId, sealed });
      insertAlias({ key_id: keyId, alias_name: `alias/filled/${keyId}` });
      addGrants(keyId, 0, ofKey);
      if (i % sampleEvery === 0 && sample.length < samples) {
        const sender = { keyId: uuidBytes(keyId), materialId: uuidBytes(materialId) };
        const ciphertext = sealEnvelope(secret, sender, Buffer.alloc(64, 7), context).toString('base64');
        sample.push({ keyId, alias: `alias/filled/${keyId}`, ciphertext });
      }
      secret.fill(0);
    }
    database.prepare('update kms_keys set grant_count = ? where key_id = ?').run(grantsOnFirst, orders.keyId);
    restoreIndexes();
    database.exec('commit; pragma wal_checkpoint(truncate)');
    return sample;
  } finally {
    database.close();
    rootKey.wipe();
  }
}

/** Inserts copies of a row with some columns changed. */
function inserter(database: DatabaseSync, table: string, template: Row): (columns: Row) => void {
  const names = Object.keys(template);
  const statement = database.prepare(
    `insert into ${table} (${names.join(', ')}) values (${names.map(() => '?').join(', ')})`,
  );
  return (columns) => {
    statement.run(...names.map((name) => (name in columns ? columns[name]! : template[name]!)));
  };
}

/** Indexes are made faster at once than row by row. */
function dropIndexes(database: DatabaseSync, table: string): () => void {
  const indexes = database
    .prepare("select name, sql from sqlite_master where type = 'index' and tbl_name = ? and sql is not null")
    .all(table) as { name: string; sql: string }[];
  for (const { name } of indexes) database.exec(`drop index ${name}`);
  return () => {
    for (const { sql } of indexes) database.exec(sql);
  };
}

const hex = (digits: number) =>
  randomBytes(Math.ceil(digits / 2))
    .toString('hex')
    .slice(0, digits);
const uuidBytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');
