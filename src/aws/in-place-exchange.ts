/**
 * One HTTP/1.1 exchange whose answer arrives in memory that the caller can wipe. Node's HTTP client hands out copies of what
 * its socket read, and the socket reads into memory that is shrunk by copying; neither original can be reached. Here the
 * socket reads into one buffer of ours, and nothing copies the body out of it.
 */
import { readFileSync } from 'node:fs';
import net from 'node:net';
import type { ConnectionOptions } from 'node:tls';

const answerBytesMax = 64 * 1024;
const headEnd = '\r\n\r\n';

/**
 * Sends a POST of `/`, and resolves with the answer; its body is a view of the receiving buffer, which the caller wipes.
 * When it rejects, what had arrived has been wiped.
 */
export async function exchangeInPlace(
  endpoint: { readonly url: string; readonly certificateFile?: string },
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  signal: AbortSignal,
): Promise<{ status: number; body: Buffer }> {
  signal.throwIfAborted();
  // Not from Buffer.alloc, whose small buffers the garbage collector moves, leaving copies.
  const answer = Buffer.from(new ArrayBuffer(answerBytesMax));
  // What one read brought; moved at once to its place in the answer.
  const reading = Buffer.from(new ArrayBuffer(answerBytesMax));
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: Buffer }>();
  let length = 0;
  const receive = (count: number) => {
    if (length + count > answer.length) {
      socket.destroy(new Error(`an answer of over ${answerBytesMax} bytes`));
      return false;
    }
    reading.copy(answer, length, 0, count);
    reading.fill(0, 0, count);
    length += count;
    const whole = parse(answer.subarray(0, length), false);
    if (whole) resolve(whole);
    return true;
  };
  const socket = connect(endpoint, { buffer: reading, callback: receive });
  const abort = () => socket.destroy(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  socket.on('error', reject);
  socket.on('close', () => {
    const whole = parse(answer.subarray(0, length), true);
    if (whole) resolve(whole);
    else reject(new Error('the connection was closed before the answer'));
  });
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  socket.write(`POST / HTTP/1.1\r\n${lines.join('\r\n')}\r\nconnection: close\r\n\r\n`);
  socket.write(body);
  try {
    return await promise;
  } catch (error) {
    answer.fill(0);
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

function connect(
  { url, certificateFile }: { readonly url: string; readonly certificateFile?: string },
  onread: { buffer: Buffer; callback: (count: number) => boolean },
): net.Socket {
  const { protocol, hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol !== 'https:') return net.connect({ host, port: Number(port || 80), noDelay: true, onread });
  const pinned = certificateFile
    ? { ca: readFileSync(certificateFile), checkServerIdentity: () => undefined }
    : { servername: net.isIP(host) ? undefined : host };
  // Documented for tls.connect, but missing from its types.
  const options: ConnectionOptions = { host, port: Number(port || 443), ...pinned, ...{ onread } };
  return process.getBuiltinModule('node:tls').connect(options);
}

/** The answer, if it is whole. The head holds no secret and may become a string. */
function parse(bytes: Buffer, isOver: boolean): { status: number; body: Buffer } | undefined {
  const end = bytes.indexOf(headEnd);
  if (end < 0) return undefined;
  const head = bytes.toString('latin1', 0, end);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
  const body = bytes.subarray(end + headEnd.length);
  if (!status) return undefined;
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length !== undefined)
    return body.length < Number(length) ? undefined : { status, body: body.subarray(0, Number(length)) };
  if (!isOver) return undefined;
  if (!/\r\ntransfer-encoding: *chunked/i.test(head)) return { status, body };
  const joined = joinChunks(body);
  return joined && { status, body: joined };
}

/** Moves the chunks of a chunked body together, in their own memory; undefined when the last is missing. */
function joinChunks(body: Buffer): Buffer | undefined {
  let from = 0;
  let to = 0;
  for (;;) {
    const lineEnd = body.indexOf('\r\n', from);
    if (lineEnd < 0) return undefined;
    const length = Number.parseInt(body.toString('latin1', from, lineEnd), 16);
    const start = lineEnd + 2;
    if (Number.isNaN(length) || start + length > body.length) return undefined;
    if (length === 0) break;
    body.copy(body, to, start, start + length);
    to += length;
    from = start + length + 2;
  }
  body.fill(0, to);
  return body.subarray(0, to);
}
