/** Disk images as something to read blocks from: a raw file, a qcow2 file, or standard input. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { libc, seekData } from '../../blocks/libc.ts';
import { blockBytes } from '../../blocks/store.ts';
import { CommandError, exitCodes } from '../errors.ts';
import { onFile } from './local-files.ts';
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
  /** Looks at how it begins, where that was not done at once. @throws {CommandError} when it is no raw image */
  begin?(): Promise<void>;
  /** The indexes of blocks that may hold data, in order, with a way to read each; holes are left out. */
  blocks(): AsyncIterable<{ readonly index: number; read(): Promise<Buffer> }>;
  close(): Promise<void>;
}

const headBytes = 8;
/** How images begin that are not what they hold. */
const magics: ReadonlyArray<readonly [magic: string, format: string]> = [
  ['QFI\xfb', 'qcow2'],
  ['KDMV', 'vmdk'],
  ['vhdxfile', 'vhdx'],
  ['conectix', 'vpc'],
  ['\x1f\x8b', 'gzip'],
  ['\xfd7zXZ\0', 'xz'],
  ['\x28\xb5\x2f\xfd', 'zstd'],
  ['BZh', 'bzip2'],
];
const compressed = new Set(['gzip', 'xz', 'zstd', 'bzip2']);
const zeros = Buffer.alloc(blockBytes);

function formatOf(head: Buffer): string {
  const text = head.toString('latin1');
  return magics.find(([magic]) => text.startsWith(magic))?.[1] ?? 'raw';
}

/** A disk full of what is no disk is noticed too late. */
function notAnImage(path: string, format: string): CommandError {
  const how = compressed.has(format)
    ? `unpack it first: ${format} -dc … | coffer snapshot import - --size GIB`
    : `convert it first: qemu-img convert -f ${format} -O qcow2 … disk.qcow2`;
  const what = compressed.has(format) ? 'a compressed file' : 'an image of another format';
  return new CommandError(
    `${path} begins as ${what} (${format}); ${how}; or take it as it is with --format raw`,
    exitCodes.usage,
  );
}

export function isZeroBlock(data: Buffer): boolean {
  return data[0] === 0 && data.equals(zeros);
}

/** @param format as the user named it, or undefined: qcow2 by its first bytes, else raw */
export async function openSource(path: string, format: ImageFormat | undefined, width: number): Promise<ImageSource> {
  if (path === '-') {
    if (format === 'qcow2')
      throw new CommandError('a qcow2 image can only be read from a file, not from standard input', exitCodes.usage);
    return streamSource(process.stdin, format);
  }
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isDirectory()) throw new CommandError(`${path} is a directory`, exitCodes.usage);
  if (there && !there.isFile() && !there.isBlockDevice())
    throw new CommandError(
      `${path} is neither a file nor a block device; read it with -, standard input`,
      exitCodes.usage,
    );
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
    const head = Buffer.alloc(headBytes);
    const length = readSync(fd, head, 0, head.length, 0);
    const format = formatOf(head.subarray(0, length));
    if (format !== 'raw' && format !== 'qcow2') throw notAnImage(path, format);
    return format;
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
          read: () =>
            onFile(path, 'read', () =>
              readWhole(file, at * blockBytes, Math.min(blockBytes, sizeBytes - at * blockBytes)),
            ),
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
  const extents = await imageMap(path, 'qcow2', await imageInfo(path, 'qcow2'));
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
              const length = Math.min(blockBytes, sizeBytes - offset);
              const bytes = await onFile(path, 'read', () => image.read(offset, length));
              return bytes.length === blockBytes ? bytes : Buffer.concat([bytes], blockBytes);
            },
          };
        }
      }
    },
    close: () => image.close(),
  };
}

function streamSource(stream: NodeJS.ReadStream, format: ImageFormat | undefined): ImageSource {
  const rest = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const first: Buffer[] = [];
  async function* chunks(): AsyncGenerator<Buffer> {
    yield* first;
    for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
  }
  return {
    sizeBytes: undefined,
    identity: undefined,
    async begin() {
      let length = 0;
      while (length < headBytes) {
        const next = await rest.next();
        if (next.done) break;
        first.push(next.value);
        length += next.value.length;
      }
      const found = format === 'raw' ? 'raw' : formatOf(Buffer.concat(first).subarray(0, headBytes));
      if (found === 'qcow2')
        throw new CommandError(
          'standard input begins as a qcow2 image, which can only be read from a file; or take it as it is with --format raw',
          exitCodes.usage,
        );
      if (found !== 'raw') throw notAnImage('standard input', found);
    },
    async *blocks() {
      let block = Buffer.alloc(blockBytes);
      let filled = 0;
      let index = 0;
      for await (const chunk of chunks()) {
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
