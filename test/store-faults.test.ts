/** A block store on a disk that is full, and one whose disk can't be read. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkStore, isFine } from '../src/blocks/check.ts';
import { freeSnapshot } from '../src/blocks/free.ts';
import { openStore } from '../src/blocks/open-store.ts';
import { blockBytes } from '../src/blocks/store.ts';
import { blockOf, blocksIn, sha256Of, storeSnapshot } from '../src/blocks/testing-store.ts';
import { run } from './support/client.ts';
import { until } from './support/server.ts';

let scratch: string;
const cleanUp: Array<() => Promise<unknown>> = [];
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'coffer-faults-'));
});
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
  rmSync(scratch, { recursive: true, force: true });
});

it('says that the disk is full, leaves nothing half written, and goes on when there is room', async () => {
  // Four blocks, and some room for names.
  await run('mount', ['-t', 'tmpfs', '-o', `size=${4 * blockBytes + 64 * 1024}`, 'tmpfs', scratch]);
  cleanUp.push(() => run('umount', [scratch]));
  const store = await openStore(join(scratch, 'snapshots'));
  cleanUp.push(async () => store.close());
  await storeSnapshot(store, 'snap-0a', [0, 1, 2]);
  const full = { name: 'StoreError', code: 'Full', message: expect.stringMatching(/snap-0b .*ENOSPC/) };

  await expect(storeSnapshot(store, 'snap-0b', [0, 1, 2])).rejects.toMatchObject(full);
  await expect(store.putManifest('snap-0b', Buffer.alloc(blockBytes))).rejects.toMatchObject(full);
  expect(readdirSync(join(scratch, 'snapshots', 'tmp'))).toEqual([]);
  expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0a:1', 'snap-0a:2', 'snap-0b:0']);
  expect(await checkStore(store)).toMatchObject({ problemCount: 0, snapshots: 1, beingMade: ['snap-0b'] });

  await freeSnapshot(store, 'snap-0a');
  await storeSnapshot(store, 'snap-0b', [0, 1, 2]);
  const report = await checkStore(store);
  expect(report).toMatchObject({ snapshots: 1, blocks: 3 });
  expect(isFine(report)).toBe(true);
});

it('names the block that the disk fails to read, and reads all others', async () => {
  const store = await openStore(join(scratch, 'snapshots'));
  cleanUp.push(async () => store.close());
  await storeSnapshot(store, 'snap-0a', [0, 1, 2]);
  // In the block's place, a file that a broken disk is behind.
  const fuse = join(scratch, 'fuse');
  mkdirSync(fuse);
  const nbdkit = ['nbdkit', '-s', '--exit-with-parent', '--filter=error', 'memory', '512k', 'error-pread=EIO'];
  const broken = spawn('nbdfuse', [fuse, '--command', ...nbdkit, 'error-pread-rate=100%'], { stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => broken.once('exit', () => resolve()));
  cleanUp.push(async () => {
    await run('fusermount3', ['-u', fuse]).catch(() => broken.kill());
    await ended;
  });
  await until(() => existsSync(join(fuse, 'nbd')), 'nbdfuse to serve the broken disk');
  const file = join(scratch, 'snapshots', 'blocks', 'snap-0a', '0000', '00000001');
  rmSync(file);
  symlinkSync(join(fuse, 'nbd'), file);

  const name = { owner: 'snap-0a', index: 1 };
  await expect(store.getBlock(name, sha256Of(blockOf(name)), Buffer.alloc(blockBytes))).rejects.toMatchObject({
    code: 'Unavailable',
    message: expect.stringMatching(/block 1 of snap-0a .*EIO/),
  });
  expect(await checkStore(store)).toMatchObject({
    blocksRead: 3,
    problems: [{ kind: 'unreadable', owner: 'snap-0a', index: 1, snapshotIds: ['snap-0a'] }],
  });
});
