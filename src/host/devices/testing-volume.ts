// A volume for tests without thread and sockets: its files, its stack of devices, and the ways it can end. Not used by the
// product.

import { closeSync, copyFileSync, openSync, renameSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cowPath, listCows, logOffset, readState, writeState } from '../../blocks/copy-before-write.ts';
import { LogScanner, putRecordFrame, recordHeaderBytes } from '../../blocks/cow-log.ts';
import { libc } from '../../blocks/libc.ts';
import { ensureVolumeFiles, type OpenVolumeFiles, openVolumeFiles } from '../../blocks/open-volume.ts';
import { readSector, writeSector } from '../../blocks/sector.ts';
import { openView, type SnapshotView } from '../../blocks/snapshot-view.ts';
import { blockBytes } from '../../blocks/store.ts';
import type { MapHeader } from '../../blocks/volume-map.ts';
import { createSlab, slabOver } from '../../crypto/native.ts';
import { createXts, dataUnitBytes, type Xts } from '../../crypto/xts.ts';
import type { BlockSource } from '../snapshot-blocks.ts';
import { cipherDevice } from './cipher.ts';
import type { Device, Outcome } from './device.ts';
import { fileDevice } from './file.ts';
import { type RestoreDevice, restoreDevice } from './restore.ts';
import { type TrackingDevice, trackingDevice } from './tracking.ts';

/** What a test volume is restored from: blocks as they are stored, under `key`. */
export interface TestSource {
  readonly key: Buffer;
  readonly blocks: ReadonlyMap<number, Buffer>;
  fetched: number[];
}

export interface TestVolumeOptions {
  readonly directory: string;
  readonly key: Buffer;
  readonly sizeBytes: number;
  readonly source?: TestSource;
  /** Restore without being asked to. */
  readonly background?: boolean;
}

export class TestVolume {
  readonly base: string;
  readonly #options: TestVolumeOptions;
  readonly #xts: Xts;
  #isOpen = false;
  sizeBytes: number;
  files!: OpenVolumeFiles;
  top!: Device;
  tracking!: TrackingDevice;
  restore: RestoreDevice | undefined;

  private constructor(options: TestVolumeOptions) {
    this.#options = options;
    this.sizeBytes = options.sizeBytes;
    this.base = join(options.directory, 'vol-1');
    this.#xts = createXts(options.key);
  }

  static async create(options: TestVolumeOptions): Promise<TestVolume> {
    const volume = new TestVolume(options);
    await volume.open();
    return volume;
  }

  async open(): Promise<void> {
    const { key, source } = this.#options;
    const imagePath = `${this.base}.img`;
    const snapshotId = 'snap-source';
    const from = source && { snapshotId, blocks: async () => [...source.blocks.keys()] };
    await ensureVolumeFiles(imagePath, this.sizeBytes, false, from);
    const files = await retried(() => openVolumeFiles(imagePath, this.sizeBytes, from));
    const file = fileDevice(files.image, libc());
    const xts = createXts(key);
    this.files = files;
    this.tracking = trackingDevice(file, files.map, files.points);
    this.restore = undefined;
    if (source && files.map.isRestoring) {
      this.restore = restoreDevice({
        below: this.tracking,
        file,
        imageFd: files.image.fd,
        map: files.map,
        source: blockSource(snapshotId, source),
        sourceXts: createXts(source.key),
        xts,
        backgroundMax: 2,
        trouble: () => {},
        progress: () => {},
        restored: () => {},
      });
      if (this.#options.background) this.restore.start();
    }
    this.#isOpen = true;
    this.top = cipherDevice(this.restore ?? this.tracking, xts);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    const memory = createSlab(data.length + 7);
    data.copy(memory.bytes, 7);
    await insist(() => this.top.write(memory, 7, offset, data.length));
  }

  zero(offset: number, length: number, allocate: boolean): Promise<void> {
    return insist(() => this.top.zero(offset, length, allocate));
  }

  trim(offset: number, length: number): Promise<void> {
    return insist(() => this.top.trim(offset, length));
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const memory = createSlab(length);
    await insist(() => this.top.read(memory, 0, offset, length));
    return memory.bytes;
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => this.top.flush((error) => (error ? reject(error) : resolve())));
  }

  /** Fixes a point in time. `until`: the process ends after that step, and is started anew. */
  async mark(
    snapshotId: string,
    until: 'prepare' | 'fix' | 'rename' | 'commit' | undefined = undefined,
  ): Promise<void> {
    const path = cowPath(this.base, snapshotId);
    const { points } = this.files;
    await points.prepare(snapshotId, this.sizeBytes, basename(path));
    if (until === 'prepare') return this.#killWithPrepared(path);
    points.fix();
    if (until === 'fix') return this.#killWithPrepared(path);
    renameSync(`${path}.new`, path);
    if (until !== 'rename') points.commit();
    this.tracking.pointsChanged();
    if (until === 'rename' || until === 'commit') await this.kill();
  }

  /** The volume is closed in order, and opened again. */
  async reopen(): Promise<void> {
    await this.flush();
    this.#isOpen = false;
    this.files.close(true);
    this.top.close();
    await this.open();
  }

  /** The process is killed, and the volume opened by the next. `torn`: in the middle of saving a unit. */
  async kill(torn = false): Promise<void> {
    this.#abandon();
    if (torn) this.#tear();
    await this.open();
  }

  /** The machine stops. (What that does to what was not flushed is beyond a test in one process.) */
  async crash(): Promise<void> {
    this.#abandon();
    otherBoot(this.base);
    await this.open();
  }

  end(): void {
    if (this.#isOpen) this.#abandon();
    this.#xts.close();
  }

  view(snapshotId: string): SnapshotView {
    return openView(this.base, snapshotId);
  }

  /** A block of a view in plaintext; undefined: it is yet to be restored. */
  readView(view: SnapshotView, index: number): Buffer | undefined {
    const bytes = Buffer.from(new ArrayBuffer(blockBytes)).fill(0xee);
    const state = view.read(index, bytes);
    if (state === 'unrestored') return undefined;
    if (state === 'hole') bytes.fill(0);
    else transform(this.#xts, 'decrypt', bytes, index);
    return bytes;
  }

  #abandon(): void {
    this.#isOpen = false;
    this.files.close(false);
    this.top.close();
  }

  async #killWithPrepared(path: string): Promise<void> {
    const kept = `${path}.kept`;
    copyFileSync(`${path}.new`, kept);
    this.#abandon();
    renameSync(kept, `${path}.new`);
    await this.open();
  }

  #tear(): void {
    const newest = listCows(this.base).at(-1);
    if (!newest) return;
    const record = Buffer.alloc(recordHeaderBytes + 4096 + 8, 0x77);
    putRecordFrame(record, 0, 3, 1, false);
    const fd = openSync(newest.path, 'r+');
    const scanner = new LogScanner(fd, logOffset(newest.identity.sizeBytes));
    scanner.scan(() => {});
    writeSync(fd, record, 0, 1000, scanner.position);
    closeSync(fd);
  }
}

/** An fdatasync that goes on in another thread keeps the lock of an image that was abandoned here. */
async function retried<T>(open: () => T): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return open();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ImageInUse' || attempt > 500) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Makes files look as if the machine had been started anew since they were last opened. */
export function otherBoot(base: string): void {
  const map = openSync(`${base}.map`, 'r+');
  const header = readSector<MapHeader>(map, 0, 'COFFERV1')!;
  writeSector(map, 0, 'COFFERV1', { ...header, bootId: 'another' });
  closeSync(map);
  for (const { path } of listCows(base)) {
    const fd = openSync(path, 'r+');
    writeState(fd, { ...readState(fd)!, bootId: 'another' });
    closeSync(fd);
  }
}

/** Encrypts or decrypts a stored block in place; units of zeros stay. */
export function transform(xts: Xts, direction: 'encrypt' | 'decrypt', bytes: Buffer, index: number): void {
  const memory = slabOver(bytes);
  const first = (index * blockBytes) / dataUnitBytes;
  for (let unit = 0; unit < bytes.length / dataUnitBytes; unit++) {
    const at = unit * dataUnitBytes;
    if (bytes.subarray(at, at + dataUnitBytes).some((byte) => byte !== 0)) xts[direction](memory, at, first + unit, 1);
  }
}

/** Asks until nothing has to be waited for. */
export async function insist(ask: () => Outcome): Promise<void> {
  for (let turn = 0; turn < 1000; turn++) {
    const wait = ask();
    if (!wait) return;
    await new Promise<void>((resolve, reject) => wait.start((error) => (error ? reject(error) : resolve())));
  }
  throw new Error('waited for ever');
}

function blockSource(snapshotId: string, source: TestSource): BlockSource {
  return {
    snapshotId,
    async fetch(index, bytes) {
      if (index % 2 === 1) await new Promise((resolve) => setImmediate(resolve));
      source.fetched.push(index);
      source.blocks.get(index)!.copy(bytes);
    },
    close() {},
  };
}
