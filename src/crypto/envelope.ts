/**
 * The ciphertext blob of a symmetric KMS key: who encrypted it (key and material), and what it takes to open it again.
 *
 *     version 1 (1 byte) | key id (16) | material id (16) | salt (32) | nonce (12) | ciphertext | tag (16)
 *
 * Message key = HKDF-SHA256(ikm = key material, salt = salt, info = "coffer kms v1", 32 bytes).
 * Cipher = AES-256-GCM under the message key with the nonce; the ciphertext is as long as the plaintext.
 * Additional data = everything before the ciphertext (77 bytes), then the encryption context: its pairs sorted by the
 * UTF-8 bytes of their keys, each key and each value as a 32-bit big-endian byte length and its UTF-8 bytes.
 *
 * A fresh 256-bit salt gives each message its own key, so that the number of messages under one material has no bound
 * that matters (GCM with random nonces under one key would: NIST SP 800-38D, section 8.3).
 */
import { hkdfSync } from 'node:crypto';
import { nonceBytes, openGcm, sealGcm, tagBytes } from './gcm.ts';
import { fillPublicRandom } from './random.ts';

const version = 1;
const idBytes = 16;
const saltBytes = 32;
const materialAt = 1 + idBytes;
const saltAt = materialAt + idBytes;
const nonceAt = saltAt + saltBytes;
const headerBytes = nonceAt + nonceBytes;
const info = Buffer.from('coffer kms v1');

/** How much longer a blob is than its plaintext, in bytes. */
export const envelopeOverhead = headerBytes + tagBytes;

export type EncryptionContext = Readonly<Record<string, string>>;

/** Who can open a blob. Both ids are 16 bytes. */
export interface EnvelopeSender {
  readonly keyId: Buffer;
  readonly materialId: Buffer;
}

/** Encrypts `plaintext` (any length) under `material` (32 bytes), bound to `context`. The caller wipes the plaintext. */
export function sealEnvelope(
  material: Uint8Array,
  sender: EnvelopeSender,
  plaintext: Uint8Array,
  context: EncryptionContext | undefined,
): Buffer {
  const blob = Buffer.allocUnsafe(envelopeOverhead + plaintext.length);
  blob[0] = version;
  blob.set(sender.keyId, 1);
  blob.set(sender.materialId, materialAt);
  fillPublicRandom(blob, saltAt, saltBytes + nonceBytes);
  sealInto(blob, material, plaintext, context);
  return blob;
}

/** Exported for known-answer tests, which choose the random parts: fills in what follows the header that `blob` has. */
export function sealInto(
  blob: Buffer,
  material: Uint8Array,
  plaintext: Uint8Array,
  context: EncryptionContext | undefined,
): void {
  const bound = additionalData(blob, context);
  const messageKey = deriveMessageKey(material, blob);
  try {
    sealGcm(blob, headerBytes, messageKey, blob.subarray(nonceAt, headerBytes), plaintext, bound);
  } finally {
    messageKey.fill(0);
  }
}

/** Who sealed a blob, or undefined when it is not one of ours. Says nothing yet about its being genuine. */
export function envelopeSender(blob: Uint8Array): EnvelopeSender | undefined {
  if (blob.length < envelopeOverhead || blob[0] !== version) return undefined;
  const bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.byteLength);
  return { keyId: bytes.subarray(1, materialAt), materialId: bytes.subarray(materialAt, saltAt) };
}

/**
 * Decrypts a blob that `envelopeSender` knows. The result is a buffer of its own, which the caller wipes; undefined when
 * material, context or a single bit of the blob differ.
 */
export function openEnvelope(
  material: Uint8Array,
  blob: Uint8Array,
  context: EncryptionContext | undefined,
): Buffer | undefined {
  const bound = additionalData(blob, context);
  const messageKey = deriveMessageKey(material, blob);
  try {
    return openGcm(blob, headerBytes, messageKey, blob.subarray(nonceAt, headerBytes), bound);
  } catch {
    return undefined;
  } finally {
    messageKey.fill(0);
  }
}

function deriveMessageKey(material: Uint8Array, blob: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', material, blob.subarray(saltAt, nonceAt), info, 32));
}

function additionalData(blob: Uint8Array, context: EncryptionContext | undefined): Uint8Array {
  const header = blob.subarray(0, headerBytes);
  const parts = contextParts(context);
  return parts.length === 0 ? header : Buffer.concat([header, ...parts]);
}

/** The context as length-prefixed keys and values, in the order of the keys' UTF-8 bytes. */
function contextParts(context: EncryptionContext | undefined): Buffer[] {
  const keys = context ? Object.keys(context) : [];
  if (keys.length > 1) keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return keys.flatMap((key) => [prefixed(key), prefixed(context![key]!)]);
}

function prefixed(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const bytes = Buffer.allocUnsafe(4 + length);
  bytes.writeUInt32BE(length);
  bytes.write(text, 4);
  return bytes;
}
