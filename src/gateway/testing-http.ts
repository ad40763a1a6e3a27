/** A listening server for each test, and clients that talk to it in ways that SDKs do not. Imported by tests only. */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import { afterEach } from 'vitest';
import type { Limits } from './limits.ts';
import type { PipelineRequest } from './pipeline.ts';
import { accessKeyId, clientConfig, fakeServices, type Running, secretAccessKey, startServer } from './testing.ts';

export let running: Running;
const sockets: Socket[] = [];

export async function start(
  execute: (request: PipelineRequest) => unknown = () => ({}),
  limits: Partial<Limits> = {},
  services = fakeServices,
) {
  running = await startServer(execute, { limits: { drainMs: 500, ...limits }, services });
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await running.server.close();
});

export function open(): Socket {
  const socket = connect(running.port, '127.0.0.1');
  socket.on('error', () => {});
  sockets.push(socket);
  return socket;
}

/** What the server says until it closes the connection. */
export async function conversation(bytes: string | Buffer, timeoutMs = 60_000): Promise<string> {
  const socket = open();
  const { promise, resolve } = Promise.withResolvers<void>();
  let heard = '';
  socket.on('data', (data) => {
    heard += data.toString('latin1');
  });
  socket.on('close', () => resolve());
  socket.write(bytes);
  await Promise.race([promise, delay(timeoutMs)]);
  if (!socket.destroyed) heard += '[still open]';
  return heard;
}

export const stillServes = () => new STSClient(clientConfig(running.endpoint)).send(new GetCallerIdentityCommand());

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

export async function send(init: {
  method?: string;
  path?: string;
  headers?: Record<string, string>;
  body?: string | Buffer;
}): Promise<Reply> {
  const response = await fetch(`${running.endpoint}${init.path ?? '/'}`, {
    method: init.method ?? 'POST',
    headers: init.headers,
    body: init.method === 'GET' ? undefined : (init.body as string),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** A request signed by the SDK's signer, then changed. */
export async function sendSigned(
  service: string,
  parts: { headers?: Record<string, string>; body?: string | Buffer; path?: string; method?: string },
  change: {
    date?: Date;
    region?: string;
    body?: string;
    credentials?: { accessKeyId: string; secretAccessKey: string };
  } = {},
): Promise<Reply> {
  const signer = new SignatureV4({
    service,
    region: change.region ?? 'us-east-1',
    credentials: change.credentials ?? { accessKeyId, secretAccessKey },
    sha256: Sha256,
  });
  const { method = 'POST', path = '/', body = '' } = parts;
  const signed = await signer.sign(
    new HttpRequest({
      method,
      path,
      protocol: 'http:',
      hostname: '127.0.0.1',
      headers: { host: `127.0.0.1:${running.port}`, ...parts.headers },
      body,
    }),
    { signingDate: change.date ?? new Date() },
  );
  const { host, ...headers } = signed.headers;
  return send({ method, path, headers, body: change.body ?? body });
}

export const kmsHeaders = (operation: string) => ({
  'content-type': 'application/x-amz-json-1.1',
  'x-amz-target': `TrentService.${operation}`,
});
export const formHeaders = { 'content-type': 'application/x-www-form-urlencoded' };
export const describeVolumes = 'Action=DescribeVolumes&Version=2016-11-15';

export async function metric(name: string): Promise<number> {
  const page = await (await fetch(`${running.endpoint}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(page)?.[1]);
}
