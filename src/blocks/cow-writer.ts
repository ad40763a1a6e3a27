/** The newest point in time of an open volume, which saves what the volume's writes are about to destroy. */
import { closeSync, constants, fdatasync, fstatSync, fsyncSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import { createSlab, type Slab } from '../crypto/native.ts';
import { Bitmap } from './bitmap.ts';
import { bootId } from './boot.ts';
import {
  type CowIdentity,
  type CowState,
  changeSetOffset,
  logOffset,
  lossOf,
  openCow,
  readIdentity,
  readState,
  readWatermark,
  writeIdentity,
  writeState,
} from './copy-before-write.ts';
import {
  LogScanner,
  putRecordFrame,
  recordHeaderBytes,
  recordTrailerBytes,
  unitBytes,
  unitsPerBlock,
} from './cow-log.ts';
import { type Libc, libc } from './libc.ts';
import { blocksOf } from './volume-map.ts';

/** How many records are written before the watermark is looked at again. */
const watermarkInterval = 32;
/** Units of so many blocks share a page of the set of what is saved, so that only touched parts take memory. */
const blocksPerPage = 4096;
const bytesPerBlock = unitsPerBlock / 8;
const zeroBlock = Buffer.alloc(unitsPerBlock * unitBytes);

const zeroAheadBytes = 64 * 1024;
let zeros: Slab | undefined;
/** Records under construction. All writers of a thread share it: one saves at a time. */
let shared: Slab | undefined;
/** The longest record, or many short ones. */
const sharedBytes = recordHeaderBytes + unitsPerBlock * unitBytes + recordTrailerBytes;

export class CowWriter {
  readonly identity: CowIdentity;
  readonly #path: string;
  readonly #fd: number;
  readonly #libc: Libc = libc();
  readonly #pages: (Uint8Array | undefined)[] = [];
  readonly #units: number;
  #end: number;
  /** Up to here the file is in the page cache, as zeros. */
  #zeroedTo = 0;
  #firstUnit = 0;
  #untilLook = 1;
  /** Runs of units whose records lie in `shared`, and how long those are together. */
  #gathered: { readonly unit: number; readonly count: number }[] = [];
  #gatheredBytes = 0;
  #state: CowState;

  private constructor(path: string, fd: number, identity: CowIdentity, state: CowState) {
    this.#path = path;
    this.#fd = fd;
    this.identity = identity;
    this.#state = state;
    this.#units = identity.sizeBytes / unitBytes;
    this.#end = logOffset(identity.sizeBytes);
  }

  /**
   * Makes the file `path` of a point in time that is about to come, durably.
   * @param dirty the volume is open for writing
   */
  static async prepare(path: string, identity: CowIdentity, dirty: boolean): Promise<CowWriter> {
    rmSync(path, { force: true });
    const fd = openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
    const writer = new CowWriter(path, fd, identity, { bootId: bootId(), dirty, opened: dirty });
    try {
      writeIdentity(fd, identity);
      writeState(fd, writer.#state);
      ftruncateSync(fd, writer.#end);
      await new Promise<void>((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())));
    } catch (error) {
      writer.abort();
      throw error;
    }
    return writer;
  }

  /** Takes a point in time up again whose volume is opened for writing; undefined when it is lost or gone. Durable. */
  static reopen(path: string): CowWriter | undefined {
    const fd = openCow(path, constants.O_RDWR);
    // Its snapshot was completed, and the file removed, since it was listed.
    if (fd === undefined) return undefined;
    try {
      const identity = readIdentity(fd);
      const state = readState(fd);
      if (!identity || !state) throw new Error(`${path} is damaged`);
      const writer = new CowWriter(path, fd, identity, state);
      const loss = lossOf(state);
      if (loss !== undefined) {
        writer.lose(loss);
        closeSync(fd);
        return undefined;
      }
      writer.#scan();
      writer.#setState({ ...state, bootId: bootId(), dirty: true, opened: true });
      fsyncSync(fd);
      return writer;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Writes the change set. Part of the moment itself: nothing may be written to the volume until `commit`. */
  fix(changed: Bitmap | undefined): void {
    if (!changed || this.identity.changedSince === undefined) return;
    const set = new Bitmap(this.#fd, changeSetOffset, blocksOf(this.identity.sizeBytes));
    changed.bytes.copy(set.bytes, 0, 0, set.bytes.length);
    set.storeAll();
  }

  /** Memory for what is to be saved. */
  get memory(): Slab {
    return (shared ??= createSlab(sharedBytes));
  }

  /** Whether a point in time follows that saves in this one's place, or it is lost. */
  get isOver(): boolean {
    return this.#state.next !== undefined || this.#state.lost !== undefined;
  }

  /** The first unit at or after `unit` that a write would destroy, or `end`. */
  nextUnsaved(unit: number, end: number): number {
    const stop = Math.min(end, this.#units);
    let position = Math.max(unit, this.#firstUnit);
    while (position < stop) {
      const page = this.#pages[Math.floor(position / (unitsPerBlock * blocksPerPage))];
      if (!page) return position;
      const bit = position % (unitsPerBlock * blocksPerPage);
      if ((page[bit >>> 3]! & (1 << (bit & 7))) === 0) return position;
      position++;
    }
    return end;
  }

  /** How many units from `unit` on, which is unsaved, are unsaved, too: at most `end`, and within its block. */
  unsavedRun(unit: number, end: number): number {
    const stop = Math.min(end, this.#units, unit - (unit % unitsPerBlock) + unitsPerBlock);
    let position = unit + 1;
    while (position < stop && this.nextUnsaved(position, stop) === position) position++;
    return position - unit;
  }

  /**
   * Where in `memory` the contents of the next `count` units (at most a block's) are to be put, for `gather`. Saves what was
   * gathered before if there is no room left. @throws as `save`
   */
  placeFor(count: number): number {
    if (this.#gatheredBytes + recordHeaderBytes + count * unitBytes + recordTrailerBytes > sharedBytes) this.save();
    return this.#gatheredBytes + recordHeaderBytes;
  }

  /**
   * Takes units whose contents are at `placeFor(count)`; `zeros`: they are all zero, and need not be there. From now on they
   * are not unsaved any more, but `save` has to come before they are written.
   */
  gather(unit: number, count: number, zeros = false): void {
    const { bytes } = this.memory;
    const at = this.#gatheredBytes;
    const empty = zeros || isZero(bytes, at + recordHeaderBytes, count * unitBytes);
    this.#gatheredBytes += putRecordFrame(bytes, at, unit, count, empty);
    this.#gathered.push({ unit, count });
    this.#mark(unit, count, true);
  }

  /**
   * Saves what was gathered, in one go. Where that can't be done the point in time is lost rather than the volume's write.
   * @throws when even that can't be noted: then the write must not happen
   */
  save(): void {
    const length = this.#gatheredBytes;
    if (length === 0) return;
    const { address } = this.memory;
    if (this.#end + length > this.#zeroedTo) this.#zeroAhead(length);
    for (let done = 0; done < length; ) {
      const written = this.#libc.pwrite(this.#fd, address + done, length - done, this.#end + done);
      if (written <= 0) {
        const code = written < 0 ? getSystemErrorName(written) : 'EIO';
        const why =
          code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : `writing to the disk failed (${code})`;
        this.lose(`${why}, so what the volume held at that time could not be kept`);
        return;
      }
      done += written;
    }
    this.#end += length;
    this.#untilLook -= this.#gathered.length;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    if (this.#untilLook <= 0) this.#look();
  }

  /** Ends the point in time without its snapshot. */
  lose(reason: string): void {
    for (const { unit, count } of this.#gathered) this.#mark(unit, count, false);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#setState({ ...this.#state, lost: reason.slice(0, 200) });
    this.#firstUnit = Number.POSITIVE_INFINITY;
    try {
      ftruncateSync(this.#fd, logOffset(this.identity.sizeBytes));
    } catch {
      // Only room is lost.
    }
  }

  /** Another point in time saves from now on. */
  seal(next: string): void {
    if (this.#state.next === undefined) this.#setState({ ...this.#state, next });
  }

  /** The volume has been closed, its last writes done. Durable. */
  finish(): void {
    if (!this.isOver) ftruncateSync(this.#fd, this.#end);
    this.#zeroedTo = 0;
    fsyncSync(this.#fd);
    this.#setState({ ...this.#state, dirty: false });
    fsyncSync(this.#fd);
  }

  /** Gives up a point in time that was only prepared. */
  abort(): void {
    closeSync(this.#fd);
    rmSync(this.#path, { force: true });
  }

  /** Closes it if its snapshot is complete, its file removed. */
  closeIfRemoved(): boolean {
    if (fstatSync(this.#fd).nlink > 0) return false;
    this.close();
    return true;
  }

  close(): void {
    shared?.bytes.fill(0);
    closeSync(this.#fd);
  }

  /**
   * Linux makes page cache in pieces as large as the write that makes it. So zeros are written ahead in large pieces, and
   * short records then only fill them: half the cost of making each page for itself.
   */
  #zeroAhead(length: number): void {
    if (length > zeroAheadBytes / 2) return;
    const from = Math.max(this.#zeroedTo, this.#end);
    const to = (Math.floor(from / zeroAheadBytes) + 1) * zeroAheadBytes;
    zeros ??= createSlab(zeroAheadBytes);
    // Where there is no room for it, there may still be for the record.
    const written = this.#libc.pwrite(this.#fd, zeros.address, to - from, from);
    this.#zeroedTo = written === to - from ? to : 0;
  }

  #scan(): void {
    const scanner = new LogScanner(this.#fd, this.#end);
    scanner.scan((unit, count) => this.#mark(unit, count, true));
    this.#end = scanner.position;
    // A record that its writer, killed, left half written.
    ftruncateSync(this.#fd, this.#end);
    this.#look();
  }

  #look(): void {
    this.#untilLook = watermarkInterval;
    this.#firstUnit = Math.max(this.#firstUnit, readWatermark(this.#fd) * unitsPerBlock);
    if (this.#firstUnit >= this.#units) this.#pages.length = 0;
  }

  #mark(unit: number, count: number, isSaved: boolean): void {
    const unitsPerPage = unitsPerBlock * blocksPerPage;
    // A run lies inside one block, so inside one page.
    const page = (this.#pages[Math.floor(unit / unitsPerPage)] ??= new Uint8Array(blocksPerPage * bytesPerBlock));
    const first = unit % unitsPerPage;
    for (let bit = first; bit < first + count; bit++) {
      const mask = 1 << (bit & 7);
      if (isSaved) page[bit >>> 3]! |= mask;
      else page[bit >>> 3]! &= ~mask;
    }
  }

  #setState(state: CowState): void {
    writeState(this.#fd, state);
    this.#state = state;
  }
}

function isZero(bytes: Buffer, at: number, length: number): boolean {
  return bytes[at] === 0 && bytes.compare(zeroBlock, 0, length, at, at + length) === 0;
}
