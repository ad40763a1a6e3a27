// Notes which blocks change, and saves for the points in time that are being copied what a write would destroy. Between cipher
// and file: it sees what lies on disk and needs no key.
//
// While nothing is pending a write costs one test of a bit more than without it. Writes are held back while points in time
// of several volumes are fixed together.

import { unitBytes } from '../../blocks/cow-log.ts';
import type { CowWriter } from '../../blocks/cow-writer.ts';
import type { PointsInTime } from '../../blocks/points-in-time.ts';
import { blockBytes } from '../../blocks/store.ts';
import type { VolumeMap } from '../../blocks/volume-map.ts';
import type { Slab } from '../../crypto/native.ts';
import { type Device, DeviceError, type Extent, type Outcome, type Wait } from './device.ts';

/** Writes that are told of before they come, at most. */
const expectedMax = 256;

export interface TrackingDevice extends Device {
  /** Holds back writes until `resume`; reads and flushes go on. */
  hold(): void;
  resume(): void;
  /** Another point in time saves from now on, or none. */
  pointsChanged(): void;
  /** Whether anything of a block would have to be saved before it changes. */
  mustSave(block: number): boolean;
}

class Tracking implements TrackingDevice {
  readonly #below: Device;
  readonly #map: VolumeMap;
  readonly #points: PointsInTime;
  #saving: CowWriter | undefined;
  #isHeld = false;
  /** `#saving` or `#isHeld`. */
  #isSpecial = false;
  #held: (() => void)[] = [];
  /** Units about to be written and not saved yet: first and end, in turn. */
  #expected: number[] = [];

  constructor(below: Device, map: VolumeMap, points: PointsInTime) {
    this.#below = below;
    this.#map = map;
    this.#points = points;
    this.pointsChanged();
  }

  get size(): number {
    return this.#below.size;
  }

  /** While something is saved, discarding is writing, and goes in small steps. */
  get zeroesFast(): boolean {
    return !this.#isSpecial && this.#below.zeroesFast;
  }

  get expectsWrites(): boolean {
    return this.#isSpecial;
  }

  read(memory: Slab, at: number, offset: number, length: number): Outcome {
    return this.#below.read(memory, at, offset, length);
  }

  write(memory: Slab, at: number, offset: number, length: number): Outcome {
    const wait = this.#before(offset, length);
    return wait ?? this.#below.write(memory, at, offset, length);
  }

  zero(offset: number, length: number, allocate: boolean): Outcome {
    const wait = this.#before(offset, length);
    return wait ?? this.#below.zero(offset, length, allocate);
  }

  trim(offset: number, length: number): Outcome {
    const wait = this.#before(offset, length);
    return wait ?? this.#below.trim(offset, length);
  }

  cache(offset: number, length: number): void {
    this.#below.cache(offset, length);
  }

  /** What the write will have to save can be saved together with what others have to. */
  expectWrite(offset: number, length: number): void {
    if (!this.#saving || this.#expected.length >= 2 * expectedMax) return;
    const first = Math.floor(offset / unitBytes);
    const end = Math.ceil((offset + length) / unitBytes);
    if (this.#saving.nextUnsaved(first, end) < end) this.#expected.push(first, end);
  }

  extents(offset: number, length: number, count: number): Extent[] {
    return this.#below.extents(offset, length, count);
  }

  flush(done: (error?: Error) => void): void {
    this.#below.flush(done);
  }

  close(): void {
    this.#held = [];
    this.#below.close();
  }

  hold(): void {
    this.#isHeld = this.#isSpecial = true;
  }

  resume(): void {
    this.#isHeld = false;
    this.pointsChanged();
    const held = this.#held;
    this.#held = [];
    for (const goOn of held) goOn();
  }

  pointsChanged(): void {
    this.#saving = this.#points.saving;
    this.#expected = [];
    this.#isSpecial = this.#isHeld || this.#saving !== undefined;
  }

  mustSave(block: number): boolean {
    const end = (block + 1) * (blockBytes / unitBytes);
    const unit = block * (blockBytes / unitBytes);
    return this.#saving !== undefined && this.#saving.nextUnsaved(unit, end) < end;
  }

  /** All that has to happen before a range is changed. */
  #before(offset: number, length: number): Outcome {
    if (length === 0) return undefined;
    if (this.#isSpecial) {
      if (this.#isHeld) return this.#untilResumed();
      const wait = this.#save(this.#saving!, Math.floor(offset / unitBytes), Math.ceil((offset + length) / unitBytes));
      if (wait) return wait;
    }
    const bits = this.#map.changed.bytes;
    const last = Math.floor((offset + length - 1) / blockBytes);
    for (let block = Math.floor(offset / blockBytes); block <= last; block++) {
      if ((bits[block >>> 3]! & (1 << (block & 7))) === 0) this.#setChanged(block);
    }
    return undefined;
  }

  #setChanged(block: number): void {
    try {
      this.#map.changed.set(block);
    } catch (error) {
      throw new DeviceError((error as NodeJS.ErrnoException).code ?? 'EIO', "write to the volume's map");
    }
  }

  #untilResumed(): Wait {
    return { start: (done) => void this.#held.push(done) };
  }

  #save(cow: CowWriter, firstUnit: number, end: number): Outcome {
    if (cow.nextUnsaved(firstUnit, end) >= end) return undefined;
    let wait: Outcome;
    try {
      wait = this.#gather(cow, firstUnit, end);
      if (!wait) this.#gatherExpected(cow);
      cow.save();
    } catch (error) {
      this.#lost(cow, error);
    }
    if (!cow.isOver) return wait;
    this.pointsChanged();
    return undefined;
  }

  /** Gathers what is not saved yet, up to the first that is not in memory. */
  #gather(cow: CowWriter, firstUnit: number, end: number): Outcome {
    let unit = cow.nextUnsaved(firstUnit, end);
    while (unit < end) {
      const count = cow.unsavedRun(unit, end);
      const wait = this.#below.read(cow.memory, cow.placeFor(count), unit * unitBytes, count * unitBytes);
      // What has never been written is not read from the disk to find that out.
      const isHole = wait !== undefined && this.#isHole(unit, count);
      if (wait && !isHole) return wait;
      cow.gather(unit, count, isHole);
      unit = cow.nextUnsaved(unit + count, end);
    }
    return undefined;
  }

  #gatherExpected(cow: CowWriter): void {
    const expected = this.#expected;
    this.#expected = [];
    for (let index = 0; index < expected.length; index += 2) {
      try {
        this.#gather(cow, expected[index]!, expected[index + 1]!);
      } catch (error) {
        // The write itself may never come; if it does, it finds the same.
        if (!(error instanceof DeviceError)) throw error;
      }
    }
  }

  #isHole(unit: number, count: number): boolean {
    const extent = this.#below.extents(unit * unitBytes, count * unitBytes, 1)[0]!;
    return extent.hole && extent.length === count * unitBytes;
  }

  /** A unit that can't be read can't be saved; that must not keep the volume from being written. */
  #lost(cow: CowWriter, error: unknown): void {
    if (!(error instanceof DeviceError)) {
      // Not even noting the loss was possible: writing now would leave a point in time that is wrong.
      throw new DeviceError((error as NodeJS.ErrnoException).code ?? 'EIO', 'saving blocks for a snapshot');
    }
    cow.lose(`a block of that time could not be read (${error.code})`);
  }
}

/** Puts tracking over `below`, which it owns from now on; `map` and `points` stay the caller's. */
export function trackingDevice(below: Device, map: VolumeMap, points: PointsInTime): TrackingDevice {
  return new Tracking(below, map, points);
}
