/** The block store of this host, and no other that happens to be in its place. */
import { openStore } from '../blocks/open-store.ts';
import { type BlockStore, NoStoreError, StoreError } from '../blocks/store.ts';

const advice =
  'is the right file system mounted, and --store what it was? host.store in the data directory says which store this host ' +
  'used last; remove that file to change to another one for good';

/**
 * @param storeId the store that was there before; undefined: any will do, and a new one is made where there is none
 * @throws {StoreError}
 */
export async function openRightStore(location: string, storeId: string | undefined): Promise<BlockStore> {
  const opened = await openStore(location, { create: storeId === undefined }).catch((error) => {
    throw storeId !== undefined && error instanceof NoStoreError
      ? new StoreError('Unavailable', error.message, { detail: `${error.detail}; ${advice}`, cause: error })
      : error;
  });
  if (storeId === undefined || opened.id === storeId) return opened;
  opened.close();
  throw new StoreError('Unavailable', "there is another block store in place of this host's", {
    detail: `${location} has the block store ${opened.id}, but this host's is ${storeId}: ${advice}`,
  });
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
