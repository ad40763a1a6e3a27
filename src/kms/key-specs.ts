/**
 * What each key spec can be used for, with which algorithms, and how its material is made. SM2 exists in the China regions
 * only, and is not here. Source: API_CreateKey.
 */
import { generateKeyPair, type KeyObject, randomBytes } from 'node:crypto';
import type { GrantOperation, KeyMetadata, KeyUsageType } from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { longTurns, shortTurns } from './elsewhere.ts';

interface PairOptions {
  readonly modulusLength?: number;
  readonly namedCurve?: string;
}

interface Spec {
  readonly usages: readonly KeyUsageType[];
  /** Bytes of random material (symmetric and HMAC keys), or how to make a key pair. */
  readonly material: number | { readonly type: string; readonly options?: PairOptions };
}

const rsa = (bits: number): Spec => ({
  usages: ['ENCRYPT_DECRYPT', 'SIGN_VERIFY'],
  material: { type: 'rsa', options: { modulusLength: bits } },
});
const curve = (name: string, agrees: boolean): Spec => ({
  usages: agrees ? ['SIGN_VERIFY', 'KEY_AGREEMENT'] : ['SIGN_VERIFY'],
  material: { type: 'ec', options: { namedCurve: name } },
});
const hmac = (bytes: number): Spec => ({ usages: ['GENERATE_VERIFY_MAC'], material: bytes });
const mlDsa = (size: number): Spec => ({ usages: ['SIGN_VERIFY'], material: { type: `ml-dsa-${size}` } });

const mlKem = (size: number): Spec => ({ usages: ['ENCAPSULATE_DECAPSULATE'], material: { type: `ml-kem-${size}` } });

const specs: Readonly<Record<string, Spec>> = {
  SYMMETRIC_DEFAULT: { usages: ['ENCRYPT_DECRYPT'], material: 32 },
  RSA_2048: rsa(2048),
  RSA_3072: rsa(3072),
  RSA_4096: rsa(4096),
  ECC_NIST_P256: curve('prime256v1', true),
  ECC_NIST_P384: curve('secp384r1', true),
  ECC_NIST_P521: curve('secp521r1', true),
  ECC_SECG_P256K1: curve('secp256k1', false),
  ECC_NIST_EDWARDS25519: { usages: ['SIGN_VERIFY'], material: { type: 'ed25519' } },
  HMAC_224: hmac(28),
  HMAC_256: hmac(32),
  HMAC_384: hmac(48),
  HMAC_512: hmac(64),
  ML_DSA_44: mlDsa(44),
  ML_DSA_65: mlDsa(65),
  ML_DSA_87: mlDsa(87),
  ML_KEM_512: mlKem(512),
  ML_KEM_768: mlKem(768),
  ML_KEM_1024: mlKem(1024),
};

/** @throws {AwsError} UnsupportedOperationException for a spec that the API knows and that is not here: SM2 */
export function requireSupportedSpec(spec: string): Spec {
  const known = specs[spec];
  if (!known) throw new AwsError('UnsupportedOperationException', `KeySpec ${spec} is not supported in this Region.`);
  return known;
}

/**
 * The usage of a new key.
 * @throws {AwsError} when the spec does not allow it, or leaves a choice and none was made
 */
export function usageOf(spec: string, asked: KeyUsageType | undefined): KeyUsageType {
  const known = requireSupportedSpec(spec);
  if (asked === undefined) {
    if (spec === 'SYMMETRIC_DEFAULT') return 'ENCRYPT_DECRYPT';
    throw new AwsError(
      'ValidationException',
      'You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.',
    );
  }
  if (!known.usages.includes(asked))
    throw new AwsError('ValidationException', `KeyUsage ${asked} is not compatible with KeySpec ${spec}`);
  return asked;
}

/** Secret key material, and for an asymmetric key its public half (SubjectPublicKeyInfo, DER). */
export interface Material {
  readonly secret: Buffer;
  readonly publicKey?: Buffer;
}

/** New material; the caller wipes `secret`. Key pairs are made on another thread: RSA takes up to seconds. */
export async function newMaterial(spec: string): Promise<Material> {
  const { material } = specs[spec]!;
  if (typeof material === 'number') return { secret: randomBytes(material) };
  const turns = material.type === 'rsa' ? longTurns : shortTurns;
  const pair = await turns.run(() => newKeyPair(material.type, material.options ?? {}));
  return {
    secret: pair.privateKey.export({ type: 'pkcs8', format: 'der' }),
    publicKey: pair.publicKey.export({ type: 'spki', format: 'der' }),
  };
}

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

type Made = (error: Error | null, publicKey: KeyObject, privateKey: KeyObject) => void;
// The overloads of node:crypto name one key type each; here the type is data.
const generate = generateKeyPair as unknown as (type: string, options: object, made: Made) => void;

function newKeyPair(type: string, options: object): Promise<KeyPair> {
  return new Promise((resolve, reject) =>
    generate(type, options, (error, publicKey, privateKey) =>
      error ? reject(error) : resolve({ publicKey, privateKey }),
    ),
  );
}

/** Whether keys of the spec have a public half. */
export function isAsymmetric(spec: string): boolean {
  return typeof specs[spec]?.material === 'object';
}

/** How long the material of a symmetric or HMAC key is, in bytes. */
export function materialBytes(spec: string): number {
  return specs[spec]!.material as number;
}

/** The length of an RSA key's modulus, in bits. */
export function rsaBitsOf(spec: string): number {
  return Number(spec.slice('RSA_'.length));
}

/**
 * @throws {AwsError} UnsupportedOperationException for a spec whose material can't be imported. Source: API_ImportKeyMaterial,
 * which has symmetric, HMAC, RSA and elliptic curve keys
 */
export function requireImportable(spec: string): void {
  if (spec.startsWith('ML_'))
    throw new AwsError(
      'UnsupportedOperationException',
      `Key material can't be imported for KeySpec ${spec}: Origin EXTERNAL is not valid.`,
    );
}

/** OpenSSL's name of an elliptic curve key's curve. */
export function curveOf(spec: string): string | undefined {
  const material = specs[spec]?.material;
  return typeof material === 'object' ? material.options?.namedCurve : undefined;
}

type Algorithms = Pick<
  KeyMetadata,
  'EncryptionAlgorithms' | 'SigningAlgorithms' | 'MacAlgorithms' | 'KeyAgreementAlgorithms' | 'EncapsulationAlgorithms'
>;

/** The algorithms that DescribeKey lists for a key. */
export function algorithmsOf(spec: string, usage: string): Algorithms {
  if (usage === 'GENERATE_VERIFY_MAC') return { MacAlgorithms: [spec.replace('HMAC_', 'HMAC_SHA_') as 'HMAC_SHA_256'] };
  if (usage === 'ENCAPSULATE_DECAPSULATE') return { EncapsulationAlgorithms: ['ML_KEM'] };
  if (usage === 'KEY_AGREEMENT') return { KeyAgreementAlgorithms: ['ECDH'] };
  if (usage === 'ENCRYPT_DECRYPT')
    return {
      EncryptionAlgorithms:
        spec === 'SYMMETRIC_DEFAULT' ? ['SYMMETRIC_DEFAULT'] : ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'],
    };
  return { SigningAlgorithms: signingAlgorithms(spec) };
}

function signingAlgorithms(spec: string): NonNullable<KeyMetadata['SigningAlgorithms']> {
  if (spec.startsWith('ML_DSA')) return ['ML_DSA_SHAKE_256'];
  switch (spec) {
    case 'ECC_NIST_P256':
    case 'ECC_SECG_P256K1':
      return ['ECDSA_SHA_256'];
    case 'ECC_NIST_P384':
      return ['ECDSA_SHA_384'];
    case 'ECC_NIST_P521':
      return ['ECDSA_SHA_512'];
    case 'ECC_NIST_EDWARDS25519':
      return ['ED25519_PH_SHA_512', 'ED25519_SHA_512'];
    default:
      return [
        'RSASSA_PKCS1_V1_5_SHA_256',
        'RSASSA_PKCS1_V1_5_SHA_384',
        'RSASSA_PKCS1_V1_5_SHA_512',
        'RSASSA_PSS_SHA_256',
        'RSASSA_PSS_SHA_384',
        'RSASSA_PSS_SHA_512',
      ];
  }
}

const everyKey: readonly GrantOperation[] = ['CreateGrant', 'DescribeKey', 'RetireGrant'];
const encryption: readonly GrantOperation[] = ['Decrypt', 'Encrypt', 'ReEncryptFrom', 'ReEncryptTo'];
const dataKeys: readonly GrantOperation[] = [
  'GenerateDataKey',
  'GenerateDataKeyPair',
  'GenerateDataKeyPairWithoutPlaintext',
  'GenerateDataKeyWithoutPlaintext',
];

/** The operations that a grant on a key may name. Source: KMS developer guide, "Grant operations". */
export function grantOperationsOf(spec: string, usage: string): readonly GrantOperation[] {
  if (spec === 'SYMMETRIC_DEFAULT') return [...everyKey, ...encryption, ...dataKeys];
  switch (usage) {
    case 'ENCRYPT_DECRYPT':
      return [...everyKey, ...encryption, 'GetPublicKey'];
    case 'SIGN_VERIFY':
      return [...everyKey, 'Sign', 'Verify', 'GetPublicKey'];
    case 'GENERATE_VERIFY_MAC':
      return [...everyKey, 'GenerateMac', 'VerifyMac'];
    case 'ENCAPSULATE_DECAPSULATE':
      return [...everyKey, 'Encapsulate', 'Decapsulate', 'GetPublicKey'];
    default:
      return [...everyKey, 'DeriveSharedSecret', 'GetPublicKey'];
  }
}
