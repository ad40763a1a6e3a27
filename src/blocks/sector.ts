/**
 * A sector: 512 bytes that hold a small JSON value and its CRC-32. Disks write a sector whole or not at all, and a reader in
 * another thread that meets a half-written one sees by the CRC that it has to look again.
 *
 *     magic 8 bytes | length of the JSON u32 LE | its CRC-32 u32 LE | JSON | zeros
 */
import { readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';

export const sectorBytes = 512;
const headerBytes = 16;
/** A torn read is over within a microsecond; a sector that stays wrong is damaged. */
const attempts = 20;

/** Writes `value` at `offset` of a file. @throws RangeError when it is too long @throws the file system's error */
export function writeSector(fd: number, offset: number, magic: string, value: object): void {
  const json = Buffer.from(JSON.stringify(value));
  if (json.length > sectorBytes - headerBytes) throw new RangeError('too much for a sector');
  const bytes = Buffer.alloc(sectorBytes);
  bytes.write(magic, 'latin1');
  bytes.writeUInt32LE(json.length, 8);
  bytes.writeUInt32LE(crc32(json), 12);
  json.copy(bytes, headerBytes);
  writeSync(fd, bytes, 0, sectorBytes, offset);
}

/** The value at `offset`, or undefined when there is none with this magic or it is damaged. */
export function readSector<T>(fd: number, offset: number, magic: string): T | undefined {
  const bytes = Buffer.alloc(sectorBytes);
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (readSync(fd, bytes, 0, sectorBytes, offset) !== sectorBytes) return undefined;
    if (bytes.toString('latin1', 0, 8) !== magic) return undefined;
    const json = bytes.subarray(headerBytes, headerBytes + Math.min(bytes.readUInt32LE(8), sectorBytes));
    if (json.length === bytes.readUInt32LE(8) && crc32(json) === bytes.readUInt32LE(12)) {
      return JSON.parse(json.toString()) as T;
    }
  }
  return undefined;
}

/** A sector that is read again and again, and hardly ever changes. */
export class WatchedSector<T> {
  readonly #fd: number;
  readonly #offset: number;
  readonly #magic: string;
  readonly #bytes = Buffer.alloc(sectorBytes);
  readonly #lastBytes = Buffer.alloc(sectorBytes);
  #last: T | undefined;

  constructor(fd: number, offset: number, magic: string) {
    this.#fd = fd;
    this.#offset = offset;
    this.#magic = magic;
  }

  /** As `readSector`. */
  read(): T | undefined {
    readSync(this.#fd, this.#bytes, 0, sectorBytes, this.#offset);
    if (this.#last === undefined || !this.#bytes.equals(this.#lastBytes)) {
      // What lies there by now may be newer still: then the next time finds it changed, and reads it once more.
      this.#bytes.copy(this.#lastBytes);
      this.#last = readSector<T>(this.#fd, this.#offset, this.#magic);
    }
    return this.#last;
  }
}
