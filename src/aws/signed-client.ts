/**
 * A small client for signed JSON requests to the control plane: the system's own operations (`CofferHost.Sync`), and those
 * of AWS whose answer must not pass through strings (KMS Decrypt). Everything else uses the official SDK clients.
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { SignatureV4 } from '@smithy/signature-v4';
import { AwsError } from './errors.ts';

export interface ClientCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** Where the server is. */
export interface Endpoint {
  /** `http://127.0.0.1:4600` */
  readonly url: string;
  /**
   * A PEM file with the server's own certificate. It alone is then accepted, for any host name: that is how processes on
   * the server's machine reach it under its loopback address.
   */
  readonly certificateFile?: string;
}

export interface SignedRequest {
  /** The service's signing name (`coffer-host`, `kms`). */
  readonly service: string;
  /** `X-Amz-Target`, such as `TrentService.Decrypt`. */
  readonly target: string;
  readonly region: string;
  readonly credentials: ClientCredentials;
  readonly body: object;
  readonly contentType?: 'application/json' | 'application/x-amz-json-1.1';
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The server could not be reached, or what answered was not it. Trying again may help. */
export class Unreachable extends Error {
  constructor(url: string, cause: unknown) {
    super(`no answer from ${url}: ${cause instanceof Error ? cause.message || cause.name : String(cause)}`, { cause });
    this.name = 'Unreachable';
  }
}

const answerBytesMax = 16 * 1024 * 1024;

export class SignedClient {
  readonly endpoint: Endpoint;
  readonly #agent: http.Agent | https.Agent;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
    const options = { keepAlive: true, maxSockets: 16 };
    this.#agent = endpoint.url.startsWith('https:')
      ? new https.Agent({ ...options, ...pinning(endpoint.certificateFile) })
      : new http.Agent(options);
  }

  /**
   * Sends one request; the parsed JSON of the answer.
   * @throws {AwsError} the error the server answered @throws {Unreachable}
   */
  async send<Output>(request: SignedRequest): Promise<Output> {
    const chunks = await this.sendForBytes(request);
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as Output;
  }

  /**
   * Sends one request; the bytes of the answer as they arrived, for answers that hold secrets. The caller wipes them.
   * @throws {AwsError} the error the server answered @throws {Unreachable}
   */
  async sendForBytes(request: SignedRequest): Promise<Buffer[]> {
    const { status, chunks } = await this.#exchange(request);
    if (status === 200) return chunks;
    throw answeredError(status, Buffer.concat(chunks).toString('utf8'), this.endpoint.url);
  }

  /** Closes idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  async #exchange(request: SignedRequest): Promise<{ status: number; chunks: Buffer[] }> {
    const url = new URL(this.endpoint.url);
    const body = Buffer.from(JSON.stringify(request.body));
    const signer = new SignatureV4({
      service: request.service,
      region: request.region,
      credentials: request.credentials,
      sha256: NodeSha256,
    });
    const signed = await signer.sign({
      method: 'POST',
      protocol: url.protocol,
      hostname: url.hostname,
      path: '/',
      query: {},
      headers: {
        host: url.host,
        'content-type': request.contentType ?? 'application/json',
        'content-length': String(body.length),
        'x-amz-target': request.target,
        'user-agent': `coffer/${version}`,
      },
      body,
    });
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; chunks: Buffer[] }>();
    const signal = request.signal
      ? AbortSignal.any([request.signal, AbortSignal.timeout(request.timeoutMs)])
      : AbortSignal.timeout(request.timeoutMs);
    const outgoing = (url.protocol === 'https:' ? https : http).request(
      {
        agent: this.#agent,
        host: url.hostname,
        port: url.port,
        method: 'POST',
        path: '/',
        headers: signed.headers,
        signal,
      },
      (answer) => {
        const chunks: Buffer[] = [];
        let length = 0;
        answer.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          length += chunk.length;
          if (length > answerBytesMax) outgoing.destroy(new Error(`an answer of over ${answerBytesMax} bytes`));
        });
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, chunks }));
        answer.on('error', reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
    try {
      return await promise;
    } catch (error) {
      throw new Unreachable(this.endpoint.url, error);
    }
  }
}

/** Our version, as user agents and reports show it. */
export const version: string = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;

function answeredError(status: number, text: string, url: string): Error {
  try {
    const answer = JSON.parse(text) as { __type?: string; message?: string; Message?: string };
    const code = answer.__type?.split('#').pop();
    if (code) return new AwsError(code, answer.message ?? answer.Message ?? code, { httpStatus: status });
  } catch {
    // Not a server of ours.
  }
  return new Unreachable(url, new Error(`HTTP ${status}, and not in the form of a Coffer server`));
}

/** TLS options that accept the certificate in `file`, and no other. */
export function pinning(file: string | undefined): https.AgentOptions {
  if (file === undefined) return {};
  return { ca: readFileSync(file), checkServerIdentity: () => undefined };
}

/** The hash that SignatureV4 asks for, on Node's own. */
class NodeSha256 {
  readonly #hash: Hash | Hmac;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as Uint8Array);
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(data as Uint8Array);
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
  reset(): void {
    throw new Error('a hash is used once');
  }
}
