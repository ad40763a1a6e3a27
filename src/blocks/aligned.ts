// Buffers whose memory begins on a page, as direct I/O (O_DIRECT) wants it.

import { koffi } from '../crypto/native.ts';

const pageBytes = 4096;

/** A zeroed buffer of `length` bytes outside Node's pool. Page-aligned where koffi can tell addresses. */
export function alignedBuffer(length: number): Buffer {
  const memory = Buffer.from(new ArrayBuffer(length + pageBytes));
  const start = koffi ? (pageBytes - (Number(koffi.address(memory)) % pageBytes)) % pageBytes : 0;
  return memory.subarray(start, start + length);
}

export function isAligned(bytes: Buffer): boolean {
  return koffi !== undefined && Number(koffi.address(bytes)) % pageBytes === 0;
}
