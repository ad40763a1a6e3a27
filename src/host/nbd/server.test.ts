import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DeviceError } from '../devices/device.ts';
import { command, commandFlag, nbdError, transmissionFlag } from './protocol.ts';
import { requestHeader, TestClient } from './testing-client.ts';
import { mib, server, size, start, stopAfterEach } from './testing-server.ts';

stopAfterEach();

describe('an export', () => {
  it('is a socket that only its owner may open', async () => {
    await start();
    expect(statSync(server.socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(join(server.directory, 'sockets')).mode & 0o777).toBe(0o700);
  });

  it.each([true, false])('reads what was written, with structured replies: %s', async (structured) => {
    await start();
    const client = await TestClient.connect(server.socketPath, { structured });
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
    expect(server.accounts).toMatchObject({ writes: 5, reads: 6 });
  });

  it.each([true, false])(
    'reads and rewrites what is not in memory, with structured replies: %s',
    async (structured) => {
      await start();
      const client = await TestClient.connect(server.socketPath, { structured });
      const model = randomBytes(8 * mib);
      await client.write(0, model);
      await server.makeCold();
      const patches = Array.from({ length: 64 }, (_, index) => ({
        offset: index * 120_000 + 5,
        data: randomBytes(777),
      }));
      const writes = patches.map(({ offset, data }) => client.write(offset, data));
      for (const { offset, data } of patches) data.copy(model, offset);
      expect((await Promise.all(writes)).every(({ error }) => error === 0)).toBe(true);
      await server.makeCold();
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
      const client = await TestClient.connect(server.socketPath, { structured });
      expect((await client.read(0, 0)).error).toBe(0);
      expect((await client.write(0, Buffer.alloc(0))).error).toBe(0);
      expect((await client.request(command.trim, 0, 0)).error).toBe(0);
      expect((await client.request(command.writeZeroes, 0, 0)).error).toBe(0);
      await client.disconnect();
    }
  });

  it('refuses what is wrong with the error that the specification names, and goes on', async () => {
    await start();
    const client = await TestClient.connect(server.socketPath);
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
    const plain = await TestClient.connect(server.socketPath, { structured: false });
    await refused(plain.read(size, 1), EINVAL);
    await refused(plain.read(0, 1, commandFlag.df), EINVAL);
    await refused(plain.request(command.blockStatus, 0, 1), EINVAL);
    await plain.disconnect();
    expect(server.accounts.troubles).toEqual([]);
  });

  it('lets nobody write when it is read only', async () => {
    await start({ readOnly: true });
    const client = await TestClient.connect(server.socketPath);
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
    const client = await TestClient.connect(server.socketPath);
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

  it('tells the writer when the disk is full or broken, and its owner, too', async () => {
    let code = '';
    await start({
      wrap: (below) => {
        const write = below.write.bind(below);
        below.write = (memory, at, offset, length) => {
          if (code) throw new DeviceError(code, 'write to the volume image');
          return write(memory, at, offset, length);
        };
        return below;
      },
    });
    const client = await TestClient.connect(server.socketPath);
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
    expect(new Set(server.accounts.troubles)).toEqual(new Set(['ENOSPC', 'EDQUOT', 'ENODEV']));
    await client.disconnect();
  });

  it('answers a FUA write only after a flush, and with its error', async () => {
    const flushes: ((error?: Error) => void)[] = [];
    await start({
      wrap: (below) => {
        below.flush = (done) => void flushes.push(done);
        return below;
      },
    });
    const client = await TestClient.connect(server.socketPath);
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
    const client = await TestClient.connect(server.socketPath);
    const data = randomBytes(4 * mib);
    await client.write(0, data);
    await server.makeCold();
    const reads = Array.from({ length: 50 }, (_, index) => client.read(index * 70_000, 4096));
    await Promise.all([client.disconnect(), ...reads]);
    const back = await Promise.all(reads);
    back.forEach(({ data: part }, index) => {
      expect(part.equals(data.subarray(index * 70_000, index * 70_000 + 4096))).toBe(true);
    });
  });

  it('stops taking requests from a client that does not read, and serves others meanwhile', async () => {
    await start();
    const lazy = await TestClient.connect(server.socketPath);
    const other = await TestClient.connect(server.socketPath);
    lazy.raw.socket.pause();
    const requests = Array.from({ length: 200_000 }, (_, index) =>
      requestHeader(command.read, 0, 4096, 0, BigInt(index + 1)),
    );
    lazy.raw.socket.write(Buffer.concat(requests));
    const before = process.memoryUsage().rss;
    for (let round = 0; round < 50; round++) expect((await other.read(0, 4096)).error).toBe(0);
    // 200,000 replies would be 800 MB. What the server took on is what fits in its slab and the socket.
    expect(server.accounts.reads).toBeLessThan(2000);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * mib);
    lazy.raw.close();
    await other.disconnect();
  });
});

describe('writes that come in together', () => {
  /** Calls of the device under the cipher, in order. */
  const calls: string[] = [];
  const startListening = (options: { readOnly?: boolean } = {}) => {
    calls.length = 0;
    return start({
      ...options,
      wrap: (below) => {
        const { write } = below;
        Object.defineProperty(below, 'expectsWrites', { value: true });
        below.expectWrite = (offset, length) => void calls.push(`expect ${offset} ${length}`);
        below.write = (memory, at, offset, length) => {
          calls.push(`write ${offset} ${length}`);
          return write.call(below, memory, at, offset, length);
        };
        return below;
      },
    });
  };
  const header = (type: number, offset: number, length: number) => requestHeader(type, offset, length, 0, 1n);
  const writing = (offset: number, length: number) =>
    Buffer.concat([header(command.write, offset, length), Buffer.alloc(length)]);

  it('are told to the device before the first is carried out, each once', async () => {
    await startListening();
    const client = await TestClient.connect(server.socketPath);
    const flush = header(command.flush, 0, 0);
    client.raw.send(writing(0, 4096), flush, writing(8192, 4096), writing(size, 4096), writing(4096, 4096));
    client.raw.send(header(command.disconnect, 0, 0));
    await client.raw.closed;
    expect(calls).toEqual([
      'expect 0 4096',
      'expect 8192 4096',
      'expect 4096 4096',
      'write 0 4096',
      'write 8192 4096',
      'write 4096 4096',
    ]);
  });

  it('are not when the client may not write', async () => {
    await startListening({ readOnly: true });
    const client = await TestClient.connect(server.socketPath);
    expect((await client.write(0, Buffer.alloc(4096))).error).toBe(nbdError.EPERM);
    await client.disconnect();
    expect(calls).toEqual([]);
  });
});
