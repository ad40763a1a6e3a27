// What all block stores have in common: how blocks are checked and named in messages, and what store.json says.

import { hash, randomUUID } from 'node:crypto';
import { sha256 } from '../crypto/sha256.ts';
import { type BlockName, blockBytes, isSnapshotId, StoreError } from './store.ts';

const format = 1;

type Located = { readonly location: string };

export function checkedId(snapshotId: string): string {
  if (!isSnapshotId(snapshotId)) throw new RangeError(`${JSON.stringify(snapshotId)} is no snapshot's id`);
  return snapshotId;
}

function checkedIndex(index: number): number {
  if (!Number.isInteger(index) || index < 0 || index > 0xffff_ffff) throw new RangeError(`no block has index ${index}`);
  return index;
}

/** Where a block lies, relative to the store: `blocks/snap-…/0001/00001234`, so that no folder has more than 4096. */
export function blockPath({ owner, index }: BlockName): string {
  const hex = checkedIndex(index).toString(16).padStart(8, '0');
  const group = (index >>> 12).toString(16).padStart(4, '0');
  return `blocks/${checkedId(owner)}/${group}/${hex}`;
}

export function manifestPath(snapshotId: string): string {
  return `manifests/${checkedId(snapshotId)}.manifest`;
}

export function checkLength(bytes: Buffer): void {
  if (bytes.length !== blockBytes) throw new RangeError(`a block has ${blockBytes} bytes, not ${bytes.length}`);
}

/** `12 of snap-0123456789abcdef0` */
export function describeBlock({ owner, index }: BlockName): string {
  return `${index} of ${owner}`;
}

export function missingBlock({ location }: Located, name: BlockName): StoreError {
  return new StoreError('Missing', `block ${describeBlock(name)} is missing in the block store`, { detail: location });
}

export function corruptBlock({ location }: Located, name: BlockName, why: string): StoreError {
  return new StoreError('Corrupt', `block ${describeBlock(name)} in the block store is damaged: ${why}`, {
    detail: location,
  });
}

export async function verifyBlock(store: Located, name: BlockName, expected: Uint8Array, bytes: Buffer): Promise<void> {
  if (!(await sha256(bytes)).equals(expected)) throw corruptBlock(store, name, 'its SHA-256 is another');
}

/** The id in a store.json. Throws StoreError `Corrupt`. */
export function parseStoreFile(text: string, location: string): string {
  let content: { format?: unknown; id?: unknown; createdAt?: unknown; sha256?: unknown } | null;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new StoreError('Corrupt', 'store.json of the block store is damaged', { cause, detail: location });
  }
  if (content?.format !== format || typeof content.id !== 'string') {
    throw new StoreError('Corrupt', 'store.json of the block store is damaged, or of a later version', {
      detail: location,
    });
  }
  const { id, createdAt, sha256 } = content;
  // Early stores have none.
  if (sha256 !== undefined && sha256 !== storeChecksum(id, String(createdAt))) {
    throw new StoreError('Corrupt', 'store.json of the block store is damaged: its checksum is wrong', {
      detail: location,
    });
  }
  return id;
}

/** The text of a new store's store.json. */
export function newStoreFile(): string {
  const [id, createdAt] = [randomUUID(), new Date().toISOString()];
  return `${JSON.stringify({ format, id, createdAt, sha256: storeChecksum(id, createdAt) })}\n`;
}

/** With a wrong id a host would take its store for another one. */
function storeChecksum(id: string, createdAt: string): string {
  return hash('sha256', `${format} ${id} ${createdAt}`, 'hex');
}
