import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { filesUnder } from './files-under.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-files-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('finds regular files at any depth, and nothing else', () => {
  const root = join(directory, 'some');
  mkdirSync(join(root, 'a/b'), { recursive: true });
  mkdirSync(join(root, 'empty'));
  for (const name of ['one', 'a/two', 'a/b/three']) writeFileSync(join(root, name), '');
  symlinkSync('one', join(root, 'link'));
  expect(filesUnder(root).sort()).toEqual(['a/b/three', 'a/two', 'one'].map((name) => join(root, name)));
  expect(filesUnder(join(root, 'nowhere'))).toEqual([]);
});

test('directories that come and go meanwhile are no error, and hide nothing that stays', async () => {
  const root = join(directory, 'busy');
  mkdirSync(join(root, 'stays'), { recursive: true });
  writeFileSync(join(root, 'stays/file'), '');
  const comings = `
    const { mkdirSync, rmSync } = require('node:fs');
    const { parentPort, workerData } = require('node:worker_threads');
    for (let turn = 0; turn < 400; turn++) {
      mkdirSync(workerData + '/' + turn % 50 + '/deeper', { recursive: true });
      rmSync(workerData + '/' + (turn + 25) % 50, { recursive: true, force: true });
    }`;
  const worker = new Worker(comings, { eval: true, workerData: root });
  let isOver = false;
  const over = new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  }).finally(() => {
    isOver = true;
  });
  while (!isOver) {
    expect(filesUnder(root)).toEqual([join(root, 'stays/file')]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await over;
});
