/** Requests with a good signature that reach the server otherwise than they were signed, as bytes on a socket. */
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import { describe, expect, test } from 'vitest';
import { accessKeyId, secretAccessKey } from './testing.ts';
import { conversation, kmsHeaders, open, running, start, stillServes } from './testing-http.ts';

/** What the server was asked to do, by its operation and input. */
let executed: string[];
const startCounting = () => {
  executed = [];
  return start((request) => {
    executed.push(`${request.operation.name} ${JSON.stringify(request.input)}`);
    return {};
  });
};

const body = '{"KeyId":"alias/mine"}';

/** The head of a signed DescribeKey, without anything that says how long its body is, and without the empty line. */
async function signedHead(more: Record<string, string> = {}, signedBody = body): Promise<string[]> {
  const signer = new SignatureV4({
    service: 'kms',
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
    sha256: Sha256,
  });
  const { headers } = await signer.sign(
    new HttpRequest({
      method: 'POST',
      path: '/',
      protocol: 'http:',
      hostname: '127.0.0.1',
      headers: { host: `127.0.0.1:${running.port}`, ...kmsHeaders('DescribeKey'), ...more },
      body: signedBody,
    }),
  );
  return ['POST / HTTP/1.1', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)];
}

const text = (head: readonly string[], content = '') => `${head.join('\r\n')}\r\nConnection: close\r\n\r\n${content}`;
const whole = (head: readonly string[], content = body) =>
  text([...head, `Content-Length: ${Buffer.byteLength(content)}`], content);
const chunk = (content: string, extension = '') => `${content.length.toString(16)}${extension}\r\n${content}\r\n`;
const statuses = (heard: string) => heard.match(/HTTP\/1\.1 \d+/g)?.map((line) => Number(line.slice(9)));

describe('what was signed is what runs:', () => {
  test.each<[string, (head: string[]) => string]>([
    ['as it was signed', (head) => whole(head)],
    ['header names in capitals', (head) => whole(head.map((line, at) => (at ? upperCaseName(line) : line)))],
    ['white space around values', (head) => whole(head.map((line) => line.replace(/: (.*)$/, ':   $1  ')))],
    [
      'in chunks',
      (head) =>
        text([...head, 'Transfer-Encoding: chunked'], `${chunk('{"KeyId"')}${chunk(':"alias/mine"}')}0\r\n\r\n`),
    ],
    [
      'chunks with extensions',
      (head) => text([...head, 'Transfer-Encoding: chunked'], `${chunk(body, ';a="b"')}0;c\r\n\r\n`),
    ],
    [
      'a trailer that would change the operation',
      (head) =>
        text(
          [...head, 'Transfer-Encoding: chunked', 'Trailer: x-amz-target'],
          `${chunk(body)}0\r\nx-amz-target: TrentService.EnableKey\r\n\r\n`,
        ),
    ],
    [
      'a path with dots that resolve to the one that was signed',
      (head) => whole([head[0]!.replace('/', '/a/.././'), ...head.slice(1)]),
    ],
    [
      'headers that mean nothing here',
      (head) =>
        whole([
          ...head,
          'X-Forwarded-For: 10.0.0.1',
          'X-HTTP-Method-Override: PUT',
          'X_Amz_Target: A.B',
          'Cookie: a=b',
        ]),
    ],
  ])('%s', async (_name, request) => {
    await startCounting();
    const heard = await conversation(request(await signedHead()));
    expect(statuses(heard)![0], heard).toBe(200);
    expect(executed).toEqual([`DescribeKey ${body}`]);
  });

  test('a body that comes byte by byte', async () => {
    await startCounting();
    const socket = open();
    const answered = new Promise((resolve) => socket.once('data', (data) => resolve(statuses(data.toString()))));
    socket.setNoDelay();
    socket.write(text([...(await signedHead()), `Content-Length: ${body.length}`]));
    for (const byte of body) {
      socket.write(byte);
      await delay(2);
    }
    expect(await answered).toEqual([200]);
    expect(executed).toEqual([`DescribeKey ${body}`]);
  });
});

function upperCaseName(line: string): string {
  const colon = line.indexOf(':');
  return line.slice(0, colon).toUpperCase() + line.slice(colon);
}

describe('what was not signed does not run:', () => {
  const twice = (name: string, value?: string) => (head: string[]) => {
    const line = head.find((each) => each.toLowerCase().startsWith(`${name}:`))!;
    return whole([...head, value === undefined ? line : `${name}: ${value}`]);
  };
  const line = (pattern: RegExp, replacement: string) => (head: string[]) =>
    whole(head.map((each) => each.replace(pattern, replacement)));
  test.each<[string, (head: string[]) => string]>([
    ['another operation', line(/DescribeKey$/, 'EnableKey')],
    ['a second operation', twice('x-amz-target', 'TrentService.EnableKey')],
    ['the same operation twice', twice('x-amz-target')],
    ['a second date', twice('x-amz-date', '20300101T000000Z')],
    ['the same date twice', twice('x-amz-date')],
    ['a second host', twice('host', 'b')],
    ['a second Authorization', twice('authorization', 'Basic YTpi')],
    ['the same Authorization twice', twice('authorization')],
    ['a second content type', twice('content-type', 'text/plain')],
    ['another host', line(/^host: .*/, 'host: elsewhere')],
    ['another method', line(/^POST/, 'PUT')],
    ['another path', line(/^POST \//, 'POST /a')],
    ['a query string', line(/^POST \//, 'POST /?KeyId=other')],
    ['a signature in the query as well', line(/^POST \//, 'POST /?X-Amz-Signature=0')],
    ['another path as an absolute URL', line(/^POST \//, 'POST http://elsewhere/')],
    ['an x-amz header more', (head) => whole([...head, 'X-Amz-Security-Token: a'])],
    ['another signed header', line(/^x-amz-content-sha256: .*/, `x-amz-content-sha256: ${'0'.repeat(64)}`)],
    ['a header taken away', (head) => whole(head.filter((each) => !each.startsWith('x-amz-date')))],
    ['another body', (head) => whole(head, '{"KeyId":"alias/other"}')],
    ['a body with the same meaning', (head) => whole(head, `${body} `)],
    ['no body', (head) => whole(head, '')],
    ['a body cut short by its length', (head) => text([...head, 'Content-Length: 5'], body)],
    [
      'a body cut short by its chunks',
      (head) => text([...head, 'Transfer-Encoding: chunked'], `${chunk(body.slice(0, 9))}0\r\n\r\n`),
    ],
    [
      'more in another chunk',
      (head) => text([...head, 'Transfer-Encoding: chunked'], `${chunk(body)}${chunk(' ')}0\r\n\r\n`),
    ],
    [
      'length and chunks',
      (head) => text([...head, 'Content-Length: 22', 'Transfer-Encoding: chunked'], `${chunk(body)}0\r\n\r\n`),
    ],
    [
      'chunks within chunks',
      (head) => text([...head, 'Transfer-Encoding: chunked, chunked'], `${chunk(body)}0\r\n\r\n`),
    ],
    [
      'chunks that are not called so',
      (head) => text([...head, 'Transfer-Encoding: identity'], `${chunk(body)}0\r\n\r\n`),
    ],
    [
      'a chunk size that is none',
      (head) => text([...head, 'Transfer-Encoding: chunked'], `0x16\r\n${body}\r\n0\r\n\r\n`),
    ],
    [
      'a chunk size without end',
      (head) => text([...head, 'Transfer-Encoding: chunked'], `${'f'.repeat(40)}\r\n${body}\r\n0\r\n\r\n`),
    ],
    ['a folded header', (head) => whole([...head, 'X-A: b\r\n c: d'])],
    ['a header line without a name', (head) => whole([...head, ': b'])],
    ['white space before a colon', line(/^x-amz-target:/, 'x-amz-target :')],
    ['a bare line feed in a header', line(/DescribeKey$/, 'DescribeKey\nx-amz-target: TrentService.EnableKey')],
    ['a NUL in a header', line(/DescribeKey$/, 'DescribeKey\0')],
    ['an expectation that nobody has', (head) => whole([...head, 'Expect: the-unexpected'])],
  ])('%s', async (_name, request) => {
    await startCounting();
    const heard = await conversation(request(await signedHead()));
    const [status] = statuses(heard)!;
    expect(status, heard).toBeGreaterThanOrEqual(400);
    expect(status, heard).toBeLessThan(500);
    expect(heard).not.toContain('[still open]');
    expect(executed).toEqual([]);
    await stillServes();
  });

  test('a compressed body is read as the bytes that it is', async () => {
    await startCounting();
    const bytes = gzipSync(body).toString('latin1');
    const head = await signedHead({ 'content-encoding': 'gzip' }, bytes);
    const request = Buffer.from(
      whole(head, bytes).replace(/Content-Length: \d+/, `Content-Length: ${bytes.length}`),
      'latin1',
    );
    expect(statuses(await conversation(request))).toEqual([400]);
    expect(executed).toEqual([]);
  });

  test('a request hidden behind the body of another', async () => {
    await startCounting();
    const hidden = 'POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: TrentService.EnableKey\r\nContent-Length: 2\r\n\r\n{}';
    const head = [...(await signedHead()), `Content-Length: ${body.length}`];
    const heard = await conversation(`${head.join('\r\n')}\r\n\r\n${body}${hidden}garbage\r\n\r\n`);
    expect(statuses(heard)).toEqual([200, 400]);
    expect(executed).toEqual([`DescribeKey ${body}`]);
  });
});
