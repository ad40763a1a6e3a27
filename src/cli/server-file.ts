/**
 * `DIR/server.json`: where the server of a data directory listens. `coffer serve` writes it, the host beside it and the
 * commands with `--data` read it.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Endpoint } from '../aws/signed-client.ts';
import { CommandError, exitCodes } from './errors.ts';

export const defaultDataDir = 'coffer-data';

export function serverFile(dataDir: string): string {
  return join(dataDir, 'server.json');
}

export function writeServerFile(dataDir: string, endpoint: Endpoint): void {
  const path = serverFile(dataDir);
  writeFileSync(`${path}.new`, `${JSON.stringify(endpoint)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** @throws {CommandError} when no server has ever run on this data directory */
export function readServerFile(dataDir: string): Endpoint {
  const path = serverFile(resolve(dataDir));
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new CommandError(
      code === 'ENOENT'
        ? `no server has been started on ${resolve(dataDir)}; start one with: coffer serve --data ${dataDir}   (or name one with --endpoint)`
        : `${path} can't be read (${code}); run as the user that runs the server`,
      exitCodes.unavailable,
    );
  }
  try {
    return JSON.parse(text) as Endpoint;
  } catch {
    throw new CommandError(`${path} is damaged; start the server again to have it written anew`, exitCodes.unavailable);
  }
}
