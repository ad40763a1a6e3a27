/** Searching files for bytes that must not be there. */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Every regular file under `directory`. */
export function filesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

const stepBytes = 4 * 1024 * 1024;

/** The first of `needles` (by name) that the file contains, or undefined. Reads at most what the file had when asked. */
export function findIn(path: string, needles: ReadonlyMap<string, Buffer>): string | undefined {
  const overlap = Math.max(...[...needles.values()].map((needle) => needle.length)) - 1;
  const size = statSync(path).size;
  const buffer = Buffer.alloc(Math.min(stepBytes, size) + overlap);
  const file = openSync(path, 'r');
  try {
    for (let offset = 0; offset < size; offset += stepBytes) {
      const length = readSync(file, buffer, 0, Math.min(buffer.length, stepBytes + overlap), offset);
      const bytes = buffer.subarray(0, length);
      if (isZero(bytes)) continue;
      for (const [name, needle] of needles) if (bytes.includes(needle)) return name;
    }
    return undefined;
  } finally {
    closeSync(file);
  }
}

const zeros = Buffer.alloc(stepBytes + 4096);

/** Whether all is zeros: images are mostly holes, and comparing is much faster than searching for many needles. */
export function isZero(bytes: Buffer): boolean {
  return bytes.length <= zeros.length && bytes.equals(zeros.subarray(0, bytes.length));
}

/** A secret in the forms in which it could leak: raw, hexadecimal, base64, base64 without padding or URL-safe. */
export function formsOf(name: string, secret: Uint8Array): Array<[string, Buffer]> {
  const bytes = Buffer.from(secret);
  return [
    [`${name}, raw`, bytes],
    [`${name}, hex`, Buffer.from(bytes.toString('hex'))],
    [`${name}, HEX`, Buffer.from(bytes.toString('hex').toUpperCase())],
    [`${name}, base64`, Buffer.from(bytes.toString('base64').replace(/=+$/, ''))],
    [`${name}, base64url`, Buffer.from(bytes.toString('base64url'))],
  ];
}
