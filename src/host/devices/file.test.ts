import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createVolumeImage, openVolumeImage } from '../../blocks/images.ts';
import { fadviseDontNeed, libc } from '../../blocks/libc.ts';
import { createSlab } from '../../crypto/native.ts';
import type { Device } from './device.ts';
import { fileDevice } from './file.ts';

const mib = 1024 * 1024;
const size = 8 * mib;
let directory: string;
let path: string;
let device: Device;
let fd: number;

// Not in /tmp: a tmpfs has no cold pages.
beforeEach(() => {
  directory = mkdtempSync('/var/tmp/coffer-file-');
  path = join(directory, 'vol.img');
  createVolumeImage(path, size);
  const image = openVolumeImage(path, size, false);
  fd = image.fd;
  device = fileDevice(image, libc());
});
afterEach(() => {
  device.close();
  rmSync(directory, { recursive: true });
});

const write = (offset: number, data: Buffer) => {
  const memory = createSlab(data.length);
  data.copy(memory.bytes);
  expect(device.write(memory, 0, offset, data.length)).toBeUndefined();
};
const flush = () => new Promise<Error | undefined>((resolve) => device.flush(resolve));

describe('the file device', () => {
  it('reads what was written, at any alignment', () => {
    const data = randomBytes(10_001);
    write(4095, data);
    const memory = createSlab(10_001);
    expect(device.read(memory, 0, 4095, 10_001)).toBeUndefined();
    expect(memory.bytes.equals(data)).toBe(true);
  });

  it('answers a Wait for what is not in memory, and has it in memory when the wait is over', async () => {
    const data = randomBytes(3 * mib);
    write(mib, data);
    expect(await flush()).toBeUndefined();
    libc().fadvise(fd, 0, 0, fadviseDontNeed);
    const memory = createSlab(data.length);
    let waits = 0;
    for (;;) {
      const wait = device.read(memory, 0, mib, data.length);
      if (!wait) break;
      waits++;
      await new Promise<void>((resolve, reject) => wait.start((error) => (error ? reject(error) : resolve())));
    }
    expect(waits).toBeGreaterThan(0);
    expect(waits).toBeLessThan(20);
    expect(memory.bytes.equals(data)).toBe(true);
  });

  it('serves many waits at once, in order', async () => {
    write(0, randomBytes(4 * mib));
    await flush();
    libc().fadvise(fd, 0, 0, fadviseDontNeed);
    const memory = createSlab(4096);
    const order: number[] = [];
    const offsets = Array.from({ length: 32 }, (_, index) => ((index * 37) % 64) * 65_536);
    await Promise.all(
      offsets.map(
        (offset, index) =>
          new Promise<void>((resolve) => {
            const wait = device.read(memory, 0, offset, 4096);
            if (!wait) return resolve();
            wait.start(() => {
              order.push(index);
              resolve();
            });
          }),
      ),
    );
    expect(order).toEqual([...order].sort((a, b) => a - b));
  });

  it('gives storage back when it trims or zeroes, keeps it when asked to, and reads zeros after both', async () => {
    write(0, Buffer.alloc(3 * mib, 7));
    await flush();
    const before = statSync(path).blocks;
    device.trim(0, mib);
    device.zero(mib, mib, false);
    await flush();
    const after = statSync(path).blocks;
    expect(before - after).toBeGreaterThanOrEqual((2 * mib) / 512);
    device.zero(2 * mib, mib, true);
    await flush();
    expect(statSync(path).blocks).toBeGreaterThanOrEqual(after);
    expect(
      readFileSync(path)
        .subarray(0, 3 * mib)
        .some((byte) => byte !== 0),
    ).toBe(false);
  });

  it('tells data from holes', async () => {
    write(mib, Buffer.alloc(mib, 1));
    write(4 * mib + 100, Buffer.alloc(10, 1));
    await flush();
    expect(device.extents(0, size, 100)).toEqual([
      { length: mib, hole: true },
      { length: mib, hole: false },
      { length: 2 * mib, hole: true },
      { length: 4096, hole: false },
      { length: 4 * mib - 4096, hole: true },
    ]);
    expect(device.extents(0, size, 2)).toHaveLength(2);
    expect(device.extents(mib + 5, 10, 1)).toEqual([{ length: 10, hole: false }]);
    expect(device.extents(100, 200, 1)).toEqual([{ length: 200, hole: true }]);
  });

  it('reports an image that was cut short', () => {
    spawnSync('truncate', ['-s', '0', path]);
    expect(() => {
      const memory = createSlab(4096);
      if (device.read(memory, 0, 0, 4096)) throw new Error('waits');
    }).toThrow(expect.objectContaining({ code: 'EIO' }));
  });
});
