/**
 * Asks KMS for the data key of a volume or a snapshot, as EBS's hosts do: Decrypt of the encrypted data key, with its
 * encryption context, as `aws:ec2-infrastructure/i-…` (or `vol-…`, `snap-…`).
 *
 * The answer is read as bytes and decoded from them, because a string can't be wiped: once the answer has been wiped there
 * is one copy of the plaintext key, the buffer returned. (What the kernel's socket buffers and, under TLS, OpenSSL held is
 * beyond us.)
 */
import { isAwsError } from '../aws/errors.ts';
import type { InfrastructureCredentials, VolumeEncryption } from '../aws/host-protocol.ts';
import { type SignedClient, Unreachable } from '../aws/signed-client.ts';
import type { HeldInfrastructureCredentials } from './infrastructure-credentials.ts';
import { pause } from './pause.ts';

export const dataKeyBytes = 64;
const decryptTimeoutMs = 10_000;
/** How often KMS is asked again when it can't be reached, before that counts as failed. */
const decryptAttempts = 5;
const retryFirstMs = 200;
const credentialsWaitMs = 10_000;
/** How long one question for missing credentials waits before it is asked again. */
const askAgainMs = 5_000;

export interface DataKeysWorld {
  /** Where KMS is, now. */
  client(): SignedClient;
  readonly credentials: HeldInfrastructureCredentials;
  /** Asks the control plane for what is missing in `credentials`. Resolves when its next answer has come. */
  askForCredentials(): Promise<void>;
}

/** Data keys for whoever has credentials, or is about to get some. */
export class DataKeys {
  readonly #world: DataKeysWorld;

  constructor(world: DataKeysWorld) {
    this.#world = world;
  }

  /**
   * The plaintext data key, 64 bytes in a buffer of its own that the caller wipes. Asks KMS patiently when it can't be
   * reached, and once more with new credentials when those have become useless.
   * @param sessionName of the infrastructure principal that asks: an instance, a volume or a snapshot
   * @throws {AwsError} KMS's refusal @throws {Unreachable}
   */
  async get(encryption: VolumeEncryption, sessionName: string, signal: AbortSignal): Promise<Buffer> {
    const { credentials: held } = this.#world;
    for (let attempt = 1; ; attempt++) {
      const credentials = await this.#credentialsOf(sessionName, signal);
      try {
        return await decryptDataKey(this.#world.client(), encryption, credentials, signal);
      } catch (error) {
        if (signal.aborted || attempt >= decryptAttempts) throw error;
        if (isAwsError(error) && isAboutCredentials(error.code) && attempt === 1) held.forget(sessionName);
        else if (error instanceof Unreachable || (isAwsError(error) && error.httpStatus >= 500))
          await pause(retryFirstMs * 2 ** attempt, signal);
        else throw error;
      }
    }
  }

  async #credentialsOf(sessionName: string, signal: AbortSignal): Promise<InfrastructureCredentials> {
    const { credentials } = this.#world;
    const deadline = Date.now() + credentialsWaitMs;
    for (;;) {
      const held = credentials.get(sessionName);
      if (held) return held;
      signal.throwIfAborted();
      if (Date.now() > deadline)
        throw new Error(`no credentials came for ${sessionName}, so KMS could not be asked for the data key`);
      await Promise.race([this.#world.askForCredentials(), pause(askAgainMs, signal)]);
      // An answer without them: no hurry with the next question.
      if (!credentials.get(sessionName)) await pause(retryFirstMs, signal);
    }
  }
}

function isAboutCredentials(code: string): boolean {
  return ['ExpiredTokenException', 'UnrecognizedClientException', 'InvalidClientTokenId', 'ExpiredToken'].includes(
    code,
  );
}

/** The region of a key: the encrypted data key of a shared or copied snapshot may be under a key of another region. */
function regionOf(keyArn: string): string {
  const region = keyArn.split(':')[3];
  if (!region) throw new Error(`${JSON.stringify(keyArn)} is not the ARN of a key`);
  return region;
}

/**
 * The plaintext data key, 64 bytes in a buffer of its own that the caller wipes.
 * @throws {AwsError} KMS's refusal @throws {Unreachable}
 */
async function decryptDataKey(
  client: SignedClient,
  encryption: VolumeEncryption,
  credentials: InfrastructureCredentials,
  signal: AbortSignal,
): Promise<Buffer> {
  const answer = await client.sendForSecret({
    service: 'kms',
    target: 'TrentService.Decrypt',
    contentType: 'application/x-amz-json-1.1',
    region: regionOf(encryption.keyArn),
    credentials,
    body: {
      CiphertextBlob: encryption.encryptedDataKey,
      EncryptionContext: encryption.encryptionContext,
    },
    timeoutMs: decryptTimeoutMs,
    signal,
  });
  try {
    return plaintextOf(answer);
  } finally {
    answer.fill(0);
  }
}

/**
 * The bytes of the member `Plaintext` of a JSON answer. @throws when it isn't there or isn't 64 bytes
 */
export function plaintextOf(answer: Buffer): Buffer {
  const start = valueStart(answer, '"Plaintext"');
  const end = answer.indexOf('"', start);
  if (start < 0 || end < 0) throw new Error('KMS answered Decrypt without a plaintext');
  // Not from Buffer.alloc: the garbage collector moves arrays of up to 64 bytes, and leaves copies where they were.
  const key = Buffer.from(new ArrayBuffer(dataKeyBytes));
  const length = decodeBase64(answer.subarray(start, end), key);
  if (length === dataKeyBytes) return key;
  key.fill(0);
  throw new Error(`KMS answered a data key of ${length} bytes; a volume's has ${dataKeyBytes}`);
}

/** Where the text of a string member begins, after its opening quote; -1 when it isn't there. */
function valueStart(json: Buffer, quotedName: string): number {
  const name = json.indexOf(quotedName);
  if (name < 0) return -1;
  const opening = json.indexOf('"', name + quotedName.length);
  return opening < 0 ? -1 : opening + 1;
}

const invalid = 255;
const base64Values = new Uint8Array(256).fill(invalid);
for (const [value, character] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].entries()) {
  base64Values[character.charCodeAt(0)] = value;
}

/**
 * Decodes base64 from bytes into bytes, because `Buffer.from(text, 'base64')` needs a string. Writes no more than `target`
 * holds; answers the length that the text stands for, or -1 when it isn't base64.
 */
function decodeBase64(text: Uint8Array, target: Uint8Array): number {
  let bits = 0;
  let bitCount = 0;
  let length = 0;
  for (const character of text) {
    if (character === 0x3d) break;
    const value = base64Values[character]!;
    if (value === invalid) return -1;
    bits = ((bits << 6) | value) & 0xffff;
    bitCount += 6;
    if (bitCount >= 8) {
      bitCount -= 8;
      if (length < target.length) target[length] = (bits >> bitCount) & 0xff;
      length++;
    }
  }
  return length;
}
