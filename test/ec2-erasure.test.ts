/**
 * What is deleted can't be read any more: first the encrypted data key is in no file of the server, then the bytes are gone
 * from the host, whatever dies in between.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DeleteSnapshotCommand, DeleteVolumeCommand } from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from './support/client.ts';
import { findIn, formsOf } from './support/files.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { Stored } from './support/stored.ts';

let server: TestServer;
let stored: Stored;
let instance: string;

beforeAll(async () => {
  server = await startServer();
  stored = new Stored(server);
  instance = await stored.runInstance();
});
afterAll(() => server?.stop());

/** A volume with something in it, detached, and its encrypted data key. */
async function written() {
  const volume = await stored.create();
  await stored.write(await stored.attach(volume, instance), [0]);
  await stored.detach(volume);
  const { stdout } = await run(coffer, ['volume', 'inspect', volume, '--data', server.dataDir]);
  return { volume, key: Buffer.from(JSON.parse(stdout).EncryptedDataKey, 'base64') };
}

/** The files of the server that have the key, in whatever form. */
function holdersOf(key: Buffer): string[] {
  const forms = new Map(formsOf('the encrypted data key', key));
  return readdirSync(server.dataDir).filter(
    (name) => /^coffer\.db|\.log$/.test(name) && findIn(join(server.dataDir, name), forms) !== undefined,
  );
}

/** What the host has of a volume: its image, its map. */
const filesOf = (volume: string) =>
  readdirSync(join(server.dataDir, 'volumes')).filter((name) => name.includes(volume));

test('a deleted volume’s data key is in no file when DeleteVolume answers, before its bytes go', async () => {
  const { volume, key } = await written();
  expect(holdersOf(key).join()).toMatch(/^coffer\.db/);
  const host = server.hostPid!;
  process.kill(host, 'SIGSTOP');
  try {
    await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    expect(holdersOf(key)).toEqual([]);
    expect(filesOf(volume)).toContain(`${volume}.img`);
  } finally {
    process.kill(host, 'SIGCONT');
  }
  await until(() => filesOf(volume).length === 0, 'the image to be gone');
});

test('a snapshot keeps its volume’s key until it is deleted itself', async () => {
  const { volume, key } = await written();
  const snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
  const clone = await stored.restore(snapshot);
  await stored.initialized(clone);
  const copy = await stored.copy(snapshot);
  await stored.completed(copy);
  await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
  expect(holdersOf(key).join()).toMatch(/^coffer\.db/);
  await stored.ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot }));
  expect(holdersOf(key)).toEqual([]);
});

test('a server and a host that are killed over it go on with it', async () => {
  const { volume, key } = await written();
  process.kill(server.hostPid!, 'SIGSTOP');
  await stored.ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
  await server.kill9();
  await server.restart();
  await until(() => filesOf(volume).length === 0, 'the image to be gone');
  expect(holdersOf(key)).toEqual([]);
  await until(async () => !(await stored.all()).some(({ VolumeId }) => VolumeId === volume), 'the volume to be gone');
});
