// A lean load generator, for a process of its own: sends requests, signed beforehand, over and over on several raw
// keep-alive connections, each of which waits for its answer. Reads its orders as JSON from stdin, answers JSON.

import { createConnection } from 'node:net';
import { text } from 'node:stream/consumers';
import { run } from '../test/support/client.ts';

export interface LoadOrders {
  readonly host: string;
  readonly port: number;
  /** Whole HTTP requests, base64; connections take them in turn. */
  readonly requests: readonly string[];
  readonly connections: number;
  readonly warmUpMs: number;
  readonly measureMs: number;
}

export interface LoadResult {
  readonly answers: number;
  /** Answers other than 200. */
  readonly refusals: number;
  readonly firstRefusal: string | undefined;
  readonly seconds: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

/**
 * Runs this load in a process of its own.
 * @throws when the server refused anything: a refusal is fast, and would pass for a good figure
 */
export async function loadFromOutside(
  endpoint: string,
  requests: readonly Buffer[],
  times: { connections: number; warmUpMs: number; measureMs: number },
): Promise<LoadResult> {
  const { hostname, port } = new URL(endpoint);
  const orders: LoadOrders = {
    host: hostname,
    port: Number(port),
    requests: requests.map((request) => request.toString('base64')),
    ...times,
  };
  const { stdout } = await run(process.execPath, [import.meta.filename], {
    input: JSON.stringify(orders),
    timeoutMs: times.warmUpMs + times.measureMs + 30_000,
  });
  const result = JSON.parse(stdout) as LoadResult;
  if (result.refusals > 0) throw new Error(`${result.refusals} calls were refused: ${result.firstRefusal}`);
  return result;
}

export function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

const headEnd = Buffer.from('\r\n\r\n');

async function load(orders: LoadOrders): Promise<LoadResult> {
  const requests = orders.requests.map((request) => Buffer.from(request, 'base64'));
  const latenciesMs: number[] = [];
  let answers = 0;
  let refusals = 0;
  let firstRefusal: string | undefined;
  let phase: 'warming' | 'measuring' | 'over' = 'warming';

  const connect = (index: number) =>
    new Promise<void>((resolve, reject) => {
      const socket = createConnection({ host: orders.host, port: orders.port, noDelay: true });
      let received: Buffer = Buffer.alloc(0);
      let sentAt = 0;
      // Far apart, so that requests that are alike do not arrive together.
      let turn = Math.floor((index * requests.length) / orders.connections);
      const send = () => {
        if (phase === 'over') {
          socket.end();
          resolve();
          return;
        }
        sentAt = performance.now();
        socket.write(requests[turn++ % requests.length]!);
      };
      socket.on('connect', send);
      socket.on('error', reject);
      socket.on('close', () => (phase === 'over' ? resolve() : reject(new Error('the server closed a connection'))));
      socket.on('data', (chunk: Buffer) => {
        received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
        const head = received.indexOf(headEnd);
        if (head < 0) return;
        const text = received.toString('latin1', 0, head);
        const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? Number.NaN);
        if (Number.isNaN(length)) return reject(new Error(`an answer without a length: ${text}`));
        if (received.length < head + headEnd.length + length) return;
        if (phase === 'measuring') {
          answers++;
          latenciesMs.push(performance.now() - sentAt);
        }
        if (!text.startsWith('HTTP/1.1 200')) {
          refusals++;
          firstRefusal ??= received.toString();
        }
        received = Buffer.alloc(0);
        send();
      });
    });
  const connections = Array.from({ length: orders.connections }, (_, index) => connect(index));
  const wait = (ms: number) => new Promise((wake) => setTimeout(wake, ms));
  await Promise.race([wait(orders.warmUpMs), Promise.all(connections)]);
  phase = 'measuring';
  const started = performance.now();
  await Promise.race([wait(orders.measureMs), Promise.all(connections)]);
  phase = 'over';
  const seconds = (performance.now() - started) / 1000;
  await Promise.all(connections);
  latenciesMs.sort((a, b) => a - b);
  const at = (part: number) => latenciesMs[Math.floor(latenciesMs.length * part)] ?? 0;
  return { answers, refusals, firstRefusal, seconds, medianMs: at(0.5), p99Ms: at(0.99) };
}

if (import.meta.main) {
  const result = await load(JSON.parse(await text(process.stdin)) as LoadOrders);
  process.stdout.write(JSON.stringify(result));
}
