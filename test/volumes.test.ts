// Open volumes: several sockets, growth, points in time while clients write; threads, sockets and files are real.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, renameSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { pointInTime, removeCow } from '../src/blocks/copy-before-write.ts';
import { createVolumeImage } from '../src/blocks/images.ts';
import { openSnapshotView, type SnapshotView } from '../src/blocks/snapshot-view.ts';
import { blockBytes } from '../src/blocks/store.ts';
import { otherBoot } from '../src/host/devices/testing-volume.ts';
import { command } from '../src/host/nbd/protocol.ts';
import { TestClient } from '../src/host/nbd/testing-client.ts';
import { run } from './support/client.ts';
import {
  connect,
  contentsOf,
  directory,
  imagePath,
  key,
  member,
  mib,
  open,
  sizeBytes,
  socket,
  useOpenVolumes,
  volumes,
} from './support/open-volumes.ts';
import { OrderedWrites } from './support/ordered-writes.ts';

const quiet = () => {};

useOpenVolumes();

const unitOf = (contents: readonly Buffer[]) => (volume: number, offset: number) =>
  contents[volume]!.subarray(offset, offset + 4096);

describe('a volume of several instances', () => {
  it('shows each what the others write, at once, and stays open until the last is gone', async () => {
    const one = await open('vol-1');
    const other = await open('vol-1', { hasImage: true });
    const first = await one.listen({ socketPath: socket('first') });
    const client = await TestClient.connect(first.socketPath);
    const second = await connect(other, 'second');
    const reader = await TestClient.connect(
      (await one.listen({ socketPath: socket('third'), readOnly: true })).socketPath,
    );
    for (let turn = 0; turn < 20; turn++) {
      const data = randomBytes(5000);
      const [from, to] = turn % 2 === 0 ? [client, second] : [second, client];
      expect((await from.write(turn * 4000, data)).error).toBe(0);
      for (const one of [to, reader]) expect((await one.read(turn * 4000, 5000)).data.equals(data)).toBe(true);
    }
    expect((await reader.write(0, Buffer.alloc(1))).error).toBe(1);
    expect((await second.request(command.flush, 0, 0)).error).toBe(0);

    await first.close();
    await client.raw.closed;
    expect(existsSync(socket('first'))).toBe(false);
    await one.release();
    expect((await second.read(0, 10)).error).toBe(0);
    expect(volumes.isOpen('vol-1')).toBe(true);
    await other.release();
    await second.raw.closed;
    expect(volumes.isOpen('vol-1')).toBe(false);
  });

  it('drops a socket at once when it is forced to, whatever its client has asked for', async () => {
    const volume = await open('vol-1');
    const one = await volume.listen({ socketPath: socket('one') });
    const stuck = await TestClient.connect(one.socketPath);
    const other = await connect(volume, 'other');
    stuck.raw.socket.pause();
    const asked = Array.from({ length: 30 }, () => stuck.read(0, 4 * mib).catch(quiet));
    await other.read(0, 1);
    // While its client reads nothing: a close that waited for it would never end.
    await one.close({ force: true });
    stuck.raw.close();
    await Promise.all(asked);
    expect((await other.read(0, 10)).error).toBe(0);
  });

  it('wipes the keys that each brings, and is opened anew after it was closed', async () => {
    const given = [Buffer.from(key), Buffer.from(key), Buffer.from(key)];
    const handles = await Promise.all(given.map((dataKey) => open('vol-1', { dataKey })));
    for (const one of given) expect(one.equals(Buffer.alloc(64))).toBe(true);
    const closing = Promise.all(handles.map((handle) => handle.release()));
    const again = await open('vol-1', { hasImage: true });
    await closing;
    expect((await (await connect(again, 'again')).read(0, 10)).error).toBe(0);
  });
});

describe('a volume that grows', () => {
  it('shows its new size to connections from then on; others keep what they know', async () => {
    const volume = await open('vol-1');
    const { socketPath } = await volume.listen({ socketPath: socket('one') });
    const before = await TestClient.connect(socketPath);
    await volume.resize(sizeBytes + 4 * mib);
    const after = await TestClient.connect(socketPath);
    expect([before.sizeBytes, after.sizeBytes]).toEqual([sizeBytes, sizeBytes + 4 * mib]);
    expect((await before.write(sizeBytes, Buffer.alloc(10))).error).toBe(28);
    const data = randomBytes(10_000);
    expect((await after.write(sizeBytes - 5000, data)).error).toBe(0);
    expect((await before.read(sizeBytes - 5000, 5000)).data.equals(data.subarray(0, 5000))).toBe(true);
    await volume.release();
    expect(statSync(imagePath('vol-1')).size).toBe(sizeBytes + 4 * mib);

    // An instance that knows the size of then is behind; one that knows the next size makes it so.
    await expect(open('vol-1')).rejects.toMatchObject({ code: 'ImageSizeMismatch' });
    const next = await open('vol-1', { sizeBytes: sizeBytes + 8 * mib, hasImage: true });
    const client = await connect(next, 'next');
    expect(client.sizeBytes).toBe(sizeBytes + 8 * mib);
    expect((await client.read(sizeBytes - 5000, 10_000)).data.equals(data)).toBe(true);
  });

  it('does not take an image for smaller that was cut short', async () => {
    await (await open('vol-1')).release();
    truncateSync(imagePath('vol-1'), sizeBytes - mib);
    const mismatch = { code: 'ImageSizeMismatch' };
    await expect(open('vol-1', { hasImage: true })).rejects.toMatchObject(mismatch);
    await expect(volumes.markSnapshots([member('vol-1', 'snap-1')])).rejects.toMatchObject(mismatch);
  });

  it.each([
    ['smaller', 4 * mib],
    ['larger', -4 * mib],
  ])('can have a point in time while its image is %s than the volume, and then grow', async (_, more) => {
    const volume = await open('vol-1');
    const client = await connect(volume, 'one');
    const data = randomBytes(5000);
    expect((await client.write(sizeBytes - 4 * mib - 5000, data)).error).toBe(0);
    await volume.release();
    const atPoint = { ...member('vol-1', 'snap-1'), sizeBytes: sizeBytes + more };
    expect(await volumes.markSnapshots([atPoint])).toEqual([{ state: 'marked' }]);
    const contents = contentsOf('vol-1', 'snap-1');
    expect(contents.length).toBe(sizeBytes + more);
    expect(contents.subarray(sizeBytes - 4 * mib - 5000, sizeBytes - 4 * mib).equals(data)).toBe(true);
    const larger = await open('vol-1', { sizeBytes: sizeBytes + 8 * mib, hasImage: true });
    expect((await connect(larger, 'two')).sizeBytes).toBe(sizeBytes + 8 * mib);
  });

  it('grows on from where growing it was interrupted', async () => {
    await (await open('vol-1')).release();
    truncateSync(imagePath('vol-1'), sizeBytes + 4 * mib);
    expect(await volumes.markSnapshots([member('vol-1', 'snap-1')])).toEqual([{ state: 'marked' }]);
    const larger = await open('vol-1', { sizeBytes: sizeBytes + 8 * mib, hasImage: true });
    expect((await connect(larger, 'two')).sizeBytes).toBe(sizeBytes + 8 * mib);
  });
});

describe('points in time', () => {
  it('are one moment of several volumes while clients write to them', async () => {
    const opened = [await open('vol-1'), await open('vol-2'), await open('vol-3')];
    const clients = await Promise.all(opened.map((volume, number) => connect(volume, `ordered-${number}`)));
    const writes = new OrderedWrites(clients, 40, 12_288 * 16);
    writes.start();
    const moments: number[] = [];
    for (let round = 0; round < 3; round++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const before = writes.next;
      const ids = opened.map(({ volumeId }) => `snap-${round}-${volumeId}`);
      const members = opened.map(({ volumeId }, position) => member(volumeId, ids[position]!));
      expect(await volumes.markSnapshots(members)).toEqual(members.map(() => ({ state: 'marked' })));
      const after = writes.next;
      expect(await volumes.markSnapshots(members)).toEqual(members.map(() => ({ state: 'marked' })));
      const read = () => writes.momentOf(unitOf(opened.map(({ volumeId }, n) => contentsOf(volumeId, ids[n]!))));
      const moment = read();
      expect(moment).toBeGreaterThanOrEqual(before - 1);
      expect(moment).toBeLessThanOrEqual(after);
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(read()).toBe(moment);
      moments.push(moment);
    }
    await writes.stop();
    expect(moments).toEqual([...moments].sort((a, b) => a - b));
    for (const [round, moment] of moments.entries()) {
      const contents = opened.map(({ volumeId }) => contentsOf(volumeId, `snap-${round}-${volumeId}`));
      expect(writes.momentOf(unitOf(contents))).toBe(moment);
    }
    // The files go with the snapshots, the oldest first or not.
    for (const { volumeId } of opened) {
      for (const round of [1, 0, 2]) removeCow(directory, volumeId, `snap-${round}-${volumeId}`);
    }
    expect(readdirSync(directory).filter((name) => name.includes('.cow'))).toEqual([]);
  });

  it('are had of volumes that nobody has open, and of those that have no image yet', async () => {
    const data = randomBytes(100_000);
    const volume = await open('vol-1');
    const client = await connect(volume, 'one');
    await client.write(70_000, data);
    await volume.release();
    const members = [member('vol-1', 'snap-1'), member('vol-2', 'snap-2', false)];
    expect(await volumes.markSnapshots(members)).toEqual([{ state: 'marked' }, { state: 'marked' }]);
    await expect(volumes.markSnapshots([member('vol-3', 'snap-3')])).rejects.toMatchObject({ code: 'ImageMissing' });

    for (const volumeId of ['vol-1', 'vol-2']) {
      const again = await open(volumeId);
      await (await connect(again, `again-${volumeId}`)).write(0, randomBytes(mib));
      await again.release();
    }
    const expected = Buffer.alloc(sizeBytes);
    data.copy(expected, 70_000);
    expect(contentsOf('vol-1', 'snap-1').equals(expected)).toBe(true);
    expect(contentsOf('vol-2', 'snap-2').equals(Buffer.alloc(sizeBytes))).toBe(true);
    const next = await volumes.markSnapshots([member('vol-1', 'snap-4')]);
    expect(next).toEqual([{ state: 'marked' }]);
    const view = openSnapshotView(directory, 'vol-1', 'snap-4');
    expect(view.changedSince).toBe('snap-1');
    expect([0, 1, 2, 3].map((index) => view.isChanged(index))).toEqual([true, true, false, false]);
    view.close();
  });

  it('can be copied from the beginning again until the volume was open, and from where it had come to afterwards', async () => {
    await (await open('vol-1')).release();
    await volumes.markSnapshots([member('vol-1', 'snap-1')]);
    const look = <T>(work: (view: SnapshotView) => T): T => {
      const view = openSnapshotView(directory, 'vol-1', 'snap-1');
      try {
        return work(view);
      } finally {
        view.close();
      }
    };
    const block = Buffer.alloc(blockBytes);
    look((view) => view.setWatermark(5));
    look((view) => expect([view.watermark, view.read(0, block)]).toEqual([0, 'hole']));
    await (await open('vol-1')).release();
    look((view) => {
      expect([view.watermark, view.read(5, block)]).toEqual([5, 'hole']);
      expect(() => view.read(4, block)).toThrow(expect.objectContaining({ code: 'Lost' }));
    });
  });

  it('come about for all volumes or none, and never again for one that is done', async () => {
    const volume = await open('vol-1');
    const client = await connect(volume, 'one');
    await expect(volumes.markSnapshots([member('vol-1', 'snap-1'), member('vol-2', 'snap-2')])).rejects.toThrow(
      'missing',
    );
    expect(pointInTime(directory, 'vol-1', 'snap-1').state).toBe('gone');
    expect((await client.write(0, randomBytes(10))).error).toBe(0);
    createVolumeImage(imagePath('vol-2'), sizeBytes);
    const members = [member('vol-1', 'snap-1'), member('vol-2', 'snap-2')];
    await volumes.markSnapshots(members);
    removeCow(directory, 'vol-2', 'snap-2');
    expect(await volumes.markSnapshots(members)).toEqual([{ state: 'marked' }, { state: 'gone' }]);
  });

  it.each([
    ['after the name that decides was given', ['vol-2'], 'marked'],
    ['before', ['vol-1', 'vol-2'], 'gone'],
  ])(
    'of several volumes are all there or none is when the process ends in the middle: %s',
    async (_, unnamed, state) => {
      for (const volumeId of ['vol-1', 'vol-2']) await (await open(volumeId)).release();
      const members = [member('vol-1', 'snap-1'), member('vol-2', 'snap-2')];
      await volumes.markSnapshots(members);
      for (const { volumeId, snapshotId } of members) {
        const path = join(directory, `${volumeId}.${snapshotId}.cow`);
        if (unnamed.includes(volumeId)) renameSync(path, `${path}.new`);
      }
      for (const { volumeId, snapshotId } of members) {
        const volume = await open(volumeId, { hasImage: true });
        await (await connect(volume, volumeId)).write(0, randomBytes(10_000));
        await volume.release();
        expect(pointInTime(directory, volumeId, snapshotId).state).toBe(state);
        if (state === 'marked') expect(contentsOf(volumeId, snapshotId).equals(Buffer.alloc(sizeBytes))).toBe(true);
      }
      expect(readdirSync(directory).filter((name) => name.endsWith('.new'))).toEqual([]);
    },
  );

  it('cost the volume no write when there is no room for them', async () => {
    const small = join(directory, 'small');
    mkdirSync(small);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', small]);
    try {
      const image = join(small, 'vol-1.img');
      const volume = await open('vol-1', { imagePath: image });
      const client = await connect(volume, 'one');
      await client.write(0, randomBytes(sizeBytes));
      const mark = (snapshotId: string) =>
        volumes.markSnapshots([{ ...member('vol-1', snapshotId), imagePath: image }]);
      await mark('snap-1');
      const data = randomBytes(6 * mib);
      expect((await client.write(mib, data)).error).toBe(0);
      expect((await client.read(mib, data.length)).data.equals(data)).toBe(true);
      const { state, reason } = pointInTime(small, 'vol-1', 'snap-1') as { state: string; reason?: string };
      expect([state, reason]).toEqual(['lost', expect.stringContaining('the disk is full')]);
      expect(() => openSnapshotView(small, 'vol-1', 'snap-1')).toThrow(expect.objectContaining({ code: 'Lost' }));
      expect(await mark('snap-2')).toEqual([{ state: 'marked' }]);
      await volume.release();
    } finally {
      await run('umount', [small]);
    }
  });

  it('are lost, and say so, when the machine stops while the volume is open; those of closed volumes stay', async () => {
    const volume = await open('vol-1');
    await (await connect(volume, 'one')).write(0, randomBytes(mib));
    await (await open('vol-2')).release();
    await volumes.markSnapshots([member('vol-1', 'snap-1'), member('vol-2', 'snap-2')]);
    await volume.release();
    const closed = pointInTime(directory, 'vol-1', 'snap-1');
    expect(closed.state).toBe('marked');
    const again = await open('vol-1');
    for (const id of ['vol-1', 'vol-2']) otherBoot(join(directory, id));
    expect(pointInTime(directory, 'vol-1', 'snap-1')).toMatchObject({ state: 'lost' });
    expect(pointInTime(directory, 'vol-2', 'snap-2').state).toBe('marked');
    await again.release();
  });
});

describe('a process that is killed while points in time are pending', () => {
  it('leaves each of them as it was', async () => {
    const ids = ['vol-0', 'vol-1'];
    const moments: number[] = [];
    let first = 1;
    for (let round = 0; round < 4; round++) {
      const child = await start(ids.length);
      const clients = await Promise.all(ids.map((_, number) => TestClient.connect(socket(String(number)))));
      const writes = new OrderedWrites(clients, 40, 12_288 * 16, first);
      for (const [earlier, moment] of moments.entries()) {
        expect(writes.momentOf(unitOf(ids.map((id) => contentsOf(id, `snap-${earlier}-${id}`))))).toBe(moment);
      }
      writes.start();
      await new Promise((resolve) => setTimeout(resolve, 80));
      expect(await child.mark(`snap-${round}`)).toBe('marked marked');
      moments.push(writes.momentOf(unitOf(ids.map((id) => contentsOf(id, `snap-${round}-${id}`)))));
      await new Promise((resolve) => setTimeout(resolve, 80));
      writes.expectEnd();
      child.process.kill('SIGKILL');
      await once(child.process, 'exit');
      // The write under way may have been carried out or not; the next process starts well beyond it.
      first = writes.next + 1;
      const period = ids.length * 40;
      first += period - (first % period);
      // A whole round of writes, so that what the killed one left half done is gone from the pattern.
      if (round < 3) await rewrite(ids, first, period);
      first += period;
    }
  });
});

/** Writes each unit once, in a process that ends in order. */
async function rewrite(ids: readonly string[], first: number, period: number): Promise<void> {
  const opened = await Promise.all(ids.map((id) => open(id, { hasImage: true })));
  const clients = await Promise.all(opened.map((volume, number) => connect(volume, `rewrite-${number}`)));
  const writes = new OrderedWrites(clients, 40, 12_288 * 16, first);
  writes.start();
  while (writes.next < first + period) await new Promise((resolve) => setImmediate(resolve));
  await writes.stop();
  await Promise.all(opened.map((volume) => volume.release()));
}

async function start(count: number): Promise<{ process: ChildProcess; mark(name: string): Promise<string> }> {
  const script = join(import.meta.dirname, 'volume-process.ts');
  const args = [script, directory, String(sizeBytes), key.toString('hex'), String(count)];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  expect((await lines.next()).value).toBe('ready');
  return {
    process: child,
    async mark(name) {
      child.stdin.write(`${name}\n`);
      return (await lines.next()).value as string;
    },
  };
}
