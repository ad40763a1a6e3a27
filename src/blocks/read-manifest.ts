import { HeaderTooLong, Manifest, type ManifestHeader, parseManifestHeader } from './manifest.ts';
import type { BlockStore } from './store.ts';

/** Enough for the headers of most manifests. */
const headerGuessBytes = 32 * 1024;

/** Reads and verifies a manifest's header without the rest. Undefined when there is no manifest. */
export async function readManifestHeader(
  store: BlockStore,
  snapshotId: string,
  signal?: AbortSignal,
): Promise<ManifestHeader | undefined> {
  const source = { snapshotId, location: store.location };
  let length = headerGuessBytes;
  for (;;) {
    const start = await store.getManifestStart(snapshotId, length, signal);
    if (start === undefined) return undefined;
    try {
      return parseManifestHeader(start, source).header;
    } catch (error) {
      if (!(error instanceof HeaderTooLong) || start.length < length) throw error;
      length = error.neededBytes;
    }
  }
}

/** Whether a snapshot is being freed: blocks that its manifest names may be gone, so nothing may be taken over from it. */
export async function isBeingFreed(store: BlockStore, snapshotId: string, signal?: AbortSignal): Promise<boolean> {
  for await (const freed of store.listFreeing(signal)) if (freed === snapshotId) return true;
  return false;
}

/** Reads and verifies a manifest. Undefined when there is none. Rejects with StoreError. */
export async function readManifest(
  store: BlockStore,
  snapshotId: string,
  signal?: AbortSignal,
): Promise<Manifest | undefined> {
  const bytes = await store.getManifest(snapshotId, signal);
  return bytes && Manifest.parse(bytes, { snapshotId, location: store.location });
}
