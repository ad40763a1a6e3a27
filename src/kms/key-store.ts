/**
 * Keys as operations see them: read from the database, parsed once, and kept as long as their revision is the one in the
 * database. Each look-up asks the database for the revision (one indexed read), so a cached key is right by itself after
 * writes, rolled-back writes and restarts alike; nothing has to be invalidated.
 */
import { randomInt } from 'node:crypto';
import type { Kysely, Selectable } from 'kysely';
import type { AnyDatabase, Call } from '../aws/call.ts';
import { type PrincipalIds, withPrincipals } from '../aws/policy-principals.ts';
import type { PolicyDocument } from '../aws/service.ts';
import type { EnvelopeSender } from '../crypto/envelope.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { idBytes, keyArn, keyMaterialId } from './key-ids.ts';
import type { Material } from './key-specs.ts';
import { Lru } from './lru.ts';
import { type KeyName, MaterialStore } from './material-store.ts';
import { prepared } from './prepared.ts';
import type { KmsTables } from './records.ts';

type KeyRow = Selectable<KmsTables['kms_keys']>;

export interface Key extends Omit<KeyRow, 'grant_count'> {
  readonly arn: string;
  /** The key policy, with unique ids for the users, roles and sessions that it names. */
  readonly policyDocument: PolicyDocument;
  readonly tags: Readonly<Record<string, string>>;
  /** Alias names, the managed one included. */
  readonly aliases: readonly string[];
  /** The policy condition keys that follow from the key alone. */
  readonly conditions: Readonly<Record<string, string | readonly string[]>>;
  /** What its ciphertext blobs begin with; absent until there is material. */
  readonly sender?: EnvelopeSender;
  /** The API's KeyMaterialId of the current material: 64 hexadecimal digits. */
  readonly keyMaterialId?: string;
  /** For a multi-Region key: the regions that have one of the related keys. */
  readonly multiRegion?: { readonly primary: string; readonly replicas: readonly string[] };
}

/** Columns that a new key has only if it is of a particular kind. */
const ordinary = {
  deletion_window_days: null,
  material_id: null,
  materials_missing: 0,
  material_expires_at: null,
  primary_region: null,
  rotation_period_days: null,
  next_rotation_at: null,
  principals: null,
} as const;

/** A key before it is stored. */
export type NewKey = Omit<KeyRow, 'revision' | 'grant_count' | keyof typeof ordinary> &
  Partial<Pick<KeyRow, keyof typeof ordinary>>;

/** Where keys are looked up: the database, and the time, at which imported material may have expired. */
type Place = Pick<Call, 'db' | 'clock'>;

/** How many parsed keys (a policy may have 32 KiB) are kept in memory. */
const cachedKeysMax = 1024;

export class KeyStore {
  readonly #rootKey: RootKey;
  readonly #keys = new Lru<string, Key>(cachedKeysMax);
  readonly materials: MaterialStore;

  constructor(rootKey: RootKey) {
    this.#rootKey = rootKey;
    this.materials = new MaterialStore(rootKey);
  }

  /** The root key also seals grant tokens. */
  get rootKey(): RootKey {
    return this.#rootKey;
  }

  /** A key of any account in a region, or undefined. */
  async byId(place: Place, region: string, keyId: string): Promise<Key | undefined> {
    const [row] = await revisionById(place.db, [keyId, region]);
    return row && this.#current(place, region, keyId, row.revision);
  }

  /** The key that an alias of an account points to, or undefined. */
  async byAlias(place: Place, account: string, region: string, alias: string): Promise<Key | undefined> {
    const rows = alias.startsWith(managedAliasPrefix)
      ? await revisionByManagedAlias(place.db, [account, region, alias])
      : await revisionByAlias(place.db, [account, region, alias]);
    const row = rows[0];
    return row && this.#current(place, region, row.key_id, row.revision);
  }

  /**
   * Gives `use` the material `materialId` of a key, unsealed, for the time of that call alone.
   * @returns undefined when the key has no such material
   */
  withMaterial<T>(db: AnyDatabase, key: Key, materialId: string, use: (material: Buffer) => T): Promise<T | undefined> {
    // That the key has its current material was read with the key; of any other the database is asked.
    return this.materials.use(db, key, materialId, materialId === key.material_id, use);
  }

  /** Gives `use` the private key of an asymmetric key (PKCS #8, DER) for the time of that call alone. */
  withPrivateKey<T>(db: AnyDatabase, key: Key, use: (privateKey: Buffer) => T): Promise<T> {
    return this.materials.usePrivateKey(db, key, key.material_id!, use);
  }

  /** The public key of an asymmetric key: SubjectPublicKeyInfo, DER. */
  publicKey(db: AnyDatabase, key: Key): Promise<Buffer> {
    return this.materials.publicKey(db, key, key.material_id!);
  }

  /** Stores a new key, with its material if it has some by now; `material.secret` is the caller's to wipe. */
  async insert(place: Place, key: NewKey, material: Material | undefined): Promise<Key> {
    const kms: Kysely<KmsTables> = place.db;
    // The material first: without its key it is only unused, a key without its material could not be mended.
    const made = material
      ? { material_id: await this.materials.addFirst(place.db, key, material, key.created_at) }
      : {};
    await kms
      .insertInto('kms_keys')
      .values({ ...ordinary, ...key, ...made, revision: newRevision(), grant_count: 0 })
      .execute();
    if (key.primary_region) await this.updateRelated(place.db, key.key_id);
    return (await this.byId(place, key.region, key.key_id))!;
  }

  /** Changes columns of a key, and with them its revision. Without columns: says that its aliases or tags changed. */
  async update(db: AnyDatabase, key: KeyName, columns: Partial<KeyRow> = {}): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await kms
      .updateTable('kms_keys')
      .set({ ...columns, revision: newRevision() })
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .execute();
  }

  /** The same for all related keys of a multi-Region key. Without columns: says that one came or went. */
  async updateRelated(db: AnyDatabase, keyId: string, columns: Partial<KeyRow> = {}): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await kms
      .updateTable('kms_keys')
      .set({ ...columns, revision: newRevision() })
      .where('key_id', '=', keyId)
      .execute();
  }

  /** Destroys a key: its material first, then all that belongs to it, then its record. */
  async destroy(db: AnyDatabase, key: Key): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await this.materials.removeAll(db, key);
    for (const table of ['kms_wrapping_keys', 'kms_grants', 'kms_aliases', 'kms_tags', 'kms_keys'] as const)
      await kms.deleteFrom(table).where('key_id', '=', key.key_id).where('region', '=', key.region).execute();
    if (key.multiRegion) await this.updateRelated(db, key.key_id);
    this.#keys.delete(cacheKey(key.region, key.key_id));
  }

  async #current({ db, clock }: Place, region: string, keyId: string, revision: number): Promise<Key> {
    const name = cacheKey(region, keyId);
    let key = this.#keys.get(name);
    if (key?.revision !== revision) {
      key = await readKey(db, region, keyId);
      this.#keys.set(name, key);
    }
    const isExpired = key.material_expires_at !== null && key.material_expires_at <= clock.now();
    return isExpired ? expired(key) : key;
  }
}

/** A key as it is from the moment on at which imported material expires, whenever that is then destroyed. */
function expired(key: Key): Key {
  const state = key.state === 'Enabled' || key.state === 'Disabled' ? 'PendingImport' : key.state;
  return { ...key, state, materials_missing: Math.max(1, key.materials_missing), material_expires_at: null };
}

export { keyArn };

/** Whether a key is still as it was read. */
export async function isCurrent(db: AnyDatabase, key: Key): Promise<boolean> {
  const [row] = await revisionById(db, [key.key_id, key.region]);
  return row?.revision === key.revision;
}

/** Aliases under this prefix belong to AWS managed keys. */
export const managedAliasPrefix = 'alias/aws/';

const cacheKey = (region: string, keyId: string) => `${region}/${keyId}`;

const revisionById = prepared((db) =>
  db.selectFrom('kms_keys').select('revision').where('key_id', '=', '').where('region', '=', ''),
);
const revisionByAlias = prepared((db) =>
  db
    .selectFrom('kms_aliases as a')
    .innerJoin('kms_keys as k', (join) => join.onRef('k.key_id', '=', 'a.key_id').onRef('k.region', '=', 'a.region'))
    .select(['k.key_id', 'k.revision'])
    .where('a.account', '=', '')
    .where('a.region', '=', '')
    .where('a.alias_name', '=', ''),
);
const revisionByManagedAlias = prepared((db) =>
  db
    .selectFrom('kms_keys')
    .select(['key_id', 'revision'])
    .where('account', '=', '')
    .where('region', '=', '')
    .where('managed_alias', '=', ''),
);
const keyById = prepared((db) =>
  db.selectFrom('kms_keys').selectAll().where('key_id', '=', '').where('region', '=', ''),
);
const aliasesOf = prepared((db) =>
  db
    .selectFrom('kms_aliases')
    .select('alias_name')
    .where('key_id', '=', '')
    .where('region', '=', '')
    .orderBy('alias_name'),
);
const tagsOf = prepared((db) =>
  db
    .selectFrom('kms_tags')
    .select(['tag_key', 'tag_value'])
    .where('key_id', '=', '')
    .where('region', '=', '')
    .orderBy('tag_key'),
);

/** Where there are more keys than are kept in memory, most uses of one begin with this. */
async function readKey(db: AnyDatabase, region: string, keyId: string): Promise<Key> {
  const name = [keyId, region];
  const [row] = await keyById(db, name);
  if (!row) throw new Error(`key ${keyId} is not there`);
  const aliases = await aliasesOf(db, name);
  const tags = await tagsOf(db, name);
  const related = row.primary_region === null ? [] : await regionsOf(db, keyId);
  const { grant_count: _, ...columns } = row;
  const names = [...(row.managed_alias ? [row.managed_alias] : []), ...aliases.map((alias) => alias.alias_name)];
  return {
    ...columns,
    arn: keyArn(row),
    policyDocument: withPrincipals(
      JSON.parse(row.policy) as PolicyDocument,
      JSON.parse(row.principals ?? '{}') as PrincipalIds,
    ),
    tags: Object.fromEntries(tags.map((tag) => [tag.tag_key, tag.tag_value])),
    aliases: names,
    conditions: {
      'kms:KeySpec': row.key_spec,
      'kms:KeyUsage': row.key_usage,
      // Their names of old, which policies may still have.
      'kms:CustomerMasterKeySpec': row.key_spec,
      'kms:CustomerMasterKeyUsage': row.key_usage,
      'kms:KeyOrigin': row.origin,
      'kms:MultiRegion': String(row.primary_region !== null),
      ...(row.primary_region !== null
        ? { 'kms:MultiRegionKeyType': row.primary_region === region ? 'PRIMARY' : 'REPLICA' }
        : {}),
      ...(names.length > 0 ? { 'kms:ResourceAliases': names } : {}),
      ...Object.fromEntries(tags.map((tag) => [`aws:ResourceTag/${tag.tag_key}`, tag.tag_value])),
    },
    ...(row.material_id
      ? {
          sender: { keyId: idBytes(row.key_id), materialId: idBytes(row.material_id) },
          keyMaterialId: keyMaterialId(row.key_id, row.material_id),
        }
      : {}),
    ...(row.primary_region !== null
      ? {
          multiRegion: { primary: row.primary_region, replicas: related.filter((name) => name !== row.primary_region) },
        }
      : {}),
  };
}

async function regionsOf(db: AnyDatabase, keyId: string): Promise<readonly string[]> {
  const kms: Kysely<KmsTables> = db;
  const rows = await kms
    .selectFrom('kms_keys')
    .select('region')
    .where('key_id', '=', keyId)
    .orderBy('region')
    .execute();
  return rows.map((row) => row.region);
}

/** Whoever has read a key at a revision knows all that is of it, its grants included, while that is its revision. */
export const newRevision = () => randomInt(2 ** 48 - 1);
