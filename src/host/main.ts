/**
 * The host as a process: one per data directory, told apart by a lock that ends with it. Logs to stderr as JSON lines.
 */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pino } from 'pino';
import type { ClientCredentials, Endpoint } from '../aws/signed-client.ts';
import { writePrivateFile } from '../files/durable.ts';
import { HostAgent } from './agent.ts';
import { hostFiles, supersededExitCode } from './host-files.ts';
import { endStart, forbidDumps, type ProcessLock, tryLock } from './process.ts';
import { storeLocation } from './store-note.ts';

export interface HostProcessOptions {
  readonly dataDir: string;
  readonly hostId: string;
  readonly credentials: ClientCredentials;
  readonly region: string;
  readonly zones: readonly string[] | '*';
  readonly endpoint: () => Endpoint;
  /** Of the block store: a directory or `s3://bucket/prefix`; default `snapshots` in the data directory. */
  readonly storeLocation?: string;
}

/** Another host process serves this data directory. */
export class HostIsRunning extends Error {}

/** How long a new host waits for the lock: the process it follows may be ending, or a server may be looking. */
const lockWaitMs = 2_000;
const lockStepMs = 50;

/**
 * Runs a host until SIGTERM or SIGINT, or until another process takes its place. Resolves when all volumes are flushed and
 * closed.
 * @throws {HostIsRunning}
 */
export async function runHost(options: HostProcessOptions): Promise<void> {
  forbidDumps();
  process.umask(0o077);
  // Before the first use of them: reading, writing and syncing of all volumes and of the mover share these threads.
  process.env.UV_THREADPOOL_SIZE ??= '16';
  const dataDir = resolve(options.dataDir);
  mkdirSync(join(dataDir, 'volumes'), { recursive: true, mode: 0o700 });
  chmodSync(join(dataDir, 'volumes'), 0o700);
  const files = hostFiles(dataDir);
  const lock = await waitForLock(files.lock);
  if (!lock) throw new HostIsRunning(`another host serves ${dataDir}; stop it, or choose another --data directory`);
  writeFileSync(files.pid, `${process.pid}\n`, { mode: 0o600 });

  const destination = pino.destination({ dest: 2, sync: true });
  // Whoever read our log has gone: that is no reason to stop serving volumes.
  destination.on('error', () => {});
  const log = pino({ name: 'coffer-host', base: { pid: process.pid } }, destination);
  const agent = new HostAgent({
    ...options,
    dataDir,
    storeLocation: storeLocation(options.storeLocation, dataDir),
    startedAt: nextStart(files.started),
    log,
    onConnected() {
      writeFileSync(files.synced, `${new Date().toISOString()}\n`, { mode: 0o600 });
      endStart();
    },
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => agent.stop());
  process.on('SIGHUP', () => agent.tryNow());
  log.info({ hostId: options.hostId, dataDir }, 'host started');
  const end = await agent.run();
  log.info({ end }, 'host ended');
  rmSync(files.pid, { force: true });
  lock.release();
  if (end === 'superseded') process.exitCode = supersededExitCode;
}

/** The time of this start; after a clock that went back, a moment after the start before. */
function nextStart(path: string): number {
  let last = 0;
  try {
    last = Number(readFileSync(path, 'utf8')) || 0;
  } catch {
    // The first start.
  }
  const startedAt = Math.max(Date.now(), last + 1);
  // Whole or not at all: a host killed over an empty file would start before itself, and be turned away for good.
  writePrivateFile(path, `${startedAt}\n`, 'replace');
  return startedAt;
}

async function waitForLock(path: string): Promise<ProcessLock | undefined> {
  const deadline = Date.now() + lockWaitMs;
  for (;;) {
    const lock = tryLock(path);
    if (lock || Date.now() > deadline) return lock;
    await new Promise((wake) => setTimeout(wake, lockStepMs));
  }
}
