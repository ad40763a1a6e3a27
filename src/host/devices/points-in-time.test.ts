import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { logOffset, pointOf, removeCow } from '../../blocks/copy-before-write.ts';
import { LogScanner } from '../../blocks/cow-log.ts';
import type { SnapshotView } from '../../blocks/snapshot-view.ts';
import { blockBytes } from '../../blocks/store.ts';
import { createXts } from '../../crypto/xts.ts';
import { type TestSource, TestVolume, transform } from './testing-volume.ts';

const firstBlocks = 5;
const growBlocks = 2;
const maxPending = 4;

interface Pending {
  readonly snapshotId: string;
  readonly contents: Buffer;
  /** What the snapshot before it held, if its change set is to be relative to that. */
  readonly before: { snapshotId: string; contents: Buffer } | undefined;
  readonly view: SnapshotView;
  watermark: number;
  isLost: boolean;
}

const offset = fc.oneof(
  // Around the edges of blocks and units, where mistakes are.
  fc
    .tuple(fc.nat(firstBlocks + growBlocks - 1), fc.integer({ min: -9000, max: 9000 }))
    .map(([block, shift]) => block * blockBytes + shift),
  fc.nat((firstBlocks + growBlocks) * blockBytes - 1),
);
const length = fc.oneof(fc.nat(600), fc.nat(30_000), fc.constantFrom(4096, 65_536, blockBytes, 2 * blockBytes));
const step = fc.record({
  kind: fc.constantFrom(
    ...[
      'write',
      'write',
      'write',
      'write',
      'expect',
      'expect',
      'zero',
      'trim',
      'allocate',
      'read',
      'mark',
      'mark',
      'copy',
      'copy',
      'finish',
    ],
    ...['abandon', 'flush', 'reopen', 'kill', 'torn', 'halfMark', 'halfMark', 'grow', 'crash', 'look'],
  ),
  offset,
  length,
  pick: fc.nat(1000),
});

interface Source {
  readonly source: TestSource;
  readonly contents: Buffer;
}

class Model {
  readonly directory: string;
  readonly volume: TestVolume;
  readonly source: Source | undefined;
  contents: Buffer;
  pending: Pending[] = [];
  last: { snapshotId: string; contents: Buffer } | undefined;
  snapshots = 0;

  readonly background: boolean;
  /** Blocks of the snapshot that were not in the image when it was last flushed. */
  readonly unsafe: Set<number>;

  constructor(directory: string, volume: TestVolume, source: Source | undefined, background: boolean) {
    this.background = background;
    this.unsafe = new Set(source?.source.blocks.keys());
    this.directory = directory;
    this.volume = volume;
    this.source = source;
    this.contents = source ? Buffer.from(source.contents) : Buffer.alloc(firstBlocks * blockBytes);
  }

  async carryOut({ kind, offset, length, pick }: { kind: string; offset: number; length: number; pick: number }) {
    const from = Math.min(Math.max(offset, 0), this.contents.length);
    const to = Math.min(from + length, this.contents.length);
    switch (kind) {
      case 'write': {
        const data = randomBytes(to - from);
        await this.volume.write(from, data);
        data.copy(this.contents, from);
        return;
      }
      // Whether or not the write comes.
      case 'expect':
        this.volume.top.expectWrite(from, to - from);
        return;
      case 'zero':
      case 'allocate':
        await this.volume.zero(from, to - from, kind === 'allocate');
        this.contents.fill(0, from, to);
        return;
      case 'trim': {
        await this.volume.trim(from, to - from);
        const first = Math.ceil(from / 4096) * 4096;
        const end = Math.floor(to / 4096) * 4096;
        if (end > first) this.contents.fill(0, first, end);
        return;
      }
      case 'read':
        expect((await this.volume.read(from, to - from)).equals(this.contents.subarray(from, to))).toBe(true);
        return;
      case 'flush':
        return this.#flush();
      case 'reopen':
        await this.#flush();
        return this.volume.reopen();
      case 'kill':
      case 'torn':
        return this.volume.kill(kind === 'torn');
      case 'crash':
        return this.#crash(pick % 2 === 0);
      case 'grow':
        return this.#grow();
      case 'mark':
        return this.#mark(undefined);
      case 'halfMark':
        return this.#mark((['prepare', 'fix', 'rename', 'commit'] as const)[pick % 4]);
      case 'copy':
        return this.#copy(pick);
      case 'look':
        return this.#look(pick);
      case 'finish':
        return this.#finish(pick);
      case 'abandon':
        return this.#abandon(pick);
    }
  }

  async #mark(until: 'prepare' | 'fix' | 'rename' | 'commit' | undefined) {
    if (this.pending.length >= maxPending) return;
    const snapshotId = `snap-${++this.snapshots}`;
    await this.volume.mark(snapshotId, until);
    const { state } = pointOf(this.volume.base, snapshotId);
    if (until === 'prepare' || until === 'fix') {
      expect(state).toBe('gone');
      return;
    }
    expect(state).toBe('marked');
    const view = this.volume.view(snapshotId);
    expect(view.sizeBytes).toBe(this.contents.length);
    expect(view.changedSince).toBe(this.last?.snapshotId);
    const contents = Buffer.from(this.contents);
    this.pending.push({ snapshotId, contents, before: this.last, view, watermark: 0, isLost: false });
    this.last = { snapshotId, contents };
  }

  /** Reads on where the copying of one has come to, mostly of the oldest, and lets go of what was read. */
  async #copy(pick: number) {
    const one = this.pending[pick % 4 === 0 ? pick % Math.max(this.pending.length, 1) : 0];
    if (!one || one.isLost) return;
    for (let count = 0; count < 1 + (pick % 3) && one.watermark < one.view.blocks; count++) {
      await this.#check(one, one.watermark);
      one.watermark++;
    }
    one.view.setWatermark(one.watermark);
  }

  async #look(pick: number) {
    const pending = this.pending[pick % Math.max(this.pending.length, 1)];
    if (!pending || pending.isLost || pending.watermark >= pending.view.blocks) return;
    await this.#check(pending, pending.watermark + (pick % (pending.view.blocks - pending.watermark)));
  }

  async #check({ view, contents, before }: Pending, index: number) {
    let block = this.volume.readView(view, index);
    if (!block) {
      await this.volume.read(index * blockBytes, 1);
      block = this.volume.readView(view, index)!;
    }
    const expected = contents.subarray(index * blockBytes, (index + 1) * blockBytes);
    expect(block.subarray(0, expected.length).equals(expected)).toBe(true);
    if (expected.some((byte) => byte !== 0)) expect(view.nextData(index)).toBe(index);
    if (view.changedSince === undefined) return;
    const then = before!.contents.subarray(index * blockBytes, (index + 1) * blockBytes);
    const isSame = then.equals(expected) || (then.length < expected.length && !expected.some((byte) => byte !== 0));
    if (!isSame) expect(view.isChanged(index)).toBe(true);
    expect(view.nextChanged(index) === index).toBe(view.isChanged(index));
  }

  async #finish(pick: number) {
    const oldest = this.pending[0];
    if (!oldest || pick % 2 === 0) return;
    if (!oldest.isLost) {
      for (let index = oldest.watermark; index < oldest.view.blocks; index++) await this.#check(oldest, index);
    }
    this.#remove(oldest);
  }

  async #abandon(pick: number) {
    const pending = this.pending[pick % Math.max(this.pending.length, 1)];
    if (pending) this.#remove(pending);
  }

  #remove(pending: Pending) {
    pending.view.close();
    removeCow(this.directory, 'vol-1', pending.snapshotId);
    expect(pointOf(this.volume.base, pending.snapshotId).state).toBe('gone');
    this.pending = this.pending.filter((one) => one !== pending);
  }

  async #grow() {
    if (this.contents.length > firstBlocks * blockBytes) return;
    this.volume.sizeBytes += growBlocks * blockBytes;
    await this.#flush();
    await this.volume.reopen();
    this.contents = Buffer.concat([this.contents, Buffer.alloc(growBlocks * blockBytes)]);
  }

  /** All that is pending is lost, and says so; what has changed is not known any more. */
  async #crash(isFlushed: boolean) {
    if (isFlushed) await this.#flush();
    // Of what was restored and written but not flushed, anything may be on the disk: it comes from the snapshot again.
    for (const block of this.#unflushed()) {
      this.source!.contents.copy(this.contents, block * blockBytes, block * blockBytes, (block + 1) * blockBytes);
      const { image, map } = this.volume.files;
      if (!map.unrestored.has(block)) writeSync(image.fd, randomBytes(70_000), 0, 70_000, block * blockBytes + 5);
    }
    await this.volume.crash();
    this.last = undefined;
    for (const pending of this.pending) {
      pending.isLost = true;
      expect(pointOf(this.volume.base, pending.snapshotId).state).toBe('lost');
      expect(() => this.volume.readView(pending.view, pending.watermark)).toThrow(
        expect.objectContaining({ code: 'Lost' }),
      );
    }
  }

  async #flush() {
    // Blocks that come in while it goes on may be flushed or not; those before must be.
    const { unrestored } = this.volume.files.map;
    const there = [...this.unsafe].filter((block) => !unrestored.has(block));
    await this.volume.flush();
    for (const block of there) this.unsafe.delete(block);
  }

  /** Blocks of the snapshot that no flush has covered yet. */
  #unflushed(): Iterable<number> {
    const { map } = this.volume.files;
    const { restore } = this.volume;
    // When all of it is there, the volume flushes by itself.
    if (!restore || restore.left === 0 || this.background) {
      return [...this.unsafe].filter((block) => map.unsafe.length > 0 && map.unsafe.has(block));
    }
    return this.unsafe;
  }

  async finish() {
    for (const pending of [...this.pending]) {
      if (!pending.isLost) {
        for (let index = pending.watermark; index < pending.view.blocks; index++) await this.#check(pending, index);
      }
      this.#remove(pending);
    }
    expect((await this.volume.read(0, this.contents.length)).equals(this.contents)).toBe(true);
  }
}

function makeSource(): Source {
  const key = randomBytes(64);
  const xts = createXts(key);
  const contents = Buffer.alloc(firstBlocks * blockBytes);
  const blocks = new Map<number, Buffer>();
  for (let index = 0; index < firstBlocks; index += 1 + (index % 2)) {
    const block = contents.subarray(index * blockBytes, (index + 1) * blockBytes);
    randomBytes(blockBytes / 2).copy(block, (index % 3) * 4096);
    const stored = Buffer.from(new ArrayBuffer(blockBytes));
    block.copy(stored);
    transform(xts, 'encrypt', stored, index);
    blocks.set(index, stored);
  }
  xts.close();
  return { source: { key, blocks, fetched: [] }, contents };
}

const seed = process.env.COFFER_TEST_SEED === undefined ? undefined : Number(process.env.COFFER_TEST_SEED);
const runs = Number(process.env.COFFER_TEST_RUNS ?? 15);

it.each([
  ['an empty volume', false, false],
  ['a volume that is restored when touched', true, false],
  ['a volume that is restored in the background', true, true],
])(
  'points in time of %s hold what it held, whatever is written, closed, killed or copied',
  async (_, restored, background) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const directory = mkdtempSync(join('/var/tmp', 'coffer-points-'));
        const made = restored ? makeSource() : undefined;
        const volume = await TestVolume.create({
          directory,
          key: randomBytes(64),
          sizeBytes: firstBlocks * blockBytes,
          source: made?.source,
          background,
        });
        const model = new Model(directory, volume, made, background);
        try {
          for (const one of steps) await model.carryOut(one);
          await model.finish();
        } finally {
          for (const { view } of model.pending) view.close();
          volume.end();
          rmSync(directory, { recursive: true });
        }
      }),
      { numRuns: runs, ...(seed === undefined ? {} : { seed }) },
    );
  },
  600_000,
);

it('a point in time that is copied before an older one goes on saving for it', async () => {
  const directory = mkdtempSync(join('/var/tmp', 'coffer-points-'));
  const volume = await TestVolume.create({ directory, key: randomBytes(64), sizeBytes: firstBlocks * blockBytes });
  const then = randomBytes(blockBytes);
  await volume.write(0, then);
  await volume.mark('snap-1');
  await volume.mark('snap-2');
  const [older, newer] = [volume.view('snap-1'), volume.view('snap-2')];
  newer.setWatermark(firstBlocks);
  await volume.kill();
  await volume.write(0, randomBytes(blockBytes));
  expect(volume.readView(older, 0)!.equals(then)).toBe(true);
  older.close();
  newer.close();
  removeCow(directory, 'vol-1', 'snap-1');

  // Now nobody needs what it would save.
  const again = volume.view('snap-2');
  again.setWatermark(firstBlocks);
  await volume.kill();
  const size = () => statSync(join(directory, 'vol-1.snap-2.cow')).size;
  const before = size();
  await volume.write(blockBytes, randomBytes(blockBytes));
  expect(size()).toBe(before);
  again.close();
  volume.end();
  rmSync(directory, { recursive: true });
});

it('what writes are about to destroy is saved for all of them together, and nothing twice', async () => {
  const directory = mkdtempSync(join('/var/tmp', 'coffer-points-'));
  const volume = await TestVolume.create({ directory, key: randomBytes(64), sizeBytes: firstBlocks * blockBytes });
  const unit = 4096;
  const then = randomBytes(blockBytes);
  await volume.write(0, then);
  expect(volume.top.expectsWrites).toBe(false);
  await volume.mark('snap-1');
  expect(volume.top.expectsWrites).toBe(true);
  const view = volume.view('snap-1');
  const path = join(directory, 'vol-1.snap-1.cow');
  const savedUnits = () => {
    const units: number[] = [];
    const fd = openSync(path, 'r');
    new LogScanner(fd, logOffset(volume.sizeBytes)).scan((first, count) => {
      for (let index = first; index < first + count; index++) units.push(index);
    });
    closeSync(fd);
    return units;
  };
  // The last one is a hole.
  for (const [offset, length] of [
    [9 * unit + 5, 10],
    [3 * unit, 2 * unit],
    [blockBytes, unit],
  ] as const)
    volume.top.expectWrite(offset, length);
  expect(savedUnits()).toEqual([]);
  await volume.write(7 * unit, randomBytes(unit));
  expect(savedUnits()).toEqual([7, 9, 3, 4, 128]);
  await volume.write(3 * unit, randomBytes(2 * unit));
  await volume.write(9 * unit + 5, randomBytes(10));
  expect(savedUnits()).toEqual([7, 9, 3, 4, 128]);
  expect(volume.readView(view, 0)!.equals(then)).toBe(true);
  view.close();
  removeCow(directory, 'vol-1', 'snap-1');
  volume.end();
  rmSync(directory, { recursive: true });
});
