/** Searching files for bytes that must not be there. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

export { filesUnder } from '../../src/files/files-under.ts';

const stepBytes = 4 * 1024 * 1024;

/**
 * The first of `needles` (by name) that the file contains, or undefined; also where the file has gone. Reads at most what
 * the file had when asked.
 */
export function findIn(path: string, needles: ReadonlyMap<string, Buffer>): string | undefined {
  const overlap = Math.max(...[...needles.values()].map((needle) => needle.length)) - 1;
  const file = openIfThere(path);
  if (file === undefined) return undefined;
  try {
    const { size } = fstatSync(file);
    const buffer = Buffer.alloc(Math.min(stepBytes, size) + overlap);
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

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
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
