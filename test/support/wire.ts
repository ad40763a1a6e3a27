/** What SDKs hide: the answer's own text and status, and requests that they would not send. */
import http from 'node:http';
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import type { Client } from './client.ts';

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly bytes: Buffer;
}

interface Parts {
  readonly method?: string;
  readonly path?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** Sends a signed request; a header `x-amz-content-sha256` given with it is signed as it is (`UNSIGNED-PAYLOAD`). */
export async function sendSigned(client: Client, service: string, parts: Parts): Promise<Reply> {
  const { method = 'POST', path = '/', query = {}, body } = parts;
  const { headers } = await sign(client, service, parts);
  const search = new URLSearchParams(query).toString();
  const response = await fetch(`${client.endpoint}${path}${search && `?${search}`}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> }),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  return { status: response.status, headers: response.headers, text: bytes.toString(), bytes };
}

/** Sends a POST of `body` to `/` with a header more than was signed, which may be there already. */
export async function sendAltered(
  client: Client,
  service: string,
  parts: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
  more: readonly [name: string, value: string],
): Promise<{ status: number; text: string }> {
  const signed = await sign(client, service, parts);
  const length = String(Buffer.byteLength(parts.body));
  const headers = [...Object.entries(signed.headers), ['content-length', length], more].flat();
  return new Promise((resolve, reject) => {
    const sent = http.request(client.endpoint, { method: 'POST', headers: headers as never }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve({ status: answer.statusCode!, text: Buffer.concat(chunks).toString() }));
    });
    sent.on('error', reject);
    sent.end(parts.body);
  });
}

function sign(client: Client, service: string, parts: Parts) {
  const { protocol, hostname, port, host } = new URL(client.endpoint);
  const { method = 'POST', path = '/', query = {}, body } = parts;
  const { credentials, region } = client;
  const signer = new SignatureV4({ service, region, credentials, sha256: Sha256 });
  const request = new HttpRequest({
    protocol,
    hostname,
    port: Number(port),
    method,
    path,
    query: { ...query },
    headers: { host, ...parts.headers },
    body,
  });
  return signer.sign(request);
}

/** A request of the query protocols (EC2, IAM, STS). */
export function sendQuery(client: Client, service: string, parameters: Readonly<Record<string, string>>) {
  return sendSigned(client, service, {
    headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
    body: new URLSearchParams(parameters).toString(),
  });
}

export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly status: number | undefined;
}

/** What a call was refused with; fails when it was not. */
export async function failure(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { name, message, status: $metadata?.httpStatusCode };
  }
  throw new Error('it was not refused');
}
