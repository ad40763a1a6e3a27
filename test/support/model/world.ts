/**
 * The real server that the model is compared with, and the model: what there is, and what each volume and snapshot shall
 * read.
 */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EBSClient } from '@aws-sdk/client-ebs';
import { EC2Client } from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { type Client, run } from '../client.ts';
import { Random } from '../fuzz/random.ts';
import { coffer, type Part, startServer, type TestServer } from '../server.ts';
import { bucketStore, directoryStore, type ModelStore } from './block-stores.ts';
import { ChangeLog } from './change-log.ts';
import { Connection, Disconnected } from './connection.ts';
import type { Contents } from './contents.ts';

export const gib = 1024 ** 3;
/** Where things are: at home, in another region, or in another account of the first one's region. */
export type Place = 'home' | 'abroad' | 'neighbour';
export const places: Readonly<Record<Place, { readonly region: string; readonly zone: string }>> = {
  home: { region: 'us-east-1', zone: 'us-east-1a' },
  abroad: { region: 'eu-west-1', zone: 'eu-west-1a' },
  neighbour: { region: 'us-east-1', zone: 'us-east-1a' },
};
export const allPlaces = Object.keys(places) as Place[];
export const areOneAccount = (one: Place, other: Place) => (one === 'neighbour') === (other === 'neighbour');
export const areOneRegion = (one: Place, other: Place) => places[one].region === places[other].region;
const homeAccount = '123456789012';

export interface Attached {
  readonly instanceId: string;
  readonly device: string;
  /** The volume ends with the instance. */
  readonly deletesVolume?: boolean;
  connection: Connection | undefined;
}

export interface ModelVolume {
  readonly id: string;
  readonly place: Place;
  readonly contents: Contents;
  /** ARN; undefined: not encrypted. */
  readonly key: string | undefined;
  readonly isShared: boolean;
  /** Blocks around which it is written. */
  readonly hot: number[];
  attached: Attached[];
  modifications: number;
}

export interface ModelSnapshot {
  readonly id: string;
  readonly volumeId: string | undefined;
  readonly place: Place;
  readonly contents: Contents;
  readonly key: string | undefined;
  /** Blocks that volumes made of it go on writing around. */
  readonly hot: readonly number[];
  isCompleted: boolean;
}

/** A snapshot that is written from outside. */
export interface ModelUpload {
  readonly id: string;
  readonly parentId: string | undefined;
  readonly place: Place;
  readonly contents: Contents;
  readonly key: string | undefined;
  readonly digests: Map<number, string>;
  /** Blocks of which nobody knows what they are, or whether they were written: something was killed. */
  readonly unsure: Set<number>;
  /** It was to be completed, and perhaps is. */
  isCompleting: boolean;
}

export interface ModelInstance {
  readonly id: string;
  readonly place: Place;
  isRunning: boolean;
}

/** An error that says that something is not there at the moment, as after a kill. */
const transient =
  /No host|not connected|could not fix the point in time|ECONNRESET|ECONNREFUSED|EPIPE|socket hang up|no host|Try again/i;

export class ModelWorld {
  readonly server: TestServer;
  readonly store: ModelStore;
  readonly random: Random;
  readonly seed: number;
  readonly volumes = new Map<string, ModelVolume>();
  readonly snapshots = new Map<string, ModelSnapshot>();
  readonly uploads = new Map<string, ModelUpload>();
  instances: ModelInstance[] = [];
  /** ARNs, all of which both accounts may use. */
  readonly keys: Readonly<Record<Place, string[]>> = { home: [], abroad: [], neighbour: [] };
  neighbourAccount = '';
  /** Keys that are disabled now. */
  readonly disabled = new Set<string>();
  steps = 0;
  writes = 0;
  readonly changes = new ChangeLog<ModelVolume>();
  readonly counts = new Map<string, number>();
  readonly #history: string[] = [];
  readonly #log = process.env.COFFER_MODEL_LOG;
  #neighbour: Client | undefined;
  #clients = new Map<string, unknown>();
  #killedAt = 0;
  #isDown = false;
  /** Something is about to be killed: calls that fail then are not repeated. */
  isKilling = false;
  /** Several steps are under way, which may get in each other's way. */
  isTogether = false;
  /** The block store can't be reached, or some of what was asked for meanwhile has not been answered yet. */
  isWithoutStore = false;

  private constructor(server: TestServer, store: ModelStore, seed: number) {
    this.server = server;
    this.store = store;
    this.seed = seed;
    this.random = new Random(seed);
  }

  static async create(seed: number): Promise<ModelWorld> {
    const dataDir = mkdtempSync(join(process.env.COFFER_MODEL_DIR ?? tmpdir(), 'coffer-model-'));
    const store = process.env.COFFER_MODEL_STORE === 's3' ? await bucketStore() : directoryStore(dataDir);
    const world = new ModelWorld(await startServer({ dataDir, args: store.args, env: store.env }), store, seed);
    await world.#makeNeighbour();
    for (const place of ['home', 'home', 'home', 'abroad', 'neighbour'] as const) await world.#makeKey(place);
    return world;
  }

  async #makeNeighbour(): Promise<void> {
    const { stdout } = await run(coffer, ['account', 'create', '--name', 'neighbour', '--data', this.server.dataDir]);
    const { Account, AccessKeyId, SecretAccessKey } = JSON.parse(stdout);
    this.neighbourAccount = Account;
    this.#neighbour = this.server.as({ accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey });
  }

  async #makeKey(place: Place): Promise<void> {
    const roots = [homeAccount, this.neighbourAccount].map((account) => `arn:aws:iam::${account}:root`);
    const statement = { Effect: 'Allow', Principal: { AWS: roots }, Action: 'kms:*', Resource: '*' };
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] });
    const { KeyMetadata } = await this.kms(place).send(new CreateKeyCommand({ Policy }));
    this.keys[place].push(KeyMetadata!.Arn!);
  }

  account(place: Place): string {
    return place === 'neighbour' ? this.neighbourAccount : homeAccount;
  }

  ec2(place: Place): EC2Client {
    return this.#client(EC2Client, place);
  }

  ebs(place: Place): EBSClient {
    return this.#client(EBSClient, place);
  }

  kms(place: Place): KMSClient {
    return this.#client(KMSClient, place);
  }

  #client<T>(ClientClass: new (configuration: never) => T, place: Place): T {
    const name = `${ClientClass.name} ${place}`;
    const known = this.#clients.get(name) as T | undefined;
    if (known) return known;
    const client = place === 'neighbour' ? this.#neighbour! : this.server;
    const made = client.sdk(ClientClass as never, { region: places[place].region }) as T;
    this.#clients.set(name, made);
    return made;
  }

  /** Notes what is being done, for the report of a failure. */
  note(text: string): void {
    const line = `${this.steps} ${text}`;
    this.#history.push(line);
    if (this.#history.length > 120) this.#history.shift();
    if (this.#log) appendFileSync(this.#log, `${new Date().toISOString()} ${line}\n`);
  }

  count(kind: string, steps = 1): void {
    this.steps += steps;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + steps);
  }

  get history(): string {
    return this.#history.join('\n');
  }

  /** The last lines of the host's log. */
  get hostLog(): string {
    const path = join(this.server.dataDir, 'host.log');
    return existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n').slice(-40).join('\n') : '';
  }

  /** Repeats a call that fails only because something was killed a moment ago, or the block store is away. */
  async retried<T>(call: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        const { message, name } = error as Error;
        const isOfKill =
          !this.isKilling && Date.now() - this.#killedAt < 60_000 && transient.test(`${name} ${message}`);
        const isOfStore = this.isWithoutStore && /InternalServerException/.test(name);
        if (!isOfKill && !isOfStore) throw error;
        if (this.#history.at(-1) !== `${this.steps} again, after: ${message}`) this.note(`again, after: ${message}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  async kill(part: Part): Promise<void> {
    this.note(`kill -9 of ${part}`);
    await this.server.kill9(part);
    this.#killedAt = Date.now();
    if (part !== 'host') this.#isDown = true;
    if (part !== 'control plane') this.dropConnections();
  }

  /** Ends everything in order: volumes are closed, work that is under way is set aside. */
  async stop(): Promise<void> {
    this.note('stop in order');
    await this.server.stop();
    this.#isDown = true;
    this.dropConnections();
  }

  /** Until it is back and `isWithoutStore` is false, much fails. */
  removeStore(): void {
    this.isWithoutStore = true;
    this.note(`the block store ${this.store.goAway(this.random)}`);
  }

  returnStore(): void {
    this.note('the block store is back');
    this.store.comeBack();
  }

  async restart(): Promise<void> {
    if (!this.#isDown) return;
    this.#isDown = false;
    this.#clients = new Map();
    await this.server.restart();
    this.#killedAt = Date.now();
  }

  /** Ends the server, and removes its data unless they are to be kept. */
  async end(): Promise<void> {
    await this.server.stop();
    await this.store.end();
    if (!process.env.COFFER_MODEL_KEEP) rmSync(this.server.dataDir, { recursive: true, force: true });
  }

  dropConnections(): void {
    for (const { attached } of this.volumes.values()) {
      for (const one of attached) {
        one.connection?.close();
        one.connection = undefined;
      }
    }
  }

  socketPath({ instanceId, device }: Attached): string {
    return join(this.server.dataDir, 'instances', instanceId, device);
  }

  isRunning({ instanceId }: Attached): boolean {
    return this.instances.some(({ id, isRunning }) => id === instanceId && isRunning);
  }

  isAttached(attached: Attached): boolean {
    return this.isRunning(attached) && [...this.volumes.values()].some((volume) => volume.attached.includes(attached));
  }

  /** Attachments through which the volume can be used now, or soon: while its key is disabled those that are open. */
  usable(volume: ModelVolume): Attached[] {
    return volume.attached.filter(
      (one) => this.isRunning(one) && (one.connection?.isOpen || !volume.key || !this.disabled.has(volume.key)),
    );
  }

  /** The connection of an attachment, made when there is none. */
  async connection(attached: Attached): Promise<Connection> {
    if (attached.connection?.isOpen) return attached.connection;
    const path = this.socketPath(attached);
    const deadline = Date.now() + 75_000;
    for (;;) {
      try {
        if (existsSync(path)) return (attached.connection = await Connection.open(path));
      } catch {
        // Left behind by a killed process, or about to go.
      }
      // Detached meanwhile, or stopped.
      if (!this.isAttached(attached)) throw new Disconnected(`${path} is gone`);
      if (Date.now() > deadline) throw new Error(`${path} takes no connection`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  nextWrite(): number {
    return ++this.writes;
  }
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Looks every now and then until it is so. */
export async function waitFor(what: string, isSo: () => Promise<boolean>, timeoutMs = 90_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`);
    await pause(15);
  }
}
