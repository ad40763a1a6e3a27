// The files that hold volumes: made, checked, locked and removed here. What their bytes mean is in docs/volume-image.md.
//
// An image appears under its name complete or not at all: it is made beside it, with its full (sparse) size, and linked
// into place, and the directory is synced. So after a crash there is at most a leftover `….new`, which the next attempt
// replaces.

import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory } from '../files/durable.ts';
import { libc, lockExclusive, lockNonBlocking, lockShared } from './libc.ts';

/** Image sizes are whole data units, so that no unit is cut short. */
const sizeStepBytes = 4096;

export type ImageErrorCode =
  | 'ImageInUse'
  | 'ImageMissing'
  | 'ImageSizeMismatch'
  | 'ImageExists'
  /** The image is there, but not the map that says which blocks it lacks. */
  | 'MapMissing'
  /** The image lacks blocks of a snapshot, and nobody said of which. */
  | 'SourceMissing';

/** Why an image can't be used. */
export class ImageError extends Error {
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string) {
    super(message);
    this.name = 'ImageError';
    this.code = code;
  }
}

/** An open, locked image. Closing the descriptor (or the end of the process, however it ends) releases the lock. */
export interface OpenImage {
  readonly fd: number;
  readonly sizeBytes: number;
  close(): void;
}

/**
 * Makes a sparse image of `sizeBytes`, mode 0600, durably: when it returns, the image survives a crash. Makes the
 * directory (0700) if need be. Throws ImageError `ImageExists`, or what the file system says.
 */
export function createVolumeImage(path: string, sizeBytes: number): void {
  checkSize(sizeBytes);
  const directory = dirname(path);
  const made = mkdirSync(directory, { recursive: true, mode: 0o700 });
  // What was made is an entry of the directory above it, which has to survive, too.
  if (made !== undefined) syncDirectory(dirname(made));
  const fresh = `${path}.new`;
  rmSync(fresh, { force: true });
  const fd = openSync(fresh, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
  try {
    ftruncateSync(fd, sizeBytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  try {
    linkSync(fresh, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new ImageError('ImageExists', `the volume image ${path} exists already`);
  } finally {
    unlinkSync(fresh);
  }
  syncDirectory(directory);
}

/** Makes the image unless it is there. One that is there with another size is an ImageError `ImageSizeMismatch`. */
export function ensureVolumeImage(path: string, sizeBytes: number): void {
  try {
    createVolumeImage(path, sizeBytes);
  } catch (error) {
    if (!(error instanceof ImageError) || error.code !== 'ImageExists') throw error;
    const fd = openSync(path, constants.O_RDONLY);
    try {
      checkImageSize(path, fd, sizeBytes);
    } finally {
      closeSync(fd);
    }
  }
}

/** Removes an image durably. Does nothing when it is gone already; throws ImageError `ImageInUse` when it is attached. */
export function deleteVolumeImage(path: string): void {
  rmSync(`${path}.new`, { force: true });
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    lock(path, fd, lockExclusive);
    unlinkSync(path);
    syncDirectory(dirname(path));
  } finally {
    closeSync(fd);
  }
}

/**
 * Opens an image and locks it: one writer, or any number of readers. The lock (flock) belongs to this open file, so it
 * also keeps out a second opening in this process and another host on the same machine, and it goes with the process
 * that holds it. Throws ImageError `ImageMissing`, `ImageInUse` or `ImageSizeMismatch`.
 * @param mayGrow asked once the image is locked and is smaller: whether it is to grow to `sizeBytes`
 */
export function openVolumeImage(
  path: string,
  sizeBytes: number,
  readOnly: boolean,
  mayGrow?: (actualBytes: number) => boolean,
): OpenImage {
  checkSize(sizeBytes);
  let fd: number;
  try {
    fd = openSync(path, readOnly ? constants.O_RDONLY : constants.O_RDWR);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new ImageError('ImageMissing', `the volume image ${path} is missing`);
  }
  try {
    lock(path, fd, readOnly ? lockShared : lockExclusive);
    const actual = fstatSync(fd).size;
    if (actual < sizeBytes && mayGrow?.(actual)) growVolumeImage(fd, sizeBytes);
    checkImageSize(path, fd, sizeBytes);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let open = true;
  return {
    fd,
    sizeBytes,
    close: () => {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

/** Makes an open image larger, durably; what is new is a hole. */
export function growVolumeImage(fd: number, sizeBytes: number): void {
  checkSize(sizeBytes);
  if (sizeBytes < fstatSync(fd).size) throw new RangeError('a volume image does not shrink');
  ftruncateSync(fd, sizeBytes);
  fsyncSync(fd);
}

function lock(path: string, fd: number, kind: number): void {
  const result = libc().flock(fd, kind | lockNonBlocking);
  if (result === 0) return;
  const wouldBlock = -11;
  if (result === wouldBlock) {
    throw new ImageError('ImageInUse', `the volume image ${path} is in use: another export or host has it open`);
  }
  throw new Error(`flock of the volume image ${path} failed with errno ${-result}`);
}

function checkImageSize(path: string, fd: number, sizeBytes: number): void {
  const actual = fstatSync(fd).size;
  if (actual !== sizeBytes) {
    throw new ImageError('ImageSizeMismatch', `the volume image ${path} has ${actual} bytes, not ${sizeBytes}`);
  }
}

function checkSize(sizeBytes: number): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % sizeStepBytes !== 0) {
    throw new RangeError(`the size of a volume image is a positive multiple of ${sizeStepBytes}, not ${sizeBytes}`);
  }
}
