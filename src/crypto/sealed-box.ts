/**
 * Secrets for one recipient: what is sealed with a public key is opened with the private key alone, so that a data key may
 * pass through messages that are kept as strings. X25519 between an ephemeral key and the recipient's, HKDF-SHA256,
 * AES-256-GCM.
 *
 * Form: version 1 (1 byte) | ephemeral public key (32) | ciphertext | tag (16). The key serves one message, so the nonce is
 * constant.
 */
import { createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto';
import { nonceBytes, openGcm, sealGcm, tagBytes } from './gcm.ts';

const version = 1;
const publicKeyBytes = 32;
const headerBytes = 1 + publicKeyBytes;
const nonce = Buffer.alloc(nonceBytes);

export class SealedBoxKey {
  readonly #privateKey: KeyObject;
  /** Raw X25519 public key, 32 bytes. */
  readonly publicKey: Buffer;

  /** Known-answer tests choose the private key; otherwise it is a new one. */
  constructor(privateKey = generateKeyPairSync('x25519').privateKey) {
    this.#privateKey = privateKey;
    this.publicKey = rawOf(createPublicKey(privateKey));
  }

  /**
   * Opens what was sealed for this key with the same `context`; the caller wipes the result.
   * @throws when anything differs
   */
  open(sealed: Uint8Array, context: string): Buffer {
    if (sealed.length < headerBytes + tagBytes || sealed[0] !== version)
      throw new Error('not a sealed box of version 1');
    const ephemeral = sealed.subarray(1, headerBytes);
    const shared = diffieHellman({ privateKey: this.#privateKey, publicKey: publicKeyOf(ephemeral) });
    const key = messageKey(shared, ephemeral, this.publicKey);
    try {
      return openGcm(sealed, headerBytes, key, nonce, Buffer.from(context, 'utf8'));
    } finally {
      key.fill(0);
      shared.fill(0);
    }
  }
}

/**
 * Seals `plaintext` (the caller wipes it) for the owner of `publicKey` (32 bytes), bound to `context`.
 * @throws RangeError for a key of another length
 */
export function sealFor(publicKey: Uint8Array, plaintext: Uint8Array, context: string): Buffer {
  if (publicKey.length !== publicKeyBytes) throw new RangeError(`an X25519 public key has ${publicKeyBytes} bytes`);
  const ephemeral = generateKeyPairSync('x25519');
  const shared = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: publicKeyOf(publicKey) });
  const ephemeralPublic = rawOf(ephemeral.publicKey);
  const key = messageKey(shared, ephemeralPublic, publicKey);
  try {
    const sealed = Buffer.allocUnsafe(headerBytes + plaintext.length + tagBytes);
    sealed[0] = version;
    sealed.set(ephemeralPublic, 1);
    sealGcm(sealed, headerBytes, key, nonce, plaintext, Buffer.from(context, 'utf8'));
    return sealed;
  } finally {
    key.fill(0);
    shared.fill(0);
  }
}

function messageKey(shared: Buffer, ephemeralPublic: Uint8Array, recipientPublic: Uint8Array): Buffer {
  const salt = Buffer.concat([ephemeralPublic, recipientPublic]);
  return Buffer.from(hkdfSync('sha256', shared, salt, 'coffer sealed box v1', 32));
}

function rawOf(publicKey: KeyObject): Buffer {
  return Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url');
}

function publicKeyOf(raw: Uint8Array): KeyObject {
  return createPublicKey({
    format: 'jwk',
    key: { kty: 'OKP', crv: 'X25519', x: Buffer.from(raw).toString('base64url') },
  });
}
