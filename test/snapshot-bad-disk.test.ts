/** Disks that fail to read or write: under a volume while snapshots are taken of it, and under the block store. */
import { constants } from 'node:os';
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FailingFile } from './support/faults.ts';
import { startServer, type TestServer } from './support/server.ts';
import { range, Stored } from './support/stored.ts';
import { failure } from './support/wire.ts';

let server: TestServer;
let stored: Stored;
let instance: string;
beforeAll(async () => {
  server = await startServer();
  stored = new Stored(server);
  instance = await stored.runInstance();
});
afterAll(() => server?.stop());

const ioError = { errno: constants.errno.EIO };

test('a volume’s disk that fails: whoever reads or writes hears it, the snapshot waits, and is whole when the disk is well', async () => {
  const volume = await stored.create();
  const before = await stored.write(await stored.attach(volume, instance), range(0, 8));
  await stored.detach(volume);
  const disk = await FailingFile.behind(stored.image(volume));
  try {
    const socket = await stored.attach(volume, instance);
    disk.fail('reads', 'writes');
    await expect(stored.write(socket, range(0, 2))).rejects.toMatchObject(ioError);
    expect([...(await stored.differences(socket, before)).keys()]).toEqual(range(0, 8));
    const snapshot = await stored.snapshot(volume);
    expect(await stored.trouble(snapshot)).toMatch(/EIO|i\/o error/i);
    expect((await stored.describeSnapshot(snapshot)).State).toBe('pending');
    disk.heal();
    // Whether a write arrived that failed is not known; one that was acknowledged is.
    const after = new Map([...before, ...(await stored.write(socket, range(0, 2)))]);
    expect(await stored.differences(socket, after)).toEqual(new Map());
    await stored.completed(snapshot);
    const restored = await stored.attach(await stored.restore(snapshot), instance, '/dev/sdg');
    const untouched = new Map([...before].filter(([index]) => index >= 2));
    expect(await stored.differences(restored, untouched)).toEqual(new Map());
    await stored.detach(volume);
  } finally {
    await disk.remove();
  }
});

test('a disk of the block store that fails to read a block: the other blocks are there, and that one when it is well', async () => {
  const volume = await stored.create();
  const content = await stored.write(await stored.attach(volume, instance, '/dev/sdh'), range(0, 8));
  const snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
  const disk = await FailingFile.behind(stored.blockFile(snapshot, 3));
  try {
    disk.fail('reads');
    const ebs = server.sdk(EBSClient);
    const { Blocks } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: snapshot }));
    const get = (index: number) => {
      const { BlockIndex, BlockToken } = Blocks![index]!;
      return ebs.send(new GetSnapshotBlockCommand({ SnapshotId: snapshot, BlockIndex, BlockToken }));
    };
    await get(2);
    const refusal = await failure(get(3));
    expect(refusal.status).toBeGreaterThanOrEqual(500);
    expect(refusal.message).toMatch(new RegExp(`3 of ${snapshot}`));
    const copy = await stored.copy(snapshot, { Encrypted: true });
    expect(await stored.trouble(copy)).toMatch(new RegExp(`block 3 of ${snapshot} .*EIO`));

    const restored = await stored.restore(snapshot);
    const socket = await stored.attach(restored, instance, '/dev/sdi');
    expect(await stored.differences(socket, content)).toEqual(new Map([[3, expect.stringContaining('5')]]));
    expect(await stored.impaired(restored)).toMatch(new RegExp(`block 3 of ${snapshot} .*EIO`));

    disk.heal();
    expect(await stored.differences(socket, content)).toEqual(new Map());
    await get(3);
    await stored.completed(copy);
    await stored.initialized(restored);
  } finally {
    await disk.remove();
  }
});
