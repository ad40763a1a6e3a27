import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { openDirectoryStore } from './directory-store.ts';
import { openStore } from './open-store.ts';
import { blockBytes } from './store.ts';
import { blockOf, blocksIn, itIsABlockStore, sha256Of } from './testing-store.ts';

describe('a directory', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'coffer-store-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  itIsABlockStore(() => openStore(directory), 40);
});

describe('the directory store', () => {
  let directory: string;
  const name = { owner: 'snap-0a', index: 4097 };
  const bytes = Buffer.alloc(blockBytes);
  beforeEach(() => {
    directory = join(mkdtempSync(join(tmpdir(), 'coffer-store-')), 'snapshots');
  });
  afterEach(() => rmSync(join(directory, '..'), { recursive: true, force: true }));
  const files = () =>
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  const blockFile = () => join(directory, 'blocks', 'snap-0a', '0001', '00001001');

  it('keeps blocks where the format says, for its owner only', async () => {
    const store = openDirectoryStore(directory, true);
    await store.putBlock(name, blockOf(name));
    await store.putManifest('snap-0a', Buffer.from('x'));
    await store.putMark('snap-0b');
    expect(files().sort()).toEqual([
      blockFile(),
      join(directory, 'manifests', 'snap-0a.manifest'),
      join(directory, 'marks', 'snap-0b'),
      join(directory, 'store.json'),
    ]);
    for (const file of files()) expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(statSync(join(directory, 'blocks', 'snap-0a')).mode & 0o777).toBe(0o700);
    expect(readFileSync(blockFile()).equals(blockOf(name))).toBe(true);
    await store.deleteBlocks([name]);
    expect(readdirSync(join(directory, 'blocks'))).toEqual([]);
    store.close();
  });

  it('becomes one store when several threads make it at the same moment', async () => {
    const opening = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData.module).then(async ({ openStore }) => {
        const ids = [];
        for (const directory of workerData.directories) {
          const store = await openStore(directory);
          ids.push(store.id);
          store.close();
        }
        parentPort.postMessage(ids);
      });`;
    const directories = Array.from({ length: 40 }, (_, number) => join(directory, String(number)));
    const workerData = { module: new URL('open-store.ts', import.meta.url).href, directories };
    const threads = Array.from({ length: 4 }, () => new Worker(opening, { eval: true, workerData }));
    const answers = await Promise.all(threads.map((thread) => once(thread, 'message')));
    expect(new Set(answers.map(([ids]) => ids.join())).size).toBe(1);
    for (const each of directories) expect(readdirSync(each)).toContain('store.json');
    for (const each of directories) expect(readdirSync(each).filter((file) => file.endsWith('.new'))).toEqual([]);
  });

  it('takes blocks that lie anywhere in memory, many at once', async () => {
    const store = openDirectoryStore(directory, true);
    const many = Array.from({ length: 40 }, (_, index) => ({ owner: 'snap-0a', index }));
    await Promise.all(
      many.map((each) => {
        const memory = Buffer.alloc(blockBytes + 3);
        blockOf(each).copy(memory, 3);
        return store.putBlock(each, memory.subarray(3));
      }),
    );
    for (const each of many) await store.getBlock(each, sha256Of(blockOf(each)), bytes);
    await Promise.all([store.sync(), store.sync(), store.sync()]);
    store.close();
    await expect(store.sync()).rejects.toMatchObject({ code: 'Unavailable' });
  });

  it('detects a block of which a bit has changed, or that is cut off, and names it', async () => {
    const store = openDirectoryStore(directory, true);
    await store.putBlock(name, blockOf(name));
    const sha256 = sha256Of(blockOf(name));
    const altered = blockOf(name);
    altered[300_000]! ^= 4;
    for (const content of [altered, altered.subarray(0, 1000), Buffer.alloc(0)]) {
      writeFileSync(blockFile(), content);
      await expect(store.getBlock(name, sha256, bytes)).rejects.toMatchObject({
        code: 'Corrupt',
        message: expect.stringContaining('block 4097 of snap-0a'),
      });
    }
    store.close();
  });

  it('copies without a second copy on disk, and either outlives the other', async () => {
    const store = openDirectoryStore(directory, true);
    const copy = { owner: 'snap-0b', index: 1 };
    await store.putBlock(name, blockOf(name));
    await store.copyBlock(name, copy);
    expect(statSync(blockFile()).nlink).toBe(2);
    // Written again, as after a crash: the copy keeps what it had.
    await store.putBlock(name, blockOf(name, 1));
    await store.getBlock(copy, sha256Of(blockOf(name)), bytes);
    await store.deleteBlocks([name]);
    await store.getBlock(copy, sha256Of(blockOf(name)), bytes);
    store.close();
  });

  it('removes what a crash left half written, not what another process is writing', async () => {
    openDirectoryStore(directory, true).close();
    const [old, young] = [join(directory, 'tmp', 'old'), join(directory, 'tmp', 'young')];
    for (const file of [old, young]) writeFileSync(file, 'x');
    const twoHoursAgo = Date.now() / 1000 - 7200;
    utimesSync(old, twoHoursAgo, twoHoursAgo);
    const store = openDirectoryStore(directory, true);
    expect(readdirSync(join(directory, 'tmp'))).toEqual(['young']);
    expect(await blocksIn(store)).toEqual([]);
    store.close();
  });

  it('makes marks without temporary names, which a crash would leave', async () => {
    const store = openDirectoryStore(directory, true);
    const seen: (string | null)[] = [];
    const watching = watch(join(directory, 'marks'), (_, file) => seen.push(file));
    await store.putMark('snap-0a');
    await vi.waitUntil(() => seen.includes('snap-0a'), { timeout: 60_000 });
    watching.close();
    expect(new Set(seen)).toEqual(new Set(['snap-0a']));
    store.close();
  });

  it('says that it is gone while it is, rather than that it lacks anything, and leaves nothing in its place', async () => {
    const store = openDirectoryStore(directory, true);
    const copy = { owner: 'snap-0b', index: 1 };
    const sha256 = sha256Of(blockOf(name));
    await store.putBlock(name, blockOf(name));
    await store.putManifest('snap-0a', Buffer.from('x'));
    await store.putMark('snap-0b');
    const away = `${directory}.away`;
    renameSync(directory, away);
    const attempts: readonly (() => Promise<unknown>)[] = [
      () => store.getBlock(name, sha256, bytes),
      () => store.putBlock(copy, blockOf(copy)),
      () => store.copyBlock(name, copy),
      () => store.deleteBlocks([name]),
      () => store.blockStoredAt(name),
      () => store.getManifest('snap-0a'),
      () => store.putManifest('snap-0b', Buffer.from('y')),
      () => store.deleteManifest('snap-0a'),
      () => store.deleteMark('snap-0b'),
      () => blocksIn(store),
      () => Array.fromAsync(store.listManifests()),
      () => Array.fromAsync(store.listMarks()),
      () => Array.fromAsync(store.listFreeing()),
    ];
    for (const attempt of attempts) await expect(attempt()).rejects.toMatchObject({ code: 'Unavailable' });
    expect(existsSync(directory)).toBe(false);
    renameSync(away, directory);
    await store.getBlock(name, sha256, bytes);
    expect(await store.getManifest('snap-0a')).toEqual(Buffer.from('x'));
    expect(await Array.fromAsync(store.listMarks())).toEqual(['snap-0b']);
    store.close();
  });

  it('makes no directories where it was when it goes while a block is written', async () => {
    const store = openDirectoryStore(directory, true);
    const many = Array.from({ length: 40 }, (_, index) => ({ owner: 'snap-0a', index: index * 4096 }));
    const writing = Promise.allSettled(many.map((each) => store.putBlock(each, blockOf(each))));
    const blocks = () =>
      readdirSync(directory, { recursive: true }).filter((file) => /[0-9a-f]{8}$/.test(String(file)));
    while (blocks().length === 0) await new Promise((resolve) => setImmediate(resolve));
    renameSync(directory, `${directory}.away`);
    await writing;
    expect(existsSync(directory)).toBe(false);
    store.close();
  });

  it('is not made where it should be, nor taken for one when it is damaged', () => {
    expect(() => openDirectoryStore(directory, false)).toThrow(expect.objectContaining({ code: 'Unavailable' }));
    openDirectoryStore(directory, true).close();
    writeFileSync(join(directory, 'store.json'), '{"format":2,"id":"x"}');
    expect(() => openDirectoryStore(directory, true)).toThrow(expect.objectContaining({ code: 'Corrupt' }));
    rmSync(join(directory, 'store.json'));
    writeFileSync(join(directory, 'manifests', 'snap-1.manifest'), 'x');
    expect(() => openDirectoryStore(directory, true)).toThrow(expect.objectContaining({ code: 'Corrupt' }));
    expect(() => openDirectoryStore('/dev/null/x', true)).toThrow(expect.objectContaining({ code: 'Unavailable' }));
  });
});
