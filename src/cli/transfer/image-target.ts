/** Disk images as something to write blocks to: a raw or qcow2 file that appears under its name when it is whole. */
import { closeSync, existsSync, fsyncSync, openSync, renameSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncDirectory } from '../../files/durable.ts';
import type { ImageFormat } from './image-source.ts';
import { onFile } from './local-files.ts';
import { createImage, QemuImage } from './qemu.ts';

export interface ImageTarget {
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Resolves when what was written before is on stable storage. */
  flush(): Promise<void>;
  /** Gives the image its name. */
  finish(): Promise<void>;
  /** Leaves it unfinished, to go on later. */
  close(): Promise<void>;
}

/** What an image is called until it is whole. */
export const partialPath = (path: string) => `${path}.partial`;

/** @param goesOn whether the partial image of an earlier attempt is taken up */
export async function openTarget(
  path: string,
  format: ImageFormat,
  sizeBytes: number,
  options: { readonly goesOn: boolean; readonly width: number },
): Promise<ImageTarget> {
  const partial = partialPath(path);
  const isThere = options.goesOn && existsSync(partial);
  const target = await onFile(partial, 'written', () => openPartial(path, format, sizeBytes, { ...options, isThere }));
  return {
    write: (offset, data) => onFile(partial, 'written', () => target.write(offset, data)),
    flush: () => onFile(partial, 'written', () => target.flush()),
    finish: () => onFile(path, 'written', () => target.finish()),
    close: () => target.close(),
  };
}

async function openPartial(
  path: string,
  format: ImageFormat,
  sizeBytes: number,
  options: { readonly isThere: boolean; readonly width: number },
): Promise<ImageTarget> {
  const partial = partialPath(path);
  const { isThere } = options;
  if (format === 'raw') {
    const file = await open(partial, isThere ? 'r+' : 'w', 0o600);
    await file.truncate(sizeBytes);
    return rawTarget(file, path, sizeBytes);
  }
  if (!isThere) await createImage(partial, format, sizeBytes);
  const image = await QemuImage.open(partial, format, { writable: true, connections: Math.min(4, options.width) });
  let isOpen = true;
  const close = async () => {
    if (isOpen) await image.close();
    isOpen = false;
  };
  return {
    // The last block of a snapshot may reach beyond an image whose size is no multiple of a block.
    write: (offset, data) => image.write(offset, data.subarray(0, Math.min(data.length, sizeBytes - offset))),
    flush: () => image.flush(),
    async finish() {
      await image.flush();
      await close();
      nameIt(path);
    },
    close,
  };
}

function rawTarget(file: FileHandle, path: string, sizeBytes: number): ImageTarget {
  return {
    async write(offset, data) {
      const bytes = data.subarray(0, Math.min(data.length, sizeBytes - offset));
      let done = 0;
      while (done < bytes.length) {
        const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
        done += bytesWritten;
      }
    },
    flush: () => file.datasync(),
    async finish() {
      await file.sync();
      await file.close();
      nameIt(path);
    },
    close: () => file.close(),
  };
}

function nameIt(path: string): void {
  const fd = openSync(partialPath(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(partialPath(path), path);
  syncDirectory(dirname(path));
}
