/** What the gateway's tests share: fake services over real sockets, and credentials that exist. */
import { Agent } from 'node:http';
import * as cloudtrail from '@aws-sdk/client-cloudtrail';
import * as ebs from '@aws-sdk/client-ebs';
import * as ec2 from '@aws-sdk/client-ec2';
import * as kms from '@aws-sdk/client-kms';
import * as sts from '@aws-sdk/client-sts';
import { pino } from 'pino';
import type { Principal } from '../aws/call.ts';
import { catalogueOf } from '../aws/catalogue.ts';
import { type Clock, systemClock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, Protocol, Service } from '../aws/service.ts';
import type { CredentialProblem, CredentialStore, FoundCredentials } from './credentials.ts';
import type { PipelineRequest } from './pipeline.ts';
import { createServer, type GatewayServer, type ServerOptions } from './server.ts';

export const accessKeyId = 'AKIATESTTESTTESTTEST';
export const secretAccessKey = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
export const account = '123456789012';

export const principal: Principal = {
  type: 'Root',
  account,
  arn: `arn:aws:iam::${account}:root`,
  principalId: account,
  accessKeyId,
};

/** One account's key, one session (token `session-token`), one key that was switched off. */
export class FakeCredentials implements CredentialStore {
  async find(id: string, token: string | undefined): Promise<FoundCredentials | CredentialProblem> {
    if (id === 'AKIAINACTIVEINACTIVE') return { problem: 'inactive' };
    if (id === 'ASIAEXPIREDEXPIRED00') return { problem: 'expired' };
    const isSession = id === 'ASIATESTTESTTESTTEST';
    if (id !== accessKeyId && !isSession) return { problem: 'unknown' };
    if (token !== (isSession ? 'session-token' : undefined)) return { problem: 'token' };
    return { secretAccessKey: Buffer.from(secretAccessKey), principal, audience: 'account' };
  }
}

function fakeOperation(name: string, schema: Operation['schema']): Operation {
  // Only operations that wait are told when their client has gone away.
  return { name, schema, effect: 'waits', access: () => [], handle: () => ({}) };
}

/** A service that has `implemented` of its catalogue; what the operations do is the executor's. */
export function fakeService(
  name: string,
  protocol: Protocol,
  sdk: object,
  implemented: readonly string[] | 'all',
  more: Partial<Service> = {},
): Service {
  const catalogue = catalogueOf(sdk);
  const names = implemented === 'all' ? Object.keys(catalogue) : implemented;
  return {
    name,
    eventSource: `${name}.amazonaws.com`,
    protocol,
    operations: Object.fromEntries(
      names.map((operation) => [operation, fakeOperation(operation, catalogue[operation])]),
    ),
    catalogue,
    migrations: [],
    accessDenied: () => new AwsError('AccessDeniedException', 'denied'),
    ...more,
  };
}

export const fakeServices: readonly Service[] = [
  fakeService('kms', 'awsJson1_1', kms, ['Encrypt', 'DescribeKey', 'GenerateDataKeyWithoutPlaintext', 'EnableKey'], {
    targetPrefixes: ['TrentService'],
  }),
  fakeService('cloudtrail', 'awsJson1_1', cloudtrail, ['LookupEvents'], { targetPrefixes: ['CloudTrail_20131101'] }),
  fakeService('ec2', 'ec2Query', ec2, ['CreateVolume', 'DescribeVolumes', 'CreateTags', 'DescribeRegions'], {
    apiVersion: '2016-11-15',
    xmlNamespace: 'http://ec2.amazonaws.com/doc/2016-11-15/',
  }),
  fakeService('sts', 'awsQuery', sts, ['GetCallerIdentity', 'AssumeRole'], {
    apiVersion: '2011-06-15',
    xmlNamespace: 'https://sts.amazonaws.com/doc/2011-06-15/',
  }),
  fakeService('ebs', 'restJson1', ebs, 'all'),
  fakeService('coffer', 'internalJson', {}, ['Echo'], { targetPrefixes: ['Coffer'] }),
];

export interface Running {
  readonly server: GatewayServer;
  readonly endpoint: string;
  readonly port: number;
}

/** A listening server; `execute` is its whole pipeline. */
export async function startServer(
  execute: (request: PipelineRequest) => unknown,
  more: Partial<ServerOptions> & { clock?: Clock } = {},
): Promise<Running> {
  const server = await createServer({
    listen: { host: '127.0.0.1', port: 0 },
    services: fakeServices,
    pipeline: { execute: async (request) => execute(request) },
    credentials: new FakeCredentials(),
    clock: systemClock,
    log: pino({ level: 'silent' }),
    ready: () => true,
    ...more,
  });
  return { server, endpoint: server.endpoint, port: server.address.port };
}

/** Configuration of an SDK client for a server of ours. */
export function clientConfig(endpoint: string, credentials: object = { accessKeyId, secretAccessKey }) {
  return {
    endpoint,
    region: 'us-east-1',
    credentials: credentials as { accessKeyId: string; secretAccessKey: string },
    maxAttempts: 1,
    requestHandler: { httpAgent: new Agent({ keepAlive: false }) },
  };
}
