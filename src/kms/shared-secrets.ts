import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';
import {
  type DeriveSharedSecretRequest,
  type DeriveSharedSecretResponse,
  KeyAgreementAlgorithmSpec,
} from '@aws-sdk/client-kms';
import { AwsError } from '../aws/errors.ts';
import { blob, boolean, oneOf, required, structure } from '../aws/validate.ts';
import { grantTokenList, keyIdText } from './constraints.ts';
import { recipient, refuseRecipient } from './data-keys.ts';
import { laterAnswer } from './elsewhere.ts';
import { keyOperation, stopIfDryRun } from './key-operation.ts';
import { curveOf } from './key-specs.ts';
import { requireAlgorithm, requireEnabled } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';

export const sharedSecretOperations = (store: KeyStore) => [deriveSharedSecret(store)];

const deriveSharedSecret = (store: KeyStore) =>
  keyOperation<DeriveSharedSecretRequest, DeriveSharedSecretResponse>(store, {
    name: 'DeriveSharedSecret',
    effect: 'reads',
    usesKey: true,
    input: structure({
      KeyId: required(keyIdText),
      KeyAgreementAlgorithm: required(oneOf(Object.values(KeyAgreementAlgorithmSpec))),
      PublicKey: required(blob({ min: 1, max: 8192 })),
      GrantTokens: grantTokenList,
      DryRun: boolean(),
      Recipient: recipient,
    }),
    check: refuseRecipient,
    conditions: (_call, input) => ({ 'kms:KeyAgreementAlgorithm': input.KeyAgreementAlgorithm! }),
    parameters: ['KeyId', 'KeyAgreementAlgorithm', 'DryRun'],
    async handle(call, input, key) {
      const algorithm = input.KeyAgreementAlgorithm!;
      requireEnabled(key);
      requireAlgorithm(key, 'KEY_AGREEMENT', 'DeriveSharedSecret', algorithm);
      const publicKey = readPeerKey(input.PublicKey!, key);
      stopIfDryRun(input);
      const answer = (SharedSecret: Buffer) => ({
        KeyId: key.arn,
        SharedSecret,
        KeyAgreementAlgorithm: algorithm,
        KeyOrigin: key.origin,
      });
      return store.withPrivateKey(call.db, key, (encoded) => {
        const pair = { privateKey: createPrivateKey({ key: encoded, format: 'der', type: 'pkcs8' }), publicKey };
        // The larger curves take milliseconds.
        if (key.key_spec === 'ECC_NIST_P256') return answer(diffieHellman(pair));
        return laterAnswer(call, { start: () => agreeElsewhere(pair), end() {} }, answer);
      });
    },
  });

function agreeElsewhere(pair: { privateKey: KeyObject; publicKey: KeyObject }): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    diffieHellman(pair, (error, secret) => (error ? reject(error) : resolve(secret))),
  );
}

/**
 * The other side's public key. OpenSSL refuses points that are not on the curve as it reads them; a point of another
 * curve, or of one whose parameters the other side made up, could tell it something about our private key.
 * @throws {AwsError} ValidationException
 */
function readPeerKey(encoded: Uint8Array, key: Key): KeyObject {
  const publicKey = namesItsCurve(encoded) ? parse(encoded) : undefined;
  const curve = curveOf(key.key_spec);
  if (publicKey?.asymmetricKeyType !== 'ec' || publicKey.asymmetricKeyDetails?.namedCurve !== curve)
    throw new AwsError(
      'ValidationException',
      `PublicKey is not a DER-encoded X.509 public key (SubjectPublicKeyInfo) on the curve of key spec ${key.key_spec}.`,
    );
  return publicKey;
}

/** The object identifier of elliptic curve keys, followed by another: not by the parameters of a curve. RFC 5480, 2.1.1. */
const namedCurve = Buffer.from('06072a8648ce3d020106', 'hex');

function namesItsCurve(encoded: Uint8Array): boolean {
  // Before it stand the headers of two sequences.
  const at = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.byteLength).indexOf(namedCurve);
  return at >= 0 && at <= 8;
}

function parse(encoded: Uint8Array): KeyObject | undefined {
  try {
    const publicKey = createPublicKey({ key: Buffer.from(encoded), format: 'der', type: 'spki' });
    // The point at infinity is on every curve, and has no coordinates to export.
    publicKey.export({ format: 'jwk' });
    return publicKey;
  } catch {
    return undefined;
  }
}
