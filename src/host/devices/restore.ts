// A volume that is being made from a snapshot: blocks that are not in the image yet come from the block store when they are
// touched, and the others in the background. Between cipher and tracking. A block comes under the snapshot's key and goes to
// the image under the volume's own, below the tracking: the volume's contents do not change by it.
//
// A block is missing until it is in the image (`unrestored`), and unsafe until it is there on stable storage (`unsafe`), which
// a flush sees to before it is answered. See src/blocks/volume-map.ts.

import { fdatasync } from 'node:fs';
import { libc } from '../../blocks/libc.ts';
import { blockBytes } from '../../blocks/store.ts';
import type { VolumeMap } from '../../blocks/volume-map.ts';
import type { Slab } from '../../crypto/native.ts';
import { dataUnitBytes, type Xts } from '../../crypto/xts.ts';
import type { BlockSource } from '../snapshot-blocks.ts';
import { BlockFetches, type FetchTrouble } from './block-fetches.ts';
import type { Device, DeviceError, Extent, Outcome, Wait } from './device.ts';
import { GroupFlush } from './group-flush.ts';
import type { TrackingDevice } from './tracking.ts';
import { WriteBack } from './write-back.ts';

export interface RestoreOptions {
  readonly below: TrackingDevice;
  /** The image itself, below `below`. */
  readonly file: Device;
  readonly imageFd: number;
  readonly map: VolumeMap;
  readonly source: BlockSource;
  /** Of the snapshot's blocks; the device owns it. Undefined: they are not encrypted. */
  readonly sourceXts: Xts | undefined;
  /** The volume's; its owner closes it. */
  readonly xts: Xts | undefined;
  readonly backgroundMax: number;
  trouble(trouble: FetchTrouble | undefined): void;
  /** A block has come in. */
  progress(left: number): void;
  /** All blocks are in the image, durably. */
  restored(): void;
}

export interface RestoreDevice extends Device {
  /** Begins to restore in the background. */
  start(): void;
  setRate(mibPerSecond: number | undefined): void;
  /** Ends the restoring, for a flush and `close` to follow. */
  stop(): void;
  readonly left: number;
}

const zeroUnit = Buffer.alloc(dataUnitBytes);
/** Blocks that a hint about a range brings in at most. */
const cacheBlocksMax = 8;

class Restore implements RestoreDevice {
  readonly #options: RestoreOptions;
  readonly #below: TrackingDevice;
  readonly #map: VolumeMap;
  readonly #fetches: BlockFetches;
  readonly #group: GroupFlush;
  readonly #writeBack: WriteBack;
  /** In the image, perhaps not on stable storage. */
  #unflushed: number[] = [];
  #left: number;
  #sourceXts: Xts | undefined;
  #isStopped = false;
  #isClosed = false;

  constructor(options: RestoreOptions) {
    this.#options = options;
    this.#below = options.below;
    this.#map = options.map;
    this.#sourceXts = options.sourceXts;
    this.#left = options.map.unrestored.count();
    this.#group = new GroupFlush(-1, (done) => this.#sync(done));
    // Blocks that are unsafe, but not missing: a process was killed before it flushed them.
    for (
      let block = this.#map.unsafe.next(0);
      block < this.#map.unsafe.length;
      block = this.#map.unsafe.next(block + 1)
    ) {
      if (!this.#map.unrestored.has(block)) this.#unflushed.push(block);
    }
    this.#writeBack = new WriteBack(options.imageFd, libc(), () => this.#fetches.goOn());
    this.#fetches = new BlockFetches({
      source: options.source,
      backgroundMax: options.backgroundMax,
      next: (index) => {
        const block = this.#map.unrestored.next(index);
        return block < this.#map.unrestored.length ? block : undefined;
      },
      mustPause: () => this.#writeBack.isBehind,
      isMissing: (block) => this.#map.unrestored.has(block),
      take: (block, memory, isWanted) => this.#take(block, memory, isWanted),
      trouble: (trouble) => options.trouble(trouble),
    });
  }

  get size(): number {
    return this.#below.size;
  }

  get zeroesFast(): boolean {
    return this.#below.zeroesFast;
  }

  /** What is missing has to come before it can be saved. */
  get expectsWrites(): boolean {
    return this.#left === 0 && this.#below.expectsWrites;
  }

  get left(): number {
    return this.#left;
  }

  start(): void {
    if (this.#left === 0) this.#finish();
    else this.#fetches.startBackground();
  }

  setRate(mibPerSecond: number | undefined): void {
    this.#fetches.setRate(mibPerSecond);
  }

  read(memory: Slab, at: number, offset: number, length: number): Outcome {
    return (this.#left > 0 ? this.#ensure(offset, length) : undefined) ?? this.#below.read(memory, at, offset, length);
  }

  write(memory: Slab, at: number, offset: number, length: number): Outcome {
    if (this.#left === 0) return this.#below.write(memory, at, offset, length);
    const wait = this.#ensureOthers(offset, length) ?? this.#below.write(memory, at, offset, length);
    if (!wait) this.#overwritten(offset, length);
    return wait;
  }

  zero(offset: number, length: number, allocate: boolean): Outcome {
    if (this.#left === 0) return this.#below.zero(offset, length, allocate);
    const wait = this.#ensureOthers(offset, length) ?? this.#below.zero(offset, length, allocate);
    if (!wait) this.#overwritten(offset, length);
    return wait;
  }

  /** What is missing can't be discarded by discarding in the image alone: it becomes zeros. */
  trim(offset: number, length: number): Outcome {
    if (this.#left === 0) return this.#below.trim(offset, length);
    return this.zero(offset, length, false);
  }

  cache(offset: number, length: number): void {
    const missing = this.#left > 0 ? this.#missing(offset, length, cacheBlocksMax) : [];
    for (const block of missing) this.#fetches.want(block, () => {});
    if (missing.length === 0) this.#below.cache(offset, length);
  }

  expectWrite(offset: number, length: number): void {
    if (this.#left === 0) this.#below.expectWrite(offset, length);
  }

  extents(offset: number, length: number, count: number): Extent[] {
    if (this.#left === 0) return this.#below.extents(offset, length, count);
    const end = offset + length;
    const extents: Extent[] = [];
    let position = offset;
    while (position < end && extents.length < count) {
      const block = Math.floor(position / blockBytes);
      const isMissing = this.#map.unrestored.has(block);
      const stop = Math.min(end, isMissing ? (block + 1) * blockBytes : this.#map.unrestored.next(block) * blockBytes);
      const found: Extent[] = isMissing
        ? [{ length: stop - position, hole: false }]
        : this.#below.extents(position, stop - position, count - extents.length);
      for (const extent of found) {
        const last = extents.at(-1);
        if (last && last.hole === extent.hole) {
          extents[extents.length - 1] = { length: last.length + extent.length, hole: last.hole };
        } else extents.push(extent);
        position += extent.length;
      }
    }
    return extents;
  }

  flush(done: (error?: Error) => void): void {
    if (this.#left === 0 && this.#unflushed.length === 0 && !this.#group.failure) this.#below.flush(done);
    else this.#group.flush(done);
  }

  stop(): void {
    this.#isStopped = true;
    this.#fetches.close();
  }

  close(): void {
    this.stop();
    this.#isClosed = true;
    this.#writeBack.close();
    this.#closeSource();
    this.#below.close();
  }

  /** Waits for what is missing in a range, if anything is. */
  #ensure(offset: number, length: number): Outcome {
    const missing = this.#missing(offset, length, Number.POSITIVE_INFINITY);
    return missing.length === 0 ? undefined : this.#waitFor(missing);
  }

  /** The same, for a range that is to be overwritten: blocks that lie in it whole are not needed. */
  #ensureOthers(offset: number, length: number): Outcome {
    const missing = this.#missing(offset, length, Number.POSITIVE_INFINITY).filter(
      (block) => !this.#covers(offset, length, block) || this.#below.mustSave(block),
    );
    return missing.length === 0 ? undefined : this.#waitFor(missing);
  }

  #missing(offset: number, length: number, count: number): number[] {
    if (length === 0) return [];
    const blocks: number[] = [];
    const last = Math.floor((offset + length - 1) / blockBytes);
    const { unrestored } = this.#map;
    for (
      let block = unrestored.next(Math.floor(offset / blockBytes));
      block <= last && block < unrestored.length && blocks.length < count;
      block = unrestored.next(block + 1)
    ) {
      blocks.push(block);
    }
    return blocks;
  }

  #covers(offset: number, length: number, block: number): boolean {
    return offset <= block * blockBytes && offset + length >= Math.min((block + 1) * blockBytes, this.size);
  }

  #waitFor(blocks: readonly number[]): Wait {
    return {
      start: (done) => {
        let open = blocks.length;
        let failure: Error | undefined;
        for (const block of blocks) {
          this.#fetches.want(block, (error) => {
            failure ??= error;
            if (--open === 0) done(failure);
          });
        }
      },
    };
  }

  /** Blocks that were overwritten as a whole need not be fetched any more. */
  #overwritten(offset: number, length: number): void {
    for (const block of this.#missing(offset, length, Number.POSITIVE_INFINITY)) this.#isThere(block);
  }

  /** Writes a block that came from the store to the image. */
  #take(block: number, memory: Slab, isWanted: boolean): void {
    const offset = block * blockBytes;
    const units = Math.min(blockBytes, this.size - offset) / dataUnitBytes;
    let unit = 0;
    while (unit < units) {
      const zeros = isZeroUnit(memory.bytes, unit);
      let end = unit + 1;
      while (end < units && isZeroUnit(memory.bytes, end) === zeros) end++;
      const at = unit * dataUnitBytes;
      const length = (end - unit) * dataUnitBytes;
      const first = offset / dataUnitBytes + unit;
      // Units of zeros are holes, under whatever key.
      if (zeros) this.#options.file.zero(offset + at, length, false);
      else {
        this.#sourceXts?.decrypt(memory, at, first, end - unit);
        this.#options.xts?.encrypt(memory, at, first, end - unit);
        this.#options.file.write(memory, at, offset + at, length);
      }
      unit = end;
    }
    this.#isThere(block);
    // What a request has asked for stays in memory.
    if (!isWanted) this.#writeBack.wrote(offset, units * dataUnitBytes);
  }

  #isThere(block: number): void {
    this.#map.unrestored.clear(block);
    this.#unflushed.push(block);
    this.#left--;
    this.#options.progress(this.#left);
    if (this.#left === 0) setImmediate(() => this.#finish());
  }

  #finish(): void {
    if (this.#isStopped) return;
    this.flush((error) => {
      if (this.#isStopped) return;
      if (error) {
        const { code, message } = error as DeviceError;
        this.#options.trouble({ code, message, final: true });
        return;
      }
      this.#map.restored();
      fdatasync(this.#map.fd, (syncError) => {
        if (this.#isStopped) return;
        if (syncError) return this.#options.trouble({ code: 'EIO', message: syncError.message, final: true });
        this.#fetches.close();
        this.#writeBack.close();
        this.#closeSource();
        this.#options.restored();
      });
    });
  }

  #closeSource(): void {
    this.#sourceXts?.close();
    this.#sourceXts = undefined;
  }

  #sync(done: (error: NodeJS.ErrnoException | null) => void): void {
    const blocks = this.#unflushed;
    this.#unflushed = [];
    this.#below.flush((error) => {
      if (error) return done(error);
      // Closed meanwhile: the blocks stay unsafe, which costs no more than fetching them again after a crash.
      if (blocks.length === 0 || this.#isClosed) return done(null);
      try {
        for (const block of blocks) this.#map.unsafe.clear(block);
      } catch (failure) {
        return done(failure as NodeJS.ErrnoException);
      }
      fdatasync(this.#map.fd, done);
    });
  }
}

function isZeroUnit(bytes: Buffer, unit: number): boolean {
  const at = unit * dataUnitBytes;
  return bytes[at] === 0 && bytes.compare(zeroUnit, 0, dataUnitBytes, at, at + dataUnitBytes) === 0;
}

/** Puts restoring over `options.below`, which it owns from now on. */
export function restoreDevice(options: RestoreOptions): RestoreDevice {
  return new Restore(options);
}
