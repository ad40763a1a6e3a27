/**
 * What the making of a snapshot has come to, so that a process that is killed needn't begin anew. One file: a line of JSON,
 * then records of 40 bytes: u32 LE index of the first block, u32 LE what is known, 32 bytes SHA-256.
 *
 * The file's being there is itself a fact: the point in time of the snapshot is fixed, and must not be fixed again, not even
 * when the snapshot is complete and the control plane has yet to hear of it.
 *
 * A record is written before the volume may stop saving the block (the view's watermark): a block below the watermark is
 * never read a second time. Records are believed in the boot that wrote them, and after an orderly end: blocks are made
 * durable together at the end, so the crash of the machine can lose some that were put.
 */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { bootId } from '../../blocks/boot.ts';
import { syncDirectory } from '../../files/durable.ts';

const recordBytes = 40;
const shaBytes = 32;
const format = 1;

/** What a record says besides a number of holes. */
const stored = 0x8000_0000;
const inherited = 0x8000_0001;
const holesMax = 0x7fff_ffff;

interface JournalHeader {
  readonly format: number;
  readonly snapshotId: string;
  readonly bootId: string;
  /** All that the records say is durable. */
  readonly isClean: boolean;
  /** The store could not make blocks durable that the records name. */
  readonly isSuspect?: boolean;
  /** See `Journal.parent`; absent: copying has not begun. */
  readonly parent?: string | null | undefined;
}

export type JournalEntry =
  /** The block was put, or is the parent's. */
  { readonly kind: 'stored' | 'inherited'; readonly sha256: Buffer } | { readonly kind: 'hole' };

export class Journal {
  /** What the records name as stored is to be read back and put again: the store could not make it durable. */
  readonly isSuspect: boolean;
  /**
   * The snapshot that the volume was compared with when copying began, if there was one: what was left to it, being the same,
   * has to be taken from it, even if another snapshot is the parent by now.
   */
  readonly parent: string | null | undefined;
  readonly #path: string;
  readonly #snapshotId: string;
  readonly #record = Buffer.alloc(recordBytes);
  /** Records of earlier processes, by ascending index. */
  readonly #earlier: readonly Buffer[];
  #fd: number;
  #end: number;

  /**
   * Opens the journal of `snapshotId`; makes it when it is missing.
   * @param parent the snapshot to compare with (null: none), if copying begins now
   */
  constructor(path: string, snapshotId: string, parent?: string | null) {
    this.#path = path;
    this.#snapshotId = snapshotId;
    const { isTrusted, isSuspect, records, parent: earlier } = read(path, snapshotId);
    this.isSuspect = isSuspect;
    this.parent = isTrusted && earlier !== undefined ? earlier : parent;
    this.#earlier = isTrusted ? sorted(records) : [];
    this.#fd = -1;
    this.#end = 0;
    this.#rewrite(false, isTrusted ? records : Buffer.alloc(0));
  }

  /** What an earlier process has found out about a block. */
  find(index: number): JournalEntry | undefined {
    const record = this.#earlier[this.#position(index + 1) - 1];
    if (!record) return undefined;
    const what = whatOf(record);
    const count = what <= holesMax ? what : 1;
    if (index >= indexOf(record) + count) return undefined;
    if (what <= holesMax) return { kind: 'hole' };
    return { kind: what === stored ? 'stored' : 'inherited', sha256: record.subarray(recordBytes - shaBytes) };
  }

  /** The first block from `index` on that an earlier process has found to hold data; Infinity when there is none. */
  nextData(index: number): number {
    for (let position = this.#position(index); position < this.#earlier.length; position++) {
      const record = this.#earlier[position]!;
      if (whatOf(record) > holesMax) return indexOf(record);
    }
    return Number.POSITIVE_INFINITY;
  }

  /** Of the first record whose index is at least `index`. */
  #position(index: number): number {
    let low = 0;
    let high = this.#earlier.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (indexOf(this.#earlier[middle]!) < index) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  addStored(index: number, sha256: Uint8Array): void {
    this.#add(index, stored, sha256);
  }

  addInherited(index: number, sha256: Uint8Array): void {
    this.#add(index, inherited, sha256);
  }

  addHoles(index: number, count: number): void {
    this.#record.fill(0);
    this.#add(index, count, undefined);
  }

  /** Says that all that the records name is durable, and closes. */
  closeClean(): void {
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    this.#rewrite(true, read(this.#path, this.#snapshotId).records);
    this.close();
  }

  /** Says that the store failed to make durable what the records name, and closes. */
  closeSuspect(): void {
    closeSync(this.#fd);
    this.#rewrite(false, read(this.#path, this.#snapshotId).records, true);
    this.close();
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Forgets what was found out, when the snapshot is complete. That the point in time was fixed stays noted. */
  closeEmpty(): void {
    closeSync(this.#fd);
    this.#rewrite(true, Buffer.alloc(0), false);
    this.close();
  }

  /** Notes durably that the point in time is fixed. */
  static create(path: string, snapshotId: string): void {
    new Journal(path, snapshotId).close();
  }

  static exists(path: string): boolean {
    return existsSync(path);
  }

  static remove(path: string): void {
    rmSync(freshPath(path), { force: true });
    rmSync(path, { force: true });
  }

  #add(index: number, what: number, sha256: Uint8Array | undefined): void {
    this.#record.writeUInt32LE(index, 0);
    this.#record.writeUInt32LE(what, 4);
    if (sha256) this.#record.set(sha256, recordBytes - shaBytes);
    const count = writeSync(this.#fd, this.#record, 0, recordBytes, this.#end);
    if (count < recordBytes) throw new Error(`no room to note in ${this.#path} what has been copied`);
    this.#end += recordBytes;
  }

  #rewrite(isClean: boolean, records: Buffer, isSuspect = this.isSuspect): void {
    const snapshotId = this.#snapshotId;
    const { parent } = this;
    const header: JournalHeader = {
      format,
      snapshotId,
      bootId: bootId(),
      isClean,
      ...(isSuspect && { isSuspect }),
      parent,
    };
    const line = Buffer.from(`${JSON.stringify(header)}\n`);
    const fresh = freshPath(this.#path);
    // Always the same name: what a killed process leaves behind, the next one replaces.
    const fd = openSync(fresh, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600);
    writeSync(fd, line);
    if (records.length > 0) writeSync(fd, records);
    fsyncSync(fd);
    renameSync(fresh, this.#path);
    syncDirectory(dirname(this.#path));
    this.#fd = fd;
    this.#end = line.length + records.length;
  }
}

const freshPath = (path: string) => `${path}.new`;

interface Found {
  readonly isTrusted: boolean;
  readonly isSuspect: boolean;
  readonly records: Buffer;
  readonly parent?: string | null | undefined;
}

function read(path: string, snapshotId: string): Found {
  if (!existsSync(path)) return { isTrusted: true, isSuspect: false, records: Buffer.alloc(0) };
  const bytes = readFileSync(path);
  const lineEnd = bytes.indexOf('\n');
  let header: JournalHeader | undefined;
  try {
    header = JSON.parse(bytes.toString('utf8', 0, lineEnd)) as JournalHeader;
  } catch {
    // Said below.
  }
  if (header?.format !== format || header.snapshotId !== snapshotId)
    throw new Error(`${path} is not the journal of ${snapshotId}, or was written by a later version`);
  const records = bytes.subarray(lineEnd + 1);
  // A killed process can leave part of a record.
  const whole = records.subarray(0, records.length - (records.length % recordBytes));
  const isTrusted = header.isClean || header.bootId === bootId();
  return { isTrusted, isSuspect: header.isSuspect === true, records: whole, parent: header.parent };
}

function sorted(bytes: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += recordBytes) records.push(bytes.subarray(at, at + recordBytes));
  return records.sort((one, other) => indexOf(one) - indexOf(other));
}

const indexOf = (record: Buffer) => record.readUInt32LE(0);
const whatOf = (record: Buffer) => record.readUInt32LE(4);
