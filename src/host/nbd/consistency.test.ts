import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { command, commandFlag } from './protocol.ts';
import { TestClient } from './testing-client.ts';
import { mib, size, startTestServer, type TestServer } from './testing-server.ts';

let server: TestServer;
let socketPath: string;

beforeEach(async () => {
  server = await startTestServer();
  ({ socketPath } = server);
});
afterEach(() => server.stop());

describe('a volume', () => {
  it('behaves like memory, whatever is asked over two connections, any alignment, cached or not', async () => {
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
            await server.makeCold();
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
    const clients = await Promise.all([TestClient.connect(socketPath), TestClient.connect(socketPath)]);
    for (let round = 0; round < 6; round++) {
      const model = randomBytes(16 * 4096);
      await clients[0]!.write(0, model);
      if (round % 2 === 1) await server.makeCold();
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

  it('gets every byte right when requests pour in faster than a client takes its replies', async () => {
    const slow = await TestClient.connect(socketPath);
    const fixed = randomBytes(4 * mib);
    const slotBytes = 70_000;
    const written = Buffer.alloc(300 * slotBytes);
    await slow.write(0, fixed, commandFlag.fua);
    for (const cold of [false, true]) {
      if (cold) await server.makeCold();
      const answers: Promise<void>[] = [];
      // Stops and starts reading, so that the server is stuck, pauses its input, and resumes, many times.
      const brake = setInterval(() => {
        slow.raw.socket.pause();
        setTimeout(() => slow.raw.socket.resume(), 5);
      }, 12);
      for (let slot = 0; slot < 300; slot++) {
        const data = randomBytes(1 + ((slot * 7919) % slotBytes));
        data.copy(written, slot * slotBytes);
        answers.push(
          slow.write(8 * mib + slot * slotBytes, data).then(({ error }) => {
            expect(error).toBe(0);
          }),
        );
        const offset = (slot * 104_729) % (3 * mib);
        const length = 1 + ((slot * 15_485) % mib);
        answers.push(
          slow.read(offset, length).then(({ data: read }) => {
            expect(read.equals(fixed.subarray(offset, offset + length))).toBe(true);
          }),
        );
      }
      await Promise.all(answers);
      clearInterval(brake);
      slow.raw.socket.resume();
      const { data } = await slow.read(8 * mib, written.length);
      expect(data.equals(written)).toBe(true);
    }
    await slow.disconnect();
  });
});
