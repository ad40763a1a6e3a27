/**
 * Reads a volume as it was at a point in time, while it goes on changing.
 *
 * First the image, then what was saved: a unit is saved before it changes, so whatever the image shows that is too new has
 * been saved by then. Nothing is locked and nobody is asked; the writer and the readers meet in the page cache.
 */
import { closeSync, constants as fsConstants, fstatSync, openSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Bitmap } from './bitmap.ts';
import { cowPath, listCows, PointInTimeError, readState, readWatermark, writeWatermark } from './copy-before-write.ts';
import { CowReader } from './cow-reader.ts';
import { fadviseWillNeed, libc, seekData, seekHole } from './libc.ts';
import { blockBytes } from './store.ts';
import { blocksOf, RestoreState } from './volume-map.ts';

/**
 * A volume as it was at a point in time, read block by block while the volume goes on changing. Files only: the reader may
 * be any thread of the host, with the volume open, closed, opened anew or killed meanwhile.
 */
export interface SnapshotView {
  /** The volume's size at the point in time. */
  readonly sizeBytes: number;
  /** Number of blocks, the last one perhaps cut short by the volume's end. */
  readonly blocks: number;
  /** The snapshot that `isChanged` compares with; undefined: not known, every block counts as changed. */
  readonly changedSince: string | undefined;
  /**
   * Blocks below it can't be read any more: they were said to be copied (`setWatermark`, perhaps by an earlier view), and
   * the volume has been open since.
   */
  readonly watermark: number;
  isChanged(index: number): boolean;
  /** The first block from `index` on that counts as changed, or `blocks`. */
  nextChanged(index: number): number;
  /** The first block from `index` on that may hold data or is yet to be restored, or `blocks`: skips stretches of holes. */
  nextData(index: number): number;
  /**
   * Reads a block as it lies on disk (ciphertext, for an encrypted volume) to `bytes` (524288; zeros beyond the volume's
   * end). `hole`: all zeros, and `bytes` are undefined. `unrestored`: not there yet; the volume has to be open to be
   * restored; ask again later.
   * @throws {PointInTimeError} `Lost` or `Missing` @throws the file system's error (`code` EIO …)
   */
  read(index: number, bytes: Buffer): 'data' | 'hole' | 'unrestored';
  /** A hint that blocks from `index` to `end` (not included) are read soon. */
  prefetch(index: number, end: number): void;
  /**
   * Says that the blocks below `index` are copied and will not be read again, so that the volume's writes stop saving them.
   * Say it once that is sure to be known after a crash of the process, too. Cheap; call it after each few blocks.
   */
  setWatermark(index: number): void;
  close(): void;
}

const zeroBlock = Buffer.alloc(blockBytes);

/** Opens the view of a point in time that `OpenVolumes.markSnapshots` made. @throws {PointInTimeError} */
export function openSnapshotView(volumesDir: string, volumeId: string, snapshotId: string): SnapshotView {
  return openView(join(volumesDir, volumeId), snapshotId);
}

/** `openSnapshotView`, for the volume whose image is `base` and `.img`. */
export function openView(base: string, snapshotId: string): SnapshotView {
  const cow = CowReader.open(cowPath(base, snapshotId));
  if (!cow) throw new PointInTimeError('Missing', `there is no point in time for ${snapshotId}`);
  return new View(base, cow);
}

class View implements SnapshotView {
  readonly sizeBytes: number;
  readonly blocks: number;
  readonly changedSince: string | undefined;
  readonly watermark: number;
  readonly #base: string;
  /** Its own file, then those of the points in time after it. */
  readonly #chain: CowReader[];
  readonly #changed: Bitmap | undefined;
  readonly #image: number | undefined;
  readonly #imageBytes: number;
  readonly #restore: RestoreState;
  /** Up to here from `#holeFrom` on the image had no data when it was looked at. */
  #holeFrom = 0;
  #holeTo = 0;
  /** Up to here from `#dataFrom` it had data without a gap. */
  #dataFrom = 0;
  #dataTo = 0;
  #hasOlder: boolean;
  #copied: number;
  readonly #libc = libc();

  constructor(base: string, own: CowReader) {
    this.#base = base;
    this.#chain = [own];
    this.sizeBytes = own.identity.sizeBytes;
    this.blocks = blocksOf(this.sizeBytes);
    this.#changed = own.changeSet();
    this.changedSince = this.#changed && own.identity.changedSince;
    // Without an image the volume was empty at that time, whatever is made later.
    this.#image = openImage(`${base}.img`);
    this.#imageBytes = this.#image === undefined ? 0 : Math.min(fstatSync(this.#image).size, this.sizeBytes);
    this.#restore = new RestoreState(`${base}.map`);
    this.#hasOlder = true;
    // A volume that nobody has opened for writing since is still what it was.
    this.watermark = readState(own.fd)?.opened === false ? 0 : readWatermark(own.fd);
    this.#copied = readWatermark(own.fd);
    try {
      this.#catchUp();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  isChanged(index: number): boolean {
    return !this.#changed || this.#changed.has(index);
  }

  nextChanged(index: number): number {
    return this.#changed ? this.#changed.next(index) : index;
  }

  nextData(index: number): number {
    if (this.#restore.isRestoring) return index;
    for (let position = index; position < this.blocks; position++) {
      if (!this.#isHole(position) || this.#chain.some((cow) => cow.hasSaved(position))) return position;
    }
    return this.blocks;
  }

  read(index: number, bytes: Buffer): 'data' | 'hole' | 'unrestored' {
    if (index < this.watermark) {
      throw new PointInTimeError('Lost', 'the volume has been written to where its blocks had been copied already');
    }
    if (this.#restore.isUnrestored(index)) {
      // It may also be lost, which waiting does not mend.
      this.#catchUp();
      return 'unrestored';
    }
    const inImage = this.#readImage(index, bytes);
    this.#catchUp();
    const savers = this.#chain.filter((cow) => cow.hasSaved(index));
    if (!inImage && savers.length === 0) return 'hole';
    if (!inImage) bytes.fill(0);
    // The newest first: what an older one has saved is older, and is what this point in time saw.
    for (const cow of savers.reverse()) cow.overlay(index, bytes);
    const end = this.sizeBytes - index * blockBytes;
    if (end < blockBytes) bytes.fill(0, end);
    return bytes[0] === 0 && bytes.equals(zeroBlock) ? 'hole' : 'data';
  }

  prefetch(index: number, end: number): void {
    if (this.#image === undefined) return;
    const to = Math.min(end * blockBytes, this.#imageBytes);
    // Linux cuts one request at the read-ahead window.
    for (let offset = index * blockBytes; offset < to; offset += blockBytes / 4) {
      this.#libc.fadvise(this.#image, offset, blockBytes / 4, fadviseWillNeed);
    }
  }

  setWatermark(index: number): void {
    if (index <= this.#copied) return;
    for (let block = this.#copied; block < Math.min(index, this.blocks); block++) {
      for (const cow of this.#chain) cow.forget(block);
    }
    this.#copied = index;
    // An older point in time still reads through this one's file.
    if (this.#hasOlder) this.#hasOlder = this.#findOlder();
    if (!this.#hasOlder) writeWatermark(this.#chain[0]!.fd, this.#copied);
  }

  close(): void {
    for (const cow of this.#chain) cow.close();
    if (this.#image !== undefined) closeSync(this.#image);
    this.#restore.close();
  }

  /** Takes in what has been saved by now, by this point in time and all after it. */
  #catchUp(): void {
    for (let position = 0; position < this.#chain.length; position++) {
      const cow = this.#chain[position]!;
      cow.update();
      if (cow.next === undefined || position + 1 < this.#chain.length) continue;
      const next = CowReader.open(cowPath(this.#base, cow.next));
      if (!next) throw new PointInTimeError('Lost', `what ${cow.next} had saved for it is not there any more`);
      this.#chain.push(next);
    }
  }

  #findOlder(): boolean {
    const { sequence } = this.#chain[0]!.identity;
    return listCows(this.#base).some((entry) => entry.identity.sequence < sequence);
  }

  #readImage(index: number, bytes: Buffer): boolean {
    if (this.#isHole(index)) return false;
    const offset = index * blockBytes;
    const length = Math.min(blockBytes, this.#imageBytes - offset);
    for (let done = 0; done < length; ) {
      const count = readSync(this.#image!, bytes, done, length - done, offset + done);
      if (count === 0) throw Object.assign(new Error('the volume image was cut short'), { code: 'EIO' });
      done += count;
    }
    bytes.fill(0, length);
    return true;
  }

  /**
   * Whether the image has no data in a block. What it had none in once it had none in at the point in time, except for what
   * was saved since; unless blocks come in by being restored.
   */
  #isHole(index: number): boolean {
    const offset = index * blockBytes;
    const end = Math.min(offset + blockBytes, this.#imageBytes);
    if (this.#image === undefined || offset >= end) return true;
    // A hole that is taken for data costs the reading of zeros, and nothing else.
    if (offset >= this.#dataFrom && offset < this.#dataTo) return false;
    if (offset >= this.#holeFrom && end <= this.#holeTo && !this.#restore.isRestoring) return true;
    const data = this.#libc.lseek(this.#image, offset, seekData);
    // No data up to the end; any other error: a file system that can't tell.
    const dataStart = data === -constants.errno.ENXIO ? this.#imageBytes : Math.max(data, offset);
    if (dataStart < end) {
      this.#dataFrom = offset;
      this.#dataTo = Math.max(end, this.#libc.lseek(this.#image, dataStart, seekHole));
      return false;
    }
    this.#holeFrom = offset;
    this.#holeTo = dataStart;
    // What made a hole where data was has saved the data before.
    this.#catchUp();
    return true;
  }
}

function openImage(path: string): number | undefined {
  try {
    return openSync(path, fsConstants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
