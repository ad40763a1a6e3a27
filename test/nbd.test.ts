// The data path under real clients: libnbd's tools, QEMU, fio; and the image under other people's XTS.

import { spawn } from 'node:child_process';
import { createDecipheriv, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createVolumeImage } from '../src/blocks/images.ts';
import { type OneExport, openExport } from '../src/host/export.ts';
import { command, commandFlag } from '../src/host/nbd/protocol.ts';
import { TestClient } from '../src/host/nbd/testing-client.ts';
import { run as runAnything } from './support/client.ts';

const mib = 1024 * 1024;
const size = 256 * mib;
const quiet = () => {};
const log = { info: quiet, warn: quiet, error: console.error };

let directory: string;
let imagePath: string;
let key: Buffer;
let volume: OneExport;
let uri: string;

/** Runs a client to its end; a missing one is a failure that says which package has it. */
async function run(command: keyof typeof packages, ...args: string[]): Promise<string> {
  try {
    return (await runAnything(command, args, { cwd: directory })).stdout;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${command} is missing; install it with: apt-get install ${packages[command]}`);
  }
}

const packages = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-io': 'qemu-utils',
  'qemu-img': 'qemu-utils',
  fio: 'fio',
  '/usr/bin/python3': 'python3 python3-libnbd libnettle8',
};

beforeAll(async () => {
  directory = mkdtempSync('/var/tmp/coffer-clients-');
  imagePath = join(directory, 'vol.img');
  key = randomBytes(64);
  createVolumeImage(imagePath, size);
  const socketPath = join(directory, 'dev', 'sdf');
  volume = await openExport({
    volumeId: 'vol-0a',
    imagePath,
    sizeBytes: size,
    dataKey: Buffer.from(key),
    socketPath,
    log,
  });
  uri = `nbd+unix:///?socket=${socketPath}`;
});
afterAll(async () => {
  await volume.close();
  rmSync(directory, { recursive: true });
});

describe('libnbd', () => {
  it('nbdinfo finds the export and what it can do', async () => {
    const { protocol, structured, exports } = JSON.parse(await run('nbdinfo', '--json', uri));
    expect({ protocol, structured }).toEqual({ protocol: 'newstyle-fixed', structured: true });
    expect(exports[0]).toMatchObject({
      'export-name': 'vol-0a',
      description: 'Coffer volume vol-0a, encrypted at rest',
      contexts: ['base:allocation'],
      'export-size': size,
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * mib,
    });
    const listed = JSON.parse(await run('nbdinfo', '--json', '--list', uri));
    expect(listed.exports.map((one: { 'export-name': string }) => one['export-name'])).toEqual(['vol-0a']);
  });

  it('nbdcopy copies in and out, sparse, over several connections', async () => {
    const source = join(directory, 'source');
    const fd = openSync(source, 'w');
    ftruncateSync(fd, size);
    for (const at of [0, 10 * mib + 4096, 77 * mib, size - mib]) writeSync(fd, randomBytes(mib), 0, mib, at);
    closeSync(fd);
    await run('nbdcopy', '--flush', source, uri);
    await run('nbdcopy', uri, join(directory, 'back'));
    expect(readFileSync(join(directory, 'back')).equals(readFileSync(source))).toBe(true);
    const map: { offset: number; length: number; type: number }[] = JSON.parse(
      await run('nbdinfo', '--map', '--json', uri),
    );
    const data = map.filter(({ type }) => type === 0).reduce((sum, { length }) => sum + length, 0);
    expect(data).toBe(4 * mib);
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(size);
  });

  it('nbdsh gets what it asks for, and the errors it deserves', async () => {
    const script = `
import nbd, os, errno, json
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri("${uri}")
data = os.urandom(70001)
h.pwrite(data, 123)
assert h.pread(70001, 123) == data
chunks = []
def chunk(buf, offset, status, error):
    chunks.append((offset, len(buf), status))
assert h.pread_structured(1048576, 100, chunk) is not None
assert sum(c[1] for c in chunks) == 1048576
h.zero(4096, 4096, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(4096, 4096) == bytes(4096)
h.zero(100, 1, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.trim(65536, 0, nbd.CMD_FLAG_FUA)
h.cache(65536, 0)
h.flush()
h.pwrite(b"fua", 9, nbd.CMD_FLAG_FUA)
extents = []
h.block_status(1 << 20, 0, lambda context, offset, entries, error: extents.append((context, entries)))
assert extents[0][0] == "base:allocation" and len(extents[0][1]) >= 2
def fails(f):
    try:
        f()
    except nbd.Error as e:
        return errno.errorcode[e.errnum]
    return None
buffers = [nbd.Buffer(4096) for i in range(200)]
cookies = [h.aio_pread(b, 4096 * i) for i, b in enumerate(buffers)]
while any(not h.aio_command_completed(c) for c in cookies[-1:]):
    h.poll(-1)
size = h.get_size()
print(json.dumps([
    fails(lambda: h.pread(512, size - 1)), fails(lambda: h.pwrite(b"ab", size - 1)),
    fails(lambda: h.zero(2, size - 1)), fails(lambda: h.trim(2, size - 1)),
    fails(lambda: h.pread(33 << 20, 0)), fails(lambda: h.pread(1, 0, 1 << 14)), fails(lambda: h.pread(1, 0))]))
h.shutdown()
`;
    expect(JSON.parse(await run('/usr/bin/python3', '-c', script))).toEqual([
      'EINVAL',
      'ENOSPC',
      'ENOSPC',
      'EINVAL',
      'EOVERFLOW',
      'EINVAL',
      null,
    ]);
  });
});

describe('QEMU', () => {
  it('qemu-io writes, zeroes, discards and verifies at odd offsets', async () => {
    const commands = [
      'write -P 0xab 1000 50000',
      'write -z 8192 4096',
      'write -zu 20480 8192',
      'write -f -P 0x11 513 1024',
      'discard 1M 1M',
      'flush',
      'read -P 0x11 513 1024',
      'read -P 0xab 1537 6655',
      'read -P 0 8192 4096',
      'read -P 0 20480 8192',
      'read -P 0xab 28672 20000',
    ].flatMap((one) => ['-c', one]);
    const output = await run('qemu-io', '-f', 'raw', ...commands, uri);
    expect(output).not.toMatch(/fail|error/i);
  });

  it('qemu-img converts into the volume, compares and measures', async () => {
    const source = join(directory, 'qemu-source');
    writeFileSync(source, Buffer.concat([randomBytes(3 * mib), Buffer.alloc(5 * mib), randomBytes(mib)]));
    await run('qemu-img', 'resize', '-q', '-f', 'raw', source, String(size));
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source, uri);
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, uri)).toContain('identical');
    expect(JSON.parse(await run('qemu-img', 'info', '--output=json', uri))['virtual-size']).toBe(size);
  });
});

describe('fio', () => {
  it.each([
    ['random block sizes, unaligned', ['--bsrange=512-70k', '--bs_unaligned=1', '--iodepth=32']],
    ['two connections', ['--bs=4k', '--numjobs=2', '--offset_increment=64m', '--iodepth=16', '--fsync=50']],
  ])('verifies its own data: %s', async (_title, more) => {
    await run(
      'fio',
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--rw=randwrite',
      '--size=48m',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--do_verify=1',
      '--minimal',
      ...more,
    );
  });
});

describe('the image on disk', () => {
  it('decrypts with Node and with Nettle to what clients wrote, and shows nothing of it before', async () => {
    const client = await TestClient.connect(join(directory, 'dev', 'sdf'));
    const marker = Buffer.from('MARKER: the quick brown fox jumps over the lazy dog. ');
    const plaintext = Buffer.alloc(2 * mib, marker);
    const offset = 100 * mib;
    await client.request(command.writeZeroes, 0, size);
    await client.write(offset, plaintext, commandFlag.fua);
    await client.disconnect();

    const image = readFileSync(imagePath);
    expect(image.includes('quick brown')).toBe(false);
    expect(image.subarray(0, offset).some((byte) => byte !== 0)).toBe(false);
    const stored = image.subarray(offset, offset + plaintext.length);
    const units: Buffer[] = [];
    for (let at = 0; at < stored.length; at += 4096) {
      const iv = Buffer.alloc(16);
      iv.writeBigUInt64LE(BigInt((offset + at) / 4096));
      const decipher = createDecipheriv('aes-256-xts', key, iv);
      units.push(decipher.update(stored.subarray(at, at + 4096)), decipher.final());
    }
    expect(Buffer.concat(units).equals(plaintext)).toBe(true);

    writeFileSync(join(directory, 'key'), key, { mode: 0o600 });
    const nettle = `
import ctypes, sys
nettle = ctypes.CDLL("libnettle.so.8")
context, unit = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(4096)
nettle.nettle_xts_aes256_set_decrypt_key(context, open("key", "rb").read())
with open("vol.img", "rb") as image:
    image.seek(${offset})
    for number in range(${offset / 4096}, ${(offset + plaintext.length) / 4096}):
        tweak = number.to_bytes(16, "little")
        nettle.nettle_xts_aes256_decrypt_message(context, tweak, ctypes.c_size_t(4096), unit, image.read(4096))
        sys.stdout.write(unit.raw.decode("ascii"))
`;
    expect(await run('/usr/bin/python3', '-c', nettle)).toBe(plaintext.toString());
    rmSync(join(directory, 'key'));
  });
});

describe('a process killed in the middle of writing', () => {
  it('has lost nothing that was flushed or written with FUA', async () => {
    const crashImage = join(directory, 'crash.img');
    const crashKey = randomBytes(64);
    const socketPath = join(directory, 'crash.sock');
    createVolumeImage(crashImage, size);
    const model = Buffer.alloc(size);
    for (let round = 0; round < 3; round++) {
      const child = spawn(
        process.execPath,
        [
          join(import.meta.dirname, 'nbd-export-process.ts'),
          crashImage,
          String(size),
          crashKey.toString('hex'),
          socketPath,
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      await once(child.stdout, 'data');
      const client = await TestClient.connect(socketPath);
      for (let step = 0; step < 40; step++) {
        const data = randomBytes(1 + Math.floor(Math.random() * 30_000));
        const offset = Math.floor(Math.random() * (64 * mib));
        const fua = step % 3 === 0;
        await client.write(offset, data, fua ? commandFlag.fua : 0);
        data.copy(model, offset);
      }
      await client.request(command.flush, 0, 0);
      // Beyond what is compared, and never answered for sure: the process dies in the middle of these.
      for (let step = 0; step < 200; step++) {
        client.write(128 * mib + step * 300_000, randomBytes(100_000)).catch(quiet);
      }
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    const again = await openExport({
      volumeId: 'vol-crash',
      imagePath: crashImage,
      sizeBytes: size,
      dataKey: crashKey,
      socketPath,
      log,
    });
    const client = await TestClient.connect(socketPath);
    const { data } = await client.read(0, 32 * mib);
    expect(data.equals(model.subarray(0, 32 * mib))).toBe(true);
    const { data: second } = await client.read(32 * mib, 32 * mib);
    expect(second.equals(model.subarray(32 * mib, 64 * mib))).toBe(true);
    await client.disconnect();
    await again.close();
  });
});
