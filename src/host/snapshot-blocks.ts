/** The stored blocks of the snapshot that a volume is restored from. Opened when first needed, and again after a failure. */
import type { Manifest } from '../blocks/manifest.ts';
import { openStore } from '../blocks/open-store.ts';
import { readManifest } from '../blocks/read-manifest.ts';
import { type BlockStore, StoreError } from '../blocks/store.ts';
import { openRightStore } from './right-store.ts';

export interface BlockSource {
  readonly snapshotId: string;
  /** Reads and verifies a block (524288 bytes). Rejects with StoreError. */
  fetch(index: number, bytes: Buffer, signal: AbortSignal): Promise<void>;
  close(): void;
}

export class SnapshotBlocks implements BlockSource {
  readonly snapshotId: string;
  readonly #open: () => Promise<BlockStore>;
  #opened: Promise<{ store: BlockStore; manifest: Manifest }> | undefined;

  /**
   * @param storeId the store that must be at `location`; undefined: whatever is there
   * @param store for tests; default: that store
   */
  constructor(
    location: string,
    storeId: string | undefined,
    snapshotId: string,
    store: () => Promise<BlockStore> = () => openExisting(location, storeId),
  ) {
    this.snapshotId = snapshotId;
    this.#open = store;
  }

  /** The blocks that the snapshot has data for, in ascending order. */
  async indexes(): Promise<Iterable<number>> {
    const { manifest } = await this.#ready();
    return indexesOf(manifest);
  }

  async fetch(index: number, bytes: Buffer, signal: AbortSignal): Promise<void> {
    const { store, manifest } = await this.#ready();
    const position = manifest.find(index);
    if (position < 0) {
      throw new StoreError('Missing', `the manifest of ${this.snapshotId} has no block ${index}`, {
        detail: store.location,
      });
    }
    const { owner, sha256 } = manifest.entryAt(position);
    await store.getBlock({ owner, index }, sha256, bytes, signal);
  }

  close(): void {
    this.#opened?.then(({ store }) => store.close()).catch(() => {});
    this.#opened = undefined;
  }

  #ready(): Promise<{ store: BlockStore; manifest: Manifest }> {
    const opened = (this.#opened ??= this.#load());
    opened.catch(() => {
      if (this.#opened === opened) this.#opened = undefined;
    });
    return opened;
  }

  async #load(): Promise<{ store: BlockStore; manifest: Manifest }> {
    const store = await this.#open();
    try {
      const manifest = await readManifest(store, this.snapshotId);
      if (manifest) return { store, manifest };
      throw new StoreError('Missing', `the manifest of ${this.snapshotId} is not in the block store`, {
        detail: store.location,
      });
    } catch (error) {
      store.close();
      throw error;
    }
  }
}

function* indexesOf(manifest: Manifest): Generator<number> {
  for (let position = 0; position < manifest.blocks; position++) yield manifest.indexAt(position);
}

function openExisting(location: string, storeId: string | undefined): Promise<BlockStore> {
  return storeId === undefined ? openStore(location, { create: false }) : openRightStore(location, storeId);
}
