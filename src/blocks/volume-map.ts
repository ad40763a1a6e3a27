/**
 * The map of a volume: what its image can't say. `vol-….map` beside `vol-….img`; docs/volume-image.md has the format.
 *
 * - `changed`: blocks written since the last snapshot. A bit is set before the block's first write.
 * - `unrestored`: blocks that are yet to come from the snapshot that the volume is made from. A bit is cleared after the
 *   block is in the image. True as long as the page cache lives, which a killed process does not end.
 * - `unsafe`: the same, but cleared only once the block is on stable storage. True after a crash of the machine.
 *
 * After a crash of the machine nothing is known of what was written, so everything counts as changed.
 */
import { closeSync, constants, fdatasyncSync, fsyncSync, openSync, readSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory } from '../files/durable.ts';
import { Bitmap, bytesFor } from './bitmap.ts';
import { bootId } from './boot.ts';
import { fallocKeepSize, libc } from './libc.ts';
import { readSector, writeSector } from './sector.ts';
import { blockBytes } from './store.ts';

const magic = 'COFFERV1';
const mib = 1024 * 1024;
/** Where the bits lie. Each region holds 2^27 of them: 64 TiB, the largest volume there is. */
const changedOffset = 16 * mib;
const unrestoredOffset = 32 * mib;
const unsafeOffset = 48 * mib;
const volumeBytesMax = 64 * 1024 ** 4;

export interface MapHeader {
  readonly format: 1;
  /** Also the image's size, except when a crash came in the middle of growing it. */
  readonly sizeBytes: number;
  /** Of the machine's run in which the volume was last opened. */
  readonly bootId: string;
  /** Closed in order: everything is on stable storage. */
  readonly clean: boolean;
  /** What `changed` is relative to; absent: not known, everything counts as changed. */
  readonly lastSnapshotId?: string;
  /** The sequence number of the last point in time that `changed` has seen. */
  readonly marks: number;
  /** The snapshot that the volume is made from, if there is one. */
  readonly restore?: {
    readonly snapshotId: string;
    /** Blocks that the snapshot has data for. */
    readonly blocks: number;
    /** All of them are in the image, durably. */
    readonly done: boolean;
  };
}

/** The file `kind` beside an image: `vol-1.img` → `vol-1.map`. */
export function besideImage(imagePath: string, kind: string): string {
  return `${imagePath.replace(/\.img$/, '')}.${kind}`;
}

/** Number of blocks of a volume, the last one perhaps cut short. */
export function blocksOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / blockBytes);
}

/**
 * Makes a volume's map, durably and atomically. `restore`: the blocks of the snapshot that are to come to the image; then
 * the map must be made before the image, so that an image never stands without knowing what it lacks.
 */
export function createVolumeMap(
  path: string,
  sizeBytes: number,
  restore?: { readonly snapshotId: string; readonly blocks: Iterable<number> },
): void {
  if (sizeBytes > volumeBytesMax) throw new RangeError(`a volume has at most ${volumeBytesMax} bytes`);
  const fresh = `${path}.new`;
  rmSync(fresh, { force: true });
  const fd = openSync(fresh, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
  try {
    let blocks = 0;
    if (restore) {
      const count = blocksOf(sizeBytes);
      const maps = [unrestoredOffset, unsafeOffset].map((offset) => new Bitmap(fd, offset, count));
      for (const index of restore.blocks) {
        if (index >= count) throw new RangeError('the snapshot is larger than the volume');
        for (const map of maps) map.setInMemory(index);
        blocks++;
      }
      for (const map of maps) map.storeAll();
    }
    const header: MapHeader = {
      format: 1,
      sizeBytes,
      bootId: bootId(),
      clean: true,
      marks: 0,
      ...(restore ? { restore: { snapshotId: restore.snapshotId, blocks, done: blocks === 0 } } : {}),
    };
    writeSector(fd, 0, magic, header);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(fresh, path);
  syncDirectory(dirname(path));
}

/** The header of a volume's map, or undefined when there is no map. @throws when it is damaged */
export function readMapHeader(path: string): MapHeader | undefined {
  const fd = openIfThere(path, constants.O_RDONLY);
  if (fd === undefined) return undefined;
  try {
    return checkedHeader(path, fd);
  } finally {
    closeSync(fd);
  }
}

/** An open map. Whoever has it open has the image's lock. */
export class VolumeMap {
  readonly changed: Bitmap;
  readonly unrestored: Bitmap;
  readonly unsafe: Bitmap;
  readonly fd: number;
  #header: MapHeader;

  /** Opens a map that is there. @throws when it is damaged or missing */
  constructor(path: string) {
    this.fd = openSync(path, constants.O_RDWR);
    try {
      this.#header = checkedHeader(path, this.fd);
      const blocks = blocksOf(this.#header.sizeBytes);
      this.changed = new Bitmap(this.fd, changedOffset, blocks);
      const restoring = this.#header.restore && !this.#header.restore.done;
      this.unrestored = new Bitmap(this.fd, unrestoredOffset, restoring ? blocks : 0);
      this.unsafe = new Bitmap(this.fd, unsafeOffset, restoring ? blocks : 0);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  get header(): MapHeader {
    return this.#header;
  }

  /** Whether blocks are yet to be restored. */
  get isRestoring(): boolean {
    return this.#header.restore !== undefined && !this.#header.restore.done;
  }

  /** Puts right what a crash of the machine left, if there was one. */
  recover(): void {
    const { bootId: lastBoot, clean } = this.#header;
    if (clean || lastBoot === bootId()) return;
    if (this.isRestoring) this.unrestored.assign(this.unsafe);
    this.#write({ ...this.#header, bootId: bootId(), lastSnapshotId: undefined });
    fsyncSync(this.fd);
  }

  /** Says that writes begin. Durable when it returns. */
  begin(): void {
    this.recover();
    // Room for the bits, so that setting one later can't fail on a full disk. Where that can't be had, it may.
    libc().fallocate(this.fd, fallocKeepSize, changedOffset, bytesFor(this.changed.length));
    this.#write({ ...this.#header, bootId: bootId(), clean: false });
    fsyncSync(this.fd);
  }

  /** Says that writes have ended, and the image is on stable storage. */
  finish(): void {
    if (this.isRestoring) this.unsafe.assign(this.unrestored);
    fdatasyncSync(this.fd);
    this.#write({ ...this.#header, clean: true });
    fsyncSync(this.fd);
  }

  /**
   * Makes a point in time the one that `changed` counts from. Killed in between, it has lost count, and everything counts as
   * changed.
   */
  countFrom(snapshotId: string, sequence: number): void {
    this.#write({ ...this.#header, lastSnapshotId: undefined, marks: sequence });
    this.changed.clearAll();
    this.#write({ ...this.#header, lastSnapshotId: snapshotId });
  }

  /** Says that every block of the snapshot is in the image, and on stable storage. Not durable before the next fsync. */
  restored(): void {
    const { restore } = this.#header;
    if (restore) this.#write({ ...this.#header, restore: { ...restore, done: true } });
  }

  /** The image has grown; it is `sizeBytes` long already. */
  grow(sizeBytes: number): void {
    if (sizeBytes > volumeBytesMax) throw new RangeError(`a volume has at most ${volumeBytesMax} bytes`);
    const blocks = blocksOf(sizeBytes);
    this.changed.grow(blocks);
    if (this.isRestoring) {
      this.unrestored.grow(blocks);
      this.unsafe.grow(blocks);
    }
    libc().fallocate(this.fd, fallocKeepSize, changedOffset, bytesFor(blocks));
    this.#write({ ...this.#header, sizeBytes });
    fsyncSync(this.fd);
  }

  /** Puts all that was said on stable storage. */
  sync(): void {
    fsyncSync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }

  #write(header: MapHeader): void {
    writeSector(this.fd, 0, magic, header);
    this.#header = header;
  }
}

/** Looks at single bits of a map that another thread may have open. */
export class RestoreState {
  readonly #fd: number | undefined;
  readonly #byte = Buffer.alloc(1);

  constructor(path: string) {
    this.#fd = openIfThere(path, constants.O_RDONLY);
    if (this.#fd === undefined) return;
    const { restore } = checkedHeader(path, this.#fd);
    if (restore && !restore.done) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Whether blocks may be yet to be restored. */
  get isRestoring(): boolean {
    return this.#fd !== undefined;
  }

  isUnrestored(index: number): boolean {
    if (this.#fd === undefined) return false;
    if (readSync(this.#fd, this.#byte, 0, 1, unrestoredOffset + (index >>> 3)) === 0) return false;
    return (this.#byte[0]! & (1 << (index & 7))) !== 0;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

function checkedHeader(path: string, fd: number): MapHeader {
  const header = readSector<MapHeader>(fd, 0, magic);
  if (header?.format === 1) return header;
  throw Object.assign(
    new Error(`the volume's map ${path} is damaged; restore it from a backup, or restore the volume from a snapshot`),
    { code: 'MapDamaged' },
  );
}

function openIfThere(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
