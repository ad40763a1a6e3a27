/**
 * The control plane without its HTTP server: all the services, the real pipeline and a database in memory. The clock is
 * the test's, and so is the host: what a host would send and get is written out, message by message.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Principal } from '../../src/aws/call.ts';
import { ManualClock } from '../../src/aws/clock.ts';
import type {
  HostTask,
  ObservedAttachment,
  SyncRequest,
  SyncResponse,
  TaskResult,
} from '../../src/aws/host-protocol.ts';
import type { Service } from '../../src/aws/service.ts';
import { Signals } from '../../src/aws/signals.ts';
import { RootKey } from '../../src/crypto/root-key.ts';
import { migrate } from '../../src/database/migrations.ts';
import { SqliteDatabase } from '../../src/database/sqlite.ts';
import type { BusEvent } from '../../src/events/bus-event.ts';
import { Pipeline } from '../../src/gateway/pipeline.ts';
import { createServices } from '../../src/gateway/services.ts';
import { ensureAdministrator } from '../../src/iam/accounts.ts';
import { hostPrincipal, infrastructurePrincipal, rootPrincipal } from '../../src/iam/principals.ts';

export const account = '123456789012';
export const otherAccount = '210987654321';
export const zone = 'us-east-1a';

export interface Caller {
  readonly principal?: Principal;
  readonly region?: string;
  readonly audience?: 'account' | 'host';
  readonly cancelled?: AbortSignal;
}

export class World {
  readonly clock = new ManualClock(Date.UTC(2026, 7, 1, 12));
  readonly database: SqliteDatabase;
  readonly #rootKey = new RootKey(randomBytes(32));
  #services: readonly Service[] = [];
  #pipeline!: Pipeline;

  private constructor(path: string) {
    this.database = new SqliteDatabase(path);
    this.restart();
  }

  static async create(path = ':memory:'): Promise<World> {
    const world = new World(path);
    await world.database.run(async (db) => {
      await migrate(
        db,
        world.#services.flatMap((service) => service.migrations),
      );
      await ensureAdministrator(db, world.#rootKey, world.clock.now(), { given: undefined, makeKey: true });
    });
    return world;
  }

  /** As if the process had died and started again: everything that was only in memory is gone. */
  restart(): void {
    this.#services = createServices({ rootKey: this.#rootKey, database: this.database, forgetCredentials: () => {} });
    this.#pipeline = new Pipeline({
      database: this.database,
      services: this.#services,
      clock: this.clock,
      signals: new Signals(),
    });
  }

  get services(): readonly Service[] {
    return this.#services;
  }

  async close(): Promise<void> {
    await this.database.close();
  }

  // biome-ignore lint/suspicious/noExplicitAny: any operation's output.
  async call(serviceName: string, operationName: string, input: object = {}, caller: Caller = {}): Promise<any> {
    const service = this.#services.find(({ name }) => name === serviceName)!;
    const operation = service.operations[operationName];
    if (!operation) throw new Error(`${serviceName} has no ${operationName}`);
    return this.#pipeline.execute({
      service,
      operation,
      input,
      principal: caller.principal ?? rootPrincipal(account),
      audience: caller.audience ?? 'account',
      region: caller.region ?? 'us-east-1',
      sourceIp: '192.0.2.1',
      isSecure: false,
      userAgent: 'test',
      requestId: randomUUID(),
      cancelled: caller.cancelled ?? new AbortController().signal,
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: any operation's output.
  ec2(operation: string, input: object = {}, caller: Caller = {}): Promise<any> {
    return this.call('ec2', operation, input, caller);
  }

  // biome-ignore lint/suspicious/noExplicitAny: any operation's output.
  kms(operation: string, input: object = {}, caller: Caller = {}): Promise<any> {
    return this.call('kms', operation, input, caller);
  }

  async housekeeping(): Promise<void> {
    for (const service of this.#services)
      await this.#pipeline.housekeeping(service, 'us-east-1', new AbortController().signal);
  }

  /** The events on the bus so far, oldest first; of one detail-type when it is named. */
  async events(detailType?: string): Promise<BusEvent[]> {
    const rows = await this.database.run((db) => db.selectFrom('bus_events').selectAll().orderBy('seq').execute());
    const events = rows.map((row) => JSON.parse((row as { document: string }).document) as BusEvent);
    return events.filter((event) => !detailType || event['detail-type'] === detailType);
  }

  /** The trail's documents so far, oldest first. */
  // biome-ignore lint/suspicious/noExplicitAny: CloudTrail's own JSON.
  async trail(eventName?: string): Promise<any[]> {
    const rows = await this.database.run((db) => db.selectFrom('trail_events').selectAll().orderBy('seq').execute());
    const records = rows.map((row) => JSON.parse((row as { document: string }).document));
    return records.filter((record) => !eventName || record.eventName === eventName);
  }
}

/** A caller in another account, or as the host's role for one instance. */
export const stranger: Caller = { principal: rootPrincipal(otherAccount) };
export const infrastructure = (instanceId: string): Caller => ({
  principal: infrastructurePrincipal(account, 'us-east-1', instanceId),
});

/** A task that is done, a snapshot with two blocks of data. */
export function done(task: HostTask): Omit<TaskResult, 'taskId'> {
  const isSnapshot = task.kind === 'createSnapshot' || task.kind === 'copySnapshot';
  return {
    state: 'done',
    ...(isSnapshot ? { outcome: { blocks: 2, fullBytes: 1_048_576, storedBytes: 524_288 } } : {}),
  };
}

/** A snapshot's point in time is fixed, and its blocks are being copied. */
export const half = { state: 'running', marked: true, progress: 50 } as const;

/** A host in the test's hands: it does what answers desire, unless told to fail or to sit still. */
export class FakeHost {
  readonly #world: World;
  readonly #request: {
    hostId: string;
    sessionId: string;
    startedAt: number;
    zones: readonly string[] | '*';
    blockStoreId?: string;
  };
  #sequence = 0;
  #held = new Map<string, ObservedAttachment>();
  #instances: string[] = [];
  #tasks: SyncRequest['tasks'] = [];
  #running: Promise<void> | undefined;
  #nudge: Promise<unknown> | undefined;
  #stop = new AbortController();
  /** What opening a volume ends in, when not in success. */
  fail: { code: string; message: string } | undefined;
  #perform: (task: HostTask) => Omit<TaskResult, 'taskId'> | undefined = done;
  #credentials: SyncRequest['credentials'] = [];
  /** The size that it says an open volume has; undefined: it says none. */
  sizeOf: (volumeId: string) => number | undefined = () => undefined;
  /** Every answer, newest last. */
  readonly answers: SyncResponse[] = [];

  constructor(
    world: World,
    options: {
      hostId?: string;
      zones?: readonly string[] | '*';
      startedAt?: number;
      blockStoreId?: string | null;
    } = {},
  ) {
    this.#world = world;
    this.#request = {
      hostId: options.hostId ?? 'local',
      sessionId: randomUUID(),
      startedAt: options.startedAt ?? world.clock.now(),
      zones: options.zones ?? '*',
      ...(options.blockStoreId === null ? {} : { blockStoreId: options.blockStoreId ?? 'store-1' }),
    };
  }

  /** One Sync with what the host has now, or with what the test wants it to say. */
  async sync(overrides: Partial<SyncRequest> = {}): Promise<SyncResponse> {
    const answer: SyncResponse = await this.#world.call(
      'coffer-host',
      'Sync',
      {
        ...this.#request,
        sequence: ++this.#sequence,
        dataDir: '/srv/coffer',
        hostVersion: 'test',
        blockStore: { location: '/srv/coffer/snapshots' },
        attachments: [...this.#held.values()],
        instances: this.#instances,
        tasks: this.#tasks,
        credentials: this.#credentials,
        ...overrides,
      },
      {
        principal: hostPrincipal(account, this.#request.hostId, 'AKIAHOST'),
        audience: 'host',
        cancelled: this.#stop.signal,
      },
    );
    this.answers.push(answer);
    this.#credentials = [
      ...this.#credentials.filter((held) => !answer.credentials.some((one) => one.sessionName === held.sessionName)),
      ...answer.credentials.map(({ sessionName, expiration }) => ({ sessionName, expiration })),
    ];
    return answer;
  }

  /** Does what an answer desires; true when there is something new to report. */
  obey(answer: SyncResponse): boolean {
    const before = JSON.stringify([[...this.#held.values()], this.#tasks]);
    const held = new Map<string, ObservedAttachment>();
    for (const { volumeId, instanceId, device, generation, desired } of answer.attachments) {
      const state = desired === 'detached' ? 'detached' : this.fail ? 'failed' : 'attached';
      held.set(`${volumeId} ${instanceId}`, {
        volumeId,
        instanceId,
        device,
        generation,
        state,
        ...(state === 'failed' ? { error: this.fail } : {}),
        ...(this.sizeOf(volumeId) === undefined ? {} : { sizeBytes: this.sizeOf(volumeId) }),
      });
    }
    this.#held = held;
    this.#instances = answer.instances.map((instance) => instance.instanceId);
    this.#tasks = answer.tasks.flatMap((task) => {
      const result = this.#perform(task);
      return result ? [{ taskId: task.taskId, ...result }] : [];
    });
    return JSON.stringify([[...held.values()], this.#tasks]) !== before;
  }

  /** What becomes of a task, when not that it is done at once; undefined: nothing yet. */
  set perform(perform: (task: HostTask) => Omit<TaskResult, 'taskId'> | undefined) {
    this.#perform = perform;
    // Ends the waiting of the request that is under way, so that it looks again.
    if (this.#running) this.#nudge = this.sync({ tasks: this.#tasks });
  }

  /** What it says of its tasks at the moment. */
  get tasks(): SyncRequest['tasks'] {
    return this.#tasks;
  }

  /** Syncs, does and reports until nothing is left to do. */
  async catchUp(): Promise<void> {
    while (this.obey(await this.sync()));
  }

  /** Goes on in the background, like a real one, until `stop`. */
  start(): this {
    this.#running = (async () => {
      let sinceVersion: string | undefined;
      while (!this.#stop.signal.aborted) {
        const answer = await this.sync(sinceVersion === undefined ? {} : { sinceVersion });
        sinceVersion = this.obey(answer) ? undefined : answer.version;
      }
    })();
    return this;
  }

  /** Resolves when a host at work in the background has done and said everything, and waits. */
  async idle(): Promise<void> {
    // An answer takes a few turns of the event loop, however long these are.
    for (let heard = -1; heard !== this.answers.length; ) {
      heard = this.answers.length;
      for (let turn = 0; turn < 30; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#running, this.#nudge]);
    this.#stop = new AbortController();
    this.#running = undefined;
  }
}
