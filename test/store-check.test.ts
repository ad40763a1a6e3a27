/** A block store whose writers are killed, and `coffer store check`. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkStore } from '../src/blocks/check.ts';
import { freeSnapshot } from '../src/blocks/free.ts';
import { openStore } from '../src/blocks/open-store.ts';
import { readManifest } from '../src/blocks/read-manifest.ts';
import type { BlockStore } from '../src/blocks/store.ts';
import { blockOf, blocksIn, collect, storeSnapshot } from '../src/blocks/testing-store.ts';
import { cleanEnvironment, run } from './support/client.ts';

const root = join(import.meta.dirname, '..');
const later = () => Date.now() + 2 * 60 * 60 * 1000;

/** Every step is synced: where memory can be a file system, that costs nothing. What a kill leaves is the same. */
const memoryDirectory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

let directory: string;
let store: BlockStore;
beforeEach(async () => {
  directory = mkdtempSync(join(memoryDirectory, 'coffer-check-'));
  store = await openStore(join(directory, 'snapshots'));
});
afterEach(() => {
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Runs the process that makes and frees snapshots, kills it so long after it says `word`; what it said until then. */
async function workAndDie(series: number, word: string, killAfterMs: number): Promise<string[]> {
  const program = [join(root, 'test/store-process.ts'), store.location, String(series)];
  const child = spawn(process.execPath, program, { stdio: ['ignore', 'pipe', 'inherit'], env: cleanEnvironment() });
  let said = '';
  const isWorking = new Promise<void>((resolve) =>
    child.stdout.on('data', (chunk) => {
      said += chunk;
      if (said.includes(word)) resolve();
    }),
  );
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  await Promise.race([isWorking, ended]);
  await new Promise((wake) => setTimeout(wake, killAfterMs));
  child.kill('SIGKILL');
  await ended;
  expect(child.signalCode).toBe('SIGKILL');
  return said.split('\n').filter(Boolean);
}

describe('kill -9 of a process that makes and frees snapshots', () => {
  it('loses nothing that was stored, and leaves nothing that can’t be cleared away', async () => {
    const idOf = (line: string) => line.split(' ')[1]!;
    const interrupted = { making: 0, freeing: 0 };
    // Where a kill hits is chance: as many as it takes to have hit both, eight at least.
    const hasHitBoth = () => interrupted.making > 0 && interrupted.freeing > 0;
    for (let series = 1; series <= 8 || (series <= 100 && !hasHitBoth()); series++) {
      const [word, spreadMs] = series % 2 === 0 ? (['freeing', 12] as const) : (['made', 100] as const);
      const said = await workAndDie(series, word, (series * 37) % spreadMs);
      const done = (word: string) => new Set(said.filter((line) => line.startsWith(`${word} `)).map(idOf));
      const [made, freeing, freed] = [done('made'), done('freeing'), done('freed')];
      if (made.size < done('making').size) interrupted.making += 1;
      if (freed.size < freeing.size) interrupted.freeing += 1;

      const report = await checkStore(store, { now: later });
      expect(report).toMatchObject({ problemCount: 0, damagedManifests: [], unreferenced: { blocks: 0 } });
      const manifests = new Set(await collect(store.listManifests()));
      for (const id of made) if (!freeing.has(id)) expect(manifests).toContain(id);
      for (const id of freed) expect(manifests).not.toContain(id);

      // What the next start of a host does.
      for (const id of await collect(store.listFreeing())) await freeSnapshot(store, id);
      for (const id of await collect(store.listMarks())) {
        if (manifests.has(id)) await store.deleteMark(id);
        else await freeSnapshot(store, id);
      }
      const names = new Set<string>();
      for (const id of await collect(store.listManifests())) {
        for (const { owner, index } of (await readManifest(store, id))!.entries()) names.add(`${owner}:${index}`);
      }
      expect(await blocksIn(store)).toEqual([...names].sort());
      for (const id of await collect(store.listManifests())) await freeSnapshot(store, id);
      expect(await blocksIn(store)).toEqual([]);
    }
    expect(interrupted.making).toBeGreaterThan(0);
    expect(interrupted.freeing).toBeGreaterThan(0);
  });
});

describe('coffer store check', () => {
  const check = async (...parameters: string[]) => {
    const command = ['store', 'check', '--data', directory, ...parameters];
    const result = run(join(root, 'bin/coffer'), command);
    return result.then(
      ({ stdout, stderr }) => ({ exitCode: 0, stdout, stderr }),
      ({ exitCode, stdout, stderr }) => ({ exitCode, stdout, stderr }),
    );
  };
  const altered = () => join(store.location, 'blocks', 'snap-0a', '0000', '00000001');

  beforeEach(async () => {
    const first = await storeSnapshot(store, 'snap-0a', [0, 1]);
    await storeSnapshot(store, 'snap-0b', [2], { manifest: first, inherited: [0, 1] });
  });

  it('says that all is well, with exit code 0', async () => {
    const { exitCode, stdout } = await check();
    expect(stdout).toBe(`${store.location}: 2 snapshots, 3 blocks (1.5 MiB), 3 blocks read\neverything is fine\n`);
    expect(exitCode).toBe(0);
    const json = JSON.parse((await check('--json', '--quick')).stdout);
    expect(json).toMatchObject({
      Fine: true,
      Location: store.location,
      StoreId: store.id,
      Snapshots: 2,
      Blocks: 3,
      BlocksRead: 0,
    });
  });

  it('names what is corrupt and who needs it, with exit code 1', async () => {
    const bytes = readFileSync(altered());
    bytes[1000]! ^= 128;
    writeFileSync(altered(), bytes);
    const { exitCode, stdout } = await check();
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/^1 of snap-0a +corrupt +snap-0a snap-0b$/m);
    expect(stdout).toMatch(/problems were found\n$/);
    const json = await check('--json');
    expect(json.exitCode).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({
      Fine: false,
      ProblemCount: 1,
      Problems: [{ Kind: 'corrupt', Owner: 'snap-0a', BlockIndex: 1, SnapshotIds: ['snap-0a', 'snap-0b'] }],
    });
    rmSync(altered());
    expect((await check('--quick')).stdout).toMatch(/^1 of snap-0a +missing +snap-0a snap-0b$/m);
  });

  it('leaves alone what may be referred to soon', async () => {
    const orphan = { owner: 'snap-0e', index: 9 };
    await store.putBlock(orphan, blockOf(orphan));
    const young = await check('--repair');
    expect(young.stdout).toContain('1 block that nothing refers to yet, too young to tell');
    expect(young.exitCode).toBe(0);
    expect(await blocksIn(store, 'snap-0e')).toEqual(['snap-0e:9']);
  });

  it('says with exit code 2 that there is nothing to check', async () => {
    const { exitCode, stderr, stdout } = await check('--store', join(directory, 'elsewhere'));
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toContain('there is no block store');
    expect((await check('--store', 's3://')).exitCode).toBe(2);
  });
});
