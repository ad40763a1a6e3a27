/**
 * The host's side of the protocol (docs/host-protocol.md): tells the control plane all that it has, learns all that it shall
 * have, and acts on the difference. While the control plane is away everything that is open stays open.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { isAwsError } from '../aws/errors.ts';
import { type DesiredAttachment, type SyncRequest, type SyncResponse, syncWaitMaxMs } from '../aws/host-protocol.ts';
import { type ClientCredentials, type Endpoint, SignedClient, version } from '../aws/signed-client.ts';
import { StoreError } from '../blocks/store.ts';
import { Attachment } from './attachment.ts';
import { DataKeys } from './data-keys.ts';
import { runBlockChannel } from './direct/channel.ts';
import { Uploads } from './direct/uploads.ts';
import { HeldInfrastructureCredentials } from './infrastructure-credentials.ts';
import { InstanceDirectories } from './instances.ts';
import type { StoreStatus } from './movers/jobs.ts';
import { Mover } from './movers/mover.ts';
import { type OpenAttachment, openAttachment } from './open-attachment.ts';
import { pause } from './pause.ts';
import { openRightStore, SharedStore } from './right-store.ts';
import { readStoreNote, writeStoreNote } from './store-note.ts';
import { HostTasks } from './tasks.ts';
import { imagePath, volumeIdForm } from './volume-files.ts';
import { createOpenVolumes, type OpenVolumes } from './volumes.ts';

export interface HostAgentOptions {
  readonly hostId: string;
  readonly credentials: ClientCredentials;
  readonly region: string;
  readonly zones: readonly string[] | '*';
  /** Absolute. */
  readonly dataDir: string;
  /** Of the block store, where snapshots are: a directory (absolute) or `s3://bucket/prefix`. */
  readonly storeLocation: string;
  /** Later than that of any process before on this data directory, ms since the epoch. */
  readonly startedAt: number;
  /** Asked again whenever the control plane can't be reached: it may have come back elsewhere. */
  readonly endpoint: () => Endpoint;
  /** The control plane has answered, for the first time or after it was away. */
  readonly onConnected: () => void;
  readonly log: Logger;
}

const retryFirstMs = 200;
const retryMaxMs = 5_000;
/** Below what `coffer serve` waits for its host. */
const storeWaitMs = 5_000;
/** Above the wait of the control plane, so that a silent connection is noticed soon after. */
const syncTimeoutMs = syncWaitMaxMs + 10_000;

export class HostAgent {
  readonly #options: HostAgentOptions;
  readonly #sessionId = randomUUID();
  readonly #storeIsTold = Promise.withResolvers<void>();
  readonly #instances: InstanceDirectories;
  readonly #credentials = new HeldInfrastructureCredentials();
  readonly #keys: DataKeys;
  readonly #mover: Mover;
  /** For the blocks that clients read and write; the mover's thread has its own. */
  readonly #store: SharedStore;
  readonly #uploads: Uploads;
  readonly #tasks: HostTasks;
  readonly #volumesDir: string;
  readonly #volumes: OpenVolumes;
  readonly #attachments = new Map<string, Attachment>();
  readonly #stopping = new AbortController();
  #client: SignedClient;
  #sequence = 0;
  #answeredSequence = 0;
  #failures = 0;
  #isConnected = false;
  #hurry = new AbortController();
  #version: string | undefined;
  /** Something waits for credentials: the next answer must not wait. */
  #asksForCredentials = false;
  /** Resolves when there is something to report that the request on its way doesn't say. */
  #news = Promise.withResolvers<void>();
  /** Wakes those who wait for credentials: an answer has come. */
  #answered = Promise.withResolvers<void>();

  constructor(options: HostAgentOptions) {
    this.#options = options;
    this.#client = new SignedClient(options.endpoint());
    this.#instances = new InstanceDirectories(options.dataDir);
    this.#keys = new DataKeys({
      client: () => this.#client,
      credentials: this.#credentials,
      askForCredentials: () => this.#askForCredentials(),
    });
    const { dataDir, storeLocation, log } = options;
    this.#volumesDir = join(dataDir, 'volumes');
    this.#volumes = createOpenVolumes({ log });
    this.#mover = new Mover({
      storeLocation,
      storeId: readStoreNote(dataDir)?.storeId,
      onStore: (status) => this.#noteStore(status),
      volumeRequests: () => this.#volumes.requests,
    });
    this.#store = new SharedStore(async () => {
      const known = this.#mover.storeId;
      if (known === undefined)
        throw new StoreError('Unavailable', 'there is no block store yet', { detail: storeLocation });
      return openRightStore(storeLocation, known);
    });
    this.#uploads = new Uploads(join(dataDir, 'uploads'), this.#store.get);
    this.#tasks = new HostTasks(
      {
        volumesDir: this.#volumesDir,
        tasksDir: join(dataDir, 'tasks'),
        storeLocation,
        storeId: () => this.#mover.storeId,
        volumes: this.#volumes,
        mover: this.#mover,
        uploads: this.#uploads,
        dataKey: (encryption, sessionName, signal) => this.#keys.get(encryption, sessionName, signal),
        log,
      },
      () => this.#tell(),
    );
  }

  /**
   * Serves until `stop` is called or another process takes this host's place; then everything is closed.
   * @returns why it ended
   */
  async run(): Promise<'stopped' | 'superseded'> {
    let superseded = false;
    this.#mover.start();
    await this.#firstStore();
    const { hostId, credentials, region, log } = this.#options;
    const blockChannel = runBlockChannel(
      {
        hostId,
        sessionId: this.#sessionId,
        credentials,
        region,
        uploads: this.#uploads,
        store: this.#store.get,
        client: () => this.#client,
        log,
      },
      this.#stopping.signal,
    );
    while (!this.#stopping.signal.aborted && !superseded) {
      this.#news = Promise.withResolvers();
      const news = this.#news.promise;
      const round = this.#sync().then(
        () => this.#recovered(),
        async (error) => {
          if (isAwsError(error, 'HostSuperseded')) superseded = true;
          else await this.#pauseAfter(error);
        },
      );
      // News don't wait for the answer that is due: the next request goes out beside it.
      await (this.#failures > 0 ? round : Promise.race([round, news]));
    }
    this.#stopping.abort();
    const attachments = [...this.#attachments.values()];
    await Promise.all([blockChannel, this.#tasks.end(), ...attachments.map((attachment) => attachment.end())]);
    this.#uploads.close();
    this.#store.close();
    await this.#mover.close();
    this.#client.close();
    return superseded ? 'superseded' : 'stopped';
  }

  /** Lets `run` come to its end: volumes are flushed and closed, keys wiped. */
  stop(): void {
    this.#stopping.abort();
    this.#news.resolve();
  }

  /** Ends a pause between two attempts to reach the control plane. */
  tryNow(): void {
    this.#hurry.abort();
  }

  #tell(): void {
    for (const [name, attachment] of this.#attachments) if (attachment.isOver) this.#attachments.delete(name);
    this.#forgetCredentials();
    this.#news.resolve();
  }

  #askForCredentials(): Promise<void> {
    this.#asksForCredentials = true;
    this.#tell();
    return this.#answered.promise;
  }

  async #sync(): Promise<void> {
    const sequence = ++this.#sequence;
    const asks = this.#asksForCredentials;
    this.#asksForCredentials = false;
    const request: SyncRequest = {
      hostId: this.#options.hostId,
      sessionId: this.#sessionId,
      startedAt: this.#options.startedAt,
      sequence,
      zones: this.#options.zones,
      dataDir: this.#options.dataDir,
      hostVersion: version,
      attachments: [...this.#attachments.values()].map((one) => one.observed).filter((one) => one !== undefined),
      instances: this.#instances.list(),
      tasks: this.#tasks.results(),
      ...this.#blockStore(),
      credentials: this.#credentials.list(),
      ...(this.#version === undefined || asks ? {} : { sinceVersion: this.#version }),
    };
    const answer = await this.#client.send<SyncResponse>({
      service: 'coffer-host',
      target: 'CofferHost.Sync',
      region: this.#options.region,
      credentials: this.#options.credentials,
      body: request,
      timeoutMs: syncTimeoutMs,
      signal: this.#stopping.signal,
    });
    if (sequence <= this.#answeredSequence) return;
    this.#answeredSequence = sequence;
    this.#apply(answer);
  }

  #apply(answer: SyncResponse): void {
    this.#version = answer.version;
    this.#credentials.take(answer.credentials);
    const answered = this.#answered;
    this.#answered = Promise.withResolvers();
    answered.resolve();

    const desired = new Map<string, DesiredAttachment>(
      answer.attachments
        .filter((one) => volumeIdForm.test(one.volumeId))
        .map((one) => [`${one.volumeId} ${one.instanceId}`, one]),
    );
    this.#instances.reconcile(answer.instances, this.#instancesInUse());
    // First: points in time are fixed before a volume of the same answer is opened.
    this.#tasks.apply(answer.tasks);
    for (const [name, one] of desired) {
      let attachment = this.#attachments.get(name);
      if (!attachment) {
        attachment = new Attachment(one, {
          open: (desired, signal) => this.#open(desired, signal),
          news: () => this.#tell(),
          log: this.#options.log,
        });
        this.#attachments.set(name, attachment);
      }
      attachment.desire(one);
    }
    for (const [name, attachment] of this.#attachments) if (!desired.has(name)) attachment.desire(undefined);
    this.#forgetCredentials();
  }

  async #open(desired: DesiredAttachment, signal: AbortSignal): Promise<OpenAttachment> {
    const { volumeId } = desired;
    const world = {
      volumes: this.#volumes,
      imagePath: imagePath(this.#volumesDir, volumeId),
      socketPath: this.#instances.socketPath(desired),
      storeLocation: this.#options.storeLocation,
      storeId: this.#mover.storeId,
      dataKey: this.#keys.get.bind(this.#keys),
    };
    await this.#tasks.marksTried(volumeId);
    return openAttachment(desired, world, signal);
  }

  #blockStore(): Pick<SyncRequest, 'blockStore' | 'blockStoreId'> {
    const { storeId, error } = this.#mover.store;
    const { storeLocation: location } = this.#options;
    return {
      ...(storeId === undefined ? {} : { blockStoreId: storeId }),
      blockStore: { location, ...(error === undefined ? {} : { error }) },
    };
  }

  /**
   * A new installation has no block store until this host has made one: that is part of its first report, so that snapshots
   * work from then on. A store that takes its time is not waited for.
   */
  async #firstStore(): Promise<void> {
    if (this.#mover.storeId !== undefined) return;
    const late = pause(storeWaitMs, this.#stopping.signal).catch(() => {});
    await Promise.race([this.#storeIsTold.promise, late]);
  }

  #noteStore({ storeId, error }: StoreStatus): void {
    this.#storeIsTold.resolve();
    const { storeLocation, dataDir } = this.#options;
    if (storeId !== undefined) writeStoreNote(dataDir, { location: storeLocation, storeId });
    if (error === undefined) this.#options.log.info({ storeLocation, storeId }, 'block store is there');
    else this.#options.log.warn({ storeLocation, error }, 'block store can not be used');
    this.#tell();
  }

  #forgetCredentials(): void {
    const waiting = [...this.#attachments.values()].filter((attachment) => attachment.needsCredentials);
    this.#credentials.keepOnly(
      new Set([...waiting.map((attachment) => attachment.instanceId), ...this.#tasks.sessions()]),
    );
  }

  #instancesInUse(): Set<string> {
    const open = [...this.#attachments.values()].filter((attachment) => attachment.isOpen);
    return new Set(open.map((attachment) => attachment.instanceId));
  }

  #recovered(): void {
    if (this.#isConnected && this.#failures === 0) return;
    this.#isConnected = true;
    this.#options.onConnected();
    if (this.#failures > 0) this.#options.log.info({ endpoint: this.#client.endpoint.url }, 'control plane is back');
    this.#failures = 0;
  }

  async #pauseAfter(error: unknown): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    if (this.#failures++ === 0)
      this.#options.log.warn({ error: (error as Error).message }, 'no answer from the control plane; going on without');
    const pauseMs = Math.min(retryFirstMs * 2 ** (this.#failures - 1), retryMaxMs);
    this.#hurry = new AbortController();
    const hurry = AbortSignal.any([this.#stopping.signal, this.#hurry.signal]);
    await pause(pauseMs * (0.5 + Math.random() / 2), hurry).catch(() => {});
    this.#version = undefined;
    this.#findServer();
  }

  #findServer(): void {
    try {
      const endpoint = this.#options.endpoint();
      const old = this.#client;
      this.#client = new SignedClient(endpoint);
      old.close();
    } catch (error) {
      this.#options.log.warn({ error: (error as Error).message }, 'where the control plane is could not be read');
    }
  }
}
