/** Hostile and clumsy requests to a listening server: the right error, nothing lost, no growth. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { DescribeVolumesCommand, EC2Client } from '@aws-sdk/client-ec2';
import { DescribeKeyCommand, EnableKeyCommand, KMSClient, ReplicateKeyCommand } from '@aws-sdk/client-kms';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AwsError } from '../aws/errors.ts';
import { DatabaseUnavailable } from '../database/database.ts';
import { accessKeyId, clientConfig, fakeService, startServer } from './testing.ts';
import {
  conversation,
  describeVolumes,
  formHeaders,
  kmsHeaders,
  metric,
  open,
  running,
  send,
  sendSigned,
  start,
  stillServes,
} from './testing-http.ts';

describe('bodies', () => {
  test('malformed ones are refused after the signature, in the protocol of the request', async () => {
    await start();
    const json = await sendSigned('kms', { headers: kmsHeaders('DescribeKey'), body: '{"KeyId":' });
    expect([json.status, JSON.parse(json.text).__type]).toEqual([400, 'SerializationException']);
    const form = await sendSigned('ec2', { headers: formHeaders, body: `${describeVolumes}&VolumeId.x=a` });
    expect([form.status, form.text.includes('<Code>MalformedQueryString</Code>')]).toEqual([400, true]);
  });

  test.each(['constructor', '__proto__', 'toString'])('%s, which every object has, is no operation', async (name) => {
    let executed = 0;
    await start(() => executed++);
    for (const [service, headers, body] of [
      ['kms', kmsHeaders(name), '{}'],
      ['coffer', { ...kmsHeaders(name), 'x-amz-target': `Coffer.${name}` }, '{}'],
    ] as const) {
      const reply = await sendSigned(service, { headers, body });
      expect([reply.status, JSON.parse(reply.text).__type]).toEqual([400, 'UnknownOperationException']);
    }
    const form = await sendSigned('ec2', { headers: formHeaders, body: `Action=${name}&Version=2016-11-15` });
    expect([form.status, form.text.includes('<Code>InvalidAction</Code>')]).toEqual([400, true]);
    expect(executed).toBe(0);
  });

  test('operations that services ask of each other are on no wire', async () => {
    await start(undefined, {}, [
      fakeService('kms', 'awsJson1_1', {}, [], {
        targetPrefixes: ['TrentService'],
        operations: {
          RotateKey: { name: 'RotateKey', effect: 'writes', audience: 'service', access: () => [], handle: () => ({}) },
        },
      }),
    ]);
    const reply = await sendSigned('kms', { headers: kmsHeaders('RotateKey'), body: '{}' });
    expect([reply.status, JSON.parse(reply.text).__type]).toEqual([400, 'UnknownOperationException']);
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

  test('a message that repeats a whole body is cut', async () => {
    await start(() => {
      throw new AwsError('InvalidParameterValue', 'ß'.repeat(500_000));
    });
    const reply = await sendSigned('ec2', { headers: formHeaders, body: describeVolumes });
    expect(reply.status).toBe(400);
    expect(reply.text.length).toBeLessThan(34_000);
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
  await expect.poll(() => metric('coffer_requests_in_flight')).toBe(0);
  const page = await (await fetch(`${running.endpoint}/metrics`)).text();
  expect(page.split('\n').filter((line) => line.startsWith('coffer_requests_total{')).length).toBeLessThan(60);
});

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
