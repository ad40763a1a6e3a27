/** Signatures that are not right, as each protocol answers them. */
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import { describe, expect, test } from 'vitest';
import { accessKeyId, secretAccessKey } from './testing.ts';
import { describeVolumes, formHeaders, kmsHeaders, running, send, sendSigned, start } from './testing-http.ts';

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
