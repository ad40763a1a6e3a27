/**
 * A Coffer server of a test's own: `coffer serve` as a child process on a free port, with a data directory that is gone
 * when the test is. Everything goes through the front door: the aws CLI, the SDKs, boto3.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Credentials, parseCredentials } from '../../src/cli/credentials-file.ts';
import { Client, cleanEnvironment } from './client.ts';

const root = join(import.meta.dirname, '../..');
export const coffer = join(root, 'bin/coffer');
const readyTimeoutMs = 120_000;
/** More than a server gives its host to flush and close its volumes. */
const endTimeoutMs = 60_000;

export interface ServerOptions {
  /** An existing data directory; default a new one, removed by `stop`. */
  readonly dataDir?: string;
  /** Further arguments of `coffer serve` (`--no-host`). */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The administrator's key, where `env` chooses it; default the one in the data directory. */
  readonly administrator?: Credentials;
}

export type Part = 'control plane' | 'host' | 'both';

export class TestServer extends Client {
  readonly dataDir: string;
  /** What the server and its host have printed so far. */
  output = '';
  #child: ChildProcess;
  readonly #options: ServerOptions;
  readonly #ownsDataDir: boolean;

  private constructor(
    child: ChildProcess,
    output: string,
    dataDir: string,
    endpoint: string,
    credentials: Credentials,
    options: ServerOptions,
  ) {
    super(endpoint, credentials);
    this.#child = child;
    this.output = output;
    this.dataDir = dataDir;
    this.#options = options;
    this.#ownsDataDir = options.dataDir === undefined;
    this.#collect();
  }

  /** Starts a server and resolves when it says that it is ready. */
  static async start(options: ServerOptions = {}): Promise<TestServer> {
    const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'coffer-'));
    const { child, endpoint, output } = await serve(dataDir, '127.0.0.1:0', options);
    const credentials =
      options.administrator ?? parseCredentials(readFileSync(join(dataDir, 'admin.credentials'), 'utf8'));
    return new TestServer(child, output, dataDir, endpoint, credentials, options);
  }

  get controlPlanePid(): number {
    return this.#child.pid!;
  }

  /** The process id of the host that runs beside the server, or undefined when there is none. */
  get hostPid(): number | undefined {
    const file = join(this.dataDir, 'host.pid');
    const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
    return pid > 0 && isAlive(pid) ? pid : undefined;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Ends a part, or both, as a power cut would: SIGKILL, and waits until it is gone. */
  async kill9(part: Part = 'both'): Promise<void> {
    const pids = [
      ...(part !== 'control plane' && this.hostPid ? [this.hostPid] : []),
      ...(part !== 'host' ? [this.controlPlanePid] : []),
    ];
    for (const pid of pids) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    await until(() => pids.every((pid) => !isAlive(pid)), 'the killed processes to be gone');
  }

  /** Starts the control plane again on the same data and the same address, after `kill9`. */
  async restart(): Promise<void> {
    const { child, output } = await serve(this.dataDir, new URL(this.endpoint).host, this.#options);
    this.#child = child;
    this.output += output;
    this.#collect();
  }

  /** Asks the server to end, waits until it and its host have, and removes a data directory of its own. */
  async stop(): Promise<void> {
    const hosts = new Set([this.hostPid]);
    if (this.isRunning) {
      const gone = new Promise((resolve) => this.#child.once('exit', resolve));
      this.#child.kill('SIGTERM');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), endTimeoutMs);
      await gone;
      clearTimeout(timer);
    }
    // A server that was told to end has ended its host, which may be at its last step; one that was killed has left it.
    for (const host of hosts.add(this.hostPid)) if (host !== undefined) await endHost(host);
    if (this.#ownsDataDir) rmSync(this.dataDir, { recursive: true, force: true });
  }

  /** Stops reading what the server prints, as a terminal or a log reader that is gone. */
  closeOutput(): void {
    this.#child.stdout!.destroy();
    this.#child.stderr!.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #collect(): void {
    const add = (chunk: Buffer) => {
      this.output += chunk;
    };
    this.#child.stdout!.on('data', add);
    this.#child.stderr!.on('data', add);
  }
}

/** Starts a server; see {@link TestServer.start}. */
export const startServer = TestServer.start;

async function serve(dataDir: string, listen: string, options: ServerOptions) {
  const child = spawn(coffer, ['serve', '--data', dataDir, '--listen', listen, ...(options.args ?? [])], {
    env: { ...cleanEnvironment(), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const timer = setTimeout(
    () => reject(new Error(`no 'coffer is ready' within ${readyTimeoutMs / 1000} s:\n${output}`)),
    readyTimeoutMs,
  );
  const look = (chunk: Buffer) => {
    output += chunk;
    const ready = /^coffer is ready on (https?:\/\/\S+)$/m.exec(output);
    if (ready) resolve(ready[1]!);
  };
  child.stdout.on('data', look);
  child.stderr.on('data', look);
  child.once('exit', (code, signal) => reject(new Error(`coffer serve ended (${signal ?? code}):\n${output}`)));
  child.once('error', reject);
  try {
    return { child, endpoint: await promise, output };
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
    child.stdout.off('data', look);
    child.stderr.off('data', look);
  }
}

async function endHost(pid: number): Promise<void> {
  const isGone = () => !isAlive(pid);
  await until(isGone, 'the host to end', 3_000).catch(() => !isGone() && process.kill(pid, 'SIGKILL'));
  await until(isGone, 'the host to be gone');
}

/** Whether a process exists and is not a zombie. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Waits until `condition` holds, looking every 20 ms; fails after `timeoutMs` naming `what`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
