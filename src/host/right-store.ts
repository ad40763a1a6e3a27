/** The block store of this host, and no other that happens to be in its place. */
import { openStore } from '../blocks/open-store.ts';
import { type BlockStore, StoreError } from '../blocks/store.ts';

/**
 * @param storeId the store that was there before; undefined: any will do, and a new one is made where there is none
 * @throws {StoreError}
 */
export async function openRightStore(location: string, storeId: string | undefined): Promise<BlockStore> {
  const opened = await openStore(location, { create: storeId === undefined });
  if (storeId === undefined || opened.id === storeId) return opened;
  opened.close();
  throw new StoreError(
    'Unavailable',
    `${location} has the block store ${opened.id}, but this host's is ${storeId}: is the right file system mounted? ` +
      'To change to another store for good, remove host.store from the data directory',
  );
}

/** Opens the store for whoever asks first, and again after it could not be opened. */
export class SharedStore {
  readonly #open: () => Promise<BlockStore>;
  #opened: Promise<BlockStore> | undefined;

  constructor(open: () => Promise<BlockStore>) {
    this.#open = open;
  }

  readonly get = (): Promise<BlockStore> => {
    this.#opened ??= this.#open().catch((error) => {
      this.#opened = undefined;
      throw error;
    });
    return this.#opened;
  };

  close(): void {
    this.#opened?.then((store) => store.close()).catch(() => {});
    this.#opened = undefined;
  }
}
