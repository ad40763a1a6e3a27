/**
 * kill -9 of the control plane, the host, or both, while they work. What was acknowledged stays, what was flushed stays,
 * nothing stays half done, and the next start needs no help.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AttachVolumeCommand, CreateTagsCommand, DeleteVolumeCommand, DetachVolumeCommand } from '@aws-sdk/client-ec2';
import { CreateKeyCommand, DescribeKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { run } from './support/client.ts';
import { coffer, isAlive, type Part, startServer, type TestServer, until } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

const unitBytes = 4096;
const rounds = 3;

let server: TestServer;
let volumes: Volumes;
let instance: string;

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  instance = await volumes.runInstance();
});
afterAll(async () => {
  await server?.stop();
});

/** Restarts what was killed: a dead control plane by hand; a dead host comes back by itself. */
async function recover(part: Part): Promise<void> {
  if (part !== 'host') await server.restart();
  await until(() => server.hostPid !== undefined, 'a host');
}

const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

/** Deterministic content of a unit in a round, so that a torn or lost write shows. */
function unit(round: number, index: number): Buffer {
  const seed = createHash('sha256').update(`${round} ${index}`).digest();
  return Buffer.concat(Array.from({ length: unitBytes / 32 }, () => seed));
}

/**
 * Writes units one after the other and flushes now and then until the connection breaks.
 * @param tally gets how many of them a completed flush covers
 */
async function writeUntilCut(socket: string, round: number, tally: { flushed: number }): Promise<void> {
  try {
    const nbd = await NbdClient.connect(socket);
    for (let index = 0; ; index = (index + 16) % 60_000) {
      await Promise.all(
        Array.from({ length: 16 }, (_, i) => nbd.write((index + i) * unitBytes, unit(round, index + i))),
      );
      await nbd.flush();
      tally.flushed = Math.max(tally.flushed, index + 16);
    }
  } catch {
    // The cut.
  }
}

for (const part of ['host', 'both'] as const) {
  test(`kill -9 of ${part} during NBD writes, ${rounds} times: nothing flushed is lost`, async () => {
    const volume = await volumes.create();
    const device = part === 'host' ? '/dev/sdf' : '/dev/sdg';
    const socket = await volumes.attach(volume, instance, device);
    for (let round = 0; round < rounds; round++) {
      const tally = { flushed: 0 };
      const writing = writeUntilCut(socket, round, tally);
      await until(() => tally.flushed > 0, 'something to be flushed');
      await pause(200 + round * 150);
      await server.kill9(part);
      await writing;
      const { flushed } = tally;
      await recover(part);
      await until(() => answers(socket), 'the volume to be served again');
      const nbd = await NbdClient.connect(socket);
      for (let index = 0; index < flushed; index++) {
        const found = await nbd.read(index * unitBytes, unitBytes);
        if (!found.equals(unit(round, index))) throw new Error(`unit ${index} of ${flushed} is not what was flushed`);
      }
      await nbd.close();
    }
    await volumes.detach(volume);
  });
}

async function answers(socket: string): Promise<boolean> {
  if (!existsSync(socket)) return false;
  try {
    const nbd = await NbdClient.connect(socket);
    await nbd.close();
    return true;
  } catch {
    return false;
  }
}

test('kill -9 of the control plane: I/O of attached volumes is not interrupted, and the same host is found again', async () => {
  const volume = await volumes.create();
  const socket = await volumes.attach(volume, instance, '/dev/sdh');
  const host = server.hostPid;
  const nbd = await NbdClient.connect(socket);
  let wrote = 0;
  let isOver = false;
  const writing = (async () => {
    while (!isOver) {
      await nbd.write((wrote % 1000) * unitBytes, unit(7, wrote % 1000));
      await nbd.flush();
      wrote++;
    }
  })();
  await server.kill9('control plane');
  const before = wrote;
  await until(() => wrote > before + 10, 'writes to go on');
  await server.restart();
  expect(server.hostPid).toBe(host);
  isOver = true;
  await writing;
  await nbd.close();
  // And the host obeys the new control plane.
  await volumes.detach(volume);
  expect(existsSync(socket)).toBe(false);
});

test(`kill -9 of the control plane during API calls, ${rounds} times: what was acknowledged is there, once, and whole`, async () => {
  const kms = server.sdk(KMSClient);
  const { KeyMetadata: key } = await kms.send(new CreateKeyCommand({}));
  const created = new Set<string>();
  const tagged = new Set<string>();
  const deleted = new Set<string>();
  const keys = new Set<string>();
  for (let round = 0; round < rounds; round++) {
    const tokens: string[] = [];
    const caller = async () => {
      for (let i = 0; ; i++) {
        const token = randomUUID();
        tokens.push(token);
        const id = await volumes.create({ KmsKeyId: key!.Arn, ClientToken: token });
        created.add(id);
        await volumes.ec2.send(new CreateTagsCommand({ Resources: [id], Tags: [{ Key: 'Name', Value: id }] }));
        tagged.add(id);
        if (i % 5 === 4) {
          await volumes.ec2.send(new DeleteVolumeCommand({ VolumeId: id }));
          deleted.add(id);
        }
        if (i % 5 === 0) keys.add((await kms.send(new CreateKeyCommand({}))).KeyMetadata!.KeyId!);
      }
    };
    const before = created.size;
    const callers = Promise.allSettled(Array.from({ length: 8 }, caller));
    await until(() => created.size > before + 8, 'volumes to be made');
    await pause(200 + round * 130);
    await server.kill9('control plane');
    await callers;
    await server.restart();
    // The caller that got no answer asks again with its token: the volume is made once, whether it had been or not.
    for (const token of tokens.slice(-8)) {
      const again = await volumes.create({ KmsKeyId: key!.Arn, ClientToken: token }).catch((error: Error) => error);
      if (typeof again === 'string') created.add(again);
      else expect(again.name).toBe('IdempotentParameterMismatch');
    }
  }
  expect(created.size).toBeGreaterThan(rounds * 8);
  const found = new Map((await volumes.all()).map((volume) => [volume.VolumeId!, volume]));
  for (const id of created) {
    if (deleted.has(id)) expect(found.has(id), `${id} was deleted`).toBe(false);
    else if (found.has(id)) {
      const volume = found.get(id)!;
      expect(volume).toMatchObject({ State: 'available', Encrypted: true, KmsKeyId: key!.Arn });
      if (tagged.has(id)) expect(volume.Tags).toEqual([{ Key: 'Name', Value: id }]);
    }
  }
  const lost = [...created].filter((id) => !found.has(id) && !deleted.has(id));
  // A delete whose answer was cut off may have happened; each caller has at most one such call a round.
  expect(lost.length).toBeLessThanOrEqual(rounds * 8);
  for (const id of keys) await kms.send(new DescribeKeyCommand({ KeyId: id }));
  // No volume that nobody asked for, and none without what is needed to decrypt it.
  const env = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
  for (const id of [...found.keys()].filter((id) => created.has(id)).slice(-5)) {
    const { stdout } = await run(coffer, ['volume', 'inspect', id], { env });
    expect(JSON.parse(stdout).EncryptedDataKey).toMatch(/^[A-Za-z0-9+/]{100,}=*$/);
  }
});

for (const part of ['control plane', 'host', 'both'] as const) {
  test(`kill -9 of ${part} during attach and detach: every attachment comes to an end by itself`, async () => {
    const mine = await Promise.all(Array.from({ length: 4 }, () => volumes.create()));
    const mark = randomBytes(unitBytes);
    const device = (i: number) => `/dev/xvdb${'abcd'[i]}`;
    for (let round = 0; round < 2; round++) {
      const calls = Promise.allSettled(
        mine.map((volume, i) =>
          volumes.ec2.send(new AttachVolumeCommand({ VolumeId: volume, InstanceId: instance, Device: device(i) })),
        ),
      );
      await pause(round * 60);
      await server.kill9(part);
      await calls;
      await recover(part);
      for (const [i, volume] of mine.entries()) {
        await until(async () => !['attaching', 'detaching'].includes(await stateOf(volume)), `${volume} to settle`);
        if ((await stateOf(volume)) === 'none')
          await volumes.ec2.send(
            new AttachVolumeCommand({ VolumeId: volume, InstanceId: instance, Device: device(i) }),
          );
        await until(() => answers(volumes.socket(instance, device(i))), `${volume} to be served`);
      }
      const nbd = await NbdClient.connect(volumes.socket(instance, device(0)));
      await nbd.write(0, mark, { fua: true });
      await nbd.close();

      const detaches = Promise.allSettled(
        mine.map((volume) => volumes.ec2.send(new DetachVolumeCommand({ VolumeId: volume }))),
      );
      await pause(round * 40);
      await server.kill9(part);
      await detaches;
      await recover(part);
      for (const volume of mine) {
        if ((await stateOf(volume)) === 'attached') await volumes.detach(volume);
        await until(async () => (await stateOf(volume)) === 'none', `${volume} to be detached`);
      }
    }
    const nbd = await NbdClient.connect(await volumes.attach(mine[0]!, instance, device(0)));
    expect((await nbd.read(0, unitBytes)).equals(mark)).toBe(true);
    await nbd.close();
    for (const volume of mine) {
      if ((await stateOf(volume)) === 'attached') await volumes.detach(volume);
      await volumes.ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    }
  });
}

async function stateOf(volumeId: string): Promise<string> {
  return (await volumes.describe(volumeId)).Attachments?.[0]?.State ?? 'none';
}

test('the host comes back by itself when it dies, under another process id', async () => {
  const before = server.hostPid!;
  await server.kill9('host');
  await until(() => server.hostPid !== undefined && server.hostPid !== before, 'another host');
  expect(server.isRunning).toBe(true);
});

test('a clock that goes back does not keep the next host from taking over', async () => {
  const started = join(server.dataDir, 'host.started');
  const serves = async () => {
    const volume = await volumes.create();
    await volumes.attach(volume, instance, '/dev/sdi');
    await volumes.detach(volume);
  };
  // A host that is still starting would write its own time after this test has.
  await serves();
  for (const time of [Date.now() + 3_600_000, undefined]) {
    // The first of these hosts starts an hour ahead, so the second one's clock has gone back by an hour.
    if (time !== undefined) writeFileSync(started, `${time}`);
    const before = server.hostPid;
    await server.kill9('host');
    await until(() => server.hostPid !== undefined && server.hostPid !== before, 'another host');
    await serves();
  }
  expect(Number(readFileSync(started, 'utf8'))).toBeGreaterThan(Date.now() + 3_000_000);
});

test('the server goes on when whoever read its output has gone', async () => {
  await using other = await startServer();
  other.closeOutput();
  await until(() => other.hostPid !== undefined, 'the first host');
  const before = other.hostPid;
  // It has something to say about that.
  await other.kill9('host');
  await until(() => other.hostPid !== undefined && other.hostPid !== before, 'another host');
  expect(other.isRunning).toBe(true);
  await new Volumes(other).create();
});

test('a second server on the same data directory is refused, and the first goes on', async () => {
  await expect(startServer({ dataDir: server.dataDir })).rejects.toThrow(/another server \(process \d+\) runs on/);
  expect(server.isRunning).toBe(true);
});

test('SIGTERM ends server and host, with everything written', async () => {
  await using other = await startServer();
  const theirs = new Volumes(other);
  const volume = await theirs.create();
  const socket = await theirs.attach(volume, await theirs.runInstance());
  const nbd = await NbdClient.connect(socket);
  await nbd.write(0, unit(1, 1));
  const [host, controlPlane] = [other.hostPid!, other.controlPlanePid];
  process.kill(controlPlane, 'SIGTERM');
  await until(() => !isAlive(host) && !isAlive(controlPlane), 'both to end');
  expect(existsSync(socket)).toBe(false);
  await other.restart();
  await until(() => answers(socket), 'the volume to be served again');
  const again = await NbdClient.connect(socket);
  expect((await again.read(0, unitBytes)).equals(unit(1, 1))).toBe(true);
  await again.close();
});
