/** A host for tests of tasks: the real agent on a directory of its own, with a control plane that the test plays. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect } from 'vitest';
import type {
  DesiredAttachment,
  HostTask,
  InfrastructureCredentials,
  TaskResult,
  VolumeEncryption,
} from '../aws/host-protocol.ts';
import { ManifestBuilder } from '../blocks/manifest.ts';
import { openStore } from '../blocks/open-store.ts';
import { readManifest } from '../blocks/read-manifest.ts';
import { type BlockStore, blockBytes } from '../blocks/store.ts';
import { NbdClient } from '../cli/nbd-client.ts';
import { HostAgent } from './agent.ts';
import { ControlPlane } from './testing-control-plane.ts';

const account = '123456789012';
const unitBytes = 4096;

const instanceId = 'i-0123456789abcdef0';

export type TestVolume = Pick<DesiredAttachment, 'volumeId' | 'sizeBytes' | 'encryption' | 'source'>;

/** For `expect.poll`: looked at often, and given time on a busy machine. */
export const soon = { timeout: 60_000, interval: 2 };

export class TestHost {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'coffer-tasks-'));
  readonly storeLocation = join(this.dataDir, 'snapshots');
  readonly volumesDir = join(this.dataDir, 'volumes');
  readonly controlPlane = new ControlPlane();
  #agent: HostAgent | undefined;
  #running: Promise<unknown> | undefined;
  #store: BlockStore | undefined;
  #process: ChildProcess | undefined;
  #keys = 0;
  #generation = 0;

  static async start(): Promise<TestHost> {
    const host = new TestHost();
    mkdirSync(host.volumesDir);
    await host.controlPlane.listen();
    host.startAgent();
    return host;
  }

  startAgent(storeLocation = this.storeLocation): void {
    this.#agent = new HostAgent({
      hostId: 'local',
      credentials: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret' },
      region: 'us-east-1',
      zones: '*',
      dataDir: this.dataDir,
      storeLocation,
      startedAt: Date.now(),
      endpoint: () => ({ url: this.controlPlane.url }),
      onConnected: () => {},
      log: pino({ level: process.env.TEST_LOG ?? 'silent' }, pino.destination(2)),
    });
    this.#running = this.#agent.run();
  }

  async stopAgent(): Promise<void> {
    this.#agent?.stop();
    await this.#running;
    this.#agent = undefined;
  }

  /** Runs the host as a process of its own, in place of the agent in this one; resolves when it has learnt its tasks. */
  async startProcess(): Promise<void> {
    await this.stopAgent();
    const { length } = this.controlPlane.requests;
    const credentials = join(this.dataDir, 'host.credentials');
    writeFileSync(credentials, '[default]\naws_access_key_id = AKIAEXAMPLEEXAMPLE00\naws_secret_access_key = secret\n');
    const main = join(import.meta.dirname, '../cli/main.ts');
    const args = ['host', '--data', this.dataDir, '--endpoint', this.controlPlane.url, '--credentials', credentials];
    this.#process = spawn(process.execPath, [main, ...args], { stdio: 'ignore' });
    await expect.poll(() => this.controlPlane.requests.length, { ...soon, interval: 5 }).toBeGreaterThan(length);
  }

  /** Ends the process as a power cut of it alone would. */
  async kill9(): Promise<void> {
    const child = this.#process;
    if (!child) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    if (child.kill('SIGKILL')) await gone;
    this.#process = undefined;
  }

  async end(): Promise<void> {
    await this.kill9();
    await this.stopAgent();
    this.#store?.close();
    await this.controlPlane.close();
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  async store(): Promise<BlockStore> {
    return (this.#store ??= await openStore(this.storeLocation));
  }

  /** Lists tasks beside those listed already, and credentials for whatever session they may need. */
  list(...tasks: HostTask[]): void {
    const { desired } = this.controlPlane;
    const sessions = tasks.map((task) => ('snapshotId' in task ? task.snapshotId : task.volumeId));
    this.controlPlane.desire({
      tasks: [...desired.tasks, ...tasks],
      credentials: [...desired.credentials, ...sessions.map((session) => credentialsOf(session))],
    });
  }

  unlist(...taskIds: string[]): void {
    const tasks = this.controlPlane.desired.tasks.filter(({ taskId }) => !taskIds.includes(taskId));
    this.controlPlane.desire({ tasks });
  }

  result(taskId: string): TaskResult | undefined {
    return this.controlPlane.task(taskId);
  }

  /** Waits until the host reports a task so, at least. */
  async reports(taskId: string, result: Partial<TaskResult>): Promise<TaskResult> {
    let seen: TaskResult | undefined;
    // A moment later it may say something else.
    await expect.poll(() => (seen = this.result(taskId)), { ...soon, interval: 5 }).toMatchObject(result);
    return seen!;
  }

  /** Lists a task, waits until it is done, and takes it off the list again. */
  async do(task: HostTask): Promise<TaskResult> {
    this.list(task);
    const result = await this.reports(task.taskId, { state: 'done' });
    this.unlist(task.taskId);
    await expect.poll(() => this.result(task.taskId), soon).toBeUndefined();
    return result;
  }

  /** Attaches a volume, and connects. */
  async attach(volume: TestVolume): Promise<NbdClient> {
    const { volumeId } = volume;
    const { desired } = this.controlPlane;
    const device = volumeId.slice(-4);
    const generation = ++this.#generation;
    const attachment: DesiredAttachment = {
      instanceId,
      account,
      region: 'us-east-1',
      device,
      devicePath: `dev/${device}`,
      desired: 'attached',
      generation,
      force: false,
      readOnly: false,
      hasImage: existsSync(join(this.volumesDir, `${volumeId}.img`)),
      ...volume,
    };
    this.controlPlane.desire({
      instances: [{ instanceId, account, region: 'us-east-1', state: 'running' }],
      attachments: [...desired.attachments.filter((other) => other.volumeId !== volumeId), attachment],
      credentials: [...desired.credentials, credentialsOf(instanceId)],
    });
    await expect
      .poll(() => this.controlPlane.last.attachments.find((one) => one.volumeId === volumeId), {
        ...soon,
        interval: 5,
      })
      .toMatchObject({ state: 'attached', generation });
    return NbdClient.connect(this.#socket(volumeId));
  }

  /** Connects to a volume that is attached, or is about to be again after its host has died. */
  async reconnect(volumeId: string): Promise<NbdClient> {
    for (const deadline = Date.now() + soon.timeout; ; ) {
      try {
        return await NbdClient.connect(this.#socket(volumeId));
      } catch (error) {
        if (Date.now() > deadline) throw error;
        await new Promise((wake) => setTimeout(wake, 20));
      }
    }
  }

  #socket(volumeId: string): string {
    return join(this.dataDir, 'instances', instanceId, 'dev', volumeId.slice(-4));
  }

  async detach(volumeId: string): Promise<void> {
    const attachments = this.controlPlane.desired.attachments.filter((one) => one.volumeId !== volumeId);
    this.controlPlane.desire({ attachments });
    await expect
      .poll(() => this.controlPlane.last.attachments.some((one) => one.volumeId === volumeId), soon)
      .toBe(false);
  }

  /** A data key that Decrypt gives for `encryption`. */
  newKey(id: string, region = 'us-east-1'): { key: Buffer; encryption: VolumeEncryption } {
    const key = randomBytes(64);
    const encryptedDataKey = Buffer.from(`key ${++this.#keys}`).toString('base64');
    this.controlPlane.dataKeys.set(encryptedDataKey, key);
    const keyArn = `arn:aws:kms:${region}:${account}:key/${this.#keys}`;
    return { key, encryption: { keyArn, encryptedDataKey, encryptionContext: { 'aws:ebs:id': id } } };
  }

  /** Stores a snapshot as a host would have: `blocks` as they lie on disk, by index. */
  async putSnapshot(snapshotId: string, sizeBytes: number, blocks: ReadonlyMap<number, Buffer>): Promise<void> {
    const store = await this.store();
    const createdAt = new Date().toISOString();
    const builder = new ManifestBuilder({ snapshotId, volumeId: 'vol-00000000000000001', sizeBytes, createdAt });
    for (const [index, bytes] of [...blocks].sort(([one], [other]) => one - other)) {
      builder.append(index, hash('sha256', bytes, 'buffer'));
      await store.putBlock({ owner: snapshotId, index }, bytes);
    }
    await store.putManifest(snapshotId, builder.finish());
  }

  /** A snapshot's blocks as they are stored, verified; undefined when there is no such snapshot. */
  async readSnapshot(snapshotId: string): Promise<Map<number, Buffer> | undefined> {
    const store = await this.store();
    const manifest = await readManifest(store, snapshotId);
    if (!manifest) return undefined;
    const blocks = new Map<number, Buffer>();
    for (const entry of manifest.entries()) {
      const bytes = Buffer.alloc(blockBytes);
      await store.getBlock(entry, entry.sha256, bytes);
      blocks.set(entry.index, bytes);
    }
    return blocks;
  }

  /** The snapshots that own blocks in the store, with the indexes of these. */
  async storedBlocks(): Promise<Record<string, number[]>> {
    const stored: Record<string, number[]> = {};
    for await (const { owner, index } of (await this.store()).listBlocks()) (stored[owner] ??= []).push(index);
    for (const indexes of Object.values(stored)) indexes.sort((one, other) => one - other);
    return stored;
  }
}

export function credentialsOf(sessionName: string): InfrastructureCredentials {
  return {
    sessionName,
    account,
    region: 'us-east-1',
    accessKeyId: `ASIA${sessionName.replaceAll('-', '').toUpperCase()}`,
    secretAccessKey: 'secret',
    sessionToken: 'token',
    expiration: new Date(Date.now() + 3_600_000).toISOString(),
  };
}

/** What blocks are, in a form that is quick to compare: the hash of each. */
export function digests(blocks: ReadonlyMap<number, Buffer> | undefined): Record<number, string> | undefined {
  if (!blocks) return undefined;
  return Object.fromEntries([...blocks].map(([index, bytes]) => [index, hash('sha256', bytes, 'hex')]));
}

/** AES-256-XTS of a whole block on Node's own ciphers, unit by unit: what the host's fast path is compared with. */
export function xtsBlock(direction: 'encrypt' | 'decrypt', key: Buffer, index: number, bytes: Buffer): Buffer {
  const create = direction === 'encrypt' ? createCipheriv : createDecipheriv;
  const out = Buffer.alloc(bytes.length);
  for (let unit = 0; unit < bytes.length / unitBytes; unit++) {
    const part = bytes.subarray(unit * unitBytes, (unit + 1) * unitBytes);
    if (part.every((byte) => byte === 0)) continue;
    const iv = Buffer.alloc(16);
    iv.writeBigUInt64LE(BigInt(index * (blockBytes / unitBytes) + unit));
    create('aes-256-xts', key, iv)
      .update(part)
      .copy(out, unit * unitBytes);
  }
  return out;
}
