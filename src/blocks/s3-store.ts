// A block store in an S3 bucket, or in anything that speaks S3: the same names as in a directory, below a prefix.
// docs/operating.md has the settings. An object appears whole and durable when its PUT is answered, so that `sync` has
// nothing to do.

import { S3Client } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { HeaderTooLong, Manifest, parseManifestHeader } from './manifest.ts';
import { S3Objects } from './s3-objects.ts';
import { corruptAttemptsMax, type S3Limits, S3Requests, s3Limits } from './s3-requests.ts';
import { type BlockName, type BlockStore, isSnapshotId, NoStoreError, StoreError } from './store.ts';
import {
  blockPath,
  checkedId,
  checkLength,
  corruptBlock,
  describeBlock,
  manifestPath,
  missingBlock,
  newStoreFile,
  parseStoreFile,
  verifyBlock,
} from './store-rules.ts';

const nothing = Buffer.alloc(0);

export interface S3StoreOptions {
  /** Makes an empty store where there is none. */
  readonly create: boolean;
  readonly limits?: Partial<S3Limits>;
}

/**
 * Opens the store at `s3://bucket/prefix`. Region and credentials come from the environment or the profile, as the AWS
 * SDKs find them; COFFER_S3_ENDPOINT is the address of a server other than AWS's, which is then asked with the bucket in
 * the path. Rejects with StoreError: `Denied` without credentials that the server takes.
 */
export async function openS3Store(location: string, options: S3StoreOptions): Promise<BlockStore> {
  const { bucket, prefix } = parseLocation(location);
  const limits = { ...s3Limits, ...options.limits };
  const endpoint = process.env.COFFER_S3_ENDPOINT || undefined;
  const client = new S3Client({
    ...(endpoint && { endpoint, forcePathStyle: true }),
    // Without any region set, the SDK would refuse to ask even a server that has none.
    ...(endpoint && !process.env.AWS_REGION && { region: process.env.AWS_DEFAULT_REGION || 'us-east-1' }),
    maxAttempts: 1,
    // The signature covers a SHA-256 of every body, which the server checks; other checksums not every server knows.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: new NodeHttpHandler({
      connectionTimeout: limits.connectTimeoutMs,
      httpAgent: { keepAlive: true, maxSockets: limits.requests },
      httpsAgent: { keepAlive: true, maxSockets: limits.requests },
    }),
  });
  const objects = new S3Objects(client, new S3Requests(location, limits), bucket, prefix, limits.partBytes);
  try {
    return new S3Store(location, await storeId(objects, location, options.create), objects);
  } catch (error) {
    client.destroy();
    throw error;
  }
}

function parseLocation(location: string): { readonly bucket: string; readonly prefix: string } {
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([A-Za-z0-9!_.*'()/-]*))?$/.exec(location);
  const prefix = match?.[2]?.replace(/\/+$/, '') ?? '';
  if (
    !match ||
    prefix.split('/').some((part, _, all) => all.length > 1 && (part === '' || part === '.' || part === '..'))
  ) {
    throw new RangeError(`${JSON.stringify(location)} is no S3 location: it looks like s3://bucket/prefix`);
  }
  return { bucket: match[1]!, prefix: prefix === '' ? '' : `${prefix}/` };
}

async function storeId(objects: S3Objects, location: string, create: boolean): Promise<string> {
  const read = () =>
    readIntact(
      () => objects.get('store.json', "store.json can't be read"),
      (bytes) => parseStoreFile(bytes.toString('utf8'), location),
    );
  const before = await read();
  if (before) return parseStoreFile(before.toString('utf8'), location);
  if (!create) throw new NoStoreError(location);
  for (const folder of ['blocks/', 'manifests/']) {
    for await (const _ of objects.list(folder)) {
      throw new StoreError('Corrupt', 'the block store has lost its store.json', { detail: location });
    }
  }
  await objects.putIfAbsent('store.json', Buffer.from(newStoreFile()), "store.json can't be written");
  const now = await read();
  if (!now) throw new StoreError('Unavailable', 'store.json of the block store is gone again', { detail: location });
  return parseStoreFile(now.toString('utf8'), location);
}

/**
 * What arrives damaged may have been damaged on its way, so it is read again before it is believed to be stored so: that is
 * then for whoever parses it to say.
 */
async function readIntact(
  read: () => Promise<Buffer | undefined>,
  parse: (bytes: Buffer) => unknown,
): Promise<Buffer | undefined> {
  for (let number = 1; ; number++) {
    const bytes = await read();
    if (!bytes || number === corruptAttemptsMax) return bytes;
    try {
      parse(bytes);
      return bytes;
    } catch (error) {
      if (error instanceof HeaderTooLong) return bytes;
    }
  }
}

class S3Store implements BlockStore {
  readonly id: string;
  readonly location: string;
  readonly #objects: S3Objects;

  constructor(location: string, id: string, objects: S3Objects) {
    this.location = location;
    this.id = id;
    this.#objects = objects;
  }

  async getBlock(name: BlockName, sha256: Uint8Array, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    checkLength(bytes);
    const what = `block ${describeBlock(name)} can't be read`;
    const isThere = await this.#objects.getInto(blockPath(name), what, bytes, {
      signal,
      wrongLength: (length) => corruptBlock(this, name, `it has ${length} bytes`),
      check: () => verifyBlock(this, name, sha256, bytes),
    });
    if (!isThere) throw missingBlock(this, name);
  }

  async putBlock(name: BlockName, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    checkLength(bytes);
    await this.#objects.put(blockPath(name), bytes, `block ${describeBlock(name)} can't be written`, signal);
  }

  async copyBlock(from: BlockName, to: BlockName, signal?: AbortSignal): Promise<void> {
    const what = `block ${describeBlock(from)} can't be copied`;
    if (!(await this.#objects.copy(blockPath(from), blockPath(to), what, signal))) throw missingBlock(this, from);
  }

  async deleteBlocks(names: readonly BlockName[], signal?: AbortSignal): Promise<void> {
    await this.#objects.deleteAll(names.map(blockPath), "blocks can't be deleted", signal);
  }

  async *listBlocks(owner?: string, signal?: AbortSignal): AsyncGenerator<BlockName> {
    const folder = owner === undefined ? 'blocks/' : `blocks/${checkedId(owner)}/`;
    for await (const path of this.#objects.list(folder, signal)) {
      const match = /^blocks\/([^/]+)\/([0-9a-f]{4})\/([0-9a-f]{8})$/.exec(path);
      if (match && isSnapshotId(match[1])) yield { owner: match[1], index: Number.parseInt(match[3]!, 16) };
    }
  }

  async *listOwners(signal?: AbortSignal): AsyncGenerator<string> {
    for await (const folder of this.#objects.listFolders('blocks/', signal)) if (isSnapshotId(folder)) yield folder;
  }

  blockStoredAt(name: BlockName, signal?: AbortSignal): Promise<number | undefined> {
    return this.#objects.storedAt(blockPath(name), `block ${describeBlock(name)} can't be looked at`, signal);
  }

  async getManifest(snapshotId: string, signal?: AbortSignal): Promise<Buffer | undefined> {
    const what = `the manifest of ${snapshotId} can't be read`;
    return readIntact(
      () => this.#objects.get(manifestPath(snapshotId), what, signal),
      (bytes) => Manifest.parse(bytes, { snapshotId, location: this.location }),
    );
  }

  async getManifestStart(snapshotId: string, length: number, signal?: AbortSignal): Promise<Buffer | undefined> {
    const what = `the manifest of ${snapshotId} can't be read`;
    return readIntact(
      () => this.#objects.getStart(manifestPath(snapshotId), what, length, signal),
      (bytes) => parseManifestHeader(bytes, { snapshotId, location: this.location }),
    );
  }

  async putManifest(snapshotId: string, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    await this.#objects.put(manifestPath(snapshotId), bytes, `the manifest of ${snapshotId} can't be written`, signal);
  }

  async deleteManifest(snapshotId: string, signal?: AbortSignal): Promise<void> {
    await this.#objects.delete(manifestPath(snapshotId), `the manifest of ${snapshotId} can't be deleted`, signal);
  }

  listManifests(signal?: AbortSignal): AsyncIterable<string> {
    return this.#listIds('manifests/', '.manifest', signal);
  }

  async putMark(snapshotId: string, signal?: AbortSignal): Promise<void> {
    await this.#objects.put(`marks/${checkedId(snapshotId)}`, nothing, `${snapshotId} can't be marked`, signal);
  }

  async deleteMark(snapshotId: string, signal?: AbortSignal): Promise<void> {
    await this.#objects.delete(`marks/${checkedId(snapshotId)}`, `the mark of ${snapshotId} can't be deleted`, signal);
  }

  listMarks(signal?: AbortSignal): AsyncIterable<string> {
    return this.#listIds('marks/', '', signal);
  }

  async putFreeing(snapshotId: string, signal?: AbortSignal): Promise<void> {
    await this.#objects.put(`freeing/${checkedId(snapshotId)}`, nothing, `${snapshotId} can't be marked`, signal);
  }

  async deleteFreeing(snapshotId: string, signal?: AbortSignal): Promise<void> {
    await this.#objects.delete(
      `freeing/${checkedId(snapshotId)}`,
      `the mark of ${snapshotId} can't be deleted`,
      signal,
    );
  }

  listFreeing(signal?: AbortSignal): AsyncIterable<string> {
    return this.#listIds('freeing/', '', signal);
  }

  async sync(): Promise<void> {}

  async syncBlocks(): Promise<void> {}

  close(): void {
    this.#objects.close();
  }

  async *#listIds(folder: string, ending: string, signal?: AbortSignal): AsyncGenerator<string> {
    for await (const path of this.#objects.list(folder, signal)) {
      if (!path.endsWith(ending)) continue;
      const id = path.slice(folder.length, path.length - ending.length);
      if (isSnapshotId(id)) yield id;
    }
  }
}
