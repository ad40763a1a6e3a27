// Measures whether the key service stays as fast when it is full: a server with 100 keys beside one with 100,000 keys and
// 1,000,000 grants, which take turns; and how long the full one takes to start.
//
//     bin/coffer-node bench/scale.ts [--seconds 1.5] [--rounds 3] [--connections 32] [--json]

import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CreateAccessKeyCommand, CreateUserCommand, IAMClient } from '@aws-sdk/client-iam';
import {
  CreateAliasCommand,
  CreateGrantCommand,
  CreateKeyCommand,
  EncryptCommand,
  type GrantOperation,
  KMSClient,
  paginateListAliases,
  paginateListGrants,
  paginateListKeys,
} from '@aws-sdk/client-kms';
import type { Client } from '../test/support/client.ts';
import { startServer, type TestServer } from '../test/support/server.ts';
import { type FilledKey, fillKeys } from './fill-keys.ts';
import { loadFromOutside, medianOf } from './load.ts';
import { signKms } from './signing.ts';

export interface ScaleOptions {
  readonly seconds?: number;
  readonly rounds?: number;
  readonly connections?: number;
  readonly log?: (line: string) => void;
}

export interface ScaleFigure {
  readonly call: string;
  /** Microseconds of server time a call takes (one over the rate); medians over the rounds. */
  readonly smallUs: number;
  readonly fullUs: number;
  /** The median over rounds of full to small in the same round. */
  readonly ratio: number;
  /** The most that the project promises. */
  readonly wanted: number;
}

export interface ScaleResults {
  readonly figures: ScaleFigure[];
  /** From the command to `coffer is ready`, of the full server; one value per start. */
  readonly startSeconds: number[];
  readonly wantedStartSeconds: number;
}

const sizes = {
  small: { keys: 100, grants: 2_000, grantsOnFirst: 1_000 },
  full: { keys: 100_000, grants: 1_000_000, grantsOnFirst: 50_000 },
} as const;
/** Connections at a time, unless told otherwise. */
export const scaleConnections = 32;
const warmUpMs = 700;
const wantedRatio = 2;
const wantedStartSeconds = 3;
const starts = 3;
/** Different keys of one measurement: several times what the server keeps in memory. */
const sampleMax = 5_000;
const listPage = 20;
const grantPage = 100;
const context = { 'aws:ebs:id': 'vol-0123456789abcdef0' };

/** One server, filled, and what the measurements ask it for. */
interface Side {
  readonly server: TestServer;
  readonly dataDir: string;
  readonly grantee: Client;
  readonly granteeArn: string;
  readonly first: { readonly keyId: string; readonly ciphertext: string };
  readonly sample: readonly FilledKey[];
  /** Where pages begin: undefined for the first. */
  readonly keyPages: readonly (string | undefined)[];
  readonly aliasPages: readonly (string | undefined)[];
  readonly grantPages: readonly (string | undefined)[];
}

type Input = Record<string, unknown>;
interface Measured {
  readonly call: string;
  readonly operation: string;
  readonly by?: 'grantee';
  readonly inputs: (side: Side) => readonly Input[];
}

const measured: readonly Measured[] = [
  {
    call: 'DescribeKey by id',
    operation: 'DescribeKey',
    inputs: ({ sample }) => sample.map(({ keyId }) => ({ KeyId: keyId })),
  },
  {
    call: 'DescribeKey by alias',
    operation: 'DescribeKey',
    inputs: ({ sample }) => sample.map(({ alias }) => ({ KeyId: alias })),
  },
  {
    call: `ListKeys, pages of ${listPage}`,
    operation: 'ListKeys',
    inputs: ({ keyPages }) => keyPages.map((Marker) => ({ Limit: listPage, Marker })),
  },
  {
    call: `ListAliases, pages of ${listPage}`,
    operation: 'ListAliases',
    inputs: ({ aliasPages }) => aliasPages.map((Marker) => ({ Limit: listPage, Marker })),
  },
  {
    call: 'ListAliases of a key',
    operation: 'ListAliases',
    inputs: ({ sample }) => sample.map(({ keyId }) => ({ KeyId: keyId })),
  },
  {
    call: 'ListGrants of a key',
    operation: 'ListGrants',
    inputs: ({ sample }) => sample.map(({ keyId }) => ({ KeyId: keyId, Limit: 9 })),
  },
  {
    call: `ListGrants, pages of ${grantPage}, of a key with 1,000 and one with 50,000`,
    operation: 'ListGrants',
    inputs: ({ first, grantPages }) => grantPages.map((Marker) => ({ KeyId: first.keyId, Limit: grantPage, Marker })),
  },
  {
    call: 'Decrypt',
    operation: 'Decrypt',
    inputs: ({ sample }) =>
      sample.map(({ ciphertext }) => ({ CiphertextBlob: ciphertext, EncryptionContext: context })),
  },
  {
    call: 'Decrypt by a grantee',
    operation: 'Decrypt',
    by: 'grantee',
    inputs: ({ sample }) =>
      sample.map(({ ciphertext }) => ({ CiphertextBlob: ciphertext, EncryptionContext: context })),
  },
  {
    call: 'Decrypt by a grantee, with the key of 1,000 and of 50,000 grants',
    operation: 'Decrypt',
    by: 'grantee',
    inputs: ({ first }) => [{ CiphertextBlob: first.ciphertext, EncryptionContext: context }],
  },
  // Last: its grants stay.
  {
    call: 'CreateGrant',
    operation: 'CreateGrant',
    inputs: ({ sample, granteeArn }) =>
      sample.map(({ keyId }) => ({ KeyId: keyId, GranteePrincipal: granteeArn, Operations: ['Encrypt'] })),
  },
];

export async function runScaleBench(options: ScaleOptions = {}): Promise<ScaleResults> {
  const { seconds = 1.5, rounds = 3, connections = scaleConnections, log = () => {} } = options;
  const dataDirs = await Promise.all([1, 2].map(() => mkdtemp(join(tmpdir(), 'coffer-scale-'))));
  const sides: Side[] = [];
  try {
    log('filling');
    for (const [index, size] of [sizes.small, sizes.full].entries()) sides.push(await fill(dataDirs[index]!, size));
    const [small, full] = sides as [Side, Side];
    const figures: ScaleFigure[] = [];
    for (const one of measured) {
      const times: { small: number[]; full: number[] } = { small: [], full: [] };
      for (let round = 0; round < rounds; round++) {
        times.small.push(await timeOf(one, small, connections, seconds));
        times.full.push(await timeOf(one, full, connections, seconds));
      }
      const ratio = medianOf(times.full.map((time, round) => time / times.small[round]!));
      const [smallUs, fullUs] = [medianOf(times.small), medianOf(times.full)];
      figures.push({ call: one.call, smallUs, fullUs, ratio, wanted: wantedRatio });
      log(`${one.call}: ${smallUs.toFixed(0)} µs, full ${fullUs.toFixed(0)} µs, ratio ${ratio.toFixed(2)}`);
    }
    const startSeconds: number[] = [];
    for (let start = 0; start < starts; start++) {
      await full.server.stop();
      const began = performance.now();
      await full.server.restart();
      startSeconds.push((performance.now() - began) / 1000);
    }
    log(`start of the full server: ${startSeconds.map((value) => value.toFixed(2)).join(', ')} s`);
    return { figures, startSeconds, wantedStartSeconds };
  } finally {
    for (const { server } of sides) await server.stop();
    for (const dataDir of dataDirs) rmSync(dataDir, { recursive: true, force: true });
  }
}

/** Microseconds per call, at the rate that the server sustains. */
async function timeOf(one: Measured, side: Side, connections: number, seconds: number): Promise<number> {
  const client = one.by === 'grantee' ? side.grantee : side.server;
  const requests = one.inputs(side).map((input) => signKms(client, one.operation, input));
  const times = { connections, warmUpMs, measureMs: seconds * 1000 };
  const result = await loadFromOutside(side.server.endpoint, requests, times);
  return (result.seconds * 1e6) / result.answers;
}

async function fill(dataDir: string, size: (typeof sizes)['small' | 'full']): Promise<Side> {
  let server = await startServer({ dataDir });
  const iam = server.sdk(IAMClient);
  const kms = server.sdk(KMSClient);
  const { User } = await iam.send(new CreateUserCommand({ UserName: 'grantee' }));
  const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName: 'grantee' }));
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}));
  const keyId = KeyMetadata!.KeyId!;
  await kms.send(new CreateAliasCommand({ AliasName: 'alias/first', TargetKeyId: keyId }));
  const Operations: GrantOperation[] = ['Decrypt', 'GenerateDataKeyWithoutPlaintext'];
  const grant = await kms.send(
    new CreateGrantCommand({
      KeyId: keyId,
      GranteePrincipal: User!.Arn!,
      Operations,
      Constraints: { EncryptionContextSubset: context },
    }),
  );
  await server.stop();
  const sample = fillKeys({ dataDir, keyId, grantId: grant.GrantId!, samples: sampleMax, context, ...size });
  server = await startServer({ dataDir });
  return {
    server,
    dataDir,
    grantee: server.as({ accessKeyId: AccessKey!.AccessKeyId!, secretAccessKey: AccessKey!.SecretAccessKey! }),
    granteeArn: User!.Arn!,
    sample,
    ...(await ask(server, keyId)),
  };
}

/** The places where pages of the lists begin, and a ciphertext of the first key. */
async function ask(
  server: TestServer,
  keyId: string,
): Promise<Pick<Side, 'first' | 'keyPages' | 'aliasPages' | 'grantPages'>> {
  const client = server.sdk(KMSClient);
  const kms = { client, pageSize: listPage };
  const { CiphertextBlob } = await client.send(
    new EncryptCommand({ KeyId: keyId, Plaintext: Buffer.alloc(64, 7), EncryptionContext: context }),
  );
  const answer = {
    first: { keyId, ciphertext: Buffer.from(CiphertextBlob!).toString('base64') },
    keyPages: await pages(paginateListKeys(kms, {})),
    aliasPages: await pages(paginateListAliases(kms, {})),
    grantPages: await pages(paginateListGrants({ client, pageSize: grantPage }, { KeyId: keyId })),
  };
  client.destroy();
  return answer;
}

/** Where each full page of a list begins. */
async function pages(answers: AsyncIterable<{ NextMarker?: string | undefined }>): Promise<(string | undefined)[]> {
  const markers: (string | undefined)[] = [undefined];
  for await (const { NextMarker } of answers) if (NextMarker) markers.push(NextMarker);
  // The last one may be short, and with it faster.
  return markers.slice(0, -1);
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
  const results = await runScaleBench({
    seconds: number(values.seconds),
    rounds: number(values.rounds),
    connections: number(values.connections),
    log: values.json ? undefined : console.log,
  });
  if (values.json) console.log(JSON.stringify(results, null, 2));
}
