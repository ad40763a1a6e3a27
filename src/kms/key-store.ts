/**
 * Keys as operations see them: read from the database, parsed once, and kept as long as their revision is the one in the
 * database. Each look-up asks the database for the revision (one indexed read), so a cached key is right by itself after
 * writes, rolled-back writes and restarts alike; nothing has to be invalidated.
 */
import { createHash, randomInt, randomUUID } from 'node:crypto';
import type { Kysely, Selectable } from 'kysely';
import { formatArn } from '../aws/arn.ts';
import type { AnyDatabase } from '../aws/call.ts';
import type { PolicyDocument } from '../aws/service.ts';
import type { EnvelopeSender } from '../crypto/envelope.ts';
import type { RootKey } from '../crypto/root-key.ts';
import type { Material } from './key-specs.ts';
import { Lru } from './lru.ts';
import { prepared } from './prepared.ts';
import type { KmsTables } from './records.ts';

type KeyRow = Selectable<KmsTables['kms_keys']>;

export interface Key extends Omit<KeyRow, 'grant_count'> {
  readonly arn: string;
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
}

/** A key before it is stored. */
export type NewKey = Omit<KeyRow, 'revision' | 'material_id' | 'grant_count'>;

/** How many parsed keys (a policy may have 32 KiB) and how many unsealed materials are kept in memory. */
const cachedKeysMax = 1024;
const cachedMaterialsMax = 4096;

export class KeyStore {
  readonly #rootKey: RootKey;
  readonly #keys = new Lru<string, Key>(cachedKeysMax);
  readonly #materials = new Lru<string, Buffer>(cachedMaterialsMax, (material) => material.fill(0));

  constructor(rootKey: RootKey) {
    this.#rootKey = rootKey;
  }

  /** The root key also seals grant tokens. */
  get rootKey(): RootKey {
    return this.#rootKey;
  }

  /** A key of any account in a region, or undefined. */
  async byId(db: AnyDatabase, region: string, keyId: string): Promise<Key | undefined> {
    const [row] = await revisionById(db, [keyId, region]);
    return row && this.#current(db, region, keyId, row.revision);
  }

  /** The key that an alias of an account points to, or undefined. */
  async byAlias(db: AnyDatabase, account: string, region: string, alias: string): Promise<Key | undefined> {
    const rows = alias.startsWith(managedAliasPrefix)
      ? await revisionByManagedAlias(db, [account, region, alias])
      : await revisionByAlias(db, [account, region, alias]);
    const row = rows[0];
    return row && this.#current(db, region, row.key_id, row.revision);
  }

  /**
   * Gives `use` the material `materialId` of a key, unsealed, for the time of that call alone.
   * @returns undefined when the key has no such material
   */
  async withMaterial<T>(
    db: AnyDatabase,
    key: Key,
    materialId: string,
    use: (material: Buffer) => T,
  ): Promise<T | undefined> {
    // That the key has its current material was read with the key; of any other the database is asked.
    const cached = materialId === key.material_id ? this.#materials.get(materialId) : undefined;
    if (cached) return use(cached);
    const [row] = await sealedMaterial(db, [materialId, key.key_id, key.region]);
    if (!row) return undefined;
    const material = this.#rootKey.open(materialPurpose, row.sealed, `${key.key_id}/${materialId}`);
    this.#materials.set(materialId, material);
    return use(material);
  }

  /**
   * Gives `use` the private key of an asymmetric key (PKCS #8, DER) for the time of that call alone: it is unsealed anew
   * each time, and wiped when `use` returns. What OpenSSL makes of it, it wipes as it frees it; for a KeyObject that is
   * when the garbage collector comes, and nothing in Node.js can hasten that.
   */
  async withPrivateKey<T>(db: AnyDatabase, key: Key, use: (privateKey: Buffer) => T): Promise<T> {
    const [row] = await sealedMaterial(db, [key.material_id!, key.key_id, key.region]);
    const privateKey = this.#rootKey.open(materialPurpose, row!.sealed, `${key.key_id}/${key.material_id}`);
    try {
      return use(privateKey);
    } finally {
      privateKey.fill(0);
    }
  }

  /** The public key of an asymmetric key: SubjectPublicKeyInfo, DER. */
  async publicKey(db: AnyDatabase, key: Key): Promise<Buffer> {
    const [row] = await publicMaterial(db, [key.material_id!, key.key_id, key.region]);
    return Buffer.from(row!.public_key!);
  }

  /** Stores a new key, with its material if it has some by now; `material.secret` is the caller's to wipe. */
  async insert(db: AnyDatabase, key: NewKey, material: Material | undefined): Promise<Key> {
    const kms: Kysely<KmsTables> = db;
    // The material first: without its key it is only unused, a key without its material could not be mended.
    const materialId = material ? await this.#insertMaterial(kms, key, material) : null;
    await kms
      .insertInto('kms_keys')
      .values({ ...key, revision: newRevision(), material_id: materialId, grant_count: 0 })
      .execute();
    return (await this.byId(db, key.region, key.key_id))!;
  }

  /** Changes columns of a key, and with them its revision. Without columns: says that its aliases or tags changed. */
  async update(db: AnyDatabase, key: { key_id: string; region: string }, columns: Partial<KeyRow> = {}): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await kms
      .updateTable('kms_keys')
      .set({ ...columns, revision: newRevision() })
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .execute();
  }

  /** Destroys a key: its material first, then all that belongs to it, then its record. */
  async destroy(db: AnyDatabase, key: Key): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    const materials = await kms
      .deleteFrom('kms_material')
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .returning('material_id')
      .execute();
    for (const { material_id } of materials) this.#materials.delete(material_id);
    for (const table of ['kms_grants', 'kms_aliases', 'kms_tags', 'kms_keys'] as const)
      await kms.deleteFrom(table).where('key_id', '=', key.key_id).where('region', '=', key.region).execute();
    this.#keys.delete(cacheKey(key.region, key.key_id));
  }

  async #insertMaterial(kms: Kysely<KmsTables>, key: NewKey, material: Material): Promise<string> {
    const materialId = randomUUID();
    await kms
      .insertInto('kms_material')
      .values({
        material_id: materialId,
        key_id: key.key_id,
        region: key.region,
        sealed: this.#rootKey.seal(materialPurpose, material.secret, `${key.key_id}/${materialId}`),
        public_key: material.publicKey ?? null,
        created_at: key.created_at,
      })
      .execute();
    return materialId;
  }

  async #current(db: AnyDatabase, region: string, keyId: string, revision: number): Promise<Key> {
    const cached = this.#keys.get(cacheKey(region, keyId));
    if (cached?.revision === revision) return cached;
    const key = await readKey(db, region, keyId);
    this.#keys.set(cacheKey(region, keyId), key);
    return key;
  }
}

/** Aliases under this prefix belong to AWS managed keys. */
export const managedAliasPrefix = 'alias/aws/';

const materialPurpose = 'kms-material';
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
const sealedMaterial = prepared((db) =>
  db
    .selectFrom('kms_material')
    .select('sealed')
    .where('material_id', '=', '')
    .where('key_id', '=', '')
    .where('region', '=', ''),
);
const publicMaterial = prepared((db) =>
  db
    .selectFrom('kms_material')
    .select('public_key')
    .where('material_id', '=', '')
    .where('key_id', '=', '')
    .where('region', '=', ''),
);

async function readKey(db: AnyDatabase, region: string, keyId: string): Promise<Key> {
  const kms: Kysely<KmsTables> = db;
  const row = await kms
    .selectFrom('kms_keys')
    .selectAll()
    .where('key_id', '=', keyId)
    .where('region', '=', region)
    .executeTakeFirstOrThrow();
  const aliases = await kms
    .selectFrom('kms_aliases')
    .select('alias_name')
    .where('key_id', '=', keyId)
    .where('region', '=', region)
    .orderBy('alias_name')
    .execute();
  const tags = await kms
    .selectFrom('kms_tags')
    .select(['tag_key', 'tag_value'])
    .where('key_id', '=', keyId)
    .where('region', '=', region)
    .orderBy('tag_key')
    .execute();
  const { grant_count: _, ...columns } = row;
  const names = [...(row.managed_alias ? [row.managed_alias] : []), ...aliases.map((alias) => alias.alias_name)];
  return {
    ...columns,
    arn: keyArn(row),
    policyDocument: JSON.parse(row.policy) as PolicyDocument,
    tags: Object.fromEntries(tags.map((tag) => [tag.tag_key, tag.tag_value])),
    aliases: names,
    conditions: {
      'kms:KeySpec': row.key_spec,
      'kms:KeyUsage': row.key_usage,
      'kms:KeyOrigin': row.origin,
      'kms:MultiRegion': 'false',
      ...(names.length > 0 ? { 'kms:ResourceAliases': names } : {}),
      ...Object.fromEntries(tags.map((tag) => [`aws:ResourceTag/${tag.tag_key}`, tag.tag_value])),
    },
    ...(row.material_id
      ? {
          sender: { keyId: uuidBytes(row.key_id), materialId: uuidBytes(row.material_id) },
          keyMaterialId: keyMaterialId(row.key_id, row.material_id),
        }
      : {}),
  };
}

export function keyArn(key: { region: string; account: string; key_id: string }): string {
  return formatArn('kms', key.region, key.account, `key/${key.key_id}`);
}

/** The API's name for a material: 64 hexadecimal digits that say nothing about its bytes. */
export function keyMaterialId(keyId: string, materialId: string): string {
  return createHash('sha256').update(`${keyId}/${materialId}`).digest('hex');
}

export function uuidBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

/** The UUID that 16 bytes write. */
export function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const newRevision = () => randomInt(2 ** 48 - 1);
