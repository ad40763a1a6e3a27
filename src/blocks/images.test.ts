import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createVolumeImage, deleteVolumeImage, ensureVolumeImage, openVolumeImage } from './images.ts';

const sizeBytes = 64 * 1024 * 1024;
let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-images-'));
  path = join(directory, 'volumes', 'vol-1.img');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe('volume images', () => {
  it('are sparse, of exact size, and nobody else may read them', () => {
    createVolumeImage(path, sizeBytes);
    const { size, blocks, mode } = statSync(path);
    expect({ size, blocks, mode: mode & 0o777 }).toEqual({ size: sizeBytes, blocks: 0, mode: 0o600 });
    expect(statSync(join(directory, 'volumes')).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(directory, 'volumes'))).toEqual(['vol-1.img']);
  });

  it('are not made twice, but ensured as often as wanted', () => {
    ensureVolumeImage(path, sizeBytes);
    ensureVolumeImage(path, sizeBytes);
    expect(() => createVolumeImage(path, sizeBytes)).toThrow(expect.objectContaining({ code: 'ImageExists' }));
  });

  it('replace what a crash left of an earlier attempt', () => {
    createVolumeImage(`${path}.other`, 4096);
    writeFileSync(`${path}.new`, 'half');
    ensureVolumeImage(path, sizeBytes);
    expect(statSync(path).size).toBe(sizeBytes);
    expect(existsSync(`${path}.new`)).toBe(false);
  });

  it('refuse another size than the one they have, and sizes that cut a data unit', () => {
    createVolumeImage(path, sizeBytes);
    const mismatch = expect.objectContaining({ code: 'ImageSizeMismatch' });
    expect(() => ensureVolumeImage(path, sizeBytes * 2)).toThrow(mismatch);
    expect(() => openVolumeImage(path, sizeBytes * 2, false)).toThrow(mismatch);
    for (const bad of [0, -4096, 4095, 4097, Number.NaN]) {
      expect(() => createVolumeImage(`${path}2`, bad)).toThrow(RangeError);
    }
  });

  it('have one writer or several readers', () => {
    createVolumeImage(path, sizeBytes);
    const inUse = expect.objectContaining({ code: 'ImageInUse' });
    const writer = openVolumeImage(path, sizeBytes, false);
    expect(() => openVolumeImage(path, sizeBytes, false)).toThrow(inUse);
    expect(() => openVolumeImage(path, sizeBytes, true)).toThrow(inUse);
    expect(() => deleteVolumeImage(path)).toThrow(inUse);
    writer.close();
    writer.close();
    const readers = [openVolumeImage(path, sizeBytes, true), openVolumeImage(path, sizeBytes, true)];
    expect(() => openVolumeImage(path, sizeBytes, false)).toThrow(inUse);
    for (const reader of readers) reader.close();
    openVolumeImage(path, sizeBytes, false).close();
  });

  it('are said to be missing when they are', () => {
    expect(() => openVolumeImage(path, sizeBytes, false)).toThrow(expect.objectContaining({ code: 'ImageMissing' }));
  });

  it('are deleted once, and deleting them again changes nothing', () => {
    createVolumeImage(path, sizeBytes);
    deleteVolumeImage(path);
    expect(existsSync(path)).toBe(false);
    deleteVolumeImage(path);
  });
});
