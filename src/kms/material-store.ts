/** Key material at rest: sealed by the root key, one row for each material of each key. */
import { randomUUID } from 'node:crypto';
import type { Kysely, Selectable } from 'kysely';
import type { AnyDatabase } from '../aws/call.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { forgetForGood } from '../database/forgetting.ts';
import { uuidText } from './key-ids.ts';
import type { Material } from './key-specs.ts';
import { Lru } from './lru.ts';
import { prepared } from './prepared.ts';
import type { KmsTables } from './records.ts';

type MaterialRow = Selectable<KmsTables['kms_material']>;

/** What is known of a material without unsealing it. */
export interface MaterialInfo extends Omit<MaterialRow, 'sealed' | 'public_key'> {
  /** Whether its bytes are here: imported material can be deleted or expired. */
  readonly isPresent: boolean;
}

/** A key as rows name it. */
export interface KeyName {
  readonly key_id: string;
  readonly region: string;
}

/** A material to store; one without `material` is known by its id alone until it is imported. */
export interface NewMaterial extends Omit<MaterialRow, 'sealed' | 'public_key' | 'key_id' | 'region'> {
  readonly material?: Material;
}

/** How many unsealed materials are kept in memory. */
const cachedMax = 4096;

export class MaterialStore {
  readonly #rootKey: RootKey;
  readonly #unsealed = new Lru<string, Buffer>(cachedMax, (material) => material.fill(0));

  constructor(rootKey: RootKey) {
    this.#rootKey = rootKey;
  }

  /**
   * Gives `use` the material of a key, unsealed, for the time of that call alone.
   * @param isKnown the caller has read that the key has it, and that it is present; otherwise the database is asked
   * @returns undefined when the key has no such material, or it is not present
   */
  async use<T>(
    db: AnyDatabase,
    key: KeyName,
    materialId: string,
    isKnown: boolean,
    use: (material: Buffer) => T,
  ): Promise<T | undefined> {
    const name = cacheKey(key.region, materialId);
    const cached = isKnown ? this.#unsealed.get(name) : undefined;
    if (cached) return use(cached);
    const material = await this.#open(db, key, materialId);
    if (!material) return undefined;
    this.#unsealed.set(name, material);
    return use(material);
  }

  /**
   * The same for a private key (PKCS #8, DER): unsealed anew each time, and wiped when `use` returns. What OpenSSL makes of
   * it, it wipes as it frees it; for a KeyObject that is when the garbage collector comes, and nothing in Node.js can
   * hasten that.
   */
  async usePrivateKey<T>(db: AnyDatabase, key: KeyName, materialId: string, use: (key: Buffer) => T): Promise<T> {
    const privateKey = (await this.#open(db, key, materialId))!;
    try {
      return use(privateKey);
    } finally {
      privateKey.fill(0);
    }
  }

  /** The public key of an asymmetric key: SubjectPublicKeyInfo, DER. */
  async publicKey(db: AnyDatabase, key: KeyName, materialId: string): Promise<Buffer> {
    const [row] = await publicMaterial(db, [materialId, key.key_id, key.region]);
    return Buffer.from(row!.public_key!);
  }

  /** Stores the first material of a new key; `material.secret` is the caller's to wipe. Resolves with its id. */
  async addFirst(db: AnyDatabase, key: KeyName, material: Material, createdAt: number): Promise<string> {
    const material_id = randomUUID();
    await this.add(db, key, { ...plain, material_id, ordinal: 1, state: 'CURRENT', created_at: createdAt, material });
    return material_id;
  }

  async add(db: AnyDatabase, key: KeyName, { material, ...row }: NewMaterial): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    const secrets = material ? this.#sealed(key, row.material_id, material) : { sealed: null, public_key: null };
    await kms
      .insertInto('kms_material')
      .values({ ...row, ...secrets, key_id: key.key_id, region: key.region })
      .execute();
  }

  /** Puts the bytes of a known material in place; what is there already is the same. */
  async fill(
    db: AnyDatabase,
    key: KeyName,
    materialId: string,
    material: Material,
    about: Pick<MaterialRow, 'expires_at'> & Partial<Pick<MaterialRow, 'description'>>,
  ): Promise<void> {
    await this.#update(db, key, materialId, { ...this.#sealed(key, materialId, material), ...about });
  }

  /** All materials of a key, in the order in which it got them. */
  async list(db: AnyDatabase, key: KeyName): Promise<readonly MaterialInfo[]> {
    const kms: Kysely<KmsTables> = db;
    const rows = await kms
      .selectFrom('kms_material')
      .select(({ eb }) => [
        ...infoColumns,
        eb.case().when('sealed', 'is not', null).then(1).else(0).end().as('is_present'),
      ])
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .orderBy('ordinal')
      .execute();
    return rows.map(({ is_present, ...row }) => ({ ...row, isPresent: is_present === 1 }));
  }

  /** Makes a material the one that a key encrypts with; the one before only decrypts from now on. */
  async makeCurrent(
    db: AnyDatabase,
    key: KeyName,
    materialId: string,
    rotation: Pick<MaterialRow, 'rotated_at' | 'rotation_type'>,
  ): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await kms
      .updateTable('kms_material')
      .set({ state: 'NON_CURRENT' })
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .where('state', '=', 'CURRENT')
      .execute();
    await this.#update(db, key, materialId, { state: 'CURRENT', ...rotation });
  }

  /** Destroys the bytes of a material, here and in memory; that the key has had it stays known. */
  async empty(db: AnyDatabase, key: KeyName, materialId: string): Promise<void> {
    this.#unsealed.delete(cacheKey(key.region, materialId));
    forgetForGood(db);
    await this.#update(db, key, materialId, { sealed: null, public_key: null, expires_at: null });
  }

  /** Destroys a material and forgets that the key has had it. */
  async remove(db: AnyDatabase, key: KeyName, materialId: string): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    this.#unsealed.delete(cacheKey(key.region, materialId));
    forgetForGood(db);
    await kms
      .deleteFrom('kms_material')
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .where('material_id', '=', materialId)
      .execute();
  }

  async removeAll(db: AnyDatabase, key: KeyName): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    forgetForGood(db);
    const rows = await kms
      .deleteFrom('kms_material')
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .returning('material_id')
      .execute();
    for (const { material_id } of rows) this.#unsealed.delete(cacheKey(key.region, material_id));
  }

  /**
   * Gives a replica the materials of its primary key, or, of a key whose material is imported, the knowledge of them.
   * Sealed bytes are bound to key and material, not to the region.
   */
  async copy(db: AnyDatabase, key: KeyName, region: string, options: { withSecrets: boolean }): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    const rows = await kms
      .selectFrom('kms_material')
      .selectAll()
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .execute();
    const without = options.withSecrets ? {} : { sealed: null, public_key: null, expires_at: null, description: null };
    for (const row of rows)
      await kms
        .insertInto('kms_material')
        .values({ ...row, region, ...without })
        .execute();
  }

  /**
   * The id of imported material: the same for the same material under the same key, so that what was encrypted before a
   * deletion is decrypted after the material has been imported again. Who does not have the root key learns nothing from it.
   */
  importedId(keyId: string, { secret, publicKey }: Material): string {
    // A private key has many encodings; its public half stands for them all.
    const name = Buffer.from(`${keyId}/`);
    const mac = this.#rootKey.fingerprint('kms-imported-material', name, publicKey ?? secret);
    return uuidText(mac.subarray(0, 16));
  }

  #sealed(key: KeyName, materialId: string, { secret, publicKey }: Material) {
    const sealed = this.#rootKey.seal(purpose, secret, `${key.key_id}/${materialId}`);
    return { sealed, public_key: publicKey ?? null };
  }

  async #open(db: AnyDatabase, key: KeyName, materialId: string): Promise<Buffer | undefined> {
    const [row] = await sealedMaterial(db, [materialId, key.key_id, key.region]);
    if (!row?.sealed) return undefined;
    return this.#rootKey.open(purpose, row.sealed, `${key.key_id}/${materialId}`);
  }

  async #update(db: AnyDatabase, key: KeyName, materialId: string, columns: Partial<MaterialRow>): Promise<void> {
    const kms: Kysely<KmsTables> = db;
    await kms
      .updateTable('kms_material')
      .set(columns)
      .where('key_id', '=', key.key_id)
      .where('region', '=', key.region)
      .where('material_id', '=', materialId)
      .execute();
  }
}

const purpose = 'kms-material';
const cacheKey = (region: string, materialId: string) => `${region}/${materialId}`;

/** A material that was neither rotated in nor imported. */
export const plain = { rotated_at: null, rotation_type: null, description: null, expires_at: null } as const;

const infoColumns = [
  'material_id',
  'key_id',
  'region',
  'ordinal',
  'state',
  'created_at',
  'rotated_at',
  'rotation_type',
  'description',
  'expires_at',
] as const;

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
