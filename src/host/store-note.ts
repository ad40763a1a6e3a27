/**
 * `DIR/host.store`: which block store this host used last. A directory that is empty because its file system is not mounted,
 * or because `--store` was forgotten, must not become a new store, in which every snapshot would be missing. A store may be
 * moved: it is known by its id.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { writePrivateFile } from '../files/durable.ts';

export interface StoreNote {
  readonly location: string;
  readonly storeId: string;
}

/** The location that `--store` means: a directory, absolute, or `s3://…`; without it `snapshots` in the data directory. */
export function storeLocation(given: string | undefined, dataDir: string): string {
  if (given === undefined) return join(resolve(dataDir), 'snapshots');
  return given.startsWith('s3://') ? given : resolve(given);
}

/** Undefined when there is none, or none that can be read. */
export function readStoreNote(dataDir: string): StoreNote | undefined {
  try {
    return JSON.parse(readFileSync(notePath(dataDir), 'utf8')) as StoreNote;
  } catch {
    return undefined;
  }
}

export function writeStoreNote(dataDir: string, note: StoreNote): void {
  writePrivateFile(notePath(dataDir), `${JSON.stringify(note)}\n`, 'replace');
}

const notePath = (dataDir: string) => join(dataDir, 'host.store');
