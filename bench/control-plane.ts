// Measures the control plane: signed, authorized and durably recorded API calls a second, from another process over
// several connections.
//
//     bin/coffer-node bench/control-plane.ts [--seconds 5] [--rounds 3] [--connections 64] [--json]

import { parseArgs } from 'node:util';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { startServer } from '../test/support/server.ts';
import { type LoadResult, loadFromOutside, medianOf } from './load.ts';
import { sign, signKms } from './signing.ts';

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
    const calls = [
      {
        operation: 'KMS GenerateDataKeyWithoutPlaintext',
        wanted: 8_000,
        request: signKms(server, 'GenerateDataKeyWithoutPlaintext', {
          KeyId: key.Arn,
          NumberOfBytes: 64,
          EncryptionContext: { 'aws:ebs:id': 'vol-0123456789abcdef0' },
        }),
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
        const result = await loadFromOutside(server.endpoint, [request], {
          connections,
          warmUpMs,
          measureMs: seconds * 1000,
        });
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
