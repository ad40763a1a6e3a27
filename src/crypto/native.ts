// Memory that both JavaScript and native code can use without a copy, and the way to native code (koffi).
//
// Calls on the data path pass plain numbers only: an address computed from a slab's base, a length, an offset. That
// avoids creating a view object per call, which costs more than the calls themselves.

import { createRequire } from 'node:module';

type Koffi = typeof import('koffi');

function loadKoffi(): Koffi | undefined {
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch {
    return undefined;
  }
}

/** The foreign function interface, or undefined where its binary is not available. */
export const koffi = loadKoffi();

/** A piece of memory with a fixed place. `address` is 0 where koffi is missing; nothing native reads it then. */
export interface Slab {
  readonly bytes: Buffer;
  /** Address of `bytes[0]`. Below 2^48 on every platform that Node runs on, so exact as a number. */
  readonly address: number;
}

/**
 * Makes a zeroed slab of `length` bytes outside Node's shared buffer pool, so that wiping it wipes all there is.
 * Large slabs take real memory only as they are touched.
 */
export function createSlab(length: number): Slab {
  return slabOver(Buffer.from(new ArrayBuffer(length)));
}

/** Makes a slab over bytes that already exist. The caller keeps `bytes` alive as long as the slab's address is used. */
export function slabOver(bytes: Buffer): Slab {
  return { bytes, address: koffi ? Number(koffi.address(bytes)) : 0 };
}
