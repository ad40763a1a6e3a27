import { type BlockStore, StoreError } from './store.ts';

export async function openS3Store(location: string, _options: { readonly create: boolean }): Promise<BlockStore> {
  throw new StoreError('Unavailable', `${location}: not yet`);
}
