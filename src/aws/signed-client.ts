/**
 * A small client for signed JSON requests to the control plane: the system's own operations (`CofferHost.Sync`), and those
 * of AWS whose answer must not pass through strings (KMS Decrypt). Everything else uses the official SDK clients.
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Agent } from 'node:http';
import type { AgentOptions } from 'node:https';
import { SignatureV4 } from '@smithy/signature-v4';
import { AwsError } from './errors.ts';
import { exchangeInPlace } from './in-place-exchange.ts';
import { http, https } from './node-http.ts';

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
    super(`no answer from ${url}: ${reasonOf(cause)}`, { cause });
    this.name = 'Unreachable';
  }
}

/** Codes of Node.js for a certificate that is not trusted. */
export const certificateErrors = /CERT|SIGNATURE|ALTNAME/;

function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { code } = cause as NodeJS.ErrnoException;
  // Node.js's own advice is about itself.
  if (code && certificateErrors.test(code))
    return `its certificate is not trusted (${code}); if it is the server's own, name it with --ca-file`;
  return cause.message || cause.name;
}

const answerBytesMax = 16 * 1024 * 1024;

export class SignedClient {
  readonly endpoint: Endpoint;
  readonly #agent: Agent;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
    const options = { keepAlive: true, maxSockets: 16 };
    this.#agent = endpoint.url.startsWith('https:')
      ? new (https().Agent)({ ...options, ...pinning(endpoint.certificateFile) })
      : new http.Agent(options);
  }

  /**
   * Sends one request; the parsed JSON of the answer.
   * @throws {AwsError} the error the server answered @throws {Unreachable}
   */
  async send<Output>(request: SignedRequest): Promise<Output> {
    const { status, text } = await this.#exchange(request);
    if (status === 200) return JSON.parse(text) as Output;
    throw answeredError(status, text, this.endpoint.url);
  }

  /**
   * Sends one request whose answer is a secret, on a connection of its own. The answer's body is a view of the only memory
   * of this process that it was ever in (but for what TLS keeps); the caller wipes it.
   * @throws {AwsError} the error the server answered @throws {Unreachable}
   */
  async sendForSecret(request: SignedRequest): Promise<Buffer> {
    const { headers, body } = await this.#sign(request);
    const signal = withTimeout(request);
    let answer: { status: number; body: Buffer };
    try {
      answer = await exchangeInPlace(this.endpoint, headers, body, signal);
    } catch (error) {
      throw new Unreachable(this.endpoint.url, error);
    }
    if (answer.status === 200) return answer.body;
    throw answeredError(answer.status, answer.body.toString('utf8'), this.endpoint.url);
  }

  /** Closes idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  async #exchange(request: SignedRequest): Promise<{ status: number; text: string }> {
    const { url, headers, body } = await this.#sign(request);
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const signal = withTimeout(request);
    const options = {
      agent: this.#agent,
      host: url.hostname,
      port: url.port,
      method: 'POST',
      path: '/',
      headers,
      signal,
    };
    const outgoing = (url.protocol === 'https:' ? https() : http).request(options, (answer) => {
      const chunks: Buffer[] = [];
      let length = 0;
      answer.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (length > answerBytesMax) outgoing.destroy(new Error(`an answer of over ${answerBytesMax} bytes`));
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }));
      answer.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
    try {
      return await promise;
    } catch (error) {
      throw new Unreachable(this.endpoint.url, error);
    }
  }

  async #sign(request: SignedRequest): Promise<{ url: URL; headers: Record<string, string>; body: Buffer }> {
    const url = new URL(this.endpoint.url);
    const body = Buffer.from(JSON.stringify(request.body));
    const { service, region, credentials } = request;
    const signer = new SignatureV4({ service, region, credentials, sha256: NodeSha256 });
    const { headers } = await signer.sign({
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
    return { url, headers, body };
  }
}

function withTimeout({ signal, timeoutMs }: SignedRequest): AbortSignal {
  const timeout = AbortSignal.timeout(timeoutMs);
  return signal ? AbortSignal.any([signal, timeout]) : timeout;
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
export function pinning(file: string | undefined): AgentOptions {
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
