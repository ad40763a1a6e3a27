/**
 * The root key: 32 random bytes that wrap everything secret in the database (key material, secret access keys) and seal
 * session tokens. It never leaves this class; callers name a purpose, and each purpose has a key of its own, derived with
 * HKDF-SHA256.
 *
 * Sealed form: version 1 (1 byte) | nonce (12) | ciphertext | tag (16); AES-256-GCM, the caller's additional data bound in.
 */
import { createHmac, hkdfSync, randomBytes, randomFillSync } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { writePrivateFile } from '../files/durable.ts';
import { nonceBytes, openGcm, sealGcm, tagBytes } from './gcm.ts';

const rootKeyBytes = 32;
const version = 1;
const headerBytes = 1 + nonceBytes;

export class RootKey {
  readonly #key: Buffer;
  readonly #purposes = new Map<string, Buffer>();

  /** Takes ownership of `key` (32 bytes). */
  constructor(key: Buffer) {
    if (key.length !== rootKeyBytes) throw new Error(`a root key has ${rootKeyBytes} bytes, not ${key.length}`);
    this.#key = key;
  }

  /** Seals `plaintext` for `purpose`, bound to `additionalData`. The caller wipes the plaintext. */
  seal(purpose: string, plaintext: Uint8Array, additionalData: string): Buffer {
    const sealed = Buffer.allocUnsafe(headerBytes + plaintext.length + tagBytes);
    sealed[0] = version;
    const nonce = randomFillSync(sealed.subarray(1, headerBytes));
    sealGcm(sealed, headerBytes, this.#purposeKey(purpose), nonce, plaintext, Buffer.from(additionalData, 'utf8'));
    return sealed;
  }

  /**
   * Opens what `seal` made; the result is a buffer of its own that the caller wipes.
   * @throws when purpose, additional data or a single bit differ
   */
  open(purpose: string, sealed: Uint8Array, additionalData: string): Buffer {
    if (sealed.length < headerBytes + tagBytes || sealed[0] !== version)
      throw new Error('not a sealed value of version 1');
    const nonce = sealed.subarray(1, headerBytes);
    return openGcm(sealed, headerBytes, this.#purposeKey(purpose), nonce, Buffer.from(additionalData, 'utf8'));
  }

  /** HMAC-SHA256 of `parts`, one after the other, under the key of `purpose`: names a secret without telling of it. */
  fingerprint(purpose: string, ...parts: Uint8Array[]): Buffer {
    const mac = createHmac('sha256', this.#purposeKey(purpose));
    for (const part of parts) mac.update(part);
    return mac.digest();
  }

  /** Wipes the key and everything derived from it. */
  wipe(): void {
    this.#key.fill(0);
    for (const key of this.#purposes.values()) key.fill(0);
    this.#purposes.clear();
  }

  #purposeKey(purpose: string): Buffer {
    let key = this.#purposes.get(purpose);
    if (!key) {
      key = Buffer.from(hkdfSync('sha256', this.#key, Buffer.alloc(0), `coffer root v1 ${purpose}`, rootKeyBytes));
      this.#purposes.set(purpose, key);
    }
    return key;
  }
}

/**
 * The root key from its file; made on the first start, mode 0600. The file appears whole or not at all.
 * @param mayMake whether a missing file is made: not where something has been sealed already
 * @throws when the file is missing, its size is wrong or others may read it
 */
export function loadRootKeyFile(path: string, { mayMake = true } = {}): RootKey {
  if (!existsSync(path)) {
    if (!mayMake)
      throw new Error(
        `the root key ${path} is missing, and without it nothing can be decrypted; restore it from a backup`,
      );
    createRootKeyFile(path);
  }
  const file = openSync(path, 'r');
  try {
    const { mode, size } = fstatSync(file);
    if ((mode & 0o077) !== 0) throw new Error(`the root key ${path} can be read by others; run: chmod 600 ${path}`);
    if (size !== rootKeyBytes)
      throw new Error(`the root key ${path} has ${size} bytes instead of ${rootKeyBytes}; restore it from a backup`);
    const key = Buffer.alloc(rootKeyBytes);
    readSync(file, key, 0, rootKeyBytes, 0);
    return new RootKey(key);
  } finally {
    closeSync(file);
  }
}

function createRootKeyFile(path: string): void {
  const key = randomBytes(rootKeyBytes);
  try {
    // Kept, should another process have made one in the meantime: what it sealed must stay open.
    writePrivateFile(path, key, 'keep');
  } finally {
    key.fill(0);
  }
}
