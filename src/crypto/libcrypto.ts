// The few calls of OpenSSL's libcrypto that the data path needs, made into the copy that Node itself carries.
// createCipheriv builds a cipher object per data unit; setting only the IV of one that exists is several times faster.
// Calls: https://docs.openssl.org/3.5/man3/EVP_EncryptInit/

import { koffi } from './native.ts';

/** Addresses are numbers; every call answers 1 or more on success, 0 or less on failure. */
export interface Libcrypto {
  /** Makes a context for AES-256-XTS with a 64-byte key; 0 when OpenSSL refuses. */
  newAes256Xts(key: Uint8Array, encrypt: boolean): number;
  /** Starts a message: keeps key and direction, takes a new 16-byte IV. */
  setIv(context: number, ivAddress: number): number;
  /** Encrypts or decrypts one whole message; `out` may equal `input`. */
  cipher(context: number, out: number, input: number, length: number): number;
  /** Frees a context. OpenSSL wipes the key schedule before it gives the memory back. */
  free(context: number): void;
}

let loaded: Libcrypto | undefined | null = null;

/** The binding, or undefined where koffi is missing or this Node.js does not export OpenSSL's symbols. */
export function libcrypto(): Libcrypto | undefined {
  if (loaded === null) loaded = bind();
  return loaded;
}

function bind(): Libcrypto | undefined {
  if (!koffi) return undefined;
  try {
    const library = koffi.load(null);
    const contextNew = library.func('intptr_t EVP_CIPHER_CTX_new()');
    const contextFree = library.func('void EVP_CIPHER_CTX_free(intptr_t context)');
    const aes256Xts = library.func('intptr_t EVP_aes_256_xts()');
    // The same C function twice: with a buffer for the key once, and with plain addresses on the hot path.
    const initWithKey = library.func('EVP_CipherInit_ex', 'int', [
      'intptr_t',
      'intptr_t',
      'intptr_t',
      'void *',
      'intptr_t',
      'int',
    ]);
    const init = library.func('EVP_CipherInit_ex', 'int', [
      'intptr_t',
      'intptr_t',
      'intptr_t',
      'intptr_t',
      'intptr_t',
      'int',
    ]);
    const cipher = library.func('int EVP_Cipher(intptr_t context, intptr_t out, intptr_t in, unsigned int length)');
    return {
      newAes256Xts(key, encrypt) {
        const context: number = contextNew();
        if (context === 0) return 0;
        if (initWithKey(context, aes256Xts(), 0, key, 0, encrypt ? 1 : 0) > 0) return context;
        contextFree(context);
        return 0;
      },
      setIv: (context, ivAddress) => init(context, 0, 0, 0, ivAddress, -1),
      cipher,
      free: contextFree,
    };
  } catch {
    return undefined;
  }
}
