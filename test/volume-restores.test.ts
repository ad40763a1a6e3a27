// Open volumes that are made from a snapshot: at once, and restored behind that; threads, sockets and files are real.

import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { ManifestBuilder } from '../src/blocks/manifest.ts';
import { openStore } from '../src/blocks/open-store.ts';
import { openSnapshotView } from '../src/blocks/snapshot-view.ts';
import { blockBytes } from '../src/blocks/store.ts';
import { createXts } from '../src/crypto/xts.ts';
import { transform } from '../src/host/devices/testing-volume.ts';
import { command, commandFlag } from '../src/host/nbd/protocol.ts';
import type { VolumeHandle } from '../src/host/volumes.ts';
import {
  connect,
  contentsOf,
  directory,
  imagePath,
  member,
  mib,
  open,
  sizeBytes,
  useOpenVolumes,
  volumes,
  xts,
} from './support/open-volumes.ts';

useOpenVolumes();

const sourceKey = randomBytes(64);
const snapshotId = 'snap-0123456789abcdef0';
let storeLocation: string;
let contents: Buffer;

/** Stores a snapshot with a hole, blocks with zeros in them and full ones. */
beforeEach(async () => {
  storeLocation = join(directory, 'store');
  contents = Buffer.alloc(sizeBytes);
  const store = await openStore(storeLocation);
  const createdAt = new Date().toISOString();
  const builder = new ManifestBuilder({ snapshotId, volumeId: 'vol-source', sizeBytes, createdAt });
  const sourceXts = createXts(sourceKey);
  for (let index = 0; index < sizeBytes / blockBytes; index++) {
    if (index % 5 === 4) continue;
    const block = Buffer.from(new ArrayBuffer(blockBytes));
    randomBytes(index % 2 === 0 ? blockBytes : 60_000).copy(block, index % 2 === 0 ? 0 : 40_960);
    block.copy(contents, index * blockBytes);
    transform(sourceXts, 'encrypt', block, index);
    const sha256 = createHash('sha256').update(block).digest();
    await store.putBlock({ owner: snapshotId, index }, block);
    builder.append(index, sha256);
  }
  sourceXts.close();
  await store.putManifest(snapshotId, builder.finish());
  store.close();
});

const restore = (rate?: number) => ({
  source: { snapshotId, sizeBytes, rate },
  sourceDataKey: Buffer.from(sourceKey),
  storeLocation,
});
const restored = (volume: VolumeHandle) => new Promise<void>((resolve) => volume.onRestored(resolve));
/** MiB/s: after the first block, none comes by itself as long as a test lasts, however slow the machine is. */
const nearlyNothing = 0.001;

it('reads as the snapshot at once, and all of it is in its image in the end, under its own key', async () => {
  const volume = await open('vol-1', { sizeBytes: sizeBytes + mib, restore: restore(nearlyNothing) });
  const client = await connect(volume, 'one');
  expect(volume.restoreProgress().left).toBeGreaterThan(8);
  // What is yet to come is data to clients that ask for holes.
  const { extents } = await client.request(command.blockStatus, 13 * blockBytes, 3 * blockBytes);
  expect(extents).toEqual([
    { length: blockBytes, flags: 0 },
    { length: blockBytes, flags: 3 },
    { length: blockBytes, flags: 0 },
  ]);
  expect((await client.read(sizeBytes - 3 * blockBytes, 4096)).data).toEqual(
    contents.subarray(sizeBytes - 3 * blockBytes, sizeBytes - 3 * blockBytes + 4096),
  );
  const data = randomBytes(blockBytes + 9000);
  await client.write(100_000, data);
  data.copy(contents, 100_000);
  volume.setRate(undefined);
  await restored(volume);
  expect(volume.restoreProgress()).toEqual({ blocks: 13, left: 0 });
  await volume.release();

  const image = readFileSync(imagePath('vol-1'));
  expect(image.length).toBe(sizeBytes + mib);
  for (let index = 0; index * blockBytes < image.length; index++) {
    const block = Buffer.from(new ArrayBuffer(blockBytes));
    image.copy(block, 0, index * blockBytes);
    transform(xts, 'decrypt', block, index);
    const expected = Buffer.alloc(blockBytes);
    contents.subarray(index * blockBytes).copy(expected);
    expect(block.equals(expected)).toBe(true);
  }
  // From now on it needs neither the snapshot nor its key.
  rmSync(storeLocation, { recursive: true });
  const again = await open('vol-1', { sizeBytes: sizeBytes + mib, hasImage: true });
  const { data: read } = await (await connect(again, 'again')).read(0, sizeBytes);
  expect(read.equals(contents)).toBe(true);
});

it('goes on after the process was killed, and is not opened without what it lacks', async () => {
  const volume = await open('vol-1', { restore: restore(nearlyNothing) });
  const client = await connect(volume, 'one');
  const data = randomBytes(10_000);
  await client.write(700_000, data);
  data.copy(contents, 700_000);
  await volume.release();
  await expect(open('vol-1', { hasImage: true })).rejects.toMatchObject({ code: 'SourceMissing' });
  const again = await open('vol-1', { hasImage: true, restore: restore() });
  const { data: read } = await (await connect(again, 'again')).read(0, sizeBytes);
  expect(read.equals(contents)).toBe(true);
  await restored(again);
  await again.release();
  rmSync(join(directory, 'vol-1.map'));
  await expect(open('vol-1', { hasImage: true, restore: restore() })).rejects.toMatchObject({ code: 'MapMissing' });
});

it('takes nothing from another store that has come into the place of the right one', async () => {
  const store = await openStore(storeLocation);
  const { id } = store;
  store.close();
  await (await open('vol-1', { restore: { ...restore(nearlyNothing), storeId: id } })).release();
  const other = join(directory, 'other');
  (await openStore(other)).close();
  copyFileSync(join(other, 'store.json'), join(storeLocation, 'store.json'));
  await expect(open('vol-2', { restore: { ...restore(), storeId: id } })).rejects.toMatchObject({
    code: 'Unavailable',
    message: expect.not.stringContaining(directory),
    detail: expect.stringContaining(storeLocation),
  });
  const volume = await open('vol-1', { hasImage: true, restore: { ...restore(), storeId: id } });
  await expect
    .poll(() => volume.restoreProgress().trouble, { timeout: 60_000 })
    .toMatchObject({
      code: 'Unavailable',
    });
  const { error, message } = await (await connect(volume, 'one')).read(0, sizeBytes);
  expect(error).toBe(5);
  expect(message).not.toContain(directory);
});

it('answers EIO for a block that was altered, names it, and serves the others', async () => {
  const path = join(storeLocation, 'blocks', snapshotId, '0000', '00000003');
  const bytes = readFileSync(path);
  bytes[70_000]! ^= 1;
  writeFileSync(path, bytes);
  const volume = await open('vol-1', { restore: restore() });
  const failures: string[] = [];
  volume.onFailure(({ message }) => failures.push(message));
  const client = await connect(volume, 'one');
  const { error, message } = await client.read(3 * blockBytes + 5, 10);
  expect(error).toBe(5);
  expect(message).toContain('block 3');
  expect(message).toContain(snapshotId);
  await expect.poll(() => failures.join()).toContain('block 3');
  for (const index of [0, 1, 2, 5, 6]) {
    const { data } = await client.read(index * blockBytes, blockBytes);
    expect(data.equals(contents.subarray(index * blockBytes, (index + 1) * blockBytes))).toBe(true);
  }
  await expect.poll(() => volume.restoreProgress().left).toBe(1);
  expect(volume.restoreProgress().trouble).toMatchObject({ code: 'Corrupt', final: true });
  // What replaces it as a whole does not need it.
  const zeros = await client.request(command.writeZeroes, 3 * blockBytes, blockBytes, commandFlag.fua);
  expect(zeros.error).toBe(0);
  await restored(volume);
  expect((await client.read(3 * blockBytes, 10)).data.equals(Buffer.alloc(10))).toBe(true);
});

it('has points in time before it is restored, and without changing by being restored', async () => {
  const volume = await open('vol-1', { restore: restore(nearlyNothing) });
  const client = await connect(volume, 'one');
  await volumes.markSnapshots([member('vol-1', 'snap-1')]);
  const view = openSnapshotView(directory, 'vol-1', 'snap-1');
  expect(view.read(15, Buffer.alloc(blockBytes))).toBe('unrestored');
  view.close();
  await client.request(command.trim, 0, 3 * blockBytes);
  await client.write(5 * blockBytes + 1, randomBytes(100_000));
  await volumes.markSnapshots([member('vol-1', 'snap-2')]);
  volume.setRate(undefined);
  await restored(volume);
  expect(contentsOf('vol-1', 'snap-1').equals(contents)).toBe(true);
  const later = openSnapshotView(directory, 'vol-1', 'snap-2');
  expect(later.changedSince).toBe('snap-1');
  const changed = Array.from({ length: later.blocks }, (_, index) => index).filter((index) => later.isChanged(index));
  expect(changed).toEqual([0, 1, 2, 5]);
  later.close();
});

it('refuses to be made when the store does not have the snapshot', async () => {
  const source = { snapshotId: 'snap-00000000000000bad', sizeBytes };
  await expect(open('vol-1', { restore: { ...restore(), source } })).rejects.toMatchObject({ code: 'Missing' });
  expect(existsSync(imagePath('vol-1'))).toBe(false);
});
