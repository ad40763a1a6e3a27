import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createVolumeImage } from '../blocks/images.ts';
import { type ExportOptions, type OneExport, openExport } from './export.ts';
import { option } from './nbd/protocol.ts';
import { greet, optionHeader, RawConnection, TestClient } from './nbd/testing-client.ts';
import type { ExportFailure } from './volumes.ts';

const sizeBytes = 16 * 1024 * 1024;
let directory: string;
let options: ExportOptions;
let key: Buffer;
const open: OneExport[] = [];
const lines: string[] = [];

async function openOne(more: Partial<ExportOptions> = {}): Promise<OneExport> {
  const opened = await openExport({ ...options, dataKey: Buffer.from(key), ...more });
  open.push(opened);
  return opened;
}

beforeEach(() => {
  directory = mkdtempSync('/var/tmp/coffer-export-');
  key = randomBytes(64);
  lines.length = 0;
  const note = (fields: object, message: string) => void lines.push(`${message} ${JSON.stringify(fields)}`);
  options = {
    volumeId: 'vol-0123456789abcdef0',
    imagePath: join(directory, 'vol.img'),
    sizeBytes,
    dataKey: undefined,
    socketPath: join(directory, 'dev', 'sdf'),
    log: { info: note, warn: note, error: note },
  };
  createVolumeImage(options.imagePath, sizeBytes);
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close().catch(() => {});
  rmSync(directory, { recursive: true });
});

describe('a volume export', () => {
  it('keeps data across close and reopening, and takes its socket with it', async () => {
    const data = randomBytes(100_000);
    const first = await openOne();
    const client = await TestClient.connect(first.socketPath, { exportName: 'vol-0123456789abcdef0' });
    await client.write(77, data);
    await client.read(0, 10);
    expect(first.stats()).toEqual({
      connections: 1,
      reads: 1,
      readBytes: 10,
      writes: 1,
      writeBytes: 100_000,
      flushes: 0,
    });
    await first.close();
    await client.raw.closed;
    await first.close();
    expect(existsSync(options.socketPath)).toBe(false);
    expect(readFileSync(options.imagePath).includes(data.subarray(0, 64))).toBe(false);

    const second = await openOne();
    const again = await TestClient.connect(second.socketPath);
    expect((await again.read(77, data.length)).data.equals(data)).toBe(true);
  });

  it('serves unencrypted volumes with the same stack, less the cipher', async () => {
    const data = randomBytes(5000);
    const one = await openOne({ dataKey: undefined });
    const client = await TestClient.connect(one.socketPath);
    await client.write(4000, data);
    await one.close();
    expect(readFileSync(options.imagePath).subarray(4000, 9000).equals(data)).toBe(true);
  });

  it('wipes the key it was given, and logs nothing of it', async () => {
    const given = Buffer.from(key);
    await openOne({ dataKey: given });
    expect(given.equals(Buffer.alloc(64))).toBe(true);
    for (const part of [key.toString('hex'), key.toString('base64')]) expect(lines.join('\n')).not.toContain(part);
  });

  it('says why it can not be opened, and wipes the key all the same', async () => {
    const given = Buffer.from(key);
    await expect(openOne({ dataKey: given, imagePath: join(directory, 'none.img') })).rejects.toMatchObject({
      code: 'ImageMissing',
    });
    expect(given.equals(Buffer.alloc(64))).toBe(true);
    await expect(openOne({ sizeBytes: 4096 })).rejects.toMatchObject({ code: 'ImageSizeMismatch' });
    await expect(openOne({ dataKey: randomBytes(32) })).rejects.toThrow('a data key has 64 bytes');
    await expect(openOne({ dataKey: Buffer.alloc(64, 1) })).rejects.toThrow('must differ');
    await expect(openOne({ socketPath: join(directory, 'x'.repeat(120)) })).rejects.toThrow('at most 107 bytes');
    await openOne();
    await expect(openOne({ socketPath: join(directory, 'other') })).rejects.toMatchObject({ code: 'ImageInUse' });
  });

  it('replaces a socket that a crash left behind', async () => {
    const first = await openOne();
    const second = join(directory, 'dev', 'other');
    await first.close();
    createVolumeImage(second, 4096);
    const again = await openOne({ socketPath: second });
    await (await TestClient.connect(again.socketPath)).disconnect();
  });

  it('takes no writes when it is read only, and does not change the image', async () => {
    const one = await openOne({ readOnly: true });
    const client = await TestClient.connect(one.socketPath);
    expect((await client.write(0, Buffer.alloc(1))).error).toBe(1);
    expect((await client.read(0, 4096)).error).toBe(0);
  });

  it('reports a storage that fails, once', async () => {
    const one = await openOne();
    const failures: ExportFailure[] = [];
    one.onFailure((failure) => failures.push(failure));
    const client = await TestClient.connect(one.socketPath);
    // Cut from behind: reads then meet the end of the file.
    const { truncateSync } = await import('node:fs');
    truncateSync(options.imagePath, 0);
    expect((await client.read(sizeBytes - 4096, 4096)).error).toBe(5);
    expect((await client.read(sizeBytes - 8192, 4096)).error).toBe(5);
    await expect.poll(() => failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ stopped: false, code: 'EIO' });
  });

  it('tells its owner when the thread dies, and can be opened again', async () => {
    // A name of the wrong type makes the thread stumble as soon as a client asks for it.
    const one = await openOne({ exportName: 5 as unknown as string });
    const failures: ExportFailure[] = [];
    one.onFailure((failure) => failures.push(failure));
    const raw = new RawConnection(one.socketPath);
    await greet(raw);
    raw.send(optionHeader(option.list, 0));
    await raw.closed;
    await expect.poll(() => failures).toMatchObject([{ stopped: true }]);
    await one.close();
    const again = await openOne();
    await (await TestClient.connect(again.socketPath)).disconnect();
  });

  it('costs a modest amount of memory', async () => {
    const one = await openOne();
    const before = process.memoryUsage().rss;
    const more: OneExport[] = [];
    for (let index = 0; index < 5; index++) {
      const imagePath = join(directory, `vol-${index}.img`);
      createVolumeImage(imagePath, sizeBytes);
      more.push(await openOne({ imagePath, socketPath: join(directory, 'dev', String(index)) }));
    }
    const perVolume = (process.memoryUsage().rss - before) / more.length;
    expect(perVolume).toBeLessThan(40 * 1024 * 1024);
    for (const each of more) await each.close();
    await one.close();
  });
});
