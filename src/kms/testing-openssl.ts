/** OpenSSL's command line, which the tests hold the key service against. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The command, and a folder for its files. */
export class Openssl {
  readonly #folder = mkdtempSync(join(tmpdir(), 'coffer-openssl-'));

  /** What the command prints. Throws when it fails. */
  run(...parameters: string[]): string {
    try {
      return execFileSync('openssl', parameters, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT')
        throw new Error('openssl is missing: install the package openssl', { cause: error });
      throw error;
    }
  }

  /** The path of a file with this content, or of one for the command to write. */
  file(name: string, content?: string | Uint8Array): string {
    const path = join(this.#folder, name);
    if (content !== undefined) writeFileSync(path, content);
    return path;
  }

  read(name: string): Buffer {
    return readFileSync(join(this.#folder, name));
  }

  /** A new key pair in `private.der` and `public.der`. `parameters`: what `genpkey` is to make. */
  keyPair(...parameters: string[]): { readonly secret: Buffer; readonly publicKey: Buffer } {
    this.run('genpkey', ...parameters, '-outform', 'DER', '-out', this.file('traditional.der'));
    const [from, to] = [this.file('traditional.der'), this.file('private.der')];
    this.run('pkcs8', '-topk8', '-nocrypt', '-inform', 'DER', '-outform', 'DER', '-in', from, '-out', to);
    this.run('pkey', '-in', from, '-inform', 'DER', '-pubout', '-outform', 'DER', '-out', this.file('public.der'));
    return { secret: this.read('private.der'), publicKey: this.read('public.der') };
  }

  /**
   * Wraps key material for its import, as the developer guide of AWS KMS shows it.
   * @param publicKey SubjectPublicKeyInfo, DER
   */
  wrap(algorithm: string, publicKey: Uint8Array, material: Uint8Array): Buffer {
    const hash = algorithm.endsWith('SHA_1') ? 'sha1' : 'sha256';
    if (!algorithm.startsWith('RSA_AES')) return this.#encryptOaep(hash, publicKey, material);
    const aesKey = randomBytes(32);
    const [from, to] = [this.file('material', material), this.file('material.wrapped')];
    const key = aesKey.toString('hex');
    this.run('enc', '-id-aes256-wrap-pad', '-K', key, '-iv', 'A65959A6', '-in', from, '-out', to);
    return Buffer.concat([this.#encryptOaep(hash, publicKey, aesKey), this.read('material.wrapped')]);
  }

  #encryptOaep(hash: string, publicKey: Uint8Array, plaintext: Uint8Array): Buffer {
    const [key, from, to] = [this.file('wrapping.der', publicKey), this.file('plain', plaintext), this.file('wrapped')];
    const options = ['rsa_padding_mode:oaep', `rsa_oaep_md:${hash}`, `rsa_mgf1_md:${hash}`];
    const parameters = options.flatMap((option) => ['-pkeyopt', option]);
    this.run('pkeyutl', '-encrypt', '-pubin', '-inkey', key, '-keyform', 'DER', '-in', from, '-out', to, ...parameters);
    return this.read('wrapped');
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
