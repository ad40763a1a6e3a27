/**
 * SHA-256 digests of plaintext blocks, kept where the plaintext must not be known: whoever has the digest of a block can tell
 * whether a guess at the block is right, and which blocks are the same.
 *
 * Form: the digest, 32 bytes, as one AES-256-XTS data unit whose tweak is the block's index (16 bytes, little-endian). It is
 * as long as the digest, and the same for the same digest at the same index only.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';

export const digestKeyBytes = 64;
const tweakBytes = 16;

/** @param key 64 bytes @param digest 32 bytes */
export function sealDigest(key: Uint8Array, index: number, digest: Uint8Array): Buffer {
  return createCipheriv('aes-256-xts', key, tweakOf(index)).update(digest);
}

/** The digest that `sealDigest` was given. With another key or index it is noise. */
export function openDigest(key: Uint8Array, index: number, sealed: Uint8Array): Buffer {
  return createDecipheriv('aes-256-xts', key, tweakOf(index)).update(sealed);
}

function tweakOf(index: number): Buffer {
  const tweak = Buffer.alloc(tweakBytes);
  tweak.writeUInt32LE(index);
  return tweak;
}
