/**
 * What has been written of a snapshot that comes from outside (EBS direct), durable before a block is acknowledged: a line
 * of JSON, then records of 68 bytes: u32 LE index, SHA-256 of the stored bytes, SHA-256 of the plaintext. Of an encrypted
 * snapshot the latter is under a key that the host doesn't have (src/crypto/block-digest.ts); in format 1, which earlier
 * versions wrote, it is not. The last record of an index counts; one of zeros says that the block is being replaced, and
 * holds neither its old contents nor its new ones.
 */
import { closeSync, constants, fdatasync, ftruncateSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory, writePrivateFile } from '../../files/durable.ts';

const recordBytes = 68;
const shaBytes = 32;
const formats = { plainDigests: 1, current: 2 };
const zeroSha = Buffer.alloc(shaBytes);

export interface UploadHeader {
  readonly format: number;
  readonly snapshotId: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly parentSnapshotId: string | null;
}

export interface WrittenBlock {
  readonly storedSha: Buffer;
  /** The plaintext's SHA-256, sealed or not. */
  readonly digest: Buffer;
}

export class UploadFile {
  readonly header: UploadHeader;
  readonly #path: string;
  readonly #written: Map<number, WrittenBlock>;
  /** -1 once it is closed: the number may then be another file's. */
  #fd: number;
  #end: number;

  private constructor(path: string, header: UploadHeader, written: Map<number, WrittenBlock>, end: number) {
    this.#path = path;
    this.header = header;
    this.#written = written;
    this.#end = end;
    this.#fd = openSync(path, constants.O_RDWR);
    ftruncateSync(this.#fd, end);
  }

  static create(path: string, header: Omit<UploadHeader, 'format'>): UploadFile {
    const whole: UploadHeader = { format: formats.current, ...header };
    const line = Buffer.from(`${JSON.stringify(whole)}\n`);
    writePrivateFile(path, line, 'replace');
    return new UploadFile(path, whole, new Map(), line.length);
  }

  /** Undefined when there is none. */
  static open(path: string): UploadFile | undefined {
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    const start = bytes.indexOf('\n') + 1;
    const header = JSON.parse(bytes.toString('utf8', 0, start)) as UploadHeader;
    if (!Object.values(formats).includes(header.format)) throw new Error(`${path} was written by a later version`);
    const written = new Map<number, WrittenBlock>();
    let at = start;
    // A crash can leave part of a record, which was not acknowledged.
    for (; at + recordBytes <= bytes.length; at += recordBytes)
      written.set(bytes.readUInt32LE(at), {
        storedSha: bytes.subarray(at + 4, at + 4 + shaBytes),
        digest: bytes.subarray(at + 4 + shaBytes, at + recordBytes),
      });
    return new UploadFile(path, header, written, at);
  }

  /** Blocks by index; one whose replacement did not come to its end has digests of zeros. */
  get written(): ReadonlyMap<number, WrittenBlock> {
    return this.#written;
  }

  /** Whether digests are noted down as they are, whatever else there is. */
  get hasPlainDigests(): boolean {
    return this.header.format === formats.plainDigests;
  }

  static isUnknown(block: WrittenBlock): boolean {
    return block.storedSha.equals(zeroSha);
  }

  /** Appends; on stable storage when `sync` resolves. */
  add(index: number, block: WrittenBlock): void {
    const record = Buffer.alloc(recordBytes);
    record.writeUInt32LE(index, 0);
    record.set(block.storedSha, 4);
    record.set(block.digest, 4 + shaBytes);
    let done = 0;
    while (done < recordBytes) done += writeSync(this.#fd, record, done, recordBytes - done, this.#end + done);
    this.#end += recordBytes;
    this.#written.set(index, { storedSha: Buffer.from(block.storedSha), digest: Buffer.from(block.digest) });
  }

  /** What was added may be lost: the block counts as not written, until it is added again. */
  doubt(index: number): void {
    if (this.#written.has(index)) this.#written.set(index, { storedSha: zeroSha, digest: zeroSha });
  }

  addUnknown(index: number): void {
    this.add(index, { storedSha: zeroSha, digest: zeroSha });
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => fdatasync(this.#fd, (error) => (error ? reject(error) : resolve())));
  }

  close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Removes the file, durably. */
  remove(): void {
    this.close();
    removeDurably(this.#path);
  }
}

export function removeDurably(path: string): void {
  rmSync(path, { force: true });
  syncDirectory(dirname(path));
}
