// Writes blocks of a directory store: each under a temporary name, whole, and then renamed.

import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { alignedBuffer, isAligned } from './aligned.ts';
import { close, codeOf, createNew, open, renameInto, unlinkIfThere, writeFully } from './block-files.ts';
import { blockBytes } from './store.ts';

/** Blocks written at a time; more wait. Four keep a local disk busy, network file systems want some more. */
const writersMax = 8;

/** A file that is being written: its temporary name, and memory that direct I/O takes. */
interface Slot {
  readonly path: string;
  buffer?: Buffer;
}

export class BlockWriter {
  readonly #free: Slot[];
  readonly #waiting: Array<(slot: Slot) => void> = [];
  /** Past the page cache: a snapshot's blocks would only displace what volumes keep there. Linux has that. */
  #isDirect = constants.O_DIRECT !== undefined;

  /** @param directory for temporary files, on the file system of the blocks */
  constructor(directory: string) {
    const opening = randomUUID();
    this.#free = Array.from({ length: writersMax }, (_, slot) => ({ path: join(directory, `${opening}-${slot}`) }));
  }

  /** Rejects with what the file system says; then there is no file, or the one that was there. */
  async write(path: string, bytes: Buffer, signal?: AbortSignal): Promise<void> {
    const slot = await this.#take();
    try {
      signal?.throwIfAborted();
      await this.#fill(slot, bytes);
      await renameInto(slot.path, path);
    } catch (error) {
      await unlinkIfThere(slot.path);
      throw error;
    } finally {
      this.#release(slot);
    }
  }

  async #fill(slot: Slot, bytes: Buffer): Promise<void> {
    if (this.#isDirect) {
      try {
        return await writeNew(slot.path, createNew | constants.O_DIRECT, aligned(slot, bytes));
      } catch (error) {
        // Not every file system has direct I/O.
        if (codeOf(error) !== 'EINVAL') throw error;
        this.#isDirect = false;
        await unlinkIfThere(slot.path);
      }
    }
    await writeNew(slot.path, createNew, bytes);
  }

  #take(): Promise<Slot> {
    const slot = this.#free.pop();
    return slot ? Promise.resolve(slot) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  #release(slot: Slot): void {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(slot);
    else this.#free.push(slot);
  }
}

async function writeNew(path: string, flags: number, bytes: Buffer): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await writeFully(file, bytes);
  } finally {
    await close(file);
  }
}

/** The bytes themselves when direct I/O takes them as they lie. */
function aligned(slot: Slot, bytes: Buffer): Buffer {
  if (isAligned(bytes)) return bytes;
  slot.buffer ??= alignedBuffer(blockBytes);
  bytes.copy(slot.buffer);
  return slot.buffer;
}
