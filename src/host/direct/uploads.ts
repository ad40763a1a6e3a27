/**
 * Snapshots that are written from outside. A block is acknowledged when it and its record are on stable storage; those that
 * come at the same time share the waiting. Blocks are put under the snapshot's own name in the store, which is marked until
 * the manifest is there.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { CompleteUploadRequest, StartUploadRequest } from '../../aws/block-protocol.ts';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { Manifest, ManifestBuilder } from '../../blocks/manifest.ts';
import { type BlockStore, blockBytes, isSnapshotId } from '../../blocks/store.ts';
import { RequestRefused } from './request-refused.ts';
import { UploadFile } from './upload-file.ts';

interface Upload {
  readonly file: UploadFile;
  /** Puts of the same block go one after the other. */
  readonly busy: Map<number, Promise<void>>;
}

interface Unsynced {
  readonly upload: Upload;
  readonly index: number;
  readonly storedSha: Buffer;
  readonly plainSha: Buffer;
  readonly settle: (error?: unknown) => void;
}

export class Uploads {
  readonly #directory: string;
  readonly #store: BlockStore;
  readonly #open = new Map<string, Upload>();
  #unsynced: Unsynced[] = [];
  #isSyncing = false;

  constructor(directory: string, store: BlockStore) {
    this.#directory = directory;
    this.#store = store;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** Removes what is left of uploads that were given up: their marks are gone from the store. */
  async prune(): Promise<void> {
    const marked = new Set<string>();
    for await (const snapshotId of this.#store.listMarks()) marked.add(snapshotId);
    for (const name of readdirSync(this.#directory)) {
      const snapshotId = name.replace(/\.upload$/, '');
      if (!marked.has(snapshotId) && !this.#open.has(snapshotId)) rmSync(join(this.#directory, name), { force: true });
    }
  }

  async start(request: StartUploadRequest): Promise<void> {
    const { snapshotId, volumeId, sizeBytes, parentSnapshotId } = request;
    if (this.#find(snapshotId)) return;
    if (parentSnapshotId && !(await this.#store.getManifestStart(parentSnapshotId, 1)))
      throw new RequestRefused('NoSuchSnapshot', `the block store has no snapshot ${parentSnapshotId}`);
    await this.#store.putMark(snapshotId);
    const file = UploadFile.create(this.#path(snapshotId), {
      snapshotId,
      volumeId,
      sizeBytes,
      parentSnapshotId: parentSnapshotId ?? null,
    });
    this.#open.set(snapshotId, { file, busy: new Map() });
  }

  /** Stores one block (`bytes` as they shall lie in the store); resolves when it would survive a crash of the machine. */
  async put(snapshotId: string, index: number, bytes: Buffer, storedSha: Buffer, plainSha: Buffer): Promise<void> {
    const upload = this.#require(snapshotId);
    if (index >= upload.file.header.sizeBytes / blockBytes)
      throw new RequestRefused('NoSuchBlock', `block ${index} is beyond the end of ${snapshotId}`);
    while (upload.busy.has(index)) await upload.busy.get(index)!.catch(() => {});
    const work = this.#put(upload, index, bytes, storedSha, plainSha);
    upload.busy.set(index, work);
    try {
      await work;
    } finally {
      upload.busy.delete(index);
    }
  }

  /** Counts and compares, writes the manifest, and forgets the upload. Asked again, it says the same. */
  async complete(request: CompleteUploadRequest): Promise<SnapshotOutcome> {
    const { snapshotId } = request;
    const upload = this.#find(snapshotId);
    if (!upload) return this.#completed(snapshotId);
    await Promise.all(upload.busy.values()).catch(() => {});
    checkWritten(upload.file, request);
    const { header, written } = upload.file;
    const parent = header.parentSnapshotId ? await this.#manifest(header.parentSnapshotId) : undefined;
    const builder = new ManifestBuilder({
      snapshotId,
      volumeId: header.volumeId,
      sizeBytes: header.sizeBytes,
      createdAt: new Date().toISOString(),
      ...(parent ? { parent } : {}),
    });
    for (const index of indexesOf(written, parent)) {
      const own = written.get(index);
      if (own) builder.append(index, own.storedSha);
      else builder.inherit(index);
    }
    const { blocks } = builder;
    await this.#store.putManifest(snapshotId, builder.finish());
    await this.#store.deleteMark(snapshotId);
    this.#open.delete(snapshotId);
    upload.file.remove();
    return outcomeOf(blocks, written.size);
  }

  close(): void {
    for (const { file } of this.#open.values()) file.close();
    this.#open.clear();
  }

  #path(snapshotId: string): string {
    if (!isSnapshotId(snapshotId)) throw new RequestRefused('NoSuchSnapshot', `${snapshotId} is not a snapshot id`);
    return join(this.#directory, `${snapshotId}.upload`);
  }

  #find(snapshotId: string): Upload | undefined {
    const open = this.#open.get(snapshotId);
    if (open) return open;
    const file = UploadFile.open(this.#path(snapshotId));
    if (!file) return undefined;
    const upload = { file, busy: new Map() };
    this.#open.set(snapshotId, upload);
    return upload;
  }

  #require(snapshotId: string): Upload {
    const upload = this.#find(snapshotId);
    if (upload) return upload;
    throw new RequestRefused('NoSuchSnapshot', `this host has no record of ${snapshotId} being written`);
  }

  async #put(upload: Upload, index: number, bytes: Buffer, storedSha: Buffer, plainSha: Buffer): Promise<void> {
    const { file } = upload;
    const before = file.written.get(index);
    if (before?.storedSha.equals(storedSha)) return;
    if (before && !UploadFile.isUnknown(before)) {
      // From here on the store may hold either: what was acknowledged before is no longer promised.
      file.addUnknown(index);
      await file.sync();
    }
    await this.#store.putBlock({ owner: file.header.snapshotId, index }, bytes);
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: unknown) => (error === undefined ? resolve() : reject(error));
      this.#unsynced.push({ upload, index, storedSha, plainSha, settle });
      void this.#syncAll();
    });
  }

  async #syncAll(): Promise<void> {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    while (this.#unsynced.length > 0) {
      const batch = this.#unsynced;
      this.#unsynced = [];
      try {
        await this.#store.syncBlocks(
          batch.map(({ upload, index }) => ({ owner: upload.file.header.snapshotId, index })),
        );
        const files = new Set<UploadFile>();
        for (const { upload, index, storedSha, plainSha } of batch) {
          upload.file.add(index, { storedSha, plainSha });
          files.add(upload.file);
        }
        await Promise.all([...files].map((file) => file.sync()));
        for (const { settle } of batch) settle();
      } catch (error) {
        for (const { settle } of batch) settle(error);
      }
    }
    this.#isSyncing = false;
  }

  async #manifest(snapshotId: string): Promise<Manifest> {
    const bytes = await this.#store.getManifest(snapshotId);
    if (!bytes) throw new RequestRefused('NoSuchSnapshot', `the block store has no snapshot ${snapshotId}`);
    return Manifest.parse(bytes, { snapshotId, location: this.#store.location });
  }

  async #completed(snapshotId: string): Promise<SnapshotOutcome> {
    const manifest = await this.#manifest(snapshotId);
    await this.#store.deleteMark(snapshotId);
    let own = 0;
    for (let position = 0; position < manifest.blocks; position++) if (manifest.ownerAt(position) === snapshotId) own++;
    return outcomeOf(manifest.blocks, own);
  }
}

/** @throws {RequestRefused} when something else was written than the client says */
function checkWritten({ header, written }: UploadFile, { changedBlocks, checksum }: CompleteUploadRequest): void {
  const ordered = [...written].sort(([left], [right]) => left - right);
  const unknown = ordered.find(([, block]) => UploadFile.isUnknown(block));
  if (unknown)
    throw new RequestRefused(
      'ChecksumMismatch',
      `Block ${unknown[0]} of ${header.snapshotId} was being replaced when the host stopped; write it again.`,
    );
  if (written.size !== changedBlocks)
    throw new RequestRefused(
      'ChecksumMismatch',
      `${written.size} blocks were written to ${header.snapshotId}, not ${changedBlocks}.`,
    );
  if (checksum === undefined) return;
  const all = createHash('sha256');
  for (const [, { plainSha }] of ordered) all.update(plainSha);
  if (all.digest('base64') !== checksum)
    throw new RequestRefused(
      'ChecksumMismatch',
      `The checksum is not the SHA-256 of the digests of the ${written.size} blocks written to ${header.snapshotId}.`,
    );
}

/** The indexes of blocks that were written or that the parent has, ascending, each once. */
function* indexesOf(written: ReadonlyMap<number, unknown>, parent: Manifest | undefined): Generator<number> {
  const own = [...written.keys()].sort((left, right) => left - right);
  let next = 0;
  for (let position = 0; position < (parent?.blocks ?? 0); position++) {
    const index = parent!.indexAt(position);
    while (next < own.length && own[next]! < index) yield own[next++]!;
    if (own[next] === index) next++;
    yield index;
  }
  while (next < own.length) yield own[next++]!;
}

function outcomeOf(blocks: number, own: number): SnapshotOutcome {
  return { blocks, fullBytes: blocks * blockBytes, storedBytes: own * blockBytes };
}
