import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import type { Manifest } from '../../blocks/manifest.ts';
import { blockBytes } from '../../blocks/store.ts';

/** What a snapshot came to, as its manifest says it. */
export function outcomeOf(manifest: Manifest): SnapshotOutcome {
  const own = manifest.header.owners.indexOf(manifest.header.snapshotId);
  let ownBlocks = 0;
  for (let position = 0; own >= 0 && position < manifest.blocks; position++)
    if (manifest.ownerNumberAt(position) === own) ownBlocks++;
  return { blocks: manifest.blocks, fullBytes: manifest.blocks * blockBytes, storedBytes: ownBlocks * blockBytes };
}
