import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createVolumeImage, openVolumeImage } from '../../blocks/images.ts';
import { fadviseDontNeed, libc } from '../../blocks/libc.ts';
import { createXts } from '../../crypto/xts.ts';
import { cipherDevice } from '../devices/cipher.ts';
import { type Device, DeviceError } from '../devices/device.ts';
import { fileDevice } from '../devices/file.ts';
import { command, commandFlag, nbdError, option, reply, transmissionFlag } from './protocol.ts';
import { listenNbd, type NbdServer, type ServerLimits } from './server.ts';
import {
  greet,
  negotiate,
  optionHeader,
  RawConnection,
  requestHeader,
  string32,
  TestClient,
  uint16,
  uint32,
} from './testing.ts';
import type { Accounts } from './transmission.ts';

const mib = 1024 * 1024;
const size = 64 * mib;

let directory: string;
let socketPath: string;
let device: Device;
let server: NbdServer;
let accounts: Accounts & { troubles: string[] };
let fd: number;

async function start(readOnly = false, limits?: ServerLimits, wrap = (below: Device) => below): Promise<void> {
  const path = join(directory, 'vol.img');
  createVolumeImage(path, size);
  const image = openVolumeImage(path, size, false);
  fd = image.fd;
  device = cipherDevice(wrap(fileDevice(image, libc())), createXts(randomBytes(64)));
  const troubles: string[] = [];
  accounts = {
    connections: 0,
    reads: 0,
    readBytes: 0,
    writes: 0,
    writeBytes: 0,
    flushes: 0,
    troubles,
    trouble: (error) => void troubles.push(error.code),
  };
  const description = { name: 'vol-1', description: 'a volume', sizeBytes: size, readOnly };
  server = await listenNbd(socketPath, device, description, accounts, limits);
}

beforeEach(() => {
  directory = mkdtempSync('/var/tmp/coffer-nbd-');
  socketPath = join(directory, 'sockets', 'vol-1');
});
afterEach(async () => {
  await server.close(1000);
  device.close();
  rmSync(directory, { recursive: true });
});

/** Throws the image out of the page cache, so that what follows has to wait for the disk. */
async function makeCold(): Promise<void> {
  await new Promise((resolve) => device.flush(resolve));
  libc().fadvise(fd, 0, 0, fadviseDontNeed);
}

describe('an export', () => {
  it('is a socket that only its owner may open', async () => {
    await start();
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory, 'sockets')).mode & 0o777).toBe(0o700);
  });

  it.each([true, false])('reads what was written, with structured replies: %s', async (structured) => {
    await start();
    const client = await TestClient.connect(socketPath, { structured });
    expect(client.sizeBytes).toBe(size);
    expect((client.flags & transmissionFlag.sendDf) !== 0).toBe(structured);
    for (const [offset, length] of [
      [0, 4096],
      [4097, 1],
      [12_345, 100_000],
      [mib - 7, 5 * mib + 3],
      [0, 32 * mib],
    ] as const) {
      const data = randomBytes(length);
      expect(await client.write(offset, data)).toMatchObject({ error: 0 });
      const { error, data: back } = await client.read(offset, length);
      expect(error).toBe(0);
      expect(back.equals(data)).toBe(true);
    }
    const { data: beyond } = await client.read(40 * mib, 100);
    expect(beyond.equals(Buffer.alloc(100))).toBe(true);
    await client.disconnect();
    expect(accounts).toMatchObject({ writes: 5, reads: 6 });
  });

  it.each([true, false])(
    'reads and rewrites what is not in memory, with structured replies: %s',
    async (structured) => {
      await start();
      const client = await TestClient.connect(socketPath, { structured });
      const model = randomBytes(8 * mib);
      await client.write(0, model);
      await makeCold();
      const patches = Array.from({ length: 64 }, (_, index) => ({
        offset: index * 120_000 + 5,
        data: randomBytes(777),
      }));
      const writes = patches.map(({ offset, data }) => client.write(offset, data));
      for (const { offset, data } of patches) data.copy(model, offset);
      expect((await Promise.all(writes)).every(({ error }) => error === 0)).toBe(true);
      await makeCold();
      const reads = [client.read(0, 8 * mib), ...patches.map(({ offset }) => client.read(offset, 777))];
      const [all, ...parts] = await Promise.all(reads);
      expect(all!.data.equals(model)).toBe(true);
      parts.forEach(({ data }, index) => {
        expect(data.equals(patches[index]!.data)).toBe(true);
      });
      await client.disconnect();
    },
  );

  it('answers zero-length requests', async () => {
    await start();
    for (const structured of [true, false]) {
      const client = await TestClient.connect(socketPath, { structured });
      expect((await client.read(0, 0)).error).toBe(0);
      expect((await client.write(0, Buffer.alloc(0))).error).toBe(0);
      expect((await client.request(command.trim, 0, 0)).error).toBe(0);
      expect((await client.request(command.writeZeroes, 0, 0)).error).toBe(0);
      await client.disconnect();
    }
  });

  it('refuses what is wrong with the error that the specification names, and goes on', async () => {
    await start();
    const client = await TestClient.connect(socketPath);
    const refused = async (promise: Promise<{ error: number }>, error: number) =>
      expect((await promise).error).toBe(error);
    const { EINVAL, ENOSPC, EOVERFLOW, ENOTSUP } = nbdError;
    await refused(client.read(size - 1, 2), EINVAL);
    await refused(client.read(2 ** 60, 1), EINVAL);
    await refused(client.read(0, 33 * mib), EOVERFLOW);
    await refused(client.read(0, 2 * mib, commandFlag.df), EOVERFLOW);
    await refused(client.read(0, 1, commandFlag.noHole), EINVAL);
    await refused(client.read(0, 1, 0x8000), EINVAL);
    await refused(client.write(size - 1, Buffer.alloc(2)), ENOSPC);
    await refused(client.write(0, Buffer.alloc(5000), commandFlag.reqOne), EINVAL);
    await refused(client.write(0, Buffer.alloc(33 * mib)), EOVERFLOW);
    await refused(client.request(command.writeZeroes, size - 1, 2), ENOSPC);
    await refused(client.request(command.writeZeroes, 0, 1, commandFlag.fastZero | commandFlag.noHole), ENOTSUP);
    await refused(client.request(command.trim, size - 1, 2), EINVAL);
    await refused(client.request(command.cache, size, 1), EINVAL);
    await refused(client.request(command.flush, 1, 0), EINVAL);
    await refused(client.request(command.blockStatus, 0, 0), EINVAL);
    await refused(client.request(99, 0, 0), EINVAL);
    await refused(client.read(size - 2, 2), 0);
    await client.disconnect();
    const plain = await TestClient.connect(socketPath, { structured: false });
    await refused(plain.read(size, 1), EINVAL);
    await refused(plain.read(0, 1, commandFlag.df), EINVAL);
    await refused(plain.request(command.blockStatus, 0, 1), EINVAL);
    await plain.disconnect();
    expect(accounts.troubles).toEqual([]);
  });

  it('lets nobody write when it is read only', async () => {
    await start(true);
    const client = await TestClient.connect(socketPath);
    expect(client.flags & transmissionFlag.readOnly).not.toBe(0);
    expect((await client.write(0, Buffer.alloc(100_000))).error).toBe(nbdError.EPERM);
    expect((await client.request(command.trim, 0, 4096)).error).toBe(nbdError.EPERM);
    expect((await client.request(command.writeZeroes, 0, 4096)).error).toBe(nbdError.EPERM);
    expect((await client.read(0, 4096)).error).toBe(0);
    expect((await client.request(command.flush, 0, 0)).error).toBe(0);
    await client.disconnect();
  });

  it('tells where data is', async () => {
    await start();
    const client = await TestClient.connect(socketPath);
    await client.write(mib, Buffer.alloc(mib, 1), commandFlag.fua);
    const { extents } = await client.request(command.blockStatus, 0, size);
    expect(extents).toEqual([
      { length: mib, flags: 3 },
      { length: mib, flags: 0 },
      { length: size - 2 * mib, flags: 3 },
    ]);
    const one = await client.request(command.blockStatus, 100, size - 100, commandFlag.reqOne);
    expect(one.extents).toEqual([{ length: mib - 100, flags: 3 }]);
    await client.disconnect();
  });

  it('behaves like memory, whatever is asked over two connections, any alignment, cached or not', async () => {
    await start();
    const clients = await Promise.all([
      TestClient.connect(socketPath),
      TestClient.connect(socketPath, { structured: false }),
    ]);
    const area = 2 * mib;
    const model = Buffer.alloc(size);
    const operation = fc.record({
      kind: fc.constantFrom('write', 'write', 'write', 'zero', 'allocate', 'trim', 'flush', 'cold'),
      client: fc.nat(1),
      fua: fc.boolean(),
      // Few units, so that requests overlap and cut them often.
      offset: fc.nat(40_000),
      length: fc.oneof(fc.nat(600), fc.nat(20_000), fc.constant(area)),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 25 }), async (operations) => {
        for (const { kind, client, fua, offset, length } of operations) {
          const flags = fua ? commandFlag.fua : 0;
          const one = clients[client]!;
          let answer = { error: 0 };
          if (kind === 'write') {
            const data = randomBytes(length);
            data.copy(model, offset);
            answer = await one.write(offset, data, flags);
          } else if (kind === 'zero' || kind === 'allocate') {
            model.fill(0, offset, offset + length);
            answer = await one.request(
              command.writeZeroes,
              offset,
              length,
              flags | (kind === 'allocate' ? commandFlag.noHole : 0),
            );
          } else if (kind === 'trim') {
            // What a trim leaves is free to the server; here it discards the whole units.
            const from = Math.ceil(offset / 4096) * 4096;
            const to = Math.floor((offset + length) / 4096) * 4096;
            if (to > from) model.fill(0, from, to);
            answer = await one.request(command.trim, offset, length, flags);
          } else if (kind === 'flush') {
            answer = await one.request(command.flush, 0, 0);
          } else {
            await makeCold();
          }
          expect(answer.error).toBe(0);
          const start = Math.max(0, offset - 5000);
          const { data } = await clients[1 - client]!.read(start, length + 10_000);
          expect(data.equals(model.subarray(start, start + length + 10_000))).toBe(true);
        }
      }),
      { numRuns: 40 },
    );
    const { data } = await clients[0]!.read(0, area + 100_000);
    expect(data.equals(model.subarray(0, area + 100_000))).toBe(true);
    await Promise.all(clients.map((client) => client.disconnect()));
  });

  it('loses no bytes of concurrent writes to the same unit, on two connections, cached or not', async () => {
    await start();
    const clients = await Promise.all([TestClient.connect(socketPath), TestClient.connect(socketPath)]);
    for (let round = 0; round < 6; round++) {
      const model = randomBytes(16 * 4096);
      await clients[0]!.write(0, model);
      if (round % 2 === 1) await makeCold();
      // Every 64th of every unit is written by alternating connections, all in flight together.
      const writes: Promise<{ error: number }>[] = [];
      for (let at = 0; at < model.length; at += 64) {
        const data = randomBytes(64);
        data.copy(model, at);
        writes.push(clients[(at / 64) % 2]!.write(at, data));
      }
      expect((await Promise.all(writes)).every(({ error }) => error === 0)).toBe(true);
      const { data } = await clients[0]!.read(0, model.length);
      expect(data.equals(model)).toBe(true);
    }
    await Promise.all(clients.map((client) => client.disconnect()));
  });

  it('tells the writer when the disk is full or broken, and its owner, too', async () => {
    let code = '';
    await start(false, undefined, (below) => {
      const write = below.write.bind(below);
      below.write = (memory, at, offset, length) => {
        if (code) throw new DeviceError(code, 'write to the volume image');
        return write(memory, at, offset, length);
      };
      return below;
    });
    const client = await TestClient.connect(socketPath);
    code = 'ENOSPC';
    expect(await client.write(0, Buffer.alloc(3 * mib))).toMatchObject({
      error: nbdError.ENOSPC,
      message: 'write to the volume image: ENOSPC',
    });
    code = 'EDQUOT';
    expect((await client.write(5, Buffer.alloc(9))).error).toBe(nbdError.ENOSPC);
    code = 'ENODEV';
    expect((await client.write(0, Buffer.alloc(4096))).error).toBe(nbdError.EIO);
    code = '';
    expect((await client.write(0, Buffer.alloc(4096))).error).toBe(0);
    expect(new Set(accounts.troubles)).toEqual(new Set(['ENOSPC', 'EDQUOT', 'ENODEV']));
    await client.disconnect();
  });

  it('answers a FUA write only after a flush, and with its error', async () => {
    const flushes: ((error?: Error) => void)[] = [];
    await start(false, undefined, (below) => {
      below.flush = (done) => void flushes.push(done);
      return below;
    });
    const client = await TestClient.connect(socketPath);
    let answered = false;
    const write = client.write(0, Buffer.alloc(4096), commandFlag.fua);
    void write.then(() => (answered = true));
    await client.read(0, 1);
    expect(answered).toBe(false);
    flushes.shift()!();
    expect((await write).error).toBe(0);
    const zero = client.request(command.writeZeroes, 0, 10, commandFlag.fua);
    await client.read(0, 1);
    flushes.shift()!(new DeviceError('EIO', 'lost'));
    expect((await zero).error).toBe(nbdError.EIO);
    await client.disconnect();
  });

  it('finishes what it has taken before it closes', async () => {
    await start();
    const client = await TestClient.connect(socketPath);
    const data = randomBytes(4 * mib);
    await client.write(0, data);
    await makeCold();
    const reads = Array.from({ length: 50 }, (_, index) => client.read(index * 70_000, 4096));
    await Promise.all([client.disconnect(), ...reads]);
    const back = await Promise.all(reads);
    back.forEach(({ data: part }, index) => {
      expect(part.equals(data.subarray(index * 70_000, index * 70_000 + 4096))).toBe(true);
    });
  });

  it('stops taking requests from a client that does not read, and serves others meanwhile', async () => {
    await start();
    const lazy = await TestClient.connect(socketPath);
    const other = await TestClient.connect(socketPath);
    lazy.raw.socket.pause();
    const requests = Array.from({ length: 200_000 }, (_, index) =>
      requestHeader(command.read, 0, 4096, 0, BigInt(index + 1)),
    );
    lazy.raw.socket.write(Buffer.concat(requests));
    const before = process.memoryUsage().rss;
    for (let round = 0; round < 50; round++) expect((await other.read(0, 4096)).error).toBe(0);
    // 200,000 replies would be 800 MB. What the server took on is what fits in its slab and the socket.
    expect(accounts.reads).toBeLessThan(2000);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * mib);
    lazy.raw.close();
    await other.disconnect();
  });
});

describe('negotiation', () => {
  it('knows its options and says so of others', async () => {
    await start();
    const raw = new RawConnection(socketPath);
    await greet(raw);
    const last = async (type: number, ...data: Buffer[]) => (await negotiate(raw, type, ...data)).at(-1)!.type;
    expect(await last(5)).toBe(reply.errUnsupported);
    expect(await last(11)).toBe(reply.errUnsupported);
    expect(await last(12_345, Buffer.alloc(100))).toBe(reply.errUnsupported);
    expect(await last(option.list, uint32(1))).toBe(reply.errInvalid);
    expect(await last(option.structuredReply, uint32(1))).toBe(reply.errInvalid);
    expect(await last(option.setMetaContext, string32(''), uint32(0))).toBe(reply.errInvalid);
    expect(await last(option.info, string32('other'), uint16(0))).toBe(reply.errUnknown);
    expect(await last(option.go, string32('other'), uint16(0))).toBe(reply.errUnknown);
    expect(await last(option.go, string32('vol-1'), uint16(7))).toBe(reply.errInvalid);
    expect(await last(option.go, uint32(4096), uint16(0))).toBe(reply.errInvalid);
    expect(await last(option.structuredReply)).toBe(reply.ack);
    expect(await last(option.setMetaContext, string32('vol-1'), uint32(33))).toBe(reply.errTooBig);
    const listed = await negotiate(raw, option.listMetaContext, string32('vol-1'), uint32(1), string32('base:'));
    expect(listed[0]!.data.toString('utf8', 4)).toBe('base:allocation');
    expect(await negotiate(raw, option.setMetaContext, string32('vol-1'), uint32(1), string32('base:'))).toHaveLength(
      1,
    );
    expect(
      await negotiate(raw, option.setMetaContext, string32('vol-1'), uint32(1), string32('qemu:dirty-bitmap')),
    ).toHaveLength(1);
    const [server, ack] = await negotiate(raw, option.list);
    expect(server!.data.toString('utf8', 4)).toBe('vol-1a volume');
    expect(ack!.type).toBe(reply.ack);
    const about = await negotiate(raw, option.info, string32(''), uint16(2), uint16(1), uint16(2));
    expect(about.map(({ data }) => (data.length > 0 ? data.readUInt16BE() : 'ack'))).toEqual([0, 1, 2, 3, 'ack']);
    expect((await negotiate(raw, option.abort)).at(-1)!.type).toBe(reply.ack);
    await raw.closed;
  });

  it('serves old clients through NBD_OPT_EXPORT_NAME, with and without padding', async () => {
    await start();
    for (const flags of [0, 1, 3]) {
      const raw = new RawConnection(socketPath);
      await greet(raw, flags);
      raw.send(optionHeader(option.exportName, 5), Buffer.from('vol-1'));
      const answer = await raw.take(flags === 3 ? 10 : 134);
      expect(answer.readBigUInt64BE()).toBe(BigInt(size));
      raw.send(requestHeader(command.read, 0, 10, 0, 7n));
      const read = await raw.take(26);
      expect(read.readUInt32BE(4)).toBe(0);
      expect(read.readBigUInt64BE(8)).toBe(7n);
      raw.close();
    }
    const raw = new RawConnection(socketPath);
    await greet(raw);
    raw.send(optionHeader(option.exportName, 5), Buffer.from('other'));
    await raw.closed;
  });

  it('forgets metadata contexts that were set for another name', async () => {
    await start();
    const raw = new RawConnection(socketPath);
    await greet(raw);
    await negotiate(raw, option.structuredReply);
    await negotiate(raw, option.setMetaContext, string32('vol-1'), uint32(1), string32('base:allocation'));
    await negotiate(raw, option.go, string32(''), uint16(0));
    raw.send(requestHeader(command.blockStatus, 0, 4096, 0, 1n));
    const header = await raw.take(20);
    expect(header.readUInt16BE(6)).toBe(0x8001);
    expect((await raw.take(header.readUInt32BE(16))).readUInt32BE()).toBe(nbdError.EINVAL);
    raw.close();
  });

  it('ends with clients that take too long, send too much, or set unknown flags', async () => {
    await start(false, { connections: 4, handshakeMs: 200 });
    const silent = new RawConnection(socketPath);
    const flags = new RawConnection(socketPath);
    await greet(flags, 0x10);
    const long = new RawConnection(socketPath);
    await greet(long);
    long.send(optionHeader(option.info, 2 ** 31));
    const magic = new RawConnection(socketPath);
    await greet(magic);
    magic.send(Buffer.alloc(64, 1));
    await Promise.all([silent.closed, flags.closed, long.closed, magic.closed]);
    const many = new RawConnection(socketPath);
    await greet(many);
    for (let count = 0; count < 100; count++) many.send(optionHeader(option.list, 0));
    await many.closed;
  });

  it('takes only so many connections, and others again when they are gone', async () => {
    await start(false, { connections: 2, handshakeMs: 5000 });
    const first = await TestClient.connect(socketPath);
    await TestClient.connect(socketPath);
    await expect(TestClient.connect(socketPath)).rejects.toThrow('closed');
    expect(accounts.connections).toBe(2);
    await first.disconnect();
    await expect.poll(() => accounts.connections).toBe(1);
    await (await TestClient.connect(socketPath)).disconnect();
  });
});

describe('garbage', () => {
  it('at any stage closes that connection, leaves the others alone, and leaks nothing', async () => {
    await start();
    const witness = await TestClient.connect(socketPath);
    const data = randomBytes(mib);
    await witness.write(0, data, commandFlag.fua);
    const stages = ['greeting', 'option', 'header', 'request', 'payload'] as const;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...stages),
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.nat(20),
        async (stage, garbage, type) => {
          const raw = new RawConnection(socketPath);
          const noise = Buffer.from(garbage);
          if (stage === 'greeting') raw.send(noise);
          else await greet(raw);
          if (stage === 'option') raw.send(optionHeader(type, noise.length), noise);
          if (stage === 'header') raw.send(noise);
          if (stage === 'request' || stage === 'payload') {
            await negotiate(raw, option.structuredReply);
            await negotiate(raw, option.go, string32(''), uint16(0));
          }
          if (stage === 'request') raw.send(noise);
          // A write that never ends, beyond the witness's data.
          if (stage === 'payload') raw.send(requestHeader(command.write, 32 * mib, noise.length + 1, 0, 1n), noise);
          raw.socket.end();
          await raw.closed;
        },
      ),
      { numRuns: 300 },
    );
    expect((await witness.read(0, mib)).data.equals(data)).toBe(true);
    await expect.poll(() => accounts.connections).toBe(1);
    await witness.disconnect();
  });
});
