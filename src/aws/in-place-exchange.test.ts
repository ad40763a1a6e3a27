import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { exchangeInPlace } from './in-place-exchange.ts';

let server: Server | undefined;
afterEach(() => void server?.close());

/** A server that answers any request with `pieces`, one after the other, and closes. */
async function answering(...pieces: string[]): Promise<{ url: string }> {
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', async () => {
      for (const piece of pieces) {
        socket.write(piece);
        await new Promise((wake) => setTimeout(wake, 5));
      }
      socket.end();
    });
  });
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

const signal = () => AbortSignal.timeout(60_000);
const exchange = async (endpoint: { url: string }) =>
  exchangeInPlace(endpoint, { host: 'x', 'content-length': '2' }, Buffer.from('{}'), signal());

test.each([
  ['in one piece', ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello']],
  ['in pieces', ['HTTP/1.1 200 ', 'OK\r\ncontent-length: 5\r', '\n\r\nhe', 'llo']],
  ['in chunks', ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n', '3\r\nllo\r\n0\r\n\r\n']],
  ['ended by the connection', ['HTTP/1.1 200 OK\r\n\r\nhel', 'lo']],
])('takes an answer %s', async (_how, pieces) => {
  const { status, body } = await exchange(await answering(...pieces));
  expect({ status, body: body.toString() }).toEqual({ status: 200, body: 'hello' });
});

test.each([
  ['nothing', []],
  ['half a head', ['HTTP/1.1 200 OK\r\nContent']],
  ['half a body', ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel']],
  ['chunks without the last', ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n']],
  ['something else', ['SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n']],
])('refuses %s', async (_what, pieces) => {
  await expect(exchange(await answering(...pieces))).rejects.toThrow('closed before the answer');
});

test('refuses an answer that is too long', async () => {
  const long = `HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${'x'.repeat(100_000)}`;
  await expect(exchange(await answering(long))).rejects.toThrow('over 65536 bytes');
});

test('gives up when told to', async () => {
  server = createServer(() => {});
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const stop = AbortSignal.timeout(50);
  await expect(exchangeInPlace({ url }, {}, Buffer.alloc(0), stop)).rejects.toThrow(/timeout|aborted/);
});
