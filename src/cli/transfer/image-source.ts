/** Disk images as something to read blocks from: a raw file, a qcow2 file, or standard input. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { libc, seekData } from '../../blocks/libc.ts';
import { blockBytes } from '../../blocks/store.ts';
import { CommandError, exitCodes } from '../errors.ts';
import { imageInfo, imageMap, QemuImage } from './qemu.ts';

export type ImageFormat = 'raw' | 'qcow2';

/** One block that may hold data; the last one of an image is filled up with zeros. */
export interface SourceBlock {
  readonly index: number;
  readonly data: Buffer;
}

export interface ImageSource {
  /** Undefined for standard input, whose end is not known before it comes. */
  readonly sizeBytes: number | undefined;
  /** What must be the same for a transfer to go on later; undefined for what can't be read again. */
  readonly identity: { readonly path: string; readonly sizeBytes: number; readonly modifiedMs: number } | undefined;
  /** The indexes of blocks that may hold data, in order, with a way to read each; holes are left out. */
  blocks(): AsyncIterable<{ readonly index: number; read(): Promise<Buffer> }>;
  close(): Promise<void>;
}

const qcow2Magic = Buffer.from('QFI\xfb', 'latin1');
const zeros = Buffer.alloc(blockBytes);

export function isZeroBlock(data: Buffer): boolean {
  return data[0] === 0 && data.equals(zeros);
}

/** @param format as the user named it, or undefined: qcow2 by its first bytes, else raw */
export async function openSource(path: string, format: ImageFormat | undefined, width: number): Promise<ImageSource> {
  if (path === '-') {
    if (format === 'qcow2')
      throw new CommandError('a qcow2 image can only be read from a file, not from standard input', exitCodes.usage);
    return streamSource(process.stdin);
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new CommandError(`${path} is a directory`, exitCodes.usage);
  const actual = format ?? guessFormat(path);
  return actual === 'raw' ? rawSource(path) : qcow2Source(path, width);
}

/** Why a file can't be opened, in words. */
function unreadable(path: string, error: unknown): CommandError {
  const { code } = error as NodeJS.ErrnoException;
  return new CommandError(
    code === 'ENOENT' ? `there is no ${path}` : `${path} can't be read: ${code}`,
    exitCodes.usage,
  );
}

function guessFormat(path: string): ImageFormat {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    const head = Buffer.alloc(qcow2Magic.length);
    readSync(fd, head, 0, head.length, 0);
    return head.equals(qcow2Magic) ? 'qcow2' : 'raw';
  } finally {
    closeSync(fd);
  }
}

async function rawSource(path: string): Promise<ImageSource> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY);
  } catch (error) {
    throw unreadable(path, error);
  }
  const { size: fileSize, mtimeMs } = fstatSync(file.fd);
  // A block device says its size only by where it ends.
  const seekEnd = 2;
  const sizeBytes = fileSize || Math.max(0, libc().lseek(file.fd, 0, seekEnd));
  return {
    sizeBytes,
    identity: { path, sizeBytes, modifiedMs: mtimeMs },
    async *blocks() {
      const count = Math.ceil(sizeBytes / blockBytes);
      for (let index = 0; index < count; index++) {
        const data = libc().lseek(file.fd, index * blockBytes, seekData);
        // Beyond the last data; a file system that knows no holes answers where it was asked.
        if (data < 0) return;
        index = Math.max(index, Math.floor(data / blockBytes));
        const at = index;
        yield {
          index: at,
          read: () => readWhole(file, at * blockBytes, Math.min(blockBytes, sizeBytes - at * blockBytes)),
        };
      }
    },
    close: () => file.close(),
  };
}

async function readWhole(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const block = Buffer.alloc(blockBytes);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(block, done, length - done, offset + done);
    if (bytesRead === 0) throw new CommandError('the image became shorter while it was read');
    done += bytesRead;
  }
  return block;
}

async function qcow2Source(path: string, width: number): Promise<ImageSource> {
  await imageInfo(path, 'qcow2');
  const extents = await imageMap(path, 'qcow2');
  const fd = openSync(path, 'r');
  const { size, mtimeMs } = fstatSync(fd);
  closeSync(fd);
  const image = await QemuImage.open(path, 'qcow2', { writable: false, connections: Math.min(4, width) });
  const { sizeBytes } = image;
  return {
    sizeBytes,
    identity: { path, sizeBytes: size, modifiedMs: mtimeMs },
    async *blocks() {
      let last = -1;
      for (const { start, length, data, zero } of extents) {
        if (!data || zero) continue;
        const end = Math.ceil((start + length) / blockBytes);
        for (let index = Math.max(last + 1, Math.floor(start / blockBytes)); index < end; index++) {
          last = index;
          const offset = index * blockBytes;
          yield {
            index,
            async read() {
              const bytes = await image.read(offset, Math.min(blockBytes, sizeBytes - offset));
              return bytes.length === blockBytes ? bytes : Buffer.concat([bytes], blockBytes);
            },
          };
        }
      }
    },
    close: () => image.close(),
  };
}

function streamSource(stream: NodeJS.ReadStream): ImageSource {
  return {
    sizeBytes: undefined,
    identity: undefined,
    async *blocks() {
      let block = Buffer.alloc(blockBytes);
      let filled = 0;
      let index = 0;
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        let taken = 0;
        while (taken < chunk.length) {
          const count = Math.min(chunk.length - taken, blockBytes - filled);
          chunk.copy(block, filled, taken, taken + count);
          filled += count;
          taken += count;
          if (filled < blockBytes) continue;
          const data = block;
          yield { index: index++, read: async () => data };
          block = Buffer.alloc(blockBytes);
          filled = 0;
        }
      }
      if (filled > 0) yield { index, read: async () => block };
    },
    async close() {
      stream.destroy();
    },
  };
}
