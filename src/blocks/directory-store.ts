// A block store in a directory: one file a block. docs/formats.md has the layout.
//
// A block is written under a temporary name and renamed. So what has a block's name is whole, after a crash of this
// process. After one of the machine it need not be: `sync` makes all that was put durable at once, which is much cheaper
// than a sync for each block, and a manifest is written after it.

import { randomUUID } from 'node:crypto';
import fs, { constants, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { syncDirectory, writePrivateFile } from '../files/durable.ts';
import { alignedBuffer } from './aligned.ts';
import {
  asStoreError,
  close,
  codeOf,
  createNew,
  fsync,
  isOpenable,
  link,
  makeDirectories,
  open,
  openOrUndefined,
  readdir,
  readFully,
  removeIfEmpty,
  rename,
  stat,
  syncPath,
  unlinkIfThere,
  writeFully,
} from './block-files.ts';
import { BlockReader } from './block-reader.ts';
import { BlockWriter } from './block-writer.ts';
import { DirectorySync } from './directory-sync.ts';
import { type BlockName, type BlockStore, blockBytes, isSnapshotId, NoStoreError, StoreError } from './store.ts';
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

const deletersMax = 8;
const storeFile = 'store.json';
/** A temporary file of this age is what a crash left. */
const leftoverAgeMs = 60 * 60 * 1000;

/**
 * Opens the store in a directory, and makes it there when `create` says so. Throws StoreError `Unavailable` when there is
 * none, `Corrupt` when its store.json is damaged.
 */
export function openDirectoryStore(path: string, create: boolean): BlockStore {
  try {
    const id = create ? makeStore(path) : readStoreFile(path);
    removeLeftovers(join(path, 'tmp'));
    return new DirectoryStore(path, id);
  } catch (error) {
    throw asStoreError(error, "the block store can't be opened", path);
  }
}

class DirectoryStore implements BlockStore {
  readonly id: string;
  readonly location: string;
  readonly #reader = new BlockReader();
  readonly #writer: BlockWriter;
  readonly #sync: DirectorySync;

  constructor(location: string, id: string) {
    this.location = location;
    this.id = id;
    this.#writer = new BlockWriter(join(location, 'tmp'));
    this.#sync = new DirectorySync(location);
  }

  async getBlock(name: BlockName, sha256: Uint8Array, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    checkLength(bytes);
    const path = this.#blockPath(name);
    await this.#explain(`block ${describeBlock(name)} can't be read`, async () => {
      const length = (await this.#reader.read(path, bytes)) ?? (await this.#missing(name));
      if (length < blockBytes) throw corruptBlock(this, name, `it has ${length} bytes`);
    });
    signal?.throwIfAborted();
    await verifyBlock(this, name, sha256, bytes);
  }

  async putBlock(name: BlockName, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    checkLength(bytes);
    const path = this.#blockPath(name);
    await this.#explain(`block ${describeBlock(name)} can't be written`, () => this.#writer.write(path, bytes, signal));
  }

  /** A second name for the same file where the file system has that: blocks never change. */
  async copyBlock(from: BlockName, to: BlockName, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const [source, target] = [this.#blockPath(from), this.#blockPath(to)];
    const isLinked = await this.#explain(`block ${describeBlock(from)} can't be copied`, async () => {
      for (let attempt = 0; ; attempt++) {
        try {
          await link(source, target);
          return true;
        } catch (error) {
          const code = codeOf(error);
          if (attempt > 3) throw error;
          if (code === 'EEXIST') await unlinkIfThere(target);
          else if (code === 'ENOENT' && (await isOpenable(source))) await makeDirectories(dirname(target));
          else if (code === 'ENOENT') await this.#missing(from);
          else if (code === 'EMLINK' || code === 'EPERM' || code === 'ENOTSUP') return false;
          else throw error;
        }
      }
    });
    if (!isLinked) await this.#copyBytes(from, to, signal);
  }

  async deleteBlocks(names: readonly BlockName[], signal?: AbortSignal): Promise<void> {
    const directories = new Set<string>();
    let areAllThere = true;
    let next = 0;
    const worker = async () => {
      while (next < names.length) {
        signal?.throwIfAborted();
        const name = names[next++]!;
        const path = this.#blockPath(name);
        directories.add(dirname(path));
        const wasThere = await this.#explain(`block ${describeBlock(name)} can't be deleted`, () =>
          unlinkIfThere(path),
        );
        areAllThere &&= wasThere;
      }
    };
    await Promise.all(Array.from({ length: Math.min(deletersMax, names.length) }, worker));
    if (!areAllThere) await this.#mustBeHere();
    const owners = new Set([...directories].map((directory) => dirname(directory)));
    for (const directory of [...directories, ...owners]) await removeIfEmpty(directory);
  }

  async *listBlocks(owner?: string, signal?: AbortSignal): AsyncGenerator<BlockName> {
    if (owner === undefined) {
      for await (const each of this.listOwners(signal)) yield* this.listBlocks(each, signal);
      return;
    }
    const root = join(this.location, 'blocks', checkedId(owner));
    for (const group of await this.#list(root)) {
      for (const file of await this.#list(join(root, group))) {
        signal?.throwIfAborted();
        if (/^[0-9a-f]{8}$/.test(file)) yield { owner, index: Number.parseInt(file, 16) };
      }
    }
  }

  async *listOwners(signal?: AbortSignal): AsyncGenerator<string> {
    yield* this.#listIds('blocks', '', signal);
  }

  async blockStoredAt(name: BlockName): Promise<number | undefined> {
    const path = this.#blockPath(name);
    return this.#explain(`block ${describeBlock(name)} can't be looked at`, async () => {
      // A block that was copied by linking is as new as its name: the change time says so.
      try {
        return (await stat(path)).ctimeMs;
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error;
        await this.#mustBeHere();
        return undefined;
      }
    });
  }

  getManifest(snapshotId: string, signal?: AbortSignal): Promise<Buffer | undefined> {
    return this.getManifestStart(snapshotId, Number.POSITIVE_INFINITY, signal);
  }

  async getManifestStart(snapshotId: string, length: number, signal?: AbortSignal): Promise<Buffer | undefined> {
    signal?.throwIfAborted();
    const path = this.#manifestPath(snapshotId);
    return this.#explain(`the manifest of ${snapshotId} can't be read`, async () => {
      const file = await openOrUndefined(path);
      if (file === undefined) {
        await this.#mustBeHere();
        return undefined;
      }
      try {
        const size = fs.fstatSync(file).size;
        const bytes = Buffer.from(new ArrayBuffer(Math.min(size, length)));
        return bytes.subarray(0, await readFully(file, bytes, signal));
      } finally {
        await close(file);
      }
    });
  }

  async putManifest(snapshotId: string, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    const path = this.#manifestPath(snapshotId);
    signal?.throwIfAborted();
    await this.sync();
    signal?.throwIfAborted();
    const fresh = join(this.location, 'tmp', `${randomUUID()}-manifest`);
    await this.#explain(`the manifest of ${snapshotId} can't be written`, async () => {
      try {
        const file = await open(fresh, createNew, 0o600);
        try {
          await writeFully(file, bytes);
          await fsync(file);
        } finally {
          await close(file);
        }
        await rename(fresh, path);
        syncDirectory(dirname(path));
      } catch (error) {
        await unlinkIfThere(fresh);
        throw error;
      }
    });
  }

  deleteManifest(snapshotId: string): Promise<void> {
    return this.#removeFile(this.#manifestPath(snapshotId), `the manifest of ${snapshotId}`);
  }

  async *listManifests(signal?: AbortSignal): AsyncGenerator<string> {
    yield* this.#listIds('manifests', '.manifest', signal);
  }

  putMark(snapshotId: string): Promise<void> {
    return this.#putEmpty('marks', snapshotId);
  }

  deleteMark(snapshotId: string): Promise<void> {
    return this.#removeFile(join(this.location, 'marks', checkedId(snapshotId)), `the mark of ${snapshotId}`);
  }

  async *listMarks(signal?: AbortSignal): AsyncGenerator<string> {
    yield* this.#listIds('marks', '', signal);
  }

  putFreeing(snapshotId: string): Promise<void> {
    return this.#putEmpty('freeing', snapshotId);
  }

  deleteFreeing(snapshotId: string): Promise<void> {
    return this.#removeFile(join(this.location, 'freeing', checkedId(snapshotId)), `the mark of ${snapshotId}`);
  }

  async *listFreeing(signal?: AbortSignal): AsyncGenerator<string> {
    yield* this.#listIds('freeing', '', signal);
  }

  sync(): Promise<void> {
    return this.#sync.sync();
  }

  async syncBlocks(names: readonly BlockName[]): Promise<void> {
    const files = names.map((name) => this.#blockPath(name));
    // A new block is an entry of its directory, which may be new itself, and so on up.
    const directories = new Set<string>();
    for (const path of files)
      for (let directory = dirname(path); directory !== this.location; directory = dirname(directory))
        directories.add(directory);
    await this.#explain("blocks can't be put on stable storage", async () => {
      await Promise.all(files.map(syncPath));
      await Promise.all([...directories].map(syncPath));
    });
  }

  close(): void {
    this.#sync.close();
  }

  async #copyBytes(from: BlockName, to: BlockName, signal?: AbortSignal): Promise<void> {
    const bytes = alignedBuffer(blockBytes);
    await this.#explain(`block ${describeBlock(from)} can't be copied`, async () => {
      const file = (await openOrUndefined(this.#blockPath(from))) ?? (await this.#missing(from));
      try {
        const length = await readFully(file, bytes);
        if (length < blockBytes) throw corruptBlock(this, from, `it has ${length} bytes`);
      } finally {
        await close(file);
      }
    });
    await this.putBlock(to, bytes, signal);
  }

  /** An empty file is whole as soon as it is there: under a temporary name a crash would leave it for good. */
  async #putEmpty(folder: string, snapshotId: string): Promise<void> {
    const path = join(this.location, folder, checkedId(snapshotId));
    await this.#explain(`${snapshotId} can't be marked`, async () => {
      await close(await open(path, constants.O_CREAT | constants.O_WRONLY, 0o600));
      await syncPath(path);
      syncDirectory(dirname(path));
    });
  }

  async #removeFile(path: string, what: string): Promise<void> {
    await this.#explain(`${what} can't be deleted`, async () => {
      await unlinkIfThere(path);
      syncDirectory(dirname(path));
    });
  }

  async *#listIds(folder: string, ending: string, signal?: AbortSignal): AsyncGenerator<string> {
    for (const file of await this.#list(join(this.location, folder))) {
      signal?.throwIfAborted();
      if (!file.endsWith(ending)) continue;
      const id = file.slice(0, file.length - ending.length);
      if (isSnapshotId(id)) yield id;
    }
  }

  #list(directory: string): Promise<string[]> {
    return this.#explain("the block store can't be listed", async () => {
      try {
        return (await readdir(directory)).sort();
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error;
        await this.#mustBeHere();
        return [];
      }
    });
  }

  async #missing(name: BlockName): Promise<never> {
    await this.#mustBeHere();
    throw missingBlock(this, name);
  }

  /**
   * Where nothing is found the store itself may be gone for a while: not mounted, or moved. What it has can't be known
   * then, and that it lacks something must not be believed: `Missing` is the end of a copy, and an empty list of snapshots
   * that of blocks which they need.
   */
  async #mustBeHere(): Promise<void> {
    try {
      await stat(join(this.location, storeFile));
    } catch (error) {
      throw codeOf(error) === 'ENOENT' ? new NoStoreError(this.location, { cause: error }) : error;
    }
  }

  #blockPath(name: BlockName): string {
    return join(this.location, blockPath(name));
  }

  #manifestPath(snapshotId: string): string {
    return join(this.location, manifestPath(snapshotId));
  }

  async #explain<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw asStoreError(error, what, this.location);
    }
  }
}

function makeStore(path: string): string {
  for (const folder of ['manifests', 'marks', 'freeing', 'blocks', 'tmp']) {
    const made = mkdirSync(join(path, folder), { recursive: true, mode: 0o700 });
    if (made !== undefined) syncDirectory(dirname(made));
  }
  const file = join(path, storeFile);
  if (!fs.existsSync(file)) {
    if (readdirSync(join(path, 'blocks')).length > 0 || readdirSync(join(path, 'manifests')).length > 0) {
      throw new StoreError('Corrupt', 'the block store has lost its store.json', { detail: path });
    }
    writePrivateFile(file, newStoreFile(), 'keep');
  }
  return readStoreFile(path);
}

function readStoreFile(path: string): string {
  let text: string;
  try {
    text = readFileSync(join(path, storeFile), 'utf8');
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    throw new NoStoreError(path);
  }
  return parseStoreFile(text, path);
}

function removeLeftovers(directory: string): void {
  const now = Date.now();
  for (const file of fs.existsSync(directory) ? readdirSync(directory) : []) {
    const path = join(directory, file);
    const leftAt = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? now;
    if (now - leftAt > leftoverAgeMs) rmSync(path, { force: true });
  }
}
