/** AES-256-GCM over a whole message in place: header | ciphertext (as long as the plaintext) | tag (16). */
import { createCipheriv, createDecipheriv } from 'node:crypto';

export const nonceBytes = 12;
export const tagBytes = 16;

/**
 * Fills in what follows the header of `message`, which has room for just that: the encrypted `plaintext`, then the tag.
 * @param key 32 bytes
 * @param nonce 12 bytes, never used with this key before
 */
export function sealGcm(
  message: Buffer,
  headerBytes: number,
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  additionalData: Uint8Array,
): void {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(additionalData);
  message.set(cipher.update(plaintext), headerBytes);
  cipher.final();
  message.set(cipher.getAuthTag(), headerBytes + plaintext.length);
}

/**
 * The plaintext of a message that `sealGcm` made, in a buffer of its own that the caller wipes.
 * @throws when key, nonce, additional data or a single bit of the message after its header differ
 */
export function openGcm(
  message: Uint8Array,
  headerBytes: number,
  key: Uint8Array,
  nonce: Uint8Array,
  additionalData: Uint8Array,
): Buffer {
  const tagAt = message.length - tagBytes;
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
  decipher.setAAD(additionalData);
  decipher.setAuthTag(message.subarray(tagAt));
  const plaintext = decipher.update(message.subarray(headerBytes, tagAt));
  try {
    decipher.final();
    return plaintext;
  } catch (error) {
    plaintext.fill(0);
    throw error;
  }
}
