/** A full disk under the block store, and one under the volumes: who hears of it, what stays, and that all goes on with room. */
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeleteSnapshotCommand, DeleteVolumeCommand } from '@aws-sdk/client-ec2';
import { expect, type TestContext, test } from 'vitest';
import { SmallDisk } from './support/faults.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { blockBytes, mebibyte, range, Stored } from './support/stored.ts';

const noRoom = /no room|no space|ENOSPC/i;

// Each waits for a while, so they do so together.

/** A server with its block store, or its volumes, on a small disk; all is gone when the test is. */
async function start({ onTestFinished }: TestContext, onDisk: 'store' | 'volumes', bytes: number) {
  const scratch = mkdtempSync(join(tmpdir(), 'coffer-full-'));
  const cleanUp: Array<() => unknown> = [() => rmSync(scratch, { recursive: true, force: true })];
  onTestFinished(async () => {
    for (const step of cleanUp.reverse()) await step();
  });
  const dataDir = join(scratch, 'data');
  const disk = await SmallDisk.mount(join(dataDir, onDisk === 'store' ? 'disk' : 'volumes'), bytes);
  cleanUp.push(() => disk.unmount());
  const store = onDisk === 'store' ? join(disk.directory, 'snapshots') : join(dataDir, 'snapshots');
  const server: TestServer = await startServer({ dataDir, args: ['--store', store] });
  cleanUp.push(() => server.stop());
  const stored = new Stored(server, store);
  return { disk, server, stored, instance: await stored.runInstance() };
}

test.concurrent('a full block store holds snapshots and copies up, and nothing else; with room they are what they should be', async (context) => {
  const { disk, stored, instance } = await start(context, 'store', 10 * blockBytes);
  const socket = await stored.attach(await stored.create(), instance);
  const volume = (await stored.all())[0]!.VolumeId!;
  const other = await stored.create({ Encrypted: false });
  await stored.write(await stored.attach(other, instance, '/dev/sdg'), range(0, 4));
  const small = await stored.snapshot(other);
  await stored.completed(small);

  const before = await stored.write(socket, range(0, 12));
  const big = await stored.snapshot(volume);
  expect(await stored.trouble(big)).toMatch(noRoom);
  disk.fill();
  const copy = await stored.copy(small, { Encrypted: true });
  expect(await stored.trouble(copy)).toMatch(noRoom);

  // The volume doesn't suffer; the moment of the snapshot stays what it was.
  const after = await stored.write(socket, range(0, 6));
  expect(await stored.differences(socket, after)).toEqual(new Map());
  expect(await stored.describeSnapshot(big)).toMatchObject({ State: 'pending' });

  // Deleting makes room even where there is none left to note anything down.
  await stored.ec2.send(new DeleteSnapshotCommand({ SnapshotId: copy }));
  await stored.ec2.send(new DeleteSnapshotCommand({ SnapshotId: small }));
  await until(() => stored.blocksOf(small) === 0, 'the deleted snapshot to be freed');

  await disk.resize(64 * mebibyte);
  await stored.completed(big);
  expect((await stored.describeSnapshot(big)).StateMessage).toBeUndefined();
  const restored = await stored.restore(big);
  const there = await stored.attach(restored, instance, '/dev/sdh');
  expect(await stored.differences(there, before)).toEqual(new Map());
  await stored.initialized(restored);
});

test.concurrent('a full disk of volumes is the writer’s error; snapshots lose nothing of what was acknowledged', async (context) => {
  const { disk, stored, instance } = await start(context, 'volumes', 12 * blockBytes);
  const volume = await stored.create();
  const socket = await stored.attach(volume, instance);
  const content = new Map(await stored.write(socket, range(0, 8)));
  await expect(stored.write(socket, range(8, 20))).rejects.toMatchObject({ errno: constants.errno.ENOSPC });
  expect(await stored.differences(socket, content)).toEqual(new Map());

  disk.fill();
  const refusal = await stored.snapshot(volume).then(
    () => undefined,
    (error: Error) => error,
  );
  // A moment that can't be noted down is not one.
  expect(refusal).toMatchObject({ name: 'Unavailable', message: expect.stringMatching(noRoom) });
  expect(await stored.differences(socket, content)).toEqual(new Map());

  await disk.resize(24 * blockBytes);
  const snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
  const over = await stored.write(socket, range(0, 4));
  for (const [index, bytes] of over) content.set(index, bytes);
  expect(await stored.differences(socket, content)).toEqual(new Map());
  const next = await stored.snapshot(volume);
  await stored.completed(next);
  await stored.detach(volume);
  await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));

  await until(async () => (await stored.all()).length === 0, 'the volume to be gone');
  const restored = await stored.restore(next);
  const there = await stored.attach(restored, instance);
  expect(await stored.differences(there, content)).toEqual(new Map());
});

test.concurrent('a restore that finds the disk full says so, and is finished when there is room', async (context) => {
  const { disk, stored, instance } = await start(context, 'volumes', 40 * blockBytes);
  const volume = await stored.create();
  const socket = await stored.attach(volume, instance);
  const content = await stored.write(socket, range(0, 16));
  const snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
  await disk.resize(24 * blockBytes);
  const restored = await stored.restore(snapshot);
  expect(await stored.impaired(restored)).toMatch(noRoom);
  await disk.resize(64 * blockBytes);
  await stored.initialized(restored);
  const there = await stored.attach(restored, instance, '/dev/sdg');
  expect(await stored.differences(there, content)).toEqual(new Map());
});

test.concurrent('where what a snapshot must keep finds no room, the volume’s writes go on and the snapshot says why it failed', async (context) => {
  const { disk, stored, instance, server } = await start(context, 'volumes', 64 * blockBytes);
  const volume = await stored.create({ Encrypted: false });
  const socket = await stored.attach(volume, instance);
  await stored.write(socket, range(0, 40));
  // Nothing is copied to the store while its disk is away: all that is overwritten must be kept beside the image.
  const away = await SmallDisk.mount(join(server.dataDir, 'snapshots'), 64 * 1024);
  const snapshot = await stored.snapshot(volume);
  await stored.trouble(snapshot);
  disk.fill();
  const over = await stored.write(socket, range(0, 40));
  expect(await stored.differences(socket, over)).toEqual(new Map());
  await away.unmount();
  expect(await stored.trouble(snapshot, 'error')).toMatch(/the disk is full/);
  await until(() => stored.blocksOf(snapshot) === 0, 'what was stored of it to be removed');

  await disk.resize(128 * blockBytes);
  const next = await stored.snapshot(volume);
  await stored.completed(next);
  const restored = await stored.attach(await stored.restore(next), instance, '/dev/sdg');
  expect(await stored.differences(restored, over)).toEqual(new Map());
});
