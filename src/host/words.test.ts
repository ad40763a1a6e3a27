import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { AwsError } from '../aws/errors.ts';
import { openStore } from '../blocks/open-store.ts';
import { blockBytes, inFull } from '../blocks/store.ts';
import { wordsOf } from './words.ts';

const failure = async (work: () => unknown) => {
  try {
    await work();
  } catch (error) {
    return error;
  }
  return expect.unreachable('it should have failed');
};

test('what a block store can’t do is said without the place of the store; the operator is told that, too', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'coffer words '));
  const location = join(directory, 'store');
  const store = await openStore(location);
  const bytes = Buffer.alloc(blockBytes);
  const missing = await failure(() => store.getBlock({ owner: 'snap-1', index: 4 }, Buffer.alloc(32), bytes));
  expect(wordsOf(missing)).toBe('block 4 of snap-1 is missing in the block store');
  expect(inFull(missing)).toContain(location);
  store.close();
  const other = await failure(() => openStore(join(directory, 'none'), { create: false }));
  expect(wordsOf(other)).toBe('there is no block store');
  expect(inFull(other)).toContain(join(directory, 'none'));
  rmSync(directory, { recursive: true });
});

test('files are named without their directories, and systems’ errors without their files', async () => {
  expect(wordsOf(await failure(() => readFileSync('/srv/coffer data/volumes/vol-1.img')))).toBe(
    'ENOENT: no such file or directory',
  );
  expect(wordsOf(new Error('the volume image /srv/coffer/volumes/vol-1.img is missing'))).toBe(
    'the volume image vol-1.img is missing',
  );
  expect(wordsOf(new Error("'/srv/coffer data/x.map' and (/srv/y): damaged"))).toBe("'x.map' and (y): damaged");
  const arn = 'arn:aws:kms:us-east-1:111122223333:key/1 is disabled, 3/4 done';
  expect(wordsOf(new Error(arn))).toBe(arn);
  expect(wordsOf(new AwsError('DisabledException', '/x is disabled.'))).toBe('/x is disabled.');
  expect(wordsOf('just text')).toBe('just text');
});
