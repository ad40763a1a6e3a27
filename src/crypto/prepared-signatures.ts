/**
 * Signatures over input that the signer has prepared: a digest, or ML-DSA's μ. `node:crypto` only signs messages, which it
 * hashes itself; OpenSSL, in the copy that Node carries, also takes what is hashed already. And it knows Ed25519ph, which
 * `node:crypto` doesn't. Calls: https://docs.openssl.org/3.5/man3/EVP_PKEY_sign/
 */
import type { Computation } from './computation.ts';
import { koffi } from './native.ts';

export type Digest = 'sha256' | 'sha384' | 'sha512';

/** How the prepared input is signed. */
export type PreparedScheme =
  /** The input is the digest of a message. PSS has a salt as long as the digest. */
  | { readonly kind: 'rsa-pss' | 'rsa-pkcs1' | 'ecdsa'; readonly digest: Digest }
  /** The input is a message, which Ed25519ph hashes with SHA-512 (RFC 8032, section 5.1), without a context. */
  | { readonly kind: 'ed25519ph' }
  /** The input is the 64 bytes of μ (FIPS 204, algorithm 7, line 6). */
  | { readonly kind: 'ml-dsa-mu'; readonly parameters: 44 | 65 | 87 };

/** Longer than any signature: those of ML-DSA-87 have 4627 bytes. */
const signatureMax = 5120;

export interface PreparedSignatures {
  /**
   * @param privateKey PKCS #8, DER; its bytes are read and not kept. OpenSSL wipes its own copy when it frees the key.
   * @throws {Error} when OpenSSL refuses: a key of another type, input of a wrong length
   */
  sign(privateKey: Uint8Array, scheme: PreparedScheme, input: Uint8Array): Buffer;
  /** @param publicKey SubjectPublicKeyInfo, DER */
  verify(publicKey: Uint8Array, scheme: PreparedScheme, input: Uint8Array, signature: Uint8Array): boolean;
  /** `sign` for another thread. Of the key everything is read at once; input may not change before the end. */
  signing(privateKey: Uint8Array, scheme: PreparedScheme, input: Uint8Array): Computation<Buffer>;
  verification(
    publicKey: Uint8Array,
    scheme: PreparedScheme,
    input: Uint8Array,
    signature: Uint8Array,
  ): Computation<boolean>;
}

let loaded: PreparedSignatures | undefined | null = null;

/** The binding, or undefined where koffi is missing or this Node.js does not export OpenSSL's symbols. */
export function preparedSignatures(): PreparedSignatures | undefined {
  if (loaded === null) loaded = bind();
  return loaded;
}

/** Addresses are numbers. Every call answers 1 on success. */
type Openssl = ReturnType<typeof functions>;

function bind(): PreparedSignatures | undefined {
  if (!koffi) return undefined;
  try {
    const openssl = functions(koffi.load(null));
    const addressOf = (bytes: Uint8Array) => koffi!.address(bytes);
    const open = (purpose: Purpose, key: Uint8Array, scheme: PreparedScheme) =>
      openContext(openssl, purpose, addressOf(key), key.length, scheme);
    return {
      sign: (key, scheme, input) => using(open('sign', key, scheme), ({ context }) => sign(openssl, context, input)),
      verify: (key, scheme, input, signature) =>
        using(
          open('verify', key, scheme),
          ({ context }) => openssl.verify(context, signature, signature.length, input, input.length) === 1,
        ),
      signing(key, scheme, input) {
        const { context, end } = open('sign', key, scheme);
        return { start: () => signElsewhere(openssl, context, input), end };
      },
      verification(key, scheme, input, signature) {
        const { context, end } = open('verify', key, scheme);
        const call = [context, signature, signature.length, input, input.length];
        return { start: async () => (await elsewhere(openssl.verify, call)) === 1, end };
      },
    };
  } catch {
    return undefined;
  }
}

function functions(library: ReturnType<NonNullable<typeof koffi>['load']>) {
  return {
    // Both take the address of a pointer into the encoded key, and move that pointer on.
    readPrivateKey: library.func('intptr_t d2i_AutoPrivateKey(intptr_t reuse, void *encoded, long length)'),
    readPublicKey: library.func('intptr_t d2i_PUBKEY(intptr_t reuse, void *encoded, long length)'),
    freeKey: library.func('void EVP_PKEY_free(intptr_t key)'),
    newContext: library.func('intptr_t EVP_PKEY_CTX_new(intptr_t key, intptr_t engine)'),
    freeContext: library.func('void EVP_PKEY_CTX_free(intptr_t context)'),
    fetch: library.func('intptr_t EVP_SIGNATURE_fetch(intptr_t library, str name, intptr_t properties)'),
    freeAlgorithm: library.func('void EVP_SIGNATURE_free(intptr_t algorithm)'),
    set: library.func('int EVP_PKEY_CTX_ctrl_str(intptr_t context, str name, str value)'),
    startDigestSign: library.func('int EVP_PKEY_sign_init(intptr_t context)'),
    startDigestVerify: library.func('int EVP_PKEY_verify_init(intptr_t context)'),
    startMessageSign: library.func(
      'int EVP_PKEY_sign_message_init(intptr_t context, intptr_t algorithm, intptr_t none)',
    ),
    startMessageVerify: library.func(
      'int EVP_PKEY_verify_message_init(intptr_t context, intptr_t algorithm, intptr_t none)',
    ),
    sign: library.func('int EVP_PKEY_sign(intptr_t context, void *out, void *length, void *input, size_t inputLength)'),
    verify: library.func(
      'int EVP_PKEY_verify(intptr_t context, void *signature, size_t length, void *input, size_t inputLength)',
    ),
    clearErrors: library.func('void ERR_clear_error()'),
  };
}

type Purpose = 'sign' | 'verify';

interface OpenContext {
  readonly context: number;
  end(): void;
}

/** Reads the key and says what is to be done with it. Whoever gets the context ends it. */
function openContext(
  openssl: Openssl,
  purpose: Purpose,
  address: bigint,
  length: number,
  scheme: PreparedScheme,
): OpenContext {
  const read = purpose === 'sign' ? openssl.readPrivateKey : openssl.readPublicKey;
  const pkey: number = read(0, new BigUint64Array([address]), length);
  let context = 0;
  const end = () => {
    if (context !== 0) openssl.freeContext(context);
    if (pkey !== 0) openssl.freeKey(pkey);
    // A failed call leaves its errors with the thread, where node:crypto would take them for its own.
    openssl.clearErrors();
  };
  try {
    if (pkey === 0) throw new Error('OpenSSL can not read the key');
    context = openssl.newContext(pkey, 0);
    if (context === 0) throw new Error('OpenSSL can not use the key');
    prepare(openssl, context, scheme, purpose);
    return { context, end };
  } catch (error) {
    end();
    throw error;
  }
}

function using<T>(open: OpenContext, use: (open: OpenContext) => T): T {
  try {
    return use(open);
  } finally {
    open.end();
  }
}

function prepare(openssl: Openssl, context: number, scheme: PreparedScheme, purpose: 'sign' | 'verify'): void {
  const set = (name: string, value: string) => must(openssl.set(context, name, value), name);
  if (scheme.kind === 'ed25519ph' || scheme.kind === 'ml-dsa-mu') {
    const algorithm: number = openssl.fetch(
      0,
      scheme.kind === 'ed25519ph' ? 'ED25519ph' : `ML-DSA-${scheme.parameters}`,
      0,
    );
    const start = purpose === 'sign' ? openssl.startMessageSign : openssl.startMessageVerify;
    try {
      must(start(context, algorithm, 0), scheme.kind);
    } finally {
      openssl.freeAlgorithm(algorithm);
    }
    if (scheme.kind === 'ml-dsa-mu') set('mu', '1');
    return;
  }
  must(purpose === 'sign' ? openssl.startDigestSign(context) : openssl.startDigestVerify(context), scheme.kind);
  if (scheme.kind === 'rsa-pss') set('rsa_padding_mode', 'pss');
  if (scheme.kind === 'rsa-pkcs1') set('rsa_padding_mode', 'pkcs1');
  set('digest', scheme.digest);
  // MGF1 uses the same digest unless told otherwise.
  if (scheme.kind === 'rsa-pss') set('rsa_pss_saltlen', 'digest');
}

function sign(openssl: Openssl, context: number, input: Uint8Array): Buffer {
  const { signature, length } = roomForSignature();
  must(openssl.sign(context, signature, length, input, input.length), 'sign');
  return Buffer.from(signature.subarray(0, Number(length[0])));
}

async function signElsewhere(openssl: Openssl, context: number, input: Uint8Array): Promise<Buffer> {
  const { signature, length } = roomForSignature();
  must(await elsewhere(openssl.sign, [context, signature, length, input, input.length]), 'sign');
  return Buffer.from(signature.subarray(0, Number(length[0])));
}

function roomForSignature() {
  return { signature: Buffer.alloc(signatureMax), length: new BigUint64Array([BigInt(signatureMax)]) };
}

/** Calls OpenSSL on another thread. The promise holds on to the buffers among the parameters. */
function elsewhere(call: Openssl['sign'], parameters: readonly unknown[]): Promise<number> {
  return new Promise((resolve, reject) =>
    call.async(...parameters, (error: Error | null, result: number) => (error ? reject(error) : resolve(result))),
  );
}

function must(result: number, step: string): void {
  if (result !== 1) throw new Error(`OpenSSL refuses: ${step}`);
}
