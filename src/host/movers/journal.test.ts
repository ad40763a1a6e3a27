import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Journal } from './journal.ts';

const snapshotId = 'snap-00000000000000001';
const sha = (byte: number) => Buffer.alloc(32, byte);
let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'coffer-journal-'));
  path = join(directory, 'journal');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(...entries: ((journal: Journal) => void)[]): void {
  const journal = new Journal(path, snapshotId);
  for (const entry of entries) entry(journal);
  journal.close();
}
const open = () => new Journal(path, snapshotId);

/** As the file would be after the machine's next start. */
function inAnotherBoot(): void {
  const bytes = readFileSync(path);
  const lineEnd = bytes.indexOf('\n');
  const header = JSON.parse(bytes.toString('utf8', 0, lineEnd));
  writeFileSync(
    path,
    Buffer.concat([Buffer.from(JSON.stringify({ ...header, bootId: 'another' })), bytes.subarray(lineEnd)]),
  );
}

test('what was noted, in any order, is found by the next process', () => {
  write(
    (journal) => journal.addStored(9, sha(9)),
    (journal) => journal.addHoles(2, 5),
    (journal) => journal.addInherited(1, sha(1)),
  );
  const journal = open();
  expect([0, 1, 2, 6, 7, 9, 10].map((index) => journal.find(index)?.kind)).toEqual([
    ...[undefined, 'inherited', 'hole', 'hole', undefined, 'stored', undefined],
  ]);
  expect(journal.find(9)).toEqual({ kind: 'stored', sha256: sha(9) });
  expect([0, 2, 9, 10].map((index) => journal.nextData(index))).toEqual([1, 9, 9, Number.POSITIVE_INFINITY]);
  journal.close();
});

test('a record that was cut off by a kill is not there, and the next ones are whole', () => {
  write((journal) => journal.addStored(1, sha(1)));
  appendFileSync(path, Buffer.alloc(17, 0xff));
  write((journal) => journal.addStored(2, sha(2)));
  const journal = open();
  expect([journal.find(1), journal.find(2)]).toEqual([1, 2].map((byte) => ({ kind: 'stored', sha256: sha(byte) })));
  journal.close();
});

test('after a crash of the machine the records are not believed, but that the journal exists is', () => {
  write((journal) => journal.addStored(1, sha(1)));
  inAnotherBoot();
  expect(Journal.exists(path)).toBe(true);
  const journal = open();
  expect(journal.find(1)).toBeUndefined();
  journal.close();
});

test('after an orderly end they are, also when the machine was started anew', () => {
  const journal = open();
  journal.addStored(1, sha(1));
  journal.closeClean();
  inAnotherBoot();
  const again = open();
  expect(again.find(1)).toEqual({ kind: 'stored', sha256: sha(1) });
  again.close();
  // From here on they are those of a process that may be killed.
  inAnotherBoot();
  const third = open();
  expect(third.find(1)).toBeUndefined();
  third.close();
});

test('records of blocks that the store could not make durable say so, until there are none', () => {
  const journal = open();
  journal.addStored(1, sha(1));
  journal.closeSuspect();
  const again = open();
  expect([again.isSuspect, again.find(1)?.kind]).toEqual([true, 'stored']);
  again.close();
  const third = open();
  expect(third.isSuspect).toBe(true);
  third.closeEmpty();
  const last = open();
  expect([last.isSuspect, last.find(1)]).toEqual([false, undefined]);
  last.close();
});

test("another snapshot's journal is refused", () => {
  write();
  expect(() => new Journal(path, 'snap-00000000000000002')).toThrow(/not the journal of snap-00000000000000002/);
});

test('removing it leaves nothing', () => {
  write();
  writeFileSync(`${path}.new`, 'half');
  Journal.remove(path);
  expect(readdirSync(directory)).toEqual([]);
});

test('what the volume was compared with stays what it was when copying began', () => {
  Journal.create(path, snapshotId);
  const begin = (parent: string | null) => {
    const journal = new Journal(path, snapshotId, parent);
    journal.close();
    return journal.parent;
  };
  expect([begin('snap-1'), begin('snap-2'), begin(null)]).toEqual(['snap-1', 'snap-1', 'snap-1']);
  // What was found out is not believed then, so copying begins anew.
  inAnotherBoot();
  expect([begin(null), begin('snap-2')]).toEqual([null, null]);
});
