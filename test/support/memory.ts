/** Looking into the memory of another process (as root), for secrets that should have been wiped. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { isZero } from './files.ts';

const stepBytes = 4 * 1024 * 1024;

/** A copy of all memory that a process can read, piece by piece. */
export function* memoryOf(pid: number): Generator<Buffer> {
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const range = /^([0-9a-f]+)-([0-9a-f]+) r.*?(\[v.*\])?$/.exec(line);
      // The kernel's own pages ([vvar] …) can't be read, and file mappings are code.
      if (!range || range[3]) continue;
      const [start, end] = [BigInt(`0x${range[1]}`), BigInt(`0x${range[2]}`)];
      for (let at = start; at < end; at += BigInt(stepBytes)) {
        const length = Number(end - at < stepBytes ? end - at : BigInt(stepBytes));
        const piece = Buffer.alloc(length);
        try {
          const read = piece.subarray(0, readSync(memory, piece, 0, length, at));
          if (!isZero(read)) yield read;
        } catch (error) {
          // A mapping that went away in the meantime.
          if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error;
        }
      }
    }
  } finally {
    closeSync(memory);
  }
}

/** Which of `needles` are in the process's memory. */
export function findInMemory(pid: number, needles: ReadonlyMap<string, Buffer>): string[] {
  const found = new Set<string>();
  for (const piece of memoryOf(pid)) {
    for (const [name, needle] of needles) if (piece.includes(needle)) found.add(name);
  }
  return [...found];
}
