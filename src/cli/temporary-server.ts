/** A server in a directory of its own that is gone afterwards, for `coffer demo`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandError, exitCodes } from './errors.ts';

const readyTimeoutMs = 60_000;
const stopTimeoutMs = 10_000;

export interface TemporaryServer {
  readonly dataDir: string;
  stop(): Promise<void>;
}

/** @throws {CommandError} when it doesn't get ready; with what it printed */
export async function startTemporaryServer(): Promise<TemporaryServer> {
  const dataDir = mkdtempSync(join(tmpdir(), 'coffer-demo-'));
  const main = join(import.meta.dirname, 'main.ts');
  const args = ['--disable-warning=ExperimentalWarning', main, 'serve', '--data', dataDir, '--listen', '127.0.0.1:0'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const look = (chunk: Buffer) => {
    output += chunk;
    if (/^coffer is ready on /m.test(output)) resolve();
  };
  child.stdout.on('data', look);
  child.stderr.on('data', look);
  child.once('exit', () => reject(new Error('it ended')));
  const timer = setTimeout(() => reject(new Error('it took too long')), readyTimeoutMs);
  const server = { dataDir, stop: () => stop(child, dataDir) };
  try {
    await promise;
    return server;
  } catch (error) {
    await server.stop();
    throw new CommandError(
      `the demo's server did not start: ${(error as Error).message}\n${output.trim()}`,
      exitCodes.unavailable,
    );
  } finally {
    clearTimeout(timer);
  }
}

async function stop(child: ChildProcess, dataDir: string): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
    await gone;
    clearTimeout(timer);
  }
  rmSync(dataDir, { recursive: true, force: true });
}
