// A snapshot's manifest: which blocks it has, whose they are, and what they hash to. docs/formats.md has the format.
//
// A manifest is complete. What a snapshot shares with earlier ones it names with its owner, so that reading a snapshot
// takes one manifest, and deleting one never rewrites another. In memory it is the file: 40 bytes a block.

import { createHash } from 'node:crypto';
import { type BlockName, blockBytes, isSnapshotId, StoreError } from './store.ts';

const magic = Buffer.from('COFFERM1', 'latin1');
/** Magic and the length of the header's JSON. */
const prefixBytes = 12;
const hashBytes = 32;
const entryBytes = 40;
/** More than any family's owners take; a longer one is damage. */
const headerMaxBytes = 64 * 1024 * 1024;
/** Ancestors that a manifest lists. They only save reading others' manifests when one is freed; see free.ts. */
export const ancestorsMax = 1024;
/** A hash takes less than 2 GiB at once. */
const hashStepBytes = 1 << 30;

export interface ManifestHeader {
  readonly snapshotId: string;
  readonly volumeId: string;
  /** Of the volume when the snapshot was taken; a multiple of `blockBytes`. */
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** The snapshot that entries were inherited from. Null: every block is this snapshot's own. */
  readonly parentSnapshotId: string | null;
  /** The parent, its parent and so on: the nearest 1024. Any of them may be gone by now. */
  readonly ancestors: readonly string[];
  /** Snapshots that stored the blocks; entries name them by their number here. Without any that no entry names. */
  readonly owners: readonly string[];
  /** Number of entries. */
  readonly blocks: number;
  /** ISO 8601 */
  readonly createdAt: string;
}

/** One block of a snapshot: where it is stored, and what its stored bytes hash to. */
export interface ManifestEntry extends BlockName {
  readonly sha256: Buffer;
}

/** Finds entries by index when the indexes asked for only grow; amortized constant time. */
export interface ManifestCursor {
  /** The entry's position, or -1 when the manifest has no such block. `index` is at least the one asked before. */
  find(index: number): number;
}

/** Where a manifest came from, for the messages of its faults. */
export interface ManifestSource {
  readonly snapshotId: string;
  /** The store's. */
  readonly location: string;
}

/** A manifest that was read and verified. Entries have positions, 0 to `blocks` - 1, and lie in ascending index order. */
export class Manifest {
  readonly header: ManifestHeader;
  readonly #view: DataView;
  readonly #bytes: Buffer;
  readonly #entries: number;

  private constructor(header: ManifestHeader, bytes: Buffer, entries: number) {
    this.header = header;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#entries = entries;
  }

  /** Reads and verifies one; keeps `bytes`. Throws StoreError `Corrupt`, naming the snapshot and the store. */
  static parse(bytes: Buffer, source: ManifestSource): Manifest {
    const { header, entriesOffset } = parseManifestHeader(bytes, source);
    const end = entriesOffset + header.blocks * entryBytes;
    if (bytes.length !== end + hashBytes) {
      throw damaged(source, `it has ${bytes.length} bytes, not the ${end + hashBytes} that its header announces`);
    }
    if (!hashOf(bytes, end).equals(bytes.subarray(end))) throw damaged(source, 'its checksum is wrong');
    const manifest = new Manifest(header, bytes, entriesOffset);
    manifest.#check(source);
    return manifest;
  }

  get blocks(): number {
    return this.header.blocks;
  }

  indexAt(position: number): number {
    return this.#view.getUint32(this.#entries + position * entryBytes, true);
  }

  /** The owner's number in `header.owners`. */
  ownerNumberAt(position: number): number {
    return this.#view.getUint32(this.#entries + position * entryBytes + 4, true);
  }

  ownerAt(position: number): string {
    return this.header.owners[this.ownerNumberAt(position)]!;
  }

  /** 32 bytes of the manifest itself: not a copy. */
  sha256At(position: number): Buffer {
    const start = this.#entries + position * entryBytes + 8;
    return this.#bytes.subarray(start, start + hashBytes);
  }

  /** Writes the hash at `offset` of `target`: cheaper than a view for each of millions. */
  copySha256(position: number, target: Buffer, offset: number): void {
    const start = this.#entries + position * entryBytes + 8;
    this.#bytes.copy(target, offset, start, start + hashBytes);
  }

  entryAt(position: number): ManifestEntry {
    return { owner: this.ownerAt(position), index: this.indexAt(position), sha256: this.sha256At(position) };
  }

  /** The position of block `index`, or -1: a block of zeros. */
  find(index: number): number {
    const position = this.lowerBound(index);
    return position < this.blocks && this.indexAt(position) === index ? position : -1;
  }

  /** The first position whose index is at least `index`; `blocks` when there is none. */
  lowerBound(index: number, from = 0, to = this.blocks): number {
    let low = from;
    let high = to;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.indexAt(middle) < index) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  cursor(): ManifestCursor {
    let position = 0;
    return {
      find: (index) => {
        let step = 1;
        while (position + step < this.blocks && this.indexAt(position + step) < index) {
          position += step;
          step *= 2;
        }
        position = this.lowerBound(index, position, Math.min(this.blocks, position + step + 1));
        return position < this.blocks && this.indexAt(position) === index ? position : -1;
      },
    };
  }

  *entries(): Generator<ManifestEntry> {
    for (let position = 0; position < this.blocks; position++) yield this.entryAt(position);
  }

  #check(source: ManifestSource): void {
    const { sizeBytes, owners, blocks } = this.header;
    const indexes = sizeBytes / blockBytes;
    let before = -1;
    for (let position = 0; position < blocks; position++) {
      const index = this.indexAt(position);
      if (index <= before) throw damaged(source, `entry ${position} is out of order`);
      if (index >= indexes) throw damaged(source, `entry ${position} lies beyond the end of the volume`);
      if (this.ownerNumberAt(position) >= owners.length) throw damaged(source, `entry ${position} has no owner`);
      before = index;
    }
  }
}

/**
 * Reads the header alone, from the first bytes of a manifest; it has a checksum of its own. Throws StoreError `Corrupt`,
 * and `HeaderTooLong` when it goes on beyond `bytes`.
 */
export function parseManifestHeader(
  bytes: Buffer,
  source: ManifestSource,
): { readonly header: ManifestHeader; readonly entriesOffset: number } {
  if (bytes.length < prefixBytes || !bytes.subarray(0, magic.length).equals(magic)) {
    throw damaged(source, 'it does not begin as one');
  }
  const jsonEnd = prefixBytes + bytes.readUInt32LE(magic.length);
  const entriesOffset = jsonEnd + hashBytes;
  if (jsonEnd > headerMaxBytes) throw damaged(source, 'its header is too long');
  if (bytes.length < entriesOffset) throw new HeaderTooLong(source, entriesOffset);
  if (!hashOf(bytes, jsonEnd).equals(bytes.subarray(jsonEnd, entriesOffset))) {
    throw damaged(source, "its header's checksum is wrong");
  }
  let header: ManifestHeader;
  try {
    header = JSON.parse(bytes.toString('utf8', prefixBytes, jsonEnd)) as ManifestHeader;
  } catch (cause) {
    throw damaged(source, 'its header is no JSON', cause);
  }
  const fault = faultOf(header, source);
  if (fault) throw damaged(source, fault);
  return { header, entriesOffset };
}

/** The manifest is not what was stored. */
export class DamagedManifest extends StoreError {
  readonly snapshotId: string;

  constructor({ snapshotId, location }: ManifestSource, why: string, options?: ErrorOptions) {
    super('Corrupt', `the manifest of ${snapshotId} is damaged: ${why}`, { ...options, detail: location });
    this.snapshotId = snapshotId;
  }
}

/** The header goes on beyond the bytes given; `neededBytes` are enough. For a whole manifest it means that it is cut off. */
export class HeaderTooLong extends DamagedManifest {
  readonly neededBytes: number;

  constructor(source: ManifestSource, neededBytes: number) {
    super(source, 'it is cut off');
    this.neededBytes = neededBytes;
  }
}

export interface ManifestBuilderOptions {
  readonly snapshotId: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  /** ISO 8601 */
  readonly createdAt: string;
  /** The snapshot whose entries `inherit` takes over. */
  readonly parent?: Manifest;
}

/** Makes a manifest; blocks come in ascending index order. Memory: 40 bytes a block, never copied. */
export class ManifestBuilder {
  readonly #options: ManifestBuilderOptions;
  readonly #owners: string[];
  readonly #ancestors: readonly string[];
  readonly #indexes: number;
  readonly #entriesOffset: number;
  readonly #buffer: ArrayBuffer;
  readonly #cursor: ManifestCursor | undefined;
  #bytes: Buffer;
  #view: DataView;
  #blocks = 0;
  #lastIndex = -1;

  constructor(options: ManifestBuilderOptions) {
    const { sizeBytes, parent, snapshotId } = options;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockBytes !== 0) {
      throw new RangeError(`a snapshot's size is a positive multiple of ${blockBytes}, not ${sizeBytes}`);
    }
    this.#options = options;
    this.#indexes = sizeBytes / blockBytes;
    // Own blocks have number 0; the parent's owners follow in their order.
    this.#owners = [snapshotId, ...(parent?.header.owners ?? [])];
    this.#ancestors = parent ? [parent.header.snapshotId, ...parent.header.ancestors].slice(0, ancestorsMax) : [];
    this.#cursor = parent?.cursor();
    // The header comes before the entries and is known after them: room is left for the longest it can become.
    const longest = JSON.stringify(this.#header(this.#owners, this.#indexes));
    this.#entriesOffset = roundUp(prefixBytes + Buffer.byteLength(longest) + hashBytes, 8);
    const capacity = this.#entriesOffset + this.#indexes * entryBytes + hashBytes;
    // Addresses are reserved, memory only as it grows.
    this.#buffer = new ArrayBuffer(Math.min(capacity, this.#entriesOffset + 65536), { maxByteLength: capacity });
    this.#bytes = Buffer.from(this.#buffer);
    this.#view = new DataView(this.#buffer);
  }

  get blocks(): number {
    return this.#blocks;
  }

  /** Adds a block that this snapshot stores itself. `sha256`: 32 bytes, of the stored bytes. */
  append(index: number, sha256: Uint8Array): void {
    if (sha256.length !== hashBytes) throw new RangeError(`a SHA-256 has ${hashBytes} bytes, not ${sha256.length}`);
    const start = this.#add(index, 0);
    this.#bytes.set(sha256, start + 8);
  }

  /** Takes the parent's entry for block `index` over. False when the parent has none: a block of zeros. */
  inherit(index: number): boolean {
    const { parent } = this.#options;
    const position = this.#cursor?.find(index) ?? -1;
    if (position < 0) return false;
    const start = this.#add(index, 1 + parent!.ownerNumberAt(position));
    parent!.copySha256(position, this.#bytes, start + 8);
    return true;
  }

  /** The manifest, for `putManifest`. The builder is of no use afterwards. */
  finish(): Buffer {
    const owners = this.#dropUnusedOwners();
    const jsonEnd = this.#entriesOffset - hashBytes;
    const json = Buffer.from(JSON.stringify(this.#header(owners, this.#blocks)));
    const bytes = this.#bytes;
    magic.copy(bytes);
    bytes.writeUInt32LE(jsonEnd - prefixBytes, magic.length);
    // JSON allows white space at its end.
    bytes.fill(0x20, prefixBytes, jsonEnd);
    json.copy(bytes, prefixBytes);
    hashOf(bytes, jsonEnd).copy(bytes, jsonEnd);
    const end = this.#entriesOffset + this.#blocks * entryBytes;
    hashOf(bytes, end).copy(bytes, end);
    this.#buffer.resize(end + hashBytes);
    return Buffer.from(this.#buffer, 0, end + hashBytes);
  }

  #header(owners: readonly string[], blocks: number): ManifestHeader {
    const { snapshotId, volumeId, sizeBytes, createdAt } = this.#options;
    const ancestors = this.#ancestors;
    const parentSnapshotId = ancestors[0] ?? null;
    return { snapshotId, volumeId, sizeBytes, blockBytes, parentSnapshotId, ancestors, owners, blocks, createdAt };
  }

  /** Adds an entry without its hash; where it begins. */
  #add(index: number, owner: number): number {
    if (!Number.isInteger(index) || index <= this.#lastIndex || index >= this.#indexes) {
      throw new RangeError(`block ${index} follows ${this.#lastIndex} in a snapshot of ${this.#indexes} blocks`);
    }
    const start = this.#entriesOffset + this.#blocks * entryBytes;
    if (start + entryBytes + hashBytes > this.#buffer.byteLength) this.#grow();
    this.#view.setUint32(start, index, true);
    this.#view.setUint32(start + 4, owner, true);
    this.#lastIndex = index;
    this.#blocks += 1;
    return start;
  }

  #grow(): void {
    const { byteLength, maxByteLength } = this.#buffer;
    this.#buffer.resize(Math.min(maxByteLength, Math.ceil(byteLength * 1.25) + 65536));
    this.#bytes = Buffer.from(this.#buffer);
    this.#view = new DataView(this.#buffer);
  }

  /** Numbers the owners anew, leaving out those that no entry names. */
  #dropUnusedOwners(): string[] {
    const renumbered = new Int32Array(this.#owners.length).fill(-1);
    const used: string[] = [];
    for (let position = 0; position < this.#blocks; position++) {
      const at = this.#entriesOffset + position * entryBytes + 4;
      const old = this.#view.getUint32(at, true);
      if (renumbered[old]! < 0) renumbered[old] = used.push(this.#owners[old]!) - 1;
      this.#view.setUint32(at, renumbered[old]!, true);
    }
    return used;
  }
}

function faultOf(header: ManifestHeader | null, { snapshotId }: ManifestSource): string | undefined {
  if (header === null) return 'its header makes no sense';
  if (header.snapshotId !== snapshotId) return `it is that of ${String(header.snapshotId)}`;
  if (header.blockBytes !== blockBytes) return `its blocks have ${String(header.blockBytes)} bytes`;
  const { sizeBytes, blocks, owners, ancestors, parentSnapshotId } = header;
  const isSize = Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % blockBytes === 0;
  const isCount = Number.isSafeInteger(blocks) && blocks >= 0 && blocks <= sizeBytes / blockBytes;
  if (!isSize || !isCount || !isNames(owners) || !isNames(ancestors)) return 'its header makes no sense';
  return parentSnapshotId === (ancestors[0] ?? null) ? undefined : 'its header makes no sense';
}

function isNames(value: unknown): boolean {
  return Array.isArray(value) && value.every(isSnapshotId);
}

function hashOf(bytes: Buffer, length: number): Buffer {
  const hash = createHash('sha256');
  for (let start = 0; start < length; start += hashStepBytes) {
    hash.update(bytes.subarray(start, Math.min(length, start + hashStepBytes)));
  }
  return hash.digest();
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

function damaged(source: ManifestSource, why: string, cause?: unknown): DamagedManifest {
  return new DamagedManifest(source, why, { cause });
}
