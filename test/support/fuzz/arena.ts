/**
 * A control plane to throw requests at: all services, the real gateway and pipeline, resources of every kind, and callers
 * of every kind. Requests go in on the wire, through a socket or, as most do here, past it.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import http from 'node:http';
import * as cloudtrail from '@aws-sdk/client-cloudtrail';
import * as ebs from '@aws-sdk/client-ebs';
import * as ec2 from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import * as kms from '@aws-sdk/client-kms';
import * as sts from '@aws-sdk/client-sts';
import { pino } from 'pino';
import type { Principal } from '../../../src/aws/call.ts';
import type { Operation, Service } from '../../../src/aws/service.ts';
import { Dispatcher } from '../../../src/gateway/dispatcher.ts';
import type { PipelineRequest } from '../../../src/gateway/pipeline.ts';
import type { WireRequest } from '../../../src/gateway/protocols/protocol.ts';
import { createServer, type GatewayServer } from '../../../src/gateway/server.ts';
import { hostPrincipal, rootPrincipal } from '../../../src/iam/principals.ts';
import { everyInput } from '../every-operation.ts';
import { account, FakeHost, otherAccount, World } from '../world.ts';
import { serveBlocks } from './block-host.ts';
import { type Input, isPlain, Pool } from './inputs.ts';
import { Watch } from './watch.ts';
import type { Credentials } from './wire.ts';

export interface Target {
  readonly service: Service;
  readonly operation: Operation;
  readonly name: string;
  readonly example: Input | undefined;
}

/** Who signs: a root, a user who may do everything, one who may do nothing, another account's root, a host. */
export type Who = 'root' | 'user' | 'nobody' | 'stranger' | 'host';
interface CallerKey extends Credentials {
  readonly principal: Principal;
  readonly audience: 'account' | 'host';
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** From the request's arrival to its answer, ms: as Stopwatch has it. */
  readonly tookMs: number;
  /** The client went away before there was an answer, as clients of operations that wait do. */
  readonly wasCancelled: boolean;
}

/**
 * Time that passed, without what the machine gave to others: the process's time on the CPU and the time that its event
 * loop had nothing to do.
 */
class Stopwatch {
  readonly #at = performance.now();
  readonly #cpu = process.cpuUsage();
  readonly #loop = performance.eventLoopUtilization();

  get ms(): number {
    const { user, system } = process.cpuUsage(this.#cpu);
    const { idle } = performance.eventLoopUtilization(this.#loop);
    return Math.min(performance.now() - this.#at, (user + system) / 1000 + idle);
  }
}

/** How long a client waits for an operation that waits for something, ms. */
const patienceMs = 60;

/** Valid inputs of the operations that only the system itself uses. */
const internalInputs: Readonly<Record<string, Input>> = {
  'coffer:CreateAccount': { Name: 'another' },
  'coffer:CreateHostCredentials': { HostId: 'another' },
  'coffer:DescribeHosts': {},
  'coffer:ListEvents': { After: 0, Limit: 10, WaitMs: 0 },
  'coffer-host:Sync': {
    hostId: 'fuzzed',
    sessionId: 'session-1',
    startedAt: Date.UTC(2026, 7, 1),
    sequence: 1,
    zones: ['us-east-1f'],
    dataDir: '/srv/other',
    hostVersion: 'test',
    attachments: [
      {
        volumeId: 'vol-0123456789abcdef0',
        instanceId: 'i-0123456789abcdef0',
        device: '/dev/sdf',
        generation: 1,
        state: 'attached',
        sizeBytes: 1,
      },
      {
        volumeId: 'vol-1',
        instanceId: 'i-1',
        device: 'x',
        generation: 1,
        state: 'failed',
        error: { code: 'A', message: 'b' },
      },
    ],
    instances: ['i-0123456789abcdef0'],
    tasks: [
      { taskId: 'erase-vol-0123456789abcdef0', state: 'done', outcome: { blocks: 1, fullBytes: 2, storedBytes: 3 } },
      { taskId: 'x', state: 'failed', error: 'because', final: true, marked: true, progress: 50 },
    ],
    credentials: [{ sessionName: 'i-0123456789abcdef0', expiration: '2026-08-02T00:00:00.000Z' }],
    blockStore: { location: '/srv/store', error: 'none' },
  },
  'coffer-host:TakeBlockRequests': {
    hostId: 'fuzzed',
    sessionId: 'session-1',
    publicKey: Buffer.alloc(32, 9).toString('base64'),
    max: 8,
    underWay: [randomUUID()],
  },
  'coffer-host:AnswerBlockRequest': {
    hostId: 'fuzzed',
    sessionId: 'session-1',
    requestId: randomUUID(),
    answer: { indexes: [0, 1], next: 2 },
  },
};

const allowAll = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }],
});

export class Arena {
  readonly world: World;
  readonly watch: Watch;
  readonly pool: Pool;
  readonly targets: readonly Target[];
  /** Secrets that answers brought, by what they are. */
  readonly secrets = new Map<string, Buffer>();
  /** What the server logged: every line is a failure. */
  readonly log: string[];
  readonly #host: FakeHost;
  readonly #stopBlocks: () => Promise<void>;
  readonly #underWay: { readonly count: number };
  readonly #callers: Readonly<Record<Who, CallerKey>>;
  readonly #dispatcher: Dispatcher;
  readonly #server: GatewayServer;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

  private constructor(parts: {
    world: World;
    watch: Watch;
    host: FakeHost;
    stopBlocks: () => Promise<void>;
    callers: Readonly<Record<Who, CallerKey>>;
    targets: readonly Target[];
    dispatcher: Dispatcher;
    server: GatewayServer;
    log: string[];
    secrets: Map<string, Buffer>;
    pool: Pool;
    underWay: { readonly count: number };
  }) {
    this.world = parts.world;
    this.watch = parts.watch;
    this.#host = parts.host;
    this.#stopBlocks = parts.stopBlocks;
    this.#callers = parts.callers;
    this.targets = parts.targets;
    this.#dispatcher = parts.dispatcher;
    this.#server = parts.server;
    this.log = parts.log;
    this.secrets = parts.secrets;
    this.pool = parts.pool;
    this.#underWay = parts.underWay;
  }

  static async create(): Promise<Arena> {
    const world = await World.create();
    const host = new FakeHost(world).start();
    const ending = new AbortController();
    const blocks = serveBlocks(world, 'local', ending.signal);
    const stopBlocks = () => {
      ending.abort();
      return blocks;
    };
    const watch = await Watch.on(world.database);
    const pool = new Pool([kms, ec2, ebs, sts, iam, cloudtrail]);
    const secrets = new Map<string, Buffer>();
    const log: string[] = [];

    const targets: Target[] = [];
    for (const service of world.services)
      for (const operation of Object.values(service.operations)) {
        const name = `${service.name}:${operation.name}`;
        const example = internalInputs[name] ?? ((await everyInput[service.name]?.[operation.name]?.(world)) as Input);
        if (example) pool.learn(example);
        targets.push({ service, operation, name, example });
      }

    const user = async (UserName: string, isAllowed: boolean): Promise<Principal> => {
      const { User } = await world.call('iam', 'CreateUser', { UserName });
      if (isAllowed) await world.call('iam', 'PutUserPolicy', { UserName, PolicyName: 'p', PolicyDocument: allowAll });
      // Requests that know the other one might well allow it something.
      if (isAllowed) pool.learn({ UserName, UserId: User.UserId, Arn: User.Arn });
      return { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: UserName };
    };
    const key = (principal: Principal, audience: 'account' | 'host' = 'account'): CallerKey => ({
      accessKeyId: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`,
      secretAccessKey: randomBytes(30).toString('base64'),
      principal,
      audience,
    });
    const callers = {
      root: key(rootPrincipal(account)),
      user: key(await user('fuzzed-user', true)),
      nobody: key(await user('fuzzed-nobody', false)),
      stranger: key(rootPrincipal(otherAccount)),
      host: key(hostPrincipal(account, 'fuzzed', 'AKIAHOST'), 'host'),
    };
    for (const [who, { secretAccessKey }] of Object.entries(callers))
      secrets.set(`${who}'s secret`, Buffer.from(secretAccessKey));

    const underWay = { count: 0 };
    const execute = async (request: PipelineRequest): Promise<unknown> => {
      const { service, operation, input, principal, region, audience, cancelled } = request;
      underWay.count++;
      try {
        const output = await world.call(service.name, operation.name, input, {
          principal,
          region,
          audience,
          cancelled,
        });
        collectSecrets(secrets, `${service.name}:${operation.name}`, output);
        return output;
      } finally {
        underWay.count--;
      }
    };
    const byId = new Map(Object.values(callers).map((each) => [each.accessKeyId, each]));
    const parts = {
      services: world.services,
      clock: world.clock,
      log: pino({ level: 'error' }, { write: (line: string) => void log.push(line) }),
      credentials: {
        async find(id: string) {
          const found = byId.get(id);
          if (!found) return { problem: 'unknown' as const };
          return { ...found, secretAccessKey: Buffer.from(found.secretAccessKey) };
        },
      },
    };
    const dispatcher = new Dispatcher({ ...parts, executor: { execute } });
    const server = await createServer({
      ...parts,
      listen: { host: '127.0.0.1', port: 0 },
      pipeline: { execute },
      ready: () => true,
    });
    return new Arena({
      world,
      watch,
      host,
      stopBlocks,
      callers,
      targets,
      dispatcher,
      server,
      log,
      secrets,
      pool,
      underWay,
    });
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    await this.#host.stop();
    await this.#stopBlocks();
    await this.#server.close();
    await this.world.close();
  }

  get port(): number {
    return this.#server.address.port;
  }

  credentials(who: Who): Credentials {
    return this.#callers[who];
  }

  /** How often the host has said something. */
  get hostAnswers(): number {
    return this.#host.answers.length;
  }

  /** Lets the host do what it has to, and operations end whose clients have left, until nothing changes any more. */
  async settle(): Promise<void> {
    let quiet = 0;
    for (let last = -1; quiet < 3; ) {
      const now = (await this.watch.count()) + this.hostAnswers;
      quiet = now === last && this.#underWay.count === 0 ? quiet + 1 : 0;
      last = now;
      await new Promise((resolve) => (this.#underWay.count > 0 ? setTimeout(resolve, 2) : setImmediate(resolve)));
    }
  }

  /** One request past the socket. */
  async dispatch(wire: WireRequest, isPatient: boolean): Promise<Answer> {
    const client = new AbortController();
    const patience = isPatient ? undefined : setTimeout(() => client.abort(), patienceMs);
    let watch = new Stopwatch();
    client.signal.addEventListener('abort', () => {
      watch = new Stopwatch();
    });
    const answer = await this.#dispatcher.dispatch({
      wire,
      requestId: randomUUID(),
      sourceIp: '192.0.2.1',
      isSecure: false,
      cancelled: client.signal,
    });
    const tookMs = watch.ms;
    clearTimeout(patience);
    const { status, headers, body } = answer.response;
    return {
      status,
      headers: lowerCase(headers),
      body: Buffer.from(body as string),
      tookMs,
      wasCancelled: client.signal.aborted,
    };
  }

  /** One request through a socket. */
  async send(wire: WireRequest, isPatient: boolean): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const watch = new Stopwatch();
    const request = http.request(
      {
        agent: this.#agent,
        host: '127.0.0.1',
        port: this.port,
        method: wire.method,
        path: wire.path + (wire.query === '' ? '' : `?${wire.query}`),
        headers: { ...Object.fromEntries(wire.headers), 'content-length': String(wire.body.length) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            headers: lowerCase(response.headers as Record<string, string>),
            body: Buffer.concat(chunks),
            tookMs: watch.ms,
            wasCancelled: false,
          }),
        );
      },
    );
    let hasLeft = false;
    const patience = isPatient
      ? undefined
      : setTimeout(() => {
          hasLeft = true;
          request.destroy();
        }, patienceMs);
    request.on('error', (error) => {
      if (!hasLeft) reject(error);
      else resolve({ status: 0, headers: {}, body: Buffer.alloc(0), tookMs: 0, wasCancelled: true });
    });
    request.end(wire.body);
    return promise.finally(() => clearTimeout(patience));
  }
}

function lowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

const secretMembers = [
  ...['SecretAccessKey', 'secretAccessKey', 'SessionToken', 'sessionToken', 'Plaintext', 'PrivateKeyPlaintext'],
  ...['SharedSecret', 'BlockData'],
];
const secretsPerOperation = 4;

function collectSecrets(secrets: Map<string, Buffer>, operation: string, output: unknown): void {
  if (Array.isArray(output)) for (const item of output) collectSecrets(secrets, operation, item);
  if (!isPlain(output)) return;
  for (const [name, value] of Object.entries(output)) {
    const isSecret = secretMembers.includes(name) && (typeof value === 'string' || value instanceof Uint8Array);
    if (!isSecret) collectSecrets(secrets, operation, value);
    else if (value.length >= 16 && !new Set([Buffer.alloc(value.length).toString(), '']).has(String(value)))
      for (let number = 1; number <= secretsPerOperation; number++) {
        const title = `${name} ${number} of ${operation}`;
        if (secrets.has(title)) continue;
        // A copy: handlers' buffers are wiped.
        secrets.set(title, Buffer.from(value as string));
        break;
      }
  }
}
