/**
 * How key material travels into the key service: encrypted under an RSA public key that was made for it.
 * Source: API_GetParametersForImport; KMS developer guide, "Importing key material", its steps 2 and 3.
 */
import {
  constants,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  privateDecrypt,
  sign,
  verify,
} from 'node:crypto';
import { AwsError } from '../aws/errors.ts';
import { curveOf, isAsymmetric, type Material, materialBytes, rsaBitsOf } from './key-specs.ts';

interface Algorithm {
  readonly hash: string;
  /** Whether the RSA key encrypts an AES key, and only that the material (PKCS #11's CKM_RSA_AES_KEY_WRAP). */
  readonly isHybrid: boolean;
}

const algorithms: Readonly<Record<string, Algorithm>> = {
  RSAES_OAEP_SHA_1: { hash: 'sha1', isHybrid: false },
  RSAES_OAEP_SHA_256: { hash: 'sha256', isHybrid: false },
  RSA_AES_KEY_WRAP_SHA_1: { hash: 'sha1', isHybrid: true },
  RSA_AES_KEY_WRAP_SHA_256: { hash: 'sha256', isHybrid: true },
};

/** RFC 5649, section 3. */
const wrapPadIv = Buffer.from('a65959a6', 'hex');

/**
 * Whether material for a key of `keySpec` can be wrapped that way.
 * @throws {AwsError} UnsupportedOperationException
 */
export function requireWrapping(keySpec: string, wrappingKeySpec: string, name: string): void {
  const unsupported = (why: string) => new AwsError('UnsupportedOperationException', why);
  const algorithm = algorithms[name];
  if (!algorithm) throw unsupported(`WrappingAlgorithm ${name} is not supported in this Region.`);
  if (wrappingKeySpec === 'SM2') throw unsupported('WrappingKeySpec SM2 is not supported in this Region.');
  const isIncompatible =
    (keySpec.startsWith('RSA_') && !algorithm.isHybrid) ||
    (!isAsymmetric(keySpec) && algorithm.isHybrid) ||
    (keySpec === 'ECC_NIST_P521' && wrappingKeySpec === 'RSA_2048' && !algorithm.isHybrid);
  if (isIncompatible)
    throw unsupported(
      `Wrapping algorithm ${name} with wrapping key spec ${wrappingKeySpec} is not valid for key material of key spec ${keySpec}.`,
    );
}

/**
 * Decrypts wrapped key material. The caller wipes the result.
 * @param wrappingKey PKCS #8, DER
 * @returns undefined when it was wrapped under another key, or in another way
 */
export function unwrap(name: string, wrappingKey: Buffer, wrapped: Uint8Array): Buffer | undefined {
  const { hash, isHybrid } = algorithms[name]!;
  const key = createPrivateKey({ key: wrappingKey, format: 'der', type: 'pkcs8' });
  const modulusBytes = key.asymmetricKeyDetails!.modulusLength! / 8;
  const first = decryptOaep(key, hash, isHybrid ? wrapped.subarray(0, modulusBytes) : wrapped);
  if (!first || !isHybrid) return first;
  try {
    return first.length === 32 ? unwrapAes(first, wrapped.subarray(modulusBytes)) : undefined;
  } finally {
    first.fill(0);
  }
}

function decryptOaep(key: KeyObject, oaepHash: string, ciphertext: Uint8Array): Buffer | undefined {
  // OpenSSL takes one that lacks its leading zeros; RFC 8017 does not (section 7.1.2, step 1b).
  if (ciphertext.length !== key.asymmetricKeyDetails!.modulusLength! / 8) return undefined;
  try {
    return privateDecrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, ciphertext);
  } catch {
    return undefined;
  }
}

/** AES key wrap with padding (RFC 5649). */
function unwrapAes(key: Buffer, wrapped: Uint8Array): Buffer | undefined {
  // OpenSSL has nothing to say to these but an error of its own.
  if (wrapped.length < 16 || wrapped.length % 8 !== 0) return undefined;
  try {
    // The mode takes everything at once, and gives it at once.
    return createDecipheriv('id-aes256-wrap-pad', key, wrapPadIv).update(wrapped);
  } catch {
    return undefined;
  }
}

/**
 * Key material from outside, in the form in which this system keeps its own. Of the same private key the public half is
 * always the same bytes.
 * @param plaintext the bytes of a symmetric or HMAC key, or a private key (PKCS #8, DER); the caller wipes it
 * @returns what the caller wipes too; undefined when it is not material for a key of this spec
 */
export function readMaterial(keySpec: string, plaintext: Buffer): Material | undefined {
  if (!isAsymmetric(keySpec))
    return plaintext.length === materialBytes(keySpec) ? { secret: Buffer.from(plaintext) } : undefined;
  const privateKey = parsePrivateKey(plaintext);
  if (!privateKey || !isOfSpec(privateKey, keySpec) || !isConsistent(privateKey)) return undefined;
  return {
    secret: privateKey.export({ type: 'pkcs8', format: 'der' }),
    publicKey: canonical(createPublicKey(privateKey)).export({ type: 'spki', format: 'der' }),
  };
}

/** Read from its numbers, a point is written whole, whatever form it came in. */
function canonical(publicKey: KeyObject): KeyObject {
  return createPublicKey({ key: publicKey.export({ format: 'jwk' }), format: 'jwk' });
}

function parsePrivateKey(encoded: Buffer): KeyObject | undefined {
  try {
    return createPrivateKey({ key: encoded, format: 'der', type: 'pkcs8' });
  } catch {
    return undefined;
  }
}

function isOfSpec({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject, keySpec: string): boolean {
  if (keySpec.startsWith('RSA_')) {
    const { modulusLength, publicExponent } = asymmetricKeyDetails!;
    // The exponent's bound: FIPS 186-5, section 5.1.
    return asymmetricKeyType === 'rsa' && modulusLength === rsaBitsOf(keySpec) && publicExponent! > 65_536n;
  }
  const curve = curveOf(keySpec);
  if (curve) return asymmetricKeyType === 'ec' && asymmetricKeyDetails!.namedCurve === curve;
  return asymmetricKeyType === 'ed25519';
}

/** Whether the public half that comes with a private key is its own: what one signs the other must verify. */
function isConsistent(privateKey: KeyObject): boolean {
  const message = Buffer.from('coffer');
  const digest = privateKey.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  try {
    return verify(digest, message, createPublicKey(privateKey), sign(digest, message, privateKey));
  } catch {
    return false;
  }
}
