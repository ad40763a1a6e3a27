// Measures the control plane: signed, authorized and durably recorded API calls a second, from another process over
// several connections.
//
//     bin/coffer-node bench/control-plane.ts [--seconds 5] [--rounds 3] [--connections 64] [--json]

import { createHash, createHmac } from 'node:crypto';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { run } from '../test/support/client.ts';
import { startServer, type TestServer } from '../test/support/server.ts';
import type { LoadOrders, LoadResult } from './load.ts';

export interface ControlPlaneOptions {
  readonly seconds?: number;
  readonly rounds?: number;
  readonly connections?: number;
  readonly log?: (line: string) => void;
}

export interface CallFigure {
  readonly operation: string;
  /** Calls a second, one value per round. */
  readonly rates: number[];
  readonly median: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** The least that the project promises. */
  readonly wanted: number;
}

const warmUpMs = 2_000;
const region = 'us-east-1';

export async function runControlPlaneBench(options: ControlPlaneOptions = {}): Promise<CallFigure[]> {
  const { seconds = 5, rounds = 3, connections = 64, log = () => {} } = options;
  const server = await startServer();
  try {
    const kms = server.sdk(KMSClient);
    const key = (await kms.send(new CreateKeyCommand({}))).KeyMetadata!;
    kms.destroy();
    const json = {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': 'TrentService.GenerateDataKeyWithoutPlaintext',
    };
    const calls = [
      {
        operation: 'KMS GenerateDataKeyWithoutPlaintext',
        wanted: 8_000,
        request: sign(
          server,
          'kms',
          json,
          JSON.stringify({
            KeyId: key.Arn,
            NumberOfBytes: 64,
            EncryptionContext: { 'aws:ebs:id': 'vol-0123456789abcdef0' },
          }),
        ),
      },
      {
        operation: 'EC2 CreateVolume, encrypted',
        wanted: 1_000,
        request: sign(
          server,
          'ec2',
          { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
          `Action=CreateVolume&Version=2016-11-15&Size=1&AvailabilityZone=${region}a&Encrypted=true&KmsKeyId=${encodeURIComponent(key.Arn!)}`,
        ),
      },
    ];
    const figures: CallFigure[] = [];
    for (const { operation, wanted, request } of calls) {
      const results: LoadResult[] = [];
      for (let round = 0; round < rounds; round++) {
        const result = await load(server, request, connections, seconds);
        log(
          `${operation}: ${Math.round(result.answers / result.seconds)}/s, median ${result.medianMs.toFixed(1)} ms, p99 ${result.p99Ms.toFixed(1)} ms`,
        );
        results.push(result);
      }
      const rates = results.map((result) => result.answers / result.seconds);
      const median = medianOf(rates);
      const typical = results[rates.indexOf(median)]!;
      figures.push({ operation, rates, median, medianMs: typical.medianMs, p99Ms: typical.p99Ms, wanted });
    }
    return figures;
  } finally {
    await server.stop();
  }
}

async function load(server: TestServer, request: Buffer, connections: number, seconds: number): Promise<LoadResult> {
  const { hostname, port } = new URL(server.endpoint);
  const orders: LoadOrders = {
    host: hostname,
    port: Number(port),
    requests: [request.toString('base64')],
    connections,
    warmUpMs,
    measureMs: seconds * 1000,
  };
  const script = join(import.meta.dirname, 'load.ts');
  const { stdout } = await run(process.execPath, [script], {
    input: JSON.stringify(orders),
    timeoutMs: seconds * 1000 + 30_000,
  });
  const result = JSON.parse(stdout) as LoadResult;
  if (result.refusals > 0) throw new Error(`${result.refusals} calls were refused: ${result.firstRefusal}`);
  return result;
}

/** A whole signed HTTP request (AWS Signature Version 4, header form). */
function sign(server: TestServer, service: string, headers: Record<string, string>, body: string): Buffer {
  const { host } = new URL(server.endpoint);
  const { accessKeyId, secretAccessKey } = server.credentials;
  const date = new Date().toISOString().replace(/[-:]|\.\d{3}/g, '');
  const day = date.slice(0, 8);
  const all: Record<string, string> = { ...headers, host, 'x-amz-date': date };
  const names = Object.keys(all).sort();
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
  const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const canonical = [
    'POST',
    '/',
    '',
    ...names.map((name) => `${name}:${all[name]}`),
    '',
    names.join(';'),
    sha256(body),
  ].join('\n');
  const scope = `${day}/${region}/${service}/aws4_request`;
  const toSign = ['AWS4-HMAC-SHA256', date, scope, sha256(canonical)].join('\n');
  const key = [day, region, service, 'aws4_request'].reduce<string | Buffer>(hmac, `AWS4${secretAccessKey}`);
  const signature = hmac(key, toSign).toString('hex');
  const lines = [
    'POST / HTTP/1.1',
    ...names.map((name) => `${name}: ${all[name]}`),
    `authorization: AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`,
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

export function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string' },
      rounds: { type: 'string' },
      connections: { type: 'string' },
      json: { type: 'boolean' },
    },
  });
  const number = (text: string | undefined) => (text === undefined ? undefined : Number(text));
  const figures = await runControlPlaneBench({
    seconds: number(values.seconds),
    rounds: number(values.rounds),
    connections: number(values.connections),
    log: values.json ? undefined : console.log,
  });
  if (values.json) console.log(JSON.stringify(figures, null, 2));
}
