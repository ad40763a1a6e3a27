import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { command, commandFlag, nbdError, option, reply } from './protocol.ts';
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
} from './testing-client.ts';
import { mib, server, size, start, stopAfterEach } from './testing-server.ts';

stopAfterEach();

describe('negotiation', () => {
  it('knows its options and says so of others', async () => {
    await start();
    const raw = new RawConnection(server.socketPath);
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
    const [exported, ack] = await negotiate(raw, option.list);
    expect(exported!.data.toString('utf8', 4)).toBe('vol-1a volume');
    expect(ack!.type).toBe(reply.ack);
    const about = await negotiate(raw, option.info, string32(''), uint16(2), uint16(1), uint16(2));
    expect(about.map(({ data }) => (data.length > 0 ? data.readUInt16BE() : 'ack'))).toEqual([0, 1, 2, 3, 'ack']);
    expect((await negotiate(raw, option.abort)).at(-1)!.type).toBe(reply.ack);
    await raw.closed;
  });

  it('serves old clients through NBD_OPT_EXPORT_NAME, with and without padding', async () => {
    await start();
    for (const flags of [0, 1, 3]) {
      const raw = new RawConnection(server.socketPath);
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
    const raw = new RawConnection(server.socketPath);
    await greet(raw);
    raw.send(optionHeader(option.exportName, 5), Buffer.from('other'));
    await raw.closed;
  });

  it('forgets metadata contexts that were set for another name', async () => {
    await start();
    const raw = new RawConnection(server.socketPath);
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
    await start({ limits: { connections: 4, handshakeMs: 200 } });
    await new RawConnection(server.socketPath).closed;
    await server.stop();
    // The others are not to be taken for ones that took too long.
    await start({ limits: { connections: 4, handshakeMs: 600_000 } });
    const flags = new RawConnection(server.socketPath);
    await greet(flags, 0x10);
    const long = new RawConnection(server.socketPath);
    await greet(long);
    long.send(optionHeader(option.info, 2 ** 31));
    const magic = new RawConnection(server.socketPath);
    await greet(magic);
    magic.send(Buffer.alloc(64, 1));
    await Promise.all([flags.closed, long.closed, magic.closed]);
    const many = new RawConnection(server.socketPath);
    await greet(many);
    for (let count = 0; count < 100; count++) many.send(optionHeader(option.list, 0));
    await many.closed;
  });

  it('takes only so many connections, and others again when they are gone', async () => {
    await start({ limits: { connections: 2, handshakeMs: 600_000 } });
    const first = await TestClient.connect(server.socketPath);
    await TestClient.connect(server.socketPath);
    await expect(TestClient.connect(server.socketPath)).rejects.toThrow('closed');
    expect(server.accounts.connections).toBe(2);
    await first.disconnect();
    await expect.poll(() => server.accounts.connections).toBe(1);
    await (await TestClient.connect(server.socketPath)).disconnect();
  });
});

describe('garbage', () => {
  it('at any stage closes that connection, leaves the others alone, and leaks nothing', async () => {
    await start();
    const witness = await TestClient.connect(server.socketPath);
    const data = randomBytes(mib);
    await witness.write(0, data, commandFlag.fua);
    const stages = ['greeting', 'option', 'header', 'request', 'payload'] as const;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...stages),
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.nat(20),
        async (stage, garbage, type) => {
          const raw = new RawConnection(server.socketPath);
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
    await expect.poll(() => server.accounts.connections).toBe(1);
    await witness.disconnect();
  });
});
