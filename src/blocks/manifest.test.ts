import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HeaderTooLong, Manifest, ManifestBuilder, parseManifestHeader } from './manifest.ts';
import { blockBytes } from './store.ts';

const location = '/store';
const createdAt = '2026-11-21T00:00:00.000Z';
const shaOf = (text: string) => createHash('sha256').update(text).digest();

function builderOf(snapshotId: string, sizeBlocks: number, parent?: Manifest): ManifestBuilder {
  return new ManifestBuilder({ snapshotId, volumeId: 'vol-1', sizeBytes: sizeBlocks * blockBytes, createdAt, parent });
}

function build(snapshotId: string, indexes: readonly number[], sizeBlocks = 1000): Buffer {
  const builder = builderOf(snapshotId, sizeBlocks);
  for (const index of indexes) builder.append(index, shaOf(`${snapshotId} ${index}`));
  return builder.finish();
}

const parse = (bytes: Buffer, snapshotId: string) => Manifest.parse(bytes, { snapshotId, location });

describe('a manifest', () => {
  it('says which blocks a snapshot has, whose they are, and what they hash to', () => {
    const manifest = parse(build('snap-1', [0, 7, 999]), 'snap-1');
    expect([...manifest.entries()]).toEqual(
      [0, 7, 999].map((index) => ({ owner: 'snap-1', index, sha256: shaOf(`snap-1 ${index}`) })),
    );
    expect(manifest.header).toEqual({
      snapshotId: 'snap-1',
      volumeId: 'vol-1',
      sizeBytes: 1000 * blockBytes,
      blockBytes,
      parentSnapshotId: null,
      ancestors: [],
      owners: ['snap-1'],
      blocks: 3,
      createdAt,
    });
  });

  it('can be that of an empty volume', () => {
    const manifest = parse(build('snap-1', []), 'snap-1');
    expect([manifest.blocks, manifest.find(0), manifest.cursor().find(0), manifest.header.owners]).toEqual([
      0,
      -1,
      -1,
      [],
    ]);
  });

  it('names the owners of what it inherits, and no others', () => {
    const first = parse(build('snap-1', [1, 2, 3]), 'snap-1');
    const second = builderOf('snap-2', 1000, first);
    expect(second.inherit(0)).toBe(false);
    expect(second.inherit(1)).toBe(true);
    second.append(2, shaOf('new'));
    const secondManifest = parse(second.finish(), 'snap-2');
    const third = builderOf('snap-3', 2000, secondManifest);
    expect(third.inherit(2)).toBe(true);
    third.append(1999, shaOf('end'));
    const manifest = parse(third.finish(), 'snap-3');
    expect([...manifest.entries()].map(({ owner, index }) => [owner, index])).toEqual([
      ['snap-2', 2],
      ['snap-3', 1999],
    ]);
    expect(manifest.sha256At(0)).toEqual(shaOf('new'));
    expect(manifest.header.owners).toEqual(['snap-2', 'snap-3']);
    expect(manifest.header.ancestors).toEqual(['snap-2', 'snap-1']);
    expect(manifest.header.parentSnapshotId).toBe('snap-2');
  });

  it('finds what was put in, one by one and going forward', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(999), { maxLength: 300 }),
        fc.array(fc.nat(1100), { maxLength: 300 }),
        (indexes, asked) => {
          const sorted = indexes.toSorted((a, b) => a - b);
          const manifest = parse(build('snap-1', sorted), 'snap-1');
          const cursor = manifest.cursor();
          for (const index of asked.toSorted((a, b) => a - b)) {
            expect(manifest.find(index)).toBe(sorted.indexOf(index));
            expect(cursor.find(index)).toBe(sorted.indexOf(index));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('is refused when any of its bytes is another', () => {
    const good = build('snap-1', [0, 7, 999]);
    const fault = expect.objectContaining({
      code: 'Corrupt',
      message: expect.stringContaining('the manifest of snap-1 is damaged: '),
      detail: '/store',
    });
    for (let offset = 0; offset < good.length; offset++) {
      const bad = Buffer.from(good);
      bad[offset]! ^= 1 << (offset & 7);
      expect(() => parse(bad, 'snap-1')).toThrow(fault);
    }
  });

  it('is refused when it is cut off, goes on, is another one, or nothing of the kind', () => {
    const good = build('snap-1', [0, 7, 999]);
    const fault = expect.objectContaining({ code: 'Corrupt' });
    for (let length = 0; length < good.length; length++) {
      expect(() => parse(good.subarray(0, length), 'snap-1')).toThrow(fault);
    }
    expect(() => parse(Buffer.concat([good, Buffer.alloc(1)]), 'snap-1')).toThrow(fault);
    expect(() => parse(good, 'snap-2')).toThrow(fault);
    expect(() => parse(randomBytes(1000), 'snap-1')).toThrow(fault);
  });

  it('is refused when it makes no sense, however good its checksums are', () => {
    const seal = (header: object | null, entries: Buffer) => {
      const json = Buffer.from(JSON.stringify(header));
      const prefix = Buffer.alloc(12);
      prefix.write('COFFERM1', 'latin1');
      prefix.writeUInt32LE(json.length, 8);
      const head = Buffer.concat([prefix, json]);
      const all = Buffer.concat([head, createHash('sha256').update(head).digest(), entries]);
      return Buffer.concat([all, createHash('sha256').update(all).digest()]);
    };
    const header = { ...parse(build('snap-1', []), 'snap-1').header, owners: ['snap-1'], blocks: 2 };
    const entry = (index: number, owner: number) => {
      const bytes = Buffer.alloc(40, 1);
      bytes.writeUInt32LE(index, 0);
      bytes.writeUInt32LE(owner, 4);
      return bytes;
    };
    const entries = Buffer.concat([entry(1, 0), entry(2, 0)]);
    expect(parse(seal(header, entries), 'snap-1').blocks).toBe(2);
    for (const bad of [
      seal(header, Buffer.concat([entry(2, 0), entry(1, 0)])),
      seal(header, Buffer.concat([entry(1, 0), entry(1, 0)])),
      seal(header, Buffer.concat([entry(1, 0), entry(2, 1)])),
      seal(header, Buffer.concat([entry(1, 0), entry(1000, 0)])),
      seal(null, entries),
      seal({ ...header, blocks: 1 }, entries),
      seal({ ...header, blocks: -2 }, entries),
      seal({ ...header, sizeBytes: 5 }, entries),
      seal({ ...header, blockBytes: 4096 }, entries),
      seal({ ...header, owners: ['../../etc'] }, entries),
      seal({ ...header, owners: null }, entries),
      seal({ ...header, parentSnapshotId: 'snap-9' }, entries),
    ]) {
      expect(() => parse(bad, 'snap-1')).toThrow(expect.objectContaining({ code: 'Corrupt' }));
    }
  });

  it('has a header that can be read, and trusted, without the rest', () => {
    const bytes = build('snap-1', [0, 7, 999]);
    const { header, entriesOffset } = parseManifestHeader(bytes, { snapshotId: 'snap-1', location });
    expect(header.blocks).toBe(3);
    const start = bytes.subarray(0, entriesOffset);
    expect(parseManifestHeader(start, { snapshotId: 'snap-1', location }).header).toEqual(header);
    const tooShort = () => parseManifestHeader(start.subarray(0, 50), { snapshotId: 'snap-1', location });
    expect(tooShort).toThrow(HeaderTooLong);
    expect(tooShort).toThrow(expect.objectContaining({ neededBytes: entriesOffset }));
  });

  it('takes blocks in their order only, inside the volume', () => {
    const builder = builderOf('snap-1', 10);
    builder.append(3, shaOf('a'));
    for (const index of [3, 2, 10, -1, 4.5, Number.NaN]) {
      expect(() => builder.append(index, shaOf('b'))).toThrow(RangeError);
    }
    expect(() => builder.append(4, Buffer.alloc(31))).toThrow(RangeError);
    expect(() => builderOf('snap-1', 0)).toThrow(RangeError);
  });

  it('takes less than 60 bytes of memory a block while it is made, and 41 when it is read', () => {
    const blocks = 1_000_000;
    const builder = builderOf('snap-1', 2 ** 27);
    const sha256 = shaOf('x');
    const before = process.memoryUsage().rss;
    for (let index = 0; index < blocks; index++) builder.append(index * 100, sha256);
    const bytes = builder.finish();
    expect(process.memoryUsage().rss - before).toBeLessThan(60 * blocks + 8e6);
    expect(bytes.length).toBeLessThan(41 * blocks);
    expect(parse(bytes, 'snap-1').find(99_999_900)).toBe(blocks - 1);
  });
});
