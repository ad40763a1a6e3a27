import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { writePrivateFile } from './durable.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-files-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

it('writes a file that only its owner may read, and leaves nothing else behind', () => {
  const path = join(directory, 'secret');
  writePrivateFile(path, 'one', 'keep');
  expect(readFileSync(path, 'utf8')).toBe('one');
  expect(statSync(path).mode & 0o777).toBe(0o600);
  writePrivateFile(path, Buffer.from('two'), 'keep');
  expect(readFileSync(path, 'utf8')).toBe('one');
  writePrivateFile(path, Buffer.from('three'), 'replace');
  expect(readFileSync(path, 'utf8')).toBe('three');
  expect(readdirSync(directory)).toEqual(['secret']);
});

it('leaves nothing of a file that could not be written', () => {
  mkdirSync(join(directory, 'taken'));
  expect(() => writePrivateFile(join(directory, 'taken'), 'x', 'replace')).toThrow(/EISDIR/);
  expect(readdirSync(directory)).toEqual(['taken']);
});

it('says what is wrong with the directory', () => {
  expect(() => writePrivateFile(join(directory, 'no', 'such'), '', 'keep')).toThrow(/ENOENT/);
});
