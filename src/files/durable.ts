/** Small files and directory entries that must survive a crash. */
import { closeSync, constants, fsyncSync, linkSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { threadId } from 'node:worker_threads';

/** Makes the entries of a directory durable: what was made, renamed or removed in it. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/**
 * Writes a file that only its owner may read (0600). It appears whole and durable, or not at all.
 * @param ifPresent `replace` takes the place of a file that is there; `keep` leaves that one alone, also when another
 *   process makes it at the same moment
 */
export function writePrivateFile(path: string, content: Uint8Array | string, ifPresent: 'replace' | 'keep'): void {
  // Threads of a process may write the same file at the same moment, too.
  const fresh = `${path}.${process.pid}-${threadId}.new`;
  try {
    writeNew(fresh, content);
    if (ifPresent === 'replace') renameSync(fresh, path);
    else linkSync(fresh, path);
  } catch (error) {
    if (ifPresent === 'replace' || (error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    // Another name of the file by now, or what there is of one that could not be written.
    rmSync(fresh, { force: true });
  }
  syncDirectory(dirname(path));
}

function writeNew(path: string, content: Uint8Array | string): void {
  const file = openSync(path, 'w', 0o600);
  try {
    if (typeof content === 'string') writeSync(file, content);
    else writeSync(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
