import { createHash } from 'node:crypto';
import { type BlockName, blockBytes } from './store.ts';

/** A block whose content follows from its name and `version`. */
export function blockOf({ owner, index }: BlockName, version = 0): Buffer {
  const seed = createHash('sha256').update(`${owner} ${index} ${version}`).digest();
  return Buffer.alloc(blockBytes, seed);
}

export function sha256Of(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}
