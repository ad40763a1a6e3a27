// The file operations of the directory store. All run in Node's thread pool: a slow disk holds up nobody else.

import fs, { constants } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { StoreError, type StoreErrorCode } from './store.ts';

export const open = promisify(fs.open);
export const close = promisify(fs.close);
export const fsync = promisify(fs.fsync);
export const rename = promisify(fs.rename);
export const link = promisify(fs.link);
export const readdir = promisify(fs.readdir) as (path: string) => Promise<string[]>;
export const stat = promisify(fs.stat);
const unlink = promisify(fs.unlink);
const rmdir = promisify(fs.rmdir);
const mkdir = promisify(fs.mkdir);

export const createNew = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY;
/** The kernel takes less than 2 GiB at once, and a signal is seen between pieces. */
const pieceBytes = 64 * 1024 * 1024;

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** Opens a file for reading, with further `flags`; undefined when there is none. */
export async function openOrUndefined(path: string, flags = 0): Promise<number | undefined> {
  try {
    return await open(path, constants.O_RDONLY | flags);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export async function isOpenable(path: string): Promise<boolean> {
  const file = await openOrUndefined(path);
  if (file !== undefined) await close(file);
  return file !== undefined;
}

/** Reads from the file's start until `bytes` is full or the file ends; how many bytes that were. */
export async function readFully(file: number, bytes: Buffer, signal?: AbortSignal): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    signal?.throwIfAborted();
    const count = await transfer(fs.read, file, bytes, done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Reads from the file's start, perhaps less than there is; how many bytes that were. */
export function readOnce(file: number, bytes: Buffer): Promise<number> {
  return transfer(fs.read, file, bytes, 0);
}

/** Writes all of `bytes` at the file's start. */
export async function writeFully(file: number, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += await transfer(fs.write, file, bytes, done);
}

/** `fs.read` and `fs.write` with a callback: an object less per block than their promises make. */
function transfer(
  operation: typeof fs.read | typeof fs.write,
  file: number,
  bytes: Buffer,
  offset: number,
): Promise<number> {
  const length = Math.min(pieceBytes, bytes.length - offset);
  return new Promise((resolve, reject) => {
    (operation as typeof fs.read)(file, bytes, offset, length, offset, (error, count) =>
      error ? reject(error) : resolve(count),
    );
  });
}

/** Renames, and makes the directory for it when that is missing: or gone, because it was just found empty and removed. */
export async function renameInto(from: string, to: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await rename(from, to);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || attempt > 3) throw error;
      await makeDirectories(dirname(to));
    }
  }
}

/** The directory and the one that it is in, not those above: a store that is gone must not be begun anew in its place. */
export async function makeDirectories(path: string): Promise<void> {
  for (const directory of [dirname(path), path]) {
    try {
      await mkdir(directory, { mode: 0o700 });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  }
}

/** Whether it was there. */
export async function unlinkIfThere(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return false;
  }
}

export async function removeIfEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const code = codeOf(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

/** Puts a file and its length, or a directory's entries, on stable storage. */
export async function syncPath(path: string): Promise<void> {
  const file = await open(path, constants.O_RDONLY);
  try {
    await fsync(file);
  } finally {
    await close(file);
  }
}

const storeErrorCodes: Readonly<Record<string, StoreErrorCode>> = {
  ENOSPC: 'Full',
  EDQUOT: 'Full',
  EFBIG: 'Full',
  EACCES: 'Denied',
  EPERM: 'Denied',
  EROFS: 'Denied',
};

/** What the file system says as a StoreError whose message begins with `what`; any other error as it is. */
export function asStoreError(error: unknown, what: string, location: string): unknown {
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (error instanceof StoreError || code === undefined || syscall === undefined) return error;
  // `EIO: i/o error, open '/…'`: the file is the operator's.
  const why = message.replace(/, .*$/s, '');
  const detail = `${location}: ${message}`;
  return new StoreError(storeErrorCodes[code] ?? 'Unavailable', `${what}: ${why}`, { cause: error, detail });
}
