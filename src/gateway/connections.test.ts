/** Clients that break or abuse their connections: an error or a closed connection, and the server goes on serving. */
import { once } from 'node:events';
import { Agent } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { DescribeVolumesCommand, EC2Client } from '@aws-sdk/client-ec2';
import { DescribeKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { describe, expect, test } from 'vitest';
import type { PipelineRequest } from './pipeline.ts';
import { clientConfig } from './testing.ts';
import { conversation, metric, open, running, start, stillServes } from './testing-http.ts';

describe('connections', () => {
  test.each([
    ['bytes that are no HTTP', Buffer.from([0x16, 0x03, 0x01, 0, 1, 0xff, 0xfe])],
    ['an unknown method', 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['no Host', 'POST / HTTP/1.1\r\n\r\n'],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx'],
    [
      'length and chunks at once',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a broken chunk', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
    ['headers without end', `POST / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`],
    ['a path that is no URL', 'GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
    [
      'a path of high bytes',
      Buffer.from('GET /\xe1\x88\xb4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 'latin1'),
    ],
    ['the asterisk', 'OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
    [
      'a content type that is none',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Type: ;;;\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}',
    ],
    ['an upgrade', 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n'],
    ['a tunnel', 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ])('%s: an answer of 4xx, and closed', async (_name, bytes) => {
    await start();
    const heard = await conversation(bytes);
    expect(heard).toMatch(/^(HTTP\/1\.1 4\d\d |$)/);
    expect(heard).not.toContain('[still open]');
    await stillServes();
  });

  test('pipelined requests are answered in order; garbage closes the connection', async () => {
    await start();
    const request = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
    const last = 'GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';
    const heard = await conversation(request('/healthz') + request('/none') + request('/healthz') + last);
    expect(heard.match(/HTTP\/1\.1 (\d+)/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 400', 'HTTP/1.1 200', 'HTTP/1.1 400']);
    expect(await conversation(`${request('/healthz')}garbage\r\n\r\n`)).not.toContain('[still open]');
    await stillServes();
  });

  test('clients that dawdle over headers or body are cut off', async () => {
    await start(undefined, { headersTimeoutMs: 300, requestTimeoutMs: 600 });
    const [headers, body] = await Promise.all([
      conversation('POST / HTTP/1.1\r\nHost: a\r\n'),
      conversation('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx'),
    ]);
    expect(headers).toMatch(/^HTTP\/1\.1 408 /);
    expect(headers + body).not.toContain('[still open]');
    await stillServes();
  });

  test('a client that goes away cancels the operation that waits for it', async () => {
    const cancelled = Promise.withResolvers<boolean>();
    const arrived = Promise.withResolvers<void>();
    await start(async (request) => {
      request.cancelled.addEventListener('abort', () => cancelled.resolve(true));
      arrived.resolve();
      await cancelled.promise;
      return {};
    });
    const abort = new AbortController();
    const sent = new KMSClient(clientConfig(running.endpoint)).send(new DescribeKeyCommand({ KeyId: 'a' }), {
      abortSignal: abort.signal,
    });
    await arrived.promise;
    abort.abort();
    await expect(sent).rejects.toThrow();
    expect(await cancelled.promise).toBe(true);
  });

  test('half-closed and reset connections leave nothing behind', async () => {
    await start();
    for (let index = 0; index < 50; index++) {
      const socket = open();
      socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf');
      if (index % 2) socket.end();
      else socket.resetAndDestroy();
    }
    await stillServes();
    await expect.poll(() => metric('coffer_requests_in_flight')).toBe(0);
  });

  test('more requests than the server takes are told to try again; the others are served', async () => {
    const release = Promise.withResolvers<void>();
    await start(() => release.promise.then(() => ({})), { inFlightMax: 4 });
    const kms = () =>
      new KMSClient(clientConfig(running.endpoint)).send(new DescribeKeyCommand({ KeyId: 'a' })).then(
        () => 'OK',
        (error) => error.name,
      );
    const ec2 = () =>
      new EC2Client(clientConfig(running.endpoint)).send(new DescribeVolumesCommand({})).then(
        () => 'OK',
        (error) => error.name,
      );
    const served = [kms(), kms(), ec2(), ec2()];
    await expect.poll(() => metric('coffer_requests_in_flight')).toBe(4);
    expect(await Promise.all([kms(), ec2()])).toEqual(['ThrottlingException', 'RequestLimitExceeded']);
    release.resolve();
    expect(await Promise.all(served)).toEqual(['OK', 'OK', 'OK', 'OK']);
  });

  test('connections beyond the limit are closed', async () => {
    await start(undefined, { connectionsMax: 3 });
    const sockets = Array.from({ length: 6 }, () => open());
    const closed = () => sockets.filter((socket) => socket.closed).length;
    await expect.poll(closed).toBe(3);
    // The others are served, not slower to be closed.
    for (const socket of sockets) if (!socket.closed) socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
    const served = sockets.filter((socket) => !socket.closed).map((socket) => once(socket, 'data'));
    expect(await Promise.all(served)).toHaveLength(3);
    expect(closed()).toBe(3);
  });
});

describe('shutting down', () => {
  test('lets requests in flight finish, and takes no more', async () => {
    const release = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    await start(
      () => {
        arrived.resolve();
        return release.promise.then(() => ({}));
      },
      { drainMs: 100_000 },
    );
    const inFlight = stillServes();
    await arrived.promise;
    const closed = running.server.close();
    await expect(stillServes()).rejects.toThrow();
    release.resolve();
    await expect(inFlight).resolves.toBeDefined();
    await closed;
  });

  test('cuts what does not finish, and tells it to stop', async () => {
    let signal: AbortSignal | undefined;
    await start(
      (request) => {
        signal = request.cancelled;
        return new Promise(() => {});
      },
      { drainMs: 200 },
    );
    const stuck = stillServes().catch(() => 'cut');
    open().write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx');
    await expect.poll(() => signal).toBeDefined();
    await running.server.close();
    expect(signal!.aborted).toBe(true);
    expect(await stuck).toBe('cut');
  });
});

test('shutting down waits for answers, not for clients that keep their connections', async () => {
  // As a call that waits does: it still has its record to write when it stops waiting.
  const execute = ({ cancelled }: PipelineRequest) =>
    new Promise((resolve) => cancelled.addEventListener('abort', () => setTimeout(() => resolve({}), 100)));
  await start(execute, { drainMs: 100_000 });
  const client = new EC2Client({
    ...clientConfig(running.endpoint),
    requestHandler: { httpAgent: new Agent({ keepAlive: true }) },
  });
  const answers = Array.from({ length: 3 }, () => client.send(new DescribeVolumesCommand()));
  while ((await metric('coffer_requests_in_flight')) < 3) await delay(20);
  const began = performance.now();
  await running.server.close();
  expect(performance.now() - began).toBeLessThan(60_000);
  expect(await Promise.all(answers)).toHaveLength(3);
  client.destroy();
});
