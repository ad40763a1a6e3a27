// AES-256-XTS over 4096-byte data units (IEEE 1619-2018; NIST SP 800-38E), the cipher of volumes at rest.
//
// The tweak of a unit is its number on the volume as a 128-bit little-endian integer, which is what dm-crypt calls
// aes-xts-plain64 with sector_size 4096 and iv_large_sectors. There are no options: one cipher, one unit size.
// XTS hides content; it does not authenticate. A bit flipped on disk garbles its 16-byte block and goes unnoticed here.

import { createCipheriv, createDecipheriv, timingSafeEqual } from 'node:crypto';
import { type Libcrypto, libcrypto } from './libcrypto.ts';
import { createSlab, type Slab, slabOver } from './native.ts';

/** Bytes in a data unit. */
export const dataUnitBytes = 4096;
/** Bytes in a data key: the key that encrypts data, then the key that encrypts the tweak. */
export const dataKeyBytes = 64;

/** A keyed cipher. Both directions work in place on whole data units and allocate nothing per unit. */
export interface Xts {
  readonly implementation: 'libcrypto' | 'node:crypto';
  /** Encrypts `count` units at `memory.bytes[at]`; the first has number `unit` on the volume. */
  encrypt(memory: Slab, at: number, unit: number, count: number): void;
  /** The inverse of `encrypt`. */
  decrypt(memory: Slab, at: number, unit: number, count: number): void;
  /** Wipes the key. Using the cipher afterwards throws. */
  close(): void;
}

/**
 * Makes the cipher for a 64-byte data key, through libcrypto where possible. Copies what it needs of `key`, so that the
 * caller can wipe it at once. Throws RangeError on another length, or when the halves are equal (IEEE 1619-2018 and
 * FIPS 140-3 IG C.I want them different: equal halves weaken the mode).
 */
export function createXts(key: Buffer): Xts {
  checkKey(key);
  return createNativeXts(key) ?? createPortableXts(key);
}

/** The fast implementation, or undefined where libcrypto can't be reached or fails its self-test. */
export function createNativeXts(key: Buffer): Xts | undefined {
  checkKey(key);
  const library = libcrypto();
  if (!library || !selfTest(library)) return undefined;
  return nativeXts(library, key);
}

/** The implementation on `createCipheriv`: the fallback, and the oracle that tests compare with. */
export function createPortableXts(key: Buffer): Xts {
  checkKey(key);
  const own = Buffer.from(new ArrayBuffer(dataKeyBytes));
  key.copy(own);
  const iv = Buffer.alloc(16);
  let open = true;
  const transform = (create: typeof createCipheriv, memory: Slab, at: number, unit: number, count: number) => {
    if (!open) throw new Error('the cipher is closed');
    checkUnits(memory, at, unit, count);
    for (let index = 0; index < count; index++) {
      iv.writeBigUInt64LE(BigInt(unit + index));
      const start = at + index * dataUnitBytes;
      const cipher = create('aes-256-xts', own, iv);
      cipher.update(memory.bytes.subarray(start, start + dataUnitBytes)).copy(memory.bytes, start);
      cipher.final();
    }
  };
  return {
    implementation: 'node:crypto',
    encrypt: (memory, at, unit, count) => transform(createCipheriv, memory, at, unit, count),
    decrypt: (memory, at, unit, count) =>
      transform(createDecipheriv as unknown as typeof createCipheriv, memory, at, unit, count),
    close: () => {
      open = false;
      own.fill(0);
    },
  };
}

function nativeXts(library: Libcrypto, key: Buffer): Xts | undefined {
  let encryptContext = library.newAes256Xts(key, true);
  let decryptContext = library.newAes256Xts(key, false);
  const iv = createSlab(16);
  const close = () => {
    if (encryptContext !== 0) library.free(encryptContext);
    if (decryptContext !== 0) library.free(decryptContext);
    encryptContext = decryptContext = 0;
  };
  if (encryptContext === 0 || decryptContext === 0) {
    close();
    return undefined;
  }
  const transform = (context: number, memory: Slab, at: number, unit: number, count: number) => {
    if (context === 0) throw new Error('the cipher is closed');
    checkUnits(memory, at, unit, count);
    for (let index = 0; index < count; index++) {
      writeTweak(iv.bytes, unit + index);
      const address = memory.address + at + index * dataUnitBytes;
      if (library.setIv(context, iv.address) <= 0 || library.cipher(context, address, address, dataUnitBytes) <= 0) {
        throw new Error('libcrypto failed to process a data unit');
      }
    }
  };
  return {
    implementation: 'libcrypto',
    encrypt: (memory, at, unit, count) => transform(encryptContext, memory, at, unit, count),
    decrypt: (memory, at, unit, count) => transform(decryptContext, memory, at, unit, count),
    close,
  };
}

// Unit numbers stay below 2^41 (64 TiB volumes hold 2^34), so six bytes are enough; the other ten stay zero.
function writeTweak(iv: Buffer, unit: number): void {
  const low = unit >>> 0;
  const high = (unit - low) / 2 ** 32;
  iv[0] = low;
  iv[1] = low >>> 8;
  iv[2] = low >>> 16;
  iv[3] = low >>> 24;
  iv[4] = high;
  iv[5] = high >>> 8;
}

// A mistake here would read and write beyond the slab from native code, so it is checked on every call.
function checkUnits(memory: Slab, at: number, unit: number, count: number): void {
  if (
    !(at >= 0 && count >= 0 && at + count * dataUnitBytes <= memory.bytes.length && unit >= 0 && unit + count < 2 ** 41)
  ) {
    throw new RangeError(`data units ${unit}+${count} at ${at} are outside a slab of ${memory.bytes.length} bytes`);
  }
}

function checkKey(key: Buffer): void {
  if (key.length !== dataKeyBytes) throw new RangeError(`a data key has ${dataKeyBytes} bytes, not ${key.length}`);
  if (timingSafeEqual(key.subarray(0, 32), key.subarray(32))) {
    throw new RangeError('the two halves of a data key must differ');
  }
}

let selfTestPassed: boolean | undefined;

// The binding calls into a library through its bare ABI. Before trusting it with data it has to agree, once per thread,
// with the documented API, in both directions, on a unit whose number uses every tweak byte we write.
function selfTest(library: Libcrypto): boolean {
  if (selfTestPassed !== undefined) return selfTestPassed;
  const key = Buffer.from(Array.from({ length: dataKeyBytes }, (_, index) => index));
  const pattern = Buffer.from(Array.from({ length: 2 * dataUnitBytes }, (_, index) => index * 7));
  const memory = slabOver(Buffer.from(pattern));
  const expected = slabOver(Buffer.from(pattern));
  const native = nativeXts(library, key);
  const portable = createPortableXts(key);
  const unit = 0x01_23_45_67_89_ab;
  portable.encrypt(expected, 0, unit % 2 ** 40, 2);
  native?.encrypt(memory, 0, unit % 2 ** 40, 2);
  const encrypts = memory.bytes.equals(expected.bytes);
  native?.decrypt(memory, 0, unit % 2 ** 40, 2);
  selfTestPassed = native !== undefined && encrypts && memory.bytes.equals(pattern);
  native?.close();
  portable.close();
  return selfTestPassed;
}
