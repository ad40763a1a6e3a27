// The bottom of every stack: a volume's image file, read and written through the page cache.
//
// Reads ask only for what is in memory (preadv2 RWF_NOWAIT) and otherwise answer a Wait. Writes go to the page cache
// synchronously: a copy that is cheaper than handing it to another thread. When the kernel throttles writers because
// too much is dirty, it blocks them, and with them this volume's thread; other volumes have their own.

import { constants } from 'node:os';
import type { OpenImage } from '../../blocks/images.ts';
import {
  fallocKeepSize,
  fallocPunchHole,
  fallocZeroRange,
  type Libc,
  rwfNowait,
  seekData,
  seekHole,
} from '../../blocks/libc.ts';
import { createSlab, type Slab } from '../../crypto/native.ts';
import { ColdReads } from './cold-reads.ts';
import { type Device, DeviceError, type Extent, type Outcome } from './device.ts';
import { GroupFlush } from './group-flush.ts';

const { EAGAIN, EINTR, ENXIO, EOPNOTSUPP } = constants.errno;

/** After so many misses without a hit something evicts pages before they are used: read one the blocking way. */
const missesBeforeBlocking = 1000;
const zerosBytes = 64 * 1024;
/**
 * Most bytes in one pwrite. Linux makes page cache folios as large as the writes that fill them, and ext4 then walks all
 * blocks of a folio for each small write into it: after 128 KiB writes, random 4 KiB writes cost 8 µs of the kernel's time,
 * after 32 KiB writes 5 µs. Sequential writing pays for that with a tenth.
 */
const writeStepBytes = 32 * 1024;

/** Extents are rounded to this, so that a data unit is never half a hole, whatever the file system's block size. */
const extentStepBytes = 4096;

/** The device of an image that may become larger. */
export interface GrowingDevice extends Device {
  /** The image has been made larger. */
  grow(sizeBytes: number): void;
}

class FileDevice implements GrowingDevice {
  size: number;
  readonly expectsWrites = false;
  readonly #image: OpenImage;
  readonly #fd: number;
  readonly #libc: Libc;
  readonly #cold: ColdReads;
  readonly #group: GroupFlush;
  #readFlags = rwfNowait;
  #misses = 0;
  #punches: boolean;
  #zeroRanges = true;
  #zeros: Slab | undefined;

  constructor(image: OpenImage, libc: Libc, readOnly: boolean) {
    this.#image = image;
    this.#fd = image.fd;
    this.size = image.sizeBytes;
    this.#libc = libc;
    this.#cold = new ColdReads(image.fd, libc);
    this.#group = new GroupFlush(image.fd);
    // Tried beyond the end, where it changes nothing: tells whether this file system can punch holes.
    const punch = fallocPunchHole | fallocKeepSize;
    this.#punches = !readOnly && libc.fallocate(image.fd, punch, image.sizeBytes, extentStepBytes) === 0;
  }

  get zeroesFast(): boolean {
    return this.#punches;
  }

  read(memory: Slab, at: number, offset: number, length: number): Outcome {
    let done = 0;
    while (done < length) {
      const flags = this.#misses < missesBeforeBlocking ? this.#readFlags : 0;
      const count = this.#libc.pread(this.#fd, memory.address + at + done, length - done, offset + done, flags);
      if (count > 0) {
        done += count;
        this.#misses = 0;
      } else if (count === -EAGAIN) {
        this.#misses++;
        return this.#cold.wait(offset + done, length - done);
      } else if (count === -EOPNOTSUPP && this.#readFlags !== 0) {
        this.#readFlags = 0;
      } else if (count === 0) {
        throw new DeviceError('EIO', 'the volume image is shorter than its volume');
      } else if (count !== -EINTR) {
        throw DeviceError.of(count, 'read of the volume image');
      }
    }
    return undefined;
  }

  write(memory: Slab, at: number, offset: number, length: number): Outcome {
    let done = 0;
    while (done < length) {
      const step = Math.min(length - done, writeStepBytes);
      const count = this.#libc.pwrite(this.#fd, memory.address + at + done, step, offset + done);
      if (count > 0) done += count;
      else if (count === 0) throw new DeviceError('EIO', 'write to the volume image');
      else if (count !== -EINTR) throw DeviceError.of(count, 'write to the volume image');
    }
    return undefined;
  }

  zero(offset: number, length: number, allocate: boolean): Outcome {
    if (allocate ? this.#zeroRange(offset, length) : this.#punch(offset, length)) return undefined;
    this.#zeros ??= createSlab(zerosBytes);
    for (let done = 0; done < length; done += zerosBytes) {
      this.write(this.#zeros, 0, offset + done, Math.min(zerosBytes, length - done));
    }
    return undefined;
  }

  trim(offset: number, length: number): Outcome {
    this.#punch(offset, length);
    return undefined;
  }

  cache(offset: number, length: number): void {
    this.#cold.advise(offset, length);
  }

  expectWrite(): void {}

  extents(offset: number, length: number, count: number): Extent[] {
    const end = offset + length;
    const extents: Extent[] = [];
    let position = offset;
    while (position < end && extents.length < count) {
      const dataStart = this.#seek(position, seekData);
      const data = dataStart === undefined ? end : Math.max(position, roundDown(dataStart));
      if (data > position) {
        const stop = Math.min(data, end);
        extents.push({ length: stop - position, hole: true });
        position = stop;
        continue;
      }
      // Holes smaller than a step, inside data, count as data.
      const hole = Math.max(roundUp(this.#seek(dataStart!, seekHole) ?? end), position + 1);
      const stop = Math.min(hole, end);
      const last = extents.at(-1);
      if (last && !last.hole) extents[extents.length - 1] = { length: last.length + stop - position, hole: false };
      else extents.push({ length: stop - position, hole: false });
      position = stop;
    }
    return extents;
  }

  flush(done: (error?: Error) => void): void {
    this.#group.flush(done);
  }

  grow(sizeBytes: number): void {
    this.size = sizeBytes;
  }

  close(): void {
    this.#cold.close();
    this.#image.close();
  }

  #punch(offset: number, length: number): boolean {
    if (this.#punches) this.#punches = this.#fallocate(fallocPunchHole | fallocKeepSize, offset, length);
    return this.#punches;
  }

  #zeroRange(offset: number, length: number): boolean {
    if (this.#zeroRanges) this.#zeroRanges = this.#fallocate(fallocZeroRange | fallocKeepSize, offset, length);
    return this.#zeroRanges;
  }

  /** False when the file system can't; throws when it could but failed. */
  #fallocate(mode: number, offset: number, length: number): boolean {
    for (;;) {
      const result = this.#libc.fallocate(this.#fd, mode, offset, length);
      if (result === 0) return true;
      if (result === -EOPNOTSUPP) return false;
      if (result !== -EINTR) throw DeviceError.of(result, 'fallocate of the volume image');
    }
  }

  /** Where the next data (or hole) begins at or after `offset`; undefined when there is none. */
  #seek(offset: number, whence: number): number | undefined {
    const result = this.#libc.lseek(this.#fd, offset, whence);
    if (result >= 0) return result;
    if (result === -ENXIO) return undefined;
    throw DeviceError.of(result, 'lseek of the volume image');
  }
}

const roundDown = (offset: number) => offset - (offset % extentStepBytes);
const roundUp = (offset: number) => roundDown(offset + extentStepBytes - 1);

/** Makes the device of an open image, which it owns from now on. */
export function fileDevice(image: OpenImage, libc: Libc, readOnly = false): GrowingDevice {
  return new FileDevice(image, libc, readOnly);
}
