/** RSAES-OAEP (RFC 8017, section 7.1) as the API has it: no label, MGF1 with the same hash. */
import { constants, createPrivateKey, createPublicKey, publicEncrypt, webcrypto } from 'node:crypto';
import type { EncryptionAlgorithmSpec } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import type { Computation } from '../crypto/computation.ts';

const hashes: Partial<Record<EncryptionAlgorithmSpec, { readonly name: string; readonly bytes: number }>> = {
  RSAES_OAEP_SHA_1: { name: 'SHA-1', bytes: 20 },
  RSAES_OAEP_SHA_256: { name: 'SHA-256', bytes: 32 },
};

const padding = constants.RSA_PKCS1_OAEP_PADDING;

/** @throws {AwsError} ValidationException when the plaintext is longer than the key can take */
export function checkOaepLength(spec: string, algorithm: EncryptionAlgorithmSpec, plaintext: Uint8Array): void {
  const modulusBytes = Number(spec.slice('RSA_'.length)) / 8;
  const max = modulusBytes - 2 * hashes[algorithm]!.bytes - 2;
  if (plaintext.length > max)
    throw new AwsError(
      'ValidationException',
      `Algorithm ${algorithm} and key spec ${spec} cannot encrypt data larger than ${max} bytes.`,
    );
}

/** @param publicKey SubjectPublicKeyInfo, DER. The plaintext's length has been checked. */
export function sealOaep(publicKey: Buffer, algorithm: EncryptionAlgorithmSpec, plaintext: Uint8Array): Buffer {
  const key = createPublicKey({ key: publicKey, format: 'der', type: 'spki' });
  return publicEncrypt({ key, padding, oaepHash: hashes[algorithm]!.name }, plaintext);
}

/**
 * Ready to decrypt: the key has been read. The result is undefined when the ciphertext is not one of this key and algorithm;
 * a plaintext is the caller's to wipe.
 * @param privateKey PKCS #8, DER; the caller wipes it
 */
export function openingOaep(
  privateKey: Buffer,
  algorithm: EncryptionAlgorithmSpec,
  ciphertext: Uint8Array,
): Computation<Buffer | undefined> {
  const rsa = { name: 'RSA-OAEP', hash: hashes[algorithm]!.name };
  const read = createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' });
  const key = read.toCryptoKey(rsa, false, ['decrypt']);
  const modulusBytes = read.asymmetricKeyDetails!.modulusLength! / 8;
  return {
    async start() {
      // OpenSSL takes one that lacks its leading zeros; RFC 8017 does not (section 7.1.2, step 1b).
      if (ciphertext.length !== modulusBytes) return undefined;
      try {
        // Unlike node:crypto's other interface, this one decrypts on another thread.
        return Buffer.from(await webcrypto.subtle.decrypt(rsa, key, ciphertext as Uint8Array<ArrayBuffer>));
      } catch {
        // Why is not for anyone to know: a difference would help to find the plaintext (RFC 8017, section 7.1.2).
        return undefined;
      }
    },
    end() {},
  };
}
