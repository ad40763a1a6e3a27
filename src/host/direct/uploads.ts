/**
 * Snapshots that are written from outside. A block is acknowledged when it and its record are on stable storage; those that
 * come at the same time share the waiting. Blocks are put under the snapshot's own name in the store, which is marked until
 * the manifest is there.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { CompleteUploadRequest, StartUploadRequest } from '../../aws/block-protocol.ts';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { Manifest, ManifestBuilder } from '../../blocks/manifest.ts';
import { isBeingFreed } from '../../blocks/read-manifest.ts';
import { type BlockStore, blockBytes, isSnapshotId } from '../../blocks/store.ts';
import { openDigest } from '../../crypto/block-digest.ts';
import { RequestRefused } from './request-refused.ts';
import { removeDurably, UploadFile, type WrittenBlock } from './upload-file.ts';

/** Uploads whose files are open at a time. Each is a file descriptor, and some 300 bytes of memory for every block written. */
const openMax = 64;
/** Digests that are opened before others have their turn: some 10 ms. */
const digestsAtOnce = 4096;
/** Uploads that are remembered as completed or given up. */
const endedMax = 10_000;

interface Upload {
  readonly file: UploadFile;
  /** Puts of the same block go one after the other. */
  readonly busy: Map<number, Promise<void>>;
  /** While it is being completed or given up: no block is taken then. */
  ending: Promise<unknown> | undefined;
}

export interface BlockDigests {
  readonly storedSha: Buffer;
  readonly plainSha: Buffer;
  /** What is to be noted down in place of `plainSha`. */
  readonly sealedSha?: Buffer | undefined;
}

interface Unsynced {
  readonly upload: Upload;
  readonly index: number;
  readonly block: WrittenBlock;
  readonly settle: (error?: unknown) => void;
}

export class Uploads {
  readonly #directory: string;
  readonly #openStore: () => Promise<BlockStore>;
  /** The least recently used first. */
  readonly #open = new Map<string, Upload>();
  readonly #starting = new Map<string, Promise<void>>();
  /** Completed or given up: what comes late for them is refused. */
  readonly #ended = new Set<string>();
  #unsynced: Unsynced[] = [];
  #isSyncing = false;

  /** @param directory made when it is needed @param store the same one each time */
  constructor(directory: string, store: () => Promise<BlockStore>) {
    this.#directory = directory;
    this.#openStore = store;
  }

  /** Removes what is left of uploads that were given up: their marks are gone from the store. */
  async prune(): Promise<void> {
    const marked = new Set<string>();
    for await (const snapshotId of (await this.#openStore()).listMarks()) marked.add(snapshotId);
    for (const name of existsSync(this.#directory) ? readdirSync(this.#directory) : []) {
      const snapshotId = name.replace(/\.upload$/, '');
      const isKnown = this.#open.has(snapshotId) || this.#starting.has(snapshotId);
      if (!marked.has(snapshotId) && !isKnown) rmSync(join(this.#directory, name), { force: true });
    }
  }

  async start(request: StartUploadRequest): Promise<void> {
    const { snapshotId } = request;
    if (this.#find(snapshotId)) return;
    let starting = this.#starting.get(snapshotId);
    if (!starting) {
      this.#refuseEnded(snapshotId);
      starting = this.#start(request).finally(() => this.#starting.delete(snapshotId));
      this.#starting.set(snapshotId, starting);
    }
    await starting;
  }

  /** Stores one block (`bytes` as they shall lie in the store); resolves when it would survive a crash of the machine. */
  async put(snapshotId: string, index: number, bytes: Buffer, digests: BlockDigests): Promise<void> {
    let upload = this.#require(snapshotId);
    for (let other: Promise<unknown> | undefined; ; upload = this.#require(snapshotId)) {
      other = upload.ending ?? upload.busy.get(index);
      if (!other) break;
      await other.catch(() => {});
    }
    if (index >= upload.file.header.sizeBytes / blockBytes)
      throw new RequestRefused('NoSuchBlock', `block ${index} is beyond the end of ${snapshotId}`);
    const work = this.#put(upload, index, bytes, digests);
    upload.busy.set(index, work);
    try {
      await work;
    } finally {
      upload.busy.delete(index);
    }
  }

  /**
   * Counts and compares, writes the manifest, and forgets the upload. Asked again, it says the same.
   * @param digestKey opens digests that were put sealed
   */
  async complete(request: CompleteUploadRequest, digestKey?: Uint8Array): Promise<SnapshotOutcome> {
    const { snapshotId } = request;
    for (;;) {
      const upload = this.#find(snapshotId);
      if (!upload) return this.#completed(snapshotId);
      if (!upload.ending) return this.#end(upload, () => this.#complete(upload, request, digestKey));
      await upload.ending.catch(() => {});
    }
  }

  /** The snapshot comes to nothing: from now on nothing is stored of it any more. Its blocks are for others to free. */
  async giveUp(snapshotId: string): Promise<void> {
    const path = this.#path(snapshotId);
    this.#noteEnded(snapshotId);
    await this.#starting.get(snapshotId)?.catch(() => {});
    for (let upload = this.#open.get(snapshotId); upload; upload = this.#open.get(snapshotId)) {
      const open = upload;
      if (open.ending) await open.ending.catch(() => {});
      else await this.#end(open, async () => this.#remove(open));
    }
    if (existsSync(path)) removeDurably(path);
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
    const path = this.#path(snapshotId);
    const open = this.#open.get(snapshotId);
    if (open) {
      this.#open.delete(snapshotId);
      this.#open.set(snapshotId, open);
      return open;
    }
    if (this.#ended.has(snapshotId)) return undefined;
    const file = UploadFile.open(path);
    return file && this.#add(file);
  }

  #require(snapshotId: string): Upload {
    const upload = this.#find(snapshotId);
    if (upload) return upload;
    this.#refuseEnded(snapshotId);
    throw new RequestRefused('NoSuchSnapshot', `this host has no record of ${snapshotId} being written`);
  }

  #refuseEnded(snapshotId: string): void {
    if (this.#ended.has(snapshotId))
      throw new RequestRefused('NotOpen', `${snapshotId} has been completed or given up, and takes no more blocks`);
  }

  #noteEnded(snapshotId: string): void {
    this.#ended.add(snapshotId);
    if (this.#ended.size > endedMax) for (const oldest of this.#ended) return void this.#ended.delete(oldest);
  }

  #add(file: UploadFile): Upload {
    const upload: Upload = { file, busy: new Map(), ending: undefined };
    // Before it is one of them: somebody is about to use it.
    this.#closeSome();
    this.#open.set(file.header.snapshotId, upload);
    return upload;
  }

  /** Closes files that nobody has used for the longest time; they are opened again when they are needed. */
  #closeSome(): void {
    for (const [snapshotId, { file, busy, ending }] of this.#open) {
      if (this.#open.size <= openMax) return;
      if (ending || busy.size > 0) continue;
      this.#open.delete(snapshotId);
      file.close();
    }
  }

  async #start({ snapshotId, volumeId, sizeBytes, parentSnapshotId }: StartUploadRequest): Promise<void> {
    const store = await this.#openStore();
    if (parentSnapshotId) await this.#requireParent(parentSnapshotId);
    this.#refuseEnded(snapshotId);
    await store.putMark(snapshotId);
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const header = { snapshotId, volumeId, sizeBytes, parentSnapshotId: parentSnapshotId ?? null };
    this.#add(UploadFile.create(this.#path(snapshotId), header));
  }

  /** @throws {RequestRefused} when it isn't there whole */
  async #requireParent(snapshotId: string): Promise<void> {
    const store = await this.#openStore();
    if (!(await store.getManifestStart(snapshotId, 1)) || (await isBeingFreed(store, snapshotId)))
      throw new RequestRefused('NoSuchSnapshot', `the block store has no snapshot ${snapshotId}`);
  }

  /** Has `work` end an upload, when the puts that are under way have come to their end. */
  async #end<T>(upload: Upload, work: () => Promise<T>): Promise<T> {
    const ending = Promise.allSettled(upload.busy.values()).then(work);
    upload.ending = ending;
    try {
      return await ending;
    } finally {
      upload.ending = undefined;
    }
  }

  async #complete(
    { file }: Upload,
    request: CompleteUploadRequest,
    digestKey: Uint8Array | undefined,
  ): Promise<SnapshotOutcome> {
    const { snapshotId } = request;
    const store = await this.#openStore();
    await checkWritten(file, request, digestKey);
    const { header, written } = file;
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
    const count = written.size;
    if (parent) await this.#requireParent(parent.header.snapshotId);
    // It may have been given up while it waited.
    this.#refuseEnded(snapshotId);
    await store.putManifest(snapshotId, builder.finish());
    await store.deleteMark(snapshotId);
    this.#noteEnded(snapshotId);
    this.#remove({ file });
    return outcomeOf(blocks, count);
  }

  #remove({ file }: Pick<Upload, 'file'>): void {
    this.#open.delete(file.header.snapshotId);
    file.remove();
  }

  async #put(upload: Upload, index: number, bytes: Buffer, digests: BlockDigests): Promise<void> {
    const { file } = upload;
    const { storedSha, plainSha, sealedSha = plainSha } = digests;
    const block: WrittenBlock = { storedSha, digest: file.hasPlainDigests ? plainSha : sealedSha };
    const before = file.written.get(index);
    if (before?.storedSha.equals(storedSha)) return;
    if (before && !UploadFile.isUnknown(before)) {
      // From here on the store may hold either: what was acknowledged before is no longer promised.
      file.addUnknown(index);
      await file.sync();
    }
    const store = await this.#openStore();
    await store.putBlock({ owner: file.header.snapshotId, index }, bytes);
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: unknown) => (error === undefined ? resolve() : reject(error));
      this.#unsynced.push({ upload, index, block, settle });
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
        const names = batch.map(({ upload, index }) => ({ owner: upload.file.header.snapshotId, index }));
        await (await this.#openStore()).syncBlocks(names);
        const files = new Set<UploadFile>();
        for (const { upload, index, block } of batch) {
          upload.file.add(index, block);
          files.add(upload.file);
        }
        await Promise.all([...files].map((file) => file.sync()));
        for (const { settle } of batch) settle();
      } catch (error) {
        for (const { upload, index, settle } of batch) {
          // Whoever puts it again must not be told that it is there.
          upload.file.doubt(index);
          settle(error);
        }
      }
    }
    this.#isSyncing = false;
  }

  async #manifest(snapshotId: string): Promise<Manifest> {
    const store = await this.#openStore();
    const bytes = await store.getManifest(snapshotId);
    if (!bytes) throw new RequestRefused('NoSuchSnapshot', `the block store has no snapshot ${snapshotId}`);
    return Manifest.parse(bytes, { snapshotId, location: store.location });
  }

  async #completed(snapshotId: string): Promise<SnapshotOutcome> {
    const manifest = await this.#manifest(snapshotId);
    await (await this.#openStore()).deleteMark(snapshotId);
    let own = 0;
    for (let position = 0; position < manifest.blocks; position++) if (manifest.ownerAt(position) === snapshotId) own++;
    return outcomeOf(manifest.blocks, own);
  }
}

/** @throws {RequestRefused} when something else was written than the client says */
async function checkWritten(
  { header, written, hasPlainDigests }: UploadFile,
  { changedBlocks, checksum }: CompleteUploadRequest,
  digestKey: Uint8Array | undefined,
): Promise<void> {
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
  for (const [position, [index, { digest }]] of ordered.entries()) {
    all.update(digestKey && !hasPlainDigests ? openDigest(digestKey, index, digest) : digest);
    if (position % digestsAtOnce === digestsAtOnce - 1) await turn();
  }
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
