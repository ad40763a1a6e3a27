// Reads whole blocks of a directory store.

import { constants } from 'node:fs';
import { isAligned } from './aligned.ts';
import { close, codeOf, openOrUndefined, readFully, readOnce } from './block-files.ts';

export class BlockReader {
  /** Past the page cache: a snapshot's blocks are read once, and would displace what volumes keep there. Linux has that. */
  #isDirect = constants.O_DIRECT !== undefined;

  /** Fills `bytes` with the file's start; how much it has of them. Undefined: there is no such file. */
  async read(path: string, bytes: Buffer): Promise<number | undefined> {
    if (this.#isDirect && isAligned(bytes)) {
      try {
        const length = await readFile(path, constants.O_DIRECT, (file) => readOnce(file, bytes));
        if (length === undefined || length === bytes.length) return length;
      } catch (error) {
        // Not every file system has direct I/O.
        if (codeOf(error) !== 'EINVAL') throw error;
        this.#isDirect = false;
      }
    }
    return readFile(path, 0, (file) => readFully(file, bytes));
  }
}

async function readFile(
  path: string,
  flags: number,
  read: (file: number) => Promise<number>,
): Promise<number | undefined> {
  const file = await openOrUndefined(path, flags);
  if (file === undefined) return undefined;
  try {
    return await read(file);
  } finally {
    await close(file);
  }
}
