import { isAbsolute, resolve } from 'node:path';
import { openDirectoryStore } from './directory-store.ts';
import type { BlockStore } from './store.ts';

export interface OpenStoreOptions {
  /** Makes an empty store where there is none; otherwise that is a StoreError `Unavailable`. Default true. */
  readonly create?: boolean;
}

/**
 * Opens a block store: a directory, or `s3://bucket/prefix` (its settings come from the environment, see
 * docs/operating.md). The default location of a host is `snapshots` in its data directory. Rejects with a StoreError.
 */
export async function openStore(location: string, { create = true }: OpenStoreOptions = {}): Promise<BlockStore> {
  if (location.startsWith('s3://')) {
    // The SDK takes a while to load, and most installations never need it.
    const { openS3Store } = await import('./s3-store.ts');
    return openS3Store(location, { create });
  }
  return openDirectoryStore(isAbsolute(location) ? location : resolve(location), create);
}
