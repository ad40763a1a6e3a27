/** How each signing algorithm of the API is computed. Source: KMS developer guide, "Key spec reference". */
import {
  constants,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  type SignKeyObjectInput,
  sign,
  verify,
} from 'node:crypto';
import type { MessageType, SigningAlgorithmSpec } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import type { Computation } from '../crypto/computation.ts';
import {
  type Digest,
  type PreparedScheme,
  type PreparedSignatures,
  preparedSignatures,
} from '../crypto/prepared-signatures.ts';

const digestBytes: Readonly<Record<Digest, number>> = { sha256: 32, sha384: 48, sha512: 64 };
/** Bytes of ML-DSA's μ. */
const muBytes = 64;

type Kind = 'rsa-pss' | 'rsa-pkcs1' | 'ecdsa';

const hashing: Partial<Record<SigningAlgorithmSpec, { readonly kind: Kind; readonly digest: Digest }>> = {
  RSASSA_PSS_SHA_256: { kind: 'rsa-pss', digest: 'sha256' },
  RSASSA_PSS_SHA_384: { kind: 'rsa-pss', digest: 'sha384' },
  RSASSA_PSS_SHA_512: { kind: 'rsa-pss', digest: 'sha512' },
  RSASSA_PKCS1_V1_5_SHA_256: { kind: 'rsa-pkcs1', digest: 'sha256' },
  RSASSA_PKCS1_V1_5_SHA_384: { kind: 'rsa-pkcs1', digest: 'sha384' },
  RSASSA_PKCS1_V1_5_SHA_512: { kind: 'rsa-pkcs1', digest: 'sha512' },
  ECDSA_SHA_256: { kind: 'ecdsa', digest: 'sha256' },
  ECDSA_SHA_384: { kind: 'ecdsa', digest: 'sha384' },
  ECDSA_SHA_512: { kind: 'ecdsa', digest: 'sha512' },
};

/** What is asked for: which algorithm, and what the message is. The key spec tells ML-DSA's parameters. */
export interface SigningPlan {
  readonly spec: string;
  readonly algorithm: SigningAlgorithmSpec;
  readonly messageType: MessageType;
}

/**
 * Whether the message may be what it is said to be. The algorithm is one of the key's.
 * @throws {AwsError} ValidationException
 */
export function checkMessage({ spec, algorithm, messageType }: SigningPlan, message: Uint8Array): void {
  const digest = hashing[algorithm]?.digest;
  const isAllowed = digest
    ? messageType !== 'EXTERNAL_MU'
    : messageType === messageTypes[algorithm] || (algorithm === 'ML_DSA_SHAKE_256' && messageType === 'EXTERNAL_MU');
  if (!isAllowed)
    throw new AwsError(
      'ValidationException',
      algorithm === 'ML_DSA_SHAKE_256'
        ? `Message type ${messageType} is incompatible with key spec ${spec}.`
        : `Message type ${messageType} is incompatible with algorithm ${algorithm}.`,
    );
  if (messageType === 'DIGEST' && message.length !== digestBytes[digest ?? 'sha512'])
    throw new AwsError('ValidationException', `Digest is invalid length for algorithm ${algorithm}.`);
  if (messageType === 'EXTERNAL_MU' && message.length !== muBytes)
    throw new AwsError('ValidationException', `External Mu is invalid length for algorithm ${algorithm}.`);
}

/** The one message type of algorithms that do not hash the message first. Source: API_Sign, MessageType. */
const messageTypes: Partial<Record<SigningAlgorithmSpec, MessageType>> = {
  ED25519_SHA_512: 'RAW',
  ED25519_PH_SHA_512: 'DIGEST',
  ML_DSA_SHAKE_256: 'RAW',
};

/**
 * Whether the computation takes so long that others should not wait for it: more than about 0.2 ms, where the curve P-256
 * and Ed25519 take 0.05. Public RSA keys are fast.
 */
export function takesLong({ spec }: SigningPlan, purpose: 'sign' | 'verify'): boolean {
  if (spec.startsWith('RSA')) return purpose === 'sign';
  return spec !== 'ECC_NIST_P256' && spec !== 'ECC_NIST_EDWARDS25519';
}

/** @param privateKey PKCS #8, DER; the caller wipes it. The message has been checked. */
export function signMessage(plan: SigningPlan, privateKey: Buffer, message: Uint8Array): Buffer {
  const scheme = preparedScheme(plan);
  if (scheme) return prepared(plan).sign(privateKey, scheme, message);
  return sign(hashing[plan.algorithm]?.digest, message, privateKeyInput(plan, privateKey));
}

/** @param publicKey SubjectPublicKeyInfo, DER */
export function verifyMessage(
  plan: SigningPlan,
  publicKey: Buffer,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const scheme = preparedScheme(plan);
  if (scheme) return prepared(plan).verify(publicKey, scheme, message, signature);
  return verify(hashing[plan.algorithm]?.digest, message, publicKeyInput(plan, publicKey), signature);
}

/**
 * Ready to sign: all that is needed of the private key has been read. The message has been checked.
 * @param privateKey PKCS #8, DER; the caller wipes it
 */
export function signing(plan: SigningPlan, privateKey: Buffer, message: Uint8Array): Computation<Buffer> {
  const scheme = preparedScheme(plan);
  if (scheme) return prepared(plan).signing(privateKey, scheme, message);
  const key = privateKeyInput(plan, privateKey);
  return { start: () => signElsewhere(hashing[plan.algorithm]?.digest, message, key), end() {} };
}

/** @param publicKey SubjectPublicKeyInfo, DER */
export function verification(
  plan: SigningPlan,
  publicKey: Buffer,
  message: Uint8Array,
  signature: Uint8Array,
): Computation<boolean> {
  const scheme = preparedScheme(plan);
  if (scheme) return prepared(plan).verification(publicKey, scheme, message, signature);
  const key = publicKeyInput(plan, publicKey);
  return { start: () => verifyElsewhere(hashing[plan.algorithm]?.digest, message, key, signature), end() {} };
}

type KeyInput = SignKeyObjectInput & { key: KeyObject };

const privateKeyInput = (plan: SigningPlan, key: Buffer): KeyInput => ({
  key: createPrivateKey({ key, format: 'der', type: 'pkcs8' }),
  ...padding(plan),
});
const publicKeyInput = (plan: SigningPlan, key: Buffer): KeyInput => ({
  key: createPublicKey({ key, format: 'der', type: 'spki' }),
  ...padding(plan),
});

function signElsewhere(digest: string | undefined, message: Uint8Array, key: KeyInput): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    sign(digest, message, key, (error, signature) => (error ? reject(error) : resolve(signature))),
  );
}

function verifyElsewhere(
  digest: string | undefined,
  message: Uint8Array,
  key: KeyInput,
  signature: Uint8Array,
): Promise<boolean> {
  return new Promise((resolve, reject) =>
    verify(digest, message, key, signature, (error, isValid) => (error ? reject(error) : resolve(isValid))),
  );
}

/** How OpenSSL is to take the message, where `node:crypto` can't. */
function preparedScheme({ spec, algorithm, messageType }: SigningPlan): PreparedScheme | undefined {
  if (algorithm === 'ED25519_PH_SHA_512') return { kind: 'ed25519ph' };
  if (messageType === 'DIGEST') return hashing[algorithm];
  if (messageType === 'EXTERNAL_MU')
    return { kind: 'ml-dsa-mu', parameters: Number(spec.slice('ML_DSA_'.length)) as 44 | 65 | 87 };
  return undefined;
}

function prepared({ messageType }: SigningPlan): PreparedSignatures {
  const signatures = preparedSignatures();
  if (!signatures)
    throw new AwsError(
      'UnsupportedOperationException',
      `MessageType ${messageType} needs the npm package koffi, which can't be loaded on this server; RAW does not.`,
    );
  return signatures;
}

function padding({ algorithm }: SigningPlan): Omit<SignKeyObjectInput, 'key'> {
  switch (hashing[algorithm]?.kind) {
    case 'rsa-pss':
      return { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
    case 'rsa-pkcs1':
      return { padding: constants.RSA_PKCS1_PADDING };
    case 'ecdsa':
      return { dsaEncoding: 'der' };
    default:
      return {};
  }
}
