/** What goes wrong with files of this machine, in words: beside errors of the server it must not look like one of those. */
import { getSystemErrorName } from 'node:util';
import { CommandError } from '../errors.ts';
import { NbdError } from '../nbd-client.ts';

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'its file system has no files so large',
  EISDIR: 'it is a directory',
  ENOENT: 'there is no such file or directory',
  ENOSPC: 'no space is left on its disk',
  ENOTDIR: 'a part of its path is not a directory',
  EROFS: 'its file system is read-only',
};

/**
 * Does `work` on the file `path`.
 * @param what becomes of it: `read`, `written`
 * @throws {CommandError} instead of a system's error
 */
export async function onFile<T>(path: string, what: 'read' | 'written', work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const { message, errno } = error as NodeJS.ErrnoException;
    const code = error instanceof NbdError ? getSystemErrorName(-errno!) : (error as NodeJS.ErrnoException).code;
    if (typeof code !== 'string') throw error;
    throw new CommandError(`${path} can't be ${what}: ${reasons[code] ?? message}`, undefined, { cause: error });
  }
}
