// Measures what permissions cost: the same cryptographic calls by an account's root and by users whom a key policy, an
// identity policy with conditions, or a grant allows. All on one key, on which all of it is in force; callers take turns.
//
//     bin/coffer-node bench/permissions.ts [--seconds 3] [--rounds 3] [--connections 64] [--json]

import { parseArgs } from 'node:util';
import { CreateAccessKeyCommand, CreateUserCommand, IAMClient, PutUserPolicyCommand } from '@aws-sdk/client-iam';
import { CreateGrantCommand, CreateKeyCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';
import type { Client } from '../test/support/client.ts';
import { startServer, type TestServer } from '../test/support/server.ts';
import { loadFromOutside, medianOf } from './load.ts';
import { signKms } from './signing.ts';

export interface PermissionsOptions {
  readonly seconds?: number;
  readonly rounds?: number;
  readonly connections?: number;
  readonly log?: (line: string) => void;
}

export interface PermissionFigure {
  readonly operation: string;
  /** What allows the caller. */
  readonly by: string;
  /** Calls a second, one value per round. */
  readonly rates: number[];
  readonly median: number;
  /** The median over rounds of this caller's rate to the root's in the same round. */
  readonly ratio: number;
  /** The least that the project promises; undefined for the root itself. */
  readonly wanted: number | undefined;
}

const warmUpMs = 1_000;
const wantedRatio = 0.7;
const root = 'the root principal';
const context = { 'aws:ebs:id': 'vol-0123456789abcdef0', purpose: 'bench' };

export async function runPermissionsBench(options: PermissionsOptions = {}): Promise<PermissionFigure[]> {
  const { seconds = 3, rounds = 3, connections = 64, log = () => {} } = options;
  const server = await startServer();
  try {
    const { callers, keyArn, ciphertext } = await prepare(server);
    const operations = {
      Decrypt: { KeyId: keyArn, CiphertextBlob: ciphertext, EncryptionContext: context },
      GenerateDataKeyWithoutPlaintext: { KeyId: keyArn, NumberOfBytes: 64, EncryptionContext: context },
    };
    const figures: PermissionFigure[] = [];
    for (const [operation, input] of Object.entries(operations)) {
      const rates = new Map(callers.map(({ by }) => [by, [] as number[]]));
      for (let round = 0; round < rounds; round++) {
        for (const { by, client } of callers) {
          const request = signKms(client, operation, input);
          const times = { connections, warmUpMs, measureMs: seconds * 1000 };
          const result = await loadFromOutside(server.endpoint, [request], times);
          rates.get(by)!.push(result.answers / result.seconds);
        }
      }
      const ofRoot = rates.get(root)!;
      for (const [by, own] of rates) {
        const ratio = medianOf(own.map((rate, round) => rate / ofRoot[round]!));
        const wanted = by === root ? undefined : wantedRatio;
        figures.push({ operation, by, rates: own, median: medianOf(own), ratio, wanted });
        log(`${operation} by ${by}: ${Math.round(medianOf(own))}/s, ${ratio.toFixed(2)} of the root's rate`);
      }
    }
    return figures;
  } finally {
    await server.stop();
  }
}

/** One key with everything in force, and a caller for each way to be allowed. */
async function prepare(server: TestServer) {
  const kms = server.sdk(KMSClient);
  const iam = server.sdk(IAMClient);
  const user = async (UserName: string) => {
    const { User } = await iam.send(new CreateUserCommand({ UserName }));
    const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName }));
    const client = server.as({ accessKeyId: AccessKey!.AccessKeyId!, secretAccessKey: AccessKey!.SecretAccessKey! });
    return { arn: User!.Arn!, client };
  };
  const [named, conditional, granted] = [await user('named'), await user('conditional'), await user('granted')];
  const account = named.arn.split(':')[4]!;
  const { KeyMetadata: key } = await kms.send(
    new CreateKeyCommand({ Policy: JSON.stringify(keyPolicy(account, named.arn)) }),
  );
  const keyArn = key!.Arn!;
  await iam.send(
    new PutUserPolicyCommand({
      UserName: 'conditional',
      PolicyName: 'volumes',
      PolicyDocument: JSON.stringify(identityPolicy(account)),
    }),
  );
  for (const operation of ['DescribeKey', 'Encrypt', 'Decrypt', 'GenerateDataKeyWithoutPlaintext'] as const) {
    const grant = { KeyId: keyArn, GranteePrincipal: granted.arn, Operations: [operation] };
    await kms.send(new CreateGrantCommand({ ...grant, Constraints: { EncryptionContextSubset: context } }));
  }
  const { CiphertextBlob } = await kms.send(
    new EncryptCommand({ KeyId: keyArn, Plaintext: Buffer.alloc(64, 7), EncryptionContext: context }),
  );
  const callers: { by: string; client: Client }[] = [
    { by: root, client: server },
    { by: 'the key policy', client: named.client },
    { by: 'an identity policy with conditions', client: conditional.client },
    { by: 'a grant with a constraint', client: granted.client },
  ];
  kms.destroy();
  iam.destroy();
  return { callers, keyArn, ciphertext: Buffer.from(CiphertextBlob!).toString('base64') };
}

const cryptography = [
  'kms:Encrypt',
  'kms:Decrypt',
  'kms:ReEncrypt*',
  'kms:GenerateDataKey*',
  'kms:DescribeKey',
] as const;

/** The statements that the console writes into a key's policy: administration, use, and grants for AWS resources. */
function keyPolicy(account: string, user: string) {
  const AWS = user;
  return {
    Version: '2012-10-17',
    Statement: [
      {
        Sid: 'Enable IAM policies',
        Effect: 'Allow',
        Principal: { AWS: `arn:aws:iam::${account}:root` },
        Action: 'kms:*',
        Resource: '*',
      },
      { Sid: 'Use', Effect: 'Allow', Principal: { AWS }, Action: cryptography, Resource: '*' },
      {
        Sid: 'Grants for volumes',
        Effect: 'Allow',
        Principal: { AWS },
        Action: ['kms:CreateGrant', 'kms:ListGrants', 'kms:RevokeGrant'],
        Resource: '*',
        Condition: { Bool: { 'kms:GrantIsForAWSResource': 'true' } },
      },
      {
        Sid: 'Only with a volume',
        Effect: 'Deny',
        Principal: '*',
        Action: 'kms:Decrypt',
        Resource: '*',
        Condition: { Null: { 'kms:EncryptionContext:aws:ebs:id': 'true' } },
      },
    ],
  };
}

function identityPolicy(account: string) {
  return {
    Version: '2012-10-17',
    Statement: [
      {
        Sid: 'Look',
        Effect: 'Allow',
        Action: ['ec2:Describe*', 'kms:Describe*', 'kms:List*'],
        Resource: '*',
      },
      {
        Sid: 'UseKeysForVolumes',
        Effect: 'Allow',
        Action: cryptography,
        Resource: `arn:aws:kms:*:${account}:key/*`,
        Condition: {
          StringLike: { 'kms:EncryptionContext:aws:ebs:id': 'vol-*' },
          StringEquals: { 'kms:CallerAccount': account, 'aws:RequestedRegion': ['us-east-1', 'eu-central-1'] },
          'ForAllValues:StringEquals': { 'kms:EncryptionContextKeys': ['aws:ebs:id', 'purpose'] },
          IpAddress: { 'aws:SourceIp': ['127.0.0.0/8', '10.0.0.0/8'] },
        },
      },
      {
        Sid: 'NotFromElsewhere',
        Effect: 'Deny',
        Action: 'kms:*',
        Resource: '*',
        Condition: { NotIpAddress: { 'aws:SourceIp': ['127.0.0.0/8', '10.0.0.0/8'] } },
      },
    ],
  };
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
  const figures = await runPermissionsBench({
    seconds: number(values.seconds),
    rounds: number(values.rounds),
    connections: number(values.connections),
    log: values.json ? undefined : console.log,
  });
  if (values.json) console.log(JSON.stringify(figures, null, 2));
}
