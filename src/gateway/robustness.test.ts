/** Hostile and clumsy clients against a listening server: the right error or a closed connection, and it goes on serving. */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { DescribeVolumesCommand, EC2Client } from '@aws-sdk/client-ec2';
import { DescribeKeyCommand, EnableKeyCommand, KMSClient, ReplicateKeyCommand } from '@aws-sdk/client-kms';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { AwsError } from '../aws/errors.ts';
import { DatabaseUnavailable } from '../database/database.ts';
import type { Limits } from './limits.ts';
import type { PipelineRequest } from './pipeline.ts';
import { accessKeyId, clientConfig, type Running, secretAccessKey, startServer } from './testing.ts';

let running: Running;
const sockets: Socket[] = [];

async function start(execute: (request: PipelineRequest) => unknown = () => ({}), limits: Partial<Limits> = {}) {
  running = await startServer(execute, { limits: { drainMs: 500, ...limits } });
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await running.server.close();
});

function open(): Socket {
  const socket = connect(running.port, '127.0.0.1');
  socket.on('error', () => {});
  sockets.push(socket);
  return socket;
}

/** What the server says until it closes the connection. */
async function conversation(bytes: string | Buffer, timeoutMs = 5000): Promise<string> {
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

const stillServes = () => new STSClient(clientConfig(running.endpoint)).send(new GetCallerIdentityCommand());

interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

async function send(init: {
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
async function sendSigned(
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

const kmsHeaders = (operation: string) => ({
  'content-type': 'application/x-amz-json-1.1',
  'x-amz-target': `TrentService.${operation}`,
});
const formHeaders = { 'content-type': 'application/x-www-form-urlencoded' };
const describeVolumes = 'Action=DescribeVolumes&Version=2016-11-15';

describe('signatures', () => {
  const hourAgo = () => new Date(Date.now() - 3_600_000);
  const wrongKey = { accessKeyId: 'AKIANOBODYNOBODYNOBO', secretAccessKey };
  const wrongSecret = { accessKeyId, secretAccessKey: 'x' };

  test.each([
    ['tampered', { body: '{"KeyId":"b"}' }, 400, 'InvalidSignatureException'],
    ['expired', { date: hourAgo() }, 400, 'InvalidSignatureException'],
    ['of an unknown key', { credentials: wrongKey }, 400, 'UnrecognizedClientException'],
    ['with another secret', { credentials: wrongSecret }, 400, 'InvalidSignatureException'],
    ['for a region that is none', { region: 'X' }, 400, 'InvalidSignatureException'],
  ])('KMS: %s', async (_name, change, status, code) => {
    await start();
    const reply = await sendSigned('kms', { headers: kmsHeaders('DescribeKey'), body: '{"KeyId":"a"}' }, change);
    expect(reply.status).toBe(status);
    expect(JSON.parse(reply.text)).toMatchObject({ __type: code, message: expect.any(String) });
    expect(reply.headers.get('x-amzn-requestid')).toMatch(/^[0-9a-f-]{36}$/);
  });

  test.each([
    ['tampered', { body: `${describeVolumes}&MaxResults=5` }, 403, 'SignatureDoesNotMatch'],
    ['expired', { date: hourAgo() }, 400, 'RequestExpired'],
    ['of an unknown key', { credentials: wrongKey }, 401, 'AuthFailure'],
  ])('EC2: %s', async (_name, change, status, code) => {
    await start();
    const reply = await sendSigned('ec2', { headers: formHeaders, body: describeVolumes }, change);
    expect(reply.status).toBe(status);
    expect(reply.text).toContain(`<Response><Errors><Error><Code>${code}</Code>`);
  });

  test.each([
    ['expired', { date: hourAgo() }, 403, 'SignatureDoesNotMatch'],
    ['of an unknown key', { credentials: wrongKey }, 403, 'InvalidClientTokenId'],
  ])('STS: %s', async (_name, change, status, code) => {
    await start();
    const reply = await sendSigned(
      'sts',
      { headers: formHeaders, body: 'Action=GetCallerIdentity&Version=2011-06-15' },
      change,
    );
    expect(reply.status).toBe(status);
    expect(reply.text).toContain(`<Error><Type>Sender</Type><Code>${code}</Code>`);
  });

  test('EBS: of an unknown key', async () => {
    await start();
    const reply = await sendSigned(
      'ebs',
      { method: 'GET', path: '/snapshots/snap-1/blocks' },
      { credentials: wrongKey },
    );
    expect([reply.status, reply.headers.get('x-amzn-errortype')]).toEqual([403, 'UnrecognizedClientException']);
  });

  test('for another service', async () => {
    await start();
    const reply = await sendSigned('ec2', { headers: kmsHeaders('DescribeKey'), body: '{}' });
    expect(JSON.parse(reply.text)).toEqual({
      __type: 'InvalidSignatureException',
      message: "Credential should be scoped to correct service: 'kms'.",
    });
  });

  test('none: each protocol says so in its own form', async () => {
    await start();
    expect(JSON.parse((await send({ headers: kmsHeaders('DescribeKey'), body: '{}' })).text).__type).toBe(
      'MissingAuthenticationTokenException',
    );
    expect((await send({ headers: formHeaders, body: describeVolumes })).text).toContain(
      '<Code>MissingAuthenticationToken</Code>',
    );
    expect((await send({ headers: formHeaders, body: 'Action=GetCallerIdentity&Version=2011-06-15' })).text).toContain(
      '<ErrorResponse',
    );
    expect((await send({ method: 'GET', path: '/snapshots/snap-1/blocks' })).headers.get('x-amzn-errortype')).toBe(
      'MissingAuthenticationTokenException',
    );
    expect((await send({ method: 'GET' })).status).toBe(400);
  });

  test('a presigned STS request, as Kubernetes authenticators make them', async () => {
    await start(() => ({ Account: '123456789012' }));
    const signer = new SignatureV4({
      service: 'sts',
      region: 'us-east-1',
      credentials: { accessKeyId, secretAccessKey },
      sha256: Sha256,
    });
    const { query } = await signer.presign(
      new HttpRequest({
        method: 'GET',
        path: '/',
        protocol: 'http:',
        hostname: '127.0.0.1',
        headers: { host: `127.0.0.1:${running.port}`, 'x-k8s-aws-id': 'cluster' },
        query: { Action: 'GetCallerIdentity', Version: '2011-06-15' },
      }),
      { expiresIn: 60 },
    );
    const path = `/?${new URLSearchParams(query as Record<string, string>)}`;
    const reply = await send({ method: 'GET', path, headers: { 'x-k8s-aws-id': 'cluster' } });
    expect(reply.text).toContain('<Account>123456789012</Account>');
    expect((await send({ method: 'GET', path, headers: { 'x-k8s-aws-id': 'other' } })).status).toBe(403);
  });
});

describe('bodies', () => {
  test('malformed ones are refused after the signature, in the protocol of the request', async () => {
    await start();
    const json = await sendSigned('kms', { headers: kmsHeaders('DescribeKey'), body: '{"KeyId":' });
    expect([json.status, JSON.parse(json.text).__type]).toEqual([400, 'SerializationException']);
    const form = await sendSigned('ec2', { headers: formHeaders, body: `${describeVolumes}&VolumeId.x=a` });
    expect([form.status, form.text.includes('<Code>MalformedQueryString</Code>')]).toEqual([400, true]);
  });

  test('operations that do not exist, or not here', async () => {
    await start();
    const kms = new KMSClient(clientConfig(running.endpoint));
    await expect(kms.send(new ReplicateKeyCommand({ KeyId: 'a', ReplicaRegion: 'b' }))).rejects.toMatchObject({
      name: 'UnknownOperationException',
      message: expect.stringContaining('Coffer does not implement the operation ReplicateKey'),
    });
    const form = await sendSigned('ec2', { headers: formHeaders, body: 'Action=Nonsense&Version=2016-11-15' });
    expect(form.text).toContain(
      '<Code>InvalidAction</Code><Message>The action Nonsense is not valid for this web service.</Message>',
    );
    const target = await sendSigned('kms', { headers: { ...kmsHeaders('A'), 'x-amz-target': 'Other.A' }, body: '{}' });
    expect(JSON.parse(target.text).__type).toBe('UnknownOperationException');
    const s3 = await sendSigned('s3', { method: 'GET', path: '/bucket' });
    expect([s3.status, s3.text.includes('Coffer has no service s3')]).toEqual([400, true]);
  });

  test('larger than allowed: 413, whether announced or not, and the connection is closed', async () => {
    await start();
    const large = await sendSigned('kms', {
      headers: kmsHeaders('DescribeKey'),
      body: Buffer.alloc(1024 * 1024 + 1, 32),
    });
    expect([large.status, JSON.parse(large.text).__type]).toEqual([413, 'RequestEntityTooLargeException']);
    const announced = await conversation('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n');
    expect(announced).toMatch(/^HTTP\/1\.1 413 /);
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    const chunked = await conversation(
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(20)}0\r\n\r\n`,
    );
    expect(chunked).toMatch(/^HTTP\/1\.1 413 /);
    expect(chunked).not.toContain('[still open]');
    await stillServes();
  });

  test('one kind of body never crowds out the other', async () => {
    await start(undefined, { inFlightBodyMaxBytes: 20 * 1024 * 1024 });
    const head = (path: string, length: number) =>
      `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`;
    open().write(head('/snapshots/a', 16 * 1024 * 1024));
    await expect.poll(() => metric('coffer_requests_in_flight')).toBe(1);
    expect(await conversation(head('/snapshots/a', 16 * 1024 * 1024))).toMatch(/^HTTP\/1\.1 503 /);
    await stillServes();
  });

  test('an answer that HTTP cannot carry closes the connection', async () => {
    await start(() => ({ Checksum: 'a\r\nInjected: b' }));
    const put = sendSigned('ebs', { method: 'PUT', path: '/snapshots/snap-1/blocks/0', body: 'x' });
    await expect(put).rejects.toThrow();
  });

  test('internal services speak plain JSON', async () => {
    await start((request) => ({ ...request.input, bytes: Buffer.from('hi') }));
    const headers = { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': 'Coffer.Echo' };
    const reply = await sendSigned('coffer', { headers, body: '{"a":[1,null]}' });
    expect(JSON.parse(reply.text)).toEqual({ a: [1, null], bytes: 'aGk=' });
  });

  test('a block may be larger than other bodies', async () => {
    await start((request) => ({ Checksum: String((request.input as { BlockData: Buffer }).BlockData.length) }));
    const body = Buffer.alloc(3 * 1024 * 1024);
    const reply = await sendSigned('ebs', { method: 'PUT', path: '/snapshots/snap-1/blocks/0', body });
    expect([reply.status, reply.headers.get('x-amz-checksum')]).toEqual([201, String(body.length)]);
  });
});

describe('failures inside', () => {
  test('an unexpected error tells the client its request id and nothing else', async () => {
    await start(() => {
      throw new Error('secret detail at /srv/coffer');
    });
    const kms = new KMSClient(clientConfig(running.endpoint));
    const error = await kms.send(new DescribeKeyCommand({ KeyId: 'a' })).catch((caught) => caught);
    expect(error).toMatchObject({ name: 'InternalFailure', $metadata: { httpStatusCode: 500 } });
    expect(error.message).toContain(error.$metadata.requestId);
    expect(JSON.stringify([error.message, error])).not.toContain('secret detail');
    await expect(
      new EC2Client(clientConfig(running.endpoint)).send(new DescribeVolumesCommand({})),
    ).rejects.toMatchObject({ name: 'InternalError' });
  });

  test('a database that is gone is 503', async () => {
    await start(() => {
      throw new DatabaseUnavailable(new Error('disk full'));
    });
    const kms = new KMSClient(clientConfig(running.endpoint));
    await expect(kms.send(new EnableKeyCommand({ KeyId: 'a' }))).rejects.toMatchObject({
      name: 'ServiceUnavailable',
      $metadata: { httpStatusCode: 503 },
    });
  });

  test('an output that cannot be written is an internal error, not a broken answer', async () => {
    await start(() => ({
      Volumes: [
        {
          CreateTime: 'not a date',
          Size: {
            toString: () => {
              throw new Error('no');
            },
          },
        },
      ],
    }));
    await expect(
      new EC2Client(clientConfig(running.endpoint)).send(new DescribeVolumesCommand({})),
    ).rejects.toMatchObject({
      $metadata: { httpStatusCode: 500 },
    });
  });
});

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
    const all = Array.from({ length: 6 }, () => {
      const socket = open();
      return Promise.race([
        new Promise((resolve) => socket.on('close', () => resolve('closed'))),
        delay(500).then(() => 'open'),
      ]);
    });
    expect((await Promise.all(all)).filter((state) => state === 'closed')).toHaveLength(3);
  });
});

async function metric(name: string): Promise<number> {
  const page = await (await fetch(`${running.endpoint}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(page)?.[1]);
}

describe('shutting down', () => {
  test('lets requests in flight finish, and takes no more', async () => {
    const release = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    await start(
      () => {
        arrived.resolve();
        return release.promise.then(() => ({}));
      },
      { drainMs: 5000 },
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
    const started = performance.now();
    await running.server.close();
    expect(performance.now() - started).toBeLessThan(2000);
    expect(signal!.aborted).toBe(true);
    expect(await stuck).toBe('cut');
  });
});

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

test('thousands of random requests: always an answer in the form of a refusal, and no growth', async () => {
  await start();
  const path = fc.oneof(fc.constantFrom('/', '/snapshots', '/snapshots/a/blocks/1', '/x'), fc.webPath());
  const request = fc.record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'),
    path,
    target: fc.option(fc.constantFrom('TrentService.Encrypt', 'TrentService.X', 'Coffer.Echo', 'X', '.', '')),
    type: fc.option(
      fc.constantFrom('application/x-amz-json-1.1', 'application/x-www-form-urlencoded', 'text/plain', 'a/b;c=d'),
    ),
    authorization: fc.option(
      fc.constantFrom(
        'AWS4-HMAC-SHA256',
        'AWS4-HMAC-SHA256 Credential=a/20300101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=00',
        `AWS4-HMAC-SHA256 Credential=${accessKeyId}/20300101/us-east-1/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=${'0'.repeat(64)}`,
        'Bearer x',
        'AWS a:b',
      ),
    ),
    date: fc.option(fc.constantFrom('20300101T000000Z', 'x')),
    body: fc.oneof(
      fc.json(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom('Action=CreateVolume&Version=2016-11-15', 'Action=&&=&%'),
    ),
  });
  const heapBytes: number[] = [];
  for (let round = 0; round < 3; round++) {
    for (const sample of fc.sample(request, 1000)) {
      const headers: Record<string, string> = {};
      if (sample.target !== null) headers['x-amz-target'] = sample.target;
      if (sample.type !== null) headers['content-type'] = sample.type;
      if (sample.authorization !== null) headers.authorization = sample.authorization;
      if (sample.date !== null) headers['x-amz-date'] = sample.date;
      const hasBody = sample.method !== 'GET';
      const reply = await send({
        method: sample.method,
        path: sample.path,
        headers,
        ...(hasBody ? { body: sample.body } : {}),
      });
      expect(reply.status, `${JSON.stringify(sample)} → ${reply.text}`).toBeGreaterThanOrEqual(400);
      expect(reply.status).toBeLessThan(500);
    }
    collectGarbage();
    heapBytes.push(process.memoryUsage().heapUsed);
  }
  await stillServes();
  expect(heapBytes[2]! - heapBytes[1]!).toBeLessThan(2 * 1024 * 1024);
  expect(await metric('coffer_requests_in_flight')).toBe(0);
  const page = await (await fetch(`${running.endpoint}/metrics`)).text();
  expect(page.split('\n').filter((line) => line.startsWith('coffer_requests_total{')).length).toBeLessThan(60);
}, 60_000);

describe('listening', () => {
  test('beyond loopback only with TLS, and the refusal says what to do', async () => {
    await start();
    await expect(startServer(() => ({}), { listen: { host: '0.0.0.0', port: 0 } })).rejects.toThrow(
      /without TLS.*--tls-cert/,
    );
    await expect(startServer(() => ({}), { listen: { host: '::', port: 0 } })).rejects.toThrow(/without TLS/);
  });

  test('health and metrics', async () => {
    await start();
    const health = await fetch(`${running.endpoint}/healthz`);
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok' }]);
    const unready = await startServer(() => ({}), { ready: () => false });
    expect((await fetch(`${unready.endpoint}/healthz`)).status).toBe(503);
    await unready.server.close();
    await stillServes();
    const page = await (await fetch(`${running.endpoint}/metrics`)).text();
    expect(page).toContain('coffer_requests_total{service="sts",operation="GetCallerIdentity",code="OK"} 1');
    expect(page).toContain('coffer_request_duration_seconds_bucket{le="0.005",service="sts"}');
    expect(page).toContain('process_resident_memory_bytes');
  });

  test('an operation that refuses is counted by its code', async () => {
    await start(() => {
      throw new AwsError('NotFoundException', 'x');
    });
    await new KMSClient(clientConfig(running.endpoint)).send(new DescribeKeyCommand({ KeyId: 'a' })).catch(() => {});
    const page = await (await fetch(`${running.endpoint}/metrics`)).text();
    expect(page).toContain('coffer_requests_total{service="kms",operation="DescribeKey",code="NotFoundException"} 1');
  });
});
