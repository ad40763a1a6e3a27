import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { slabOver } from './native.ts';
import { createNativeXts, createPortableXts, createXts, dataUnitBytes, type Xts } from './xts.ts';

const implementations: [string, (key: Buffer) => Xts][] = [
  ['node:crypto', createPortableXts],
  ['libcrypto', (key) => createNativeXts(key)!],
];

// IEEE 1619-2018, Annex B, XTS-AES-256 applied to a data unit of 512 bytes: vector 10. Its unit is shorter than ours, but
// a block's ciphertext depends only on key, unit number and the block's place, so ours must begin with the vector's.
const vector10 = {
  key: '27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592',
  unit: 0xff,
  ciphertext: `1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b
    5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd
    5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0
    c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca
    2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0
    b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f
    93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec
    583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a
    84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1
    505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae
    9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29
    a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac
    6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f
    645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385
    1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa
    773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151`.replace(/\s/g, ''),
};

/** What the mode must give, straight from OpenSSL through Node's documented interface. */
function oracle(key: Buffer, unit: number, plaintext: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < plaintext.length; at += dataUnitBytes) {
    const iv = Buffer.alloc(16);
    iv.writeBigUInt64LE(BigInt(unit + at / dataUnitBytes));
    const cipher = createCipheriv('aes-256-xts', key, iv);
    parts.push(cipher.update(plaintext.subarray(at, at + dataUnitBytes)), cipher.final());
  }
  return Buffer.concat(parts);
}

describe.each(implementations)('XTS through %s', (name, create) => {
  it('says which implementation it is', () => {
    expect(create(randomBytes(64)).implementation).toBe(name);
  });

  it('gives the published ciphertext of IEEE 1619 vector 10', () => {
    const memory = slabOver(Buffer.from(Array.from({ length: dataUnitBytes }, (_, index) => index % 256)));
    create(Buffer.from(vector10.key, 'hex')).encrypt(memory, 0, vector10.unit, 1);
    expect(memory.bytes.toString('hex', 0, 512)).toBe(vector10.ciphertext);
  });

  it('agrees with createCipheriv on any key, units and place, touches nothing around them, and decrypts again', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        fc.oneof(fc.nat(), fc.integer({ min: 2 ** 31, max: 2 ** 40 })),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(40),
        fc.integer(),
        (keyBytes, unit, count, at, seed) => {
          keyBytes[63] = keyBytes[31]! ^ 1;
          const key = Buffer.from(keyBytes);
          const before = pattern(seed, at + count * dataUnitBytes + 24);
          const memory = slabOver(Buffer.from(before));
          const xts = create(key);
          xts.encrypt(memory, at, unit, count);
          const end = at + count * dataUnitBytes;
          expect(memory.bytes.subarray(at, end).equals(oracle(key, unit, before.subarray(at, end)))).toBe(true);
          expect(memory.bytes.subarray(0, at).equals(before.subarray(0, at))).toBe(true);
          expect(memory.bytes.subarray(end).equals(before.subarray(end))).toBe(true);
          xts.decrypt(memory, at, unit, count);
          expect(memory.bytes.equals(before)).toBe(true);
          xts.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('refuses keys of another length or with equal halves', () => {
    expect(() => create(randomBytes(32))).toThrow(RangeError);
    const half = randomBytes(32);
    expect(() => create(Buffer.concat([half, half]))).toThrow('must differ');
  });

  it('does not depend on the key bytes it was made from', () => {
    const key = randomBytes(64);
    const copy = Buffer.from(key);
    const xts = create(key);
    key.fill(0);
    const memory = slabOver(Buffer.alloc(dataUnitBytes, 7));
    xts.encrypt(memory, 0, 5, 1);
    expect(memory.bytes.equals(oracle(copy, 5, Buffer.alloc(dataUnitBytes, 7)))).toBe(true);
  });

  it('refuses units outside the memory, and any use after close', () => {
    const xts = create(randomBytes(64));
    const memory = slabOver(Buffer.alloc(dataUnitBytes));
    expect(() => xts.encrypt(memory, 1, 0, 1)).toThrow(RangeError);
    expect(() => xts.decrypt(memory, -1, 0, 1)).toThrow(RangeError);
    expect(() => xts.encrypt(memory, 0, -1, 1)).toThrow(RangeError);
    expect(() => xts.encrypt(memory, Number.NaN, 0, 1)).toThrow(RangeError);
    xts.close();
    xts.close();
    expect(() => xts.encrypt(memory, 0, 0, 1)).toThrow('closed');
  });
});

describe('createXts', () => {
  it('uses libcrypto on the pinned runtime', () => {
    expect(createXts(randomBytes(64)).implementation).toBe('libcrypto');
  });
});

/** Reproducible bytes. */
function pattern(seed: number, length: number): Buffer {
  return createHash('shake256', { outputLength: length }).update(String(seed)).digest();
}
