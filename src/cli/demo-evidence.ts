/** How `coffer demo` looks for itself at what lies on disk, without the code that put it there. */
import { createDecipheriv } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { libc, seekData } from '../blocks/libc.ts';

const stepBytes = 1024 * 1024;
const patienceMs = 20_000;

/** Waits until `condition` holds, for a while; whether it came to hold. */
export async function settles(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadline = Date.now() + patienceMs;
  while (!(await condition())) {
    if (Date.now() > deadline) return false;
    await new Promise((wake) => setTimeout(wake, 25));
  }
  return true;
}

export function readAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const file = openSync(path, 'r');
  try {
    readSync(file, bytes, 0, length, offset);
  } finally {
    closeSync(file);
  }
  return bytes;
}

/**
 * AES-256-XTS as docs/volume-image.md has it: the tweak is the number of the data unit, 128 bits, little-endian.
 */
export function decryptUnits(ciphertext: Buffer, dataKey: Uint8Array, offset: number, unitBytes: number): Buffer {
  const plaintext: Buffer[] = [];
  for (let at = 0; at < ciphertext.length; at += unitBytes) {
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt((offset + at) / unitBytes));
    const decipher = createDecipheriv('aes-256-xts', dataKey, tweak);
    plaintext.push(decipher.update(ciphertext.subarray(at, at + unitBytes)), decipher.final());
  }
  return Buffer.concat(plaintext);
}

/** False for a file that is gone by now, as those that are being renamed. */
export function fileContains(path: string, needle: Buffer): boolean {
  try {
    return path.endsWith('.img') ? imageContains(path, needle) : readFileSync(path).includes(needle);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function imageContains(path: string, needle: Buffer): boolean {
  const overlapBytes = needle.length - 1;
  const buffer = Buffer.alloc(stepBytes);
  const file = openSync(path, 'r');
  try {
    for (let offset = 0; ; ) {
      // Past the holes, of which an image mostly consists; below 0 when there is nothing more.
      const data = libc().lseek(file, offset, seekData);
      if (data < 0) return false;
      const from = Math.max(0, data - overlapBytes);
      const length = readSync(file, buffer, 0, stepBytes, from);
      if (buffer.subarray(0, length).includes(needle)) return true;
      if (length < stepBytes) return false;
      offset = from + stepBytes;
    }
  } finally {
    closeSync(file);
  }
}
