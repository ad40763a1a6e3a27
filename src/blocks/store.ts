// Where snapshots rest: a directory or an S3 bucket. What lies in it, and under which names, is in docs/formats.md.

/** Bytes of a block, as EBS direct exposes them. The last block of a volume is whole, too: sizes are whole GiB. */
export const blockBytes = 512 * 1024;

/**
 * One block of one snapshot. Written once, never changed: whoever writes it again (after a crash) writes the same bytes.
 * Later snapshots of the same family name it in their manifests instead of storing it again.
 */
export interface BlockName {
  /** The snapshot that stored it. */
  readonly owner: string;
  /** Offset in the volume ÷ `blockBytes`. */
  readonly index: number;
}

/**
 * Whether a snapshot's id can be part of the name of a file or object. Every store refuses others with a RangeError: what
 * comes from a manifest or a message never leads outside the store.
 */
export function isSnapshotId(value: unknown): value is string {
  return typeof value === 'string' && /^snap-[0-9a-z]{1,64}$/.test(value);
}

/**
 * A block store. Every method may reject with a `StoreError`; `signal` ends it early. All writes are durable when `sync`
 * resolves, a manifest (and what it names) when `putManifest` does.
 */
export interface BlockStore {
  /** The store's own id, made with it: hosts that report the same one see the same blocks. */
  readonly id: string;
  /** For messages: the directory, or `s3://bucket/prefix`. */
  readonly location: string;

  /** Reads a block and verifies it: `bytes` (524288) is filled with what was stored. */
  getBlock(name: BlockName, sha256: Uint8Array, bytes: Buffer, signal?: AbortSignal): Promise<void>;
  putBlock(name: BlockName, bytes: Buffer, signal?: AbortSignal): Promise<void>;
  /** Copies a stored block to another name without reading it here, where the store can. */
  copyBlock(from: BlockName, to: BlockName, signal?: AbortSignal): Promise<void>;
  /** Missing ones count as deleted. */
  deleteBlocks(names: readonly BlockName[], signal?: AbortSignal): Promise<void>;
  /** Blocks that are there, in no order, manifest or not; `owner` limits them to one snapshot's. */
  listBlocks(owner?: string, signal?: AbortSignal): AsyncIterable<BlockName>;

  /** Snapshots that blocks are stored under, in no order. */
  listOwners(signal?: AbortSignal): AsyncIterable<string>;
  /** When a block was stored, ms since the epoch by the store's clock; undefined when it is not there. */
  blockStoredAt(name: BlockName, signal?: AbortSignal): Promise<number | undefined>;

  /** The file as it is: `Manifest.parse` verifies it. Undefined when there is none. */
  getManifest(snapshotId: string, signal?: AbortSignal): Promise<Buffer | undefined>;
  /** At most the first `length` bytes of it, for `parseManifestHeader`. */
  getManifestStart(snapshotId: string, length: number, signal?: AbortSignal): Promise<Buffer | undefined>;
  /** Atomic, and the last thing that is written of a snapshot: everything put before is made durable first. */
  putManifest(snapshotId: string, bytes: Buffer, signal?: AbortSignal): Promise<void>;
  deleteManifest(snapshotId: string, signal?: AbortSignal): Promise<void>;
  listManifests(signal?: AbortSignal): AsyncIterable<string>;

  /** Says that a snapshot is being made: until `deleteMark` its blocks are nobody's garbage. */
  putMark(snapshotId: string, signal?: AbortSignal): Promise<void>;
  deleteMark(snapshotId: string, signal?: AbortSignal): Promise<void>;
  listMarks(signal?: AbortSignal): AsyncIterable<string>;

  /** Says that a snapshot is being freed: what its manifest names may be gone by now. */
  putFreeing(snapshotId: string, signal?: AbortSignal): Promise<void>;
  deleteFreeing(snapshotId: string, signal?: AbortSignal): Promise<void>;
  listFreeing(signal?: AbortSignal): AsyncIterable<string>;

  /**
   * Resolves when everything written before is on stable storage. When it rejects, blocks put since the last one that
   * resolved may be lost, and have to be put again.
   */
  sync(): Promise<void>;
  /** The same for a few blocks alone, without waiting for everything else that the machine writes. */
  syncBlocks(names: readonly BlockName[]): Promise<void>;
  close(): void;
}

export type StoreErrorCode =
  /** A block or manifest is not what was stored: SHA-256 or format. Trying again does not help. */
  | 'Corrupt'
  /** A block that a manifest names is not there. Trying again does not help. */
  | 'Missing'
  /** The store answers nothing, throttles or times out, after the store's own retries. */
  | 'Unavailable'
  /** The store refuses: credentials, permissions. */
  | 'Denied'
  /** No room left. */
  | 'Full';

export interface StoreErrorOptions extends ErrorOptions {
  /** For the operator: where it was, and what the system or the server said. */
  readonly detail?: string | undefined;
}

/**
 * Why the store could not do it. The message names the block or manifest, and is fit for whoever owns the snapshot; where the
 * store is, and what lies behind it, is the operator's, and in `detail` only.
 */
export class StoreError extends Error {
  readonly code: StoreErrorCode;
  readonly detail: string | undefined;

  constructor(code: StoreErrorCode, message: string, { detail, ...options }: StoreErrorOptions = {}) {
    super(message, options);
    this.name = 'StoreError';
    this.code = code;
    this.detail = detail;
  }
}

/** What the operator is told of an error: all of it. */
export function inFull(error: unknown): string {
  const { message, detail } = error as { message?: string; detail?: string };
  return `${message ?? error}${detail ? ` (${detail})` : ''}`;
}

/** The place is there, and holds no block store. */
export class NoStoreError extends StoreError {
  constructor(location: string, options?: ErrorOptions) {
    super('Unavailable', 'there is no block store', { ...options, detail: `${location} has no store.json` });
  }
}
