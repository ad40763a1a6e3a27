// SHA-256 of whole blocks in Node's thread pool. 512 KiB take a third of a millisecond, for which a thread that serves
// requests should not be away, and a thread that moves blocks could be reading the next.

import { hash } from 'node:crypto';
import { koffi } from './native.ts';

const digestBytes = 32;
/** Less is not worth a thread, and may lie where V8 moves it. */
const leastBytes = 4096;

type Compute = (bytes: Uint8Array, digest: Buffer) => Promise<void>;

let compute: Compute | undefined | null = null;

/** The SHA-256 of `bytes`, which must stay as they are until it is there. Computed at once where libcrypto can't be reached. */
export async function sha256(bytes: Uint8Array): Promise<Buffer> {
  if (compute === null) compute = bind();
  if (!compute || bytes.length < leastBytes) return hash('sha256', bytes, 'buffer');
  // Not from Node's pool of small buffers: native code needs memory that stays where it is.
  const digest = Buffer.from(new ArrayBuffer(digestBytes));
  await compute(bytes, digest);
  return digest;
}

/** https://docs.openssl.org/3.5/man3/SHA256_Init/: SHA256(), in the copy of libcrypto that Node carries. */
function bind(): Compute | undefined {
  if (!koffi) return undefined;
  const { address, load } = koffi;
  try {
    const digestOf = load(null).func('intptr_t SHA256(intptr_t data, size_t length, intptr_t digest)');
    // As with the cipher: what is called through its bare ABI has to agree with the documented API first.
    const probe = Buffer.from(new ArrayBuffer(100)).fill('coffer');
    const answer = Buffer.from(new ArrayBuffer(digestBytes));
    digestOf(address(probe), probe.length, address(answer));
    if (!answer.equals(hash('sha256', probe, 'buffer'))) return undefined;
    return (bytes, digest) =>
      new Promise((resolve, reject) => {
        digestOf.async(
          address(bytes),
          bytes.length,
          address(digest),
          (error: Error | null, result: number | bigint) => {
            if (!error && result) resolve();
            // That they are named here makes both live as long as the call.
            else reject(error ?? new Error(`SHA256 of ${bytes.length} bytes to ${digest.length} failed`));
          },
        );
      });
  } catch {
    return undefined;
  }
}
