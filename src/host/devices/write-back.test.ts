import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { libc, rwfNowait } from '../../blocks/libc.ts';
import { createSlab } from '../../crypto/native.ts';
import { WriteBack } from './write-back.ts';

const mib = 2 ** 20;

let directory: string;
let fd: number;

beforeEach(() => {
  // Not in memory, as /tmp may be.
  directory = mkdtempSync('/var/tmp/coffer-write-back-');
  fd = openSync(join(directory, 'image'), 'w+');
});

afterEach(() => {
  closeSync(fd);
  rmSync(directory, { recursive: true });
});

test('what was written goes to the disk and leaves memory, and reads the same', async () => {
  const sizeMib = 250;
  ftruncateSync(fd, sizeMib * mib);
  const memory = createSlab(4096);
  const isInMemory = (offset: number) => libc().pread(fd, memory.address, 4096, offset, rwfNowait) === 4096;
  const writeBack = new WriteBack(fd, libc(), () => {});
  for (let at = 0; at < sizeMib; at++) {
    writeSync(fd, Buffer.alloc(mib, at + 1), 0, mib, at * mib);
    writeBack.wrote(at * mib, mib);
    while (writeBack.isBehind) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await expect.poll(() => isInMemory(2 * mib), { timeout: 60_000 }).toBe(false);
  writeBack.close();
  for (let at = 0; at < sizeMib; at++) {
    libc().pread(fd, memory.address, 4096, at * mib + 4096, 0);
    expect(memory.bytes.equals(Buffer.alloc(4096, at + 1))).toBe(true);
  }
});

test('who writes faster than the disk is told to wait, and when to go on', async () => {
  const calls: (() => void)[] = [];
  const slow = { ...libc(), syncFileRange: () => new Promise<number>((resolve) => calls.push(() => resolve(0))) };
  let told = 0;
  const writeBack = new WriteBack(fd, slow, () => told++);
  let writtenMib = 0;
  while (!writeBack.isBehind) writeBack.wrote(writtenMib++ * mib, mib);
  expect(writtenMib).toBeLessThan(100);
  expect(told).toBe(0);
  calls.shift()!();
  await expect.poll(() => told, { timeout: 60_000 }).toBe(1);
  expect(writeBack.isBehind).toBe(false);
  writeBack.close();
  calls.shift()!();
});

test('when writing fails, memory keeps what it has and nobody waits', async () => {
  let dropped = 0;
  let told = 0;
  const eio = -5;
  const failing = {
    ...libc(),
    syncFileRange: async () => eio,
    dropCache: async () => ++dropped,
  };
  const writeBack = new WriteBack(fd, failing, () => told++);
  let writtenMib = 0;
  while (!writeBack.isBehind) writeBack.wrote(writtenMib++ * mib, mib);
  for (; writtenMib < 1000; writtenMib++) {
    await expect.poll(() => writeBack.isBehind, { timeout: 60_000 }).toBe(false);
    writeBack.wrote(writtenMib * mib, mib);
  }
  expect(dropped).toBe(0);
  expect(told).toBeGreaterThan(0);
});
