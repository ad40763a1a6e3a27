/** Snapshots as a person uses them: a real server and its host, the SDK, real bytes through NBD. */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  type Snapshot,
} from '@aws-sdk/client-ec2';
import { CreateKeyCommand, DisableKeyCommand, EnableKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { Volumes, zone } from './support/volumes.ts';

const blockBytes = 512 * 1024;
const mebibyte = 1024 * 1024;
/** As much of each volume as is written and compared. */
const usedBytes = 48 * mebibyte;

let server: TestServer;
let volumes: Volumes;
let ec2: EC2Client;
let kms: KMSClient;
let instance: string;
let key: string;
let volume: string;
let socket: string;
const model = Buffer.alloc(usedBytes);
/** What the snapshots shall read. */
const states = new Map<string, Buffer>();
let first: string;
let second: string;

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  ec2 = volumes.ec2;
  kms = server.sdk(KMSClient);
  key = (await kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  instance = await volumes.runInstance();
  volume = await volumes.create({ KmsKeyId: key });
  socket = await volumes.attach(volume, instance);
});
afterAll(async () => {
  await server?.stop();
});

async function write(nbd: NbdClient, offset: number, length: number): Promise<void> {
  const bytes = randomBytes(length);
  bytes.copy(model, offset);
  await nbd.write(offset, bytes);
}

async function describe(snapshotId: string, client = ec2): Promise<Snapshot> {
  return (await client.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshotId] }))).Snapshots![0]!;
}

async function completed(snapshotId: string, client = ec2): Promise<Snapshot> {
  await until(async () => {
    const { State, StateMessage } = await describe(snapshotId, client);
    if (State === 'error') throw new Error(`${snapshotId}: ${StateMessage}`);
    return State === 'completed';
  }, `${snapshotId} to be complete`);
  return describe(snapshotId, client);
}

/** Makes a snapshot whose contents shall be those of now. */
async function snapshot(): Promise<string> {
  const then = Buffer.from(model);
  const made = await ec2.send(new CreateSnapshotCommand({ VolumeId: volume }));
  expect(made).toMatchObject({ State: 'pending', Encrypted: true, VolumeId: volume });
  states.set(made.SnapshotId!, then);
  return made.SnapshotId!;
}

/** Makes a volume of the snapshot, attaches it, and answers the beginning of what it holds. */
async function readBack(SnapshotId: string, more: { Encrypted?: boolean; KmsKeyId?: string; Size?: number } = {}) {
  const made = await ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: zone, ...more }));
  const volumeId = made.VolumeId!;
  await until(async () => (await volumes.describe(volumeId)).State === 'available', `${volumeId} to be available`);
  const nbd = await NbdClient.connect(await volumes.attach(volumeId, instance, '/dev/sdx'));
  const bytes: Buffer[] = [];
  for (let offset = 0; offset < usedBytes; offset += 4 * mebibyte) bytes.push(await nbd.read(offset, 4 * mebibyte));
  const { sizeBytes } = nbd;
  await nbd.close();
  await volumes.detach(volumeId);
  return { volumeId, bytes: Buffer.concat(bytes), sizeBytes };
}

/** A piece of a volume's image that none of the tests has changed since the first snapshot. */
function onDisk(volumeId: string, offset: number): Buffer {
  const file = openSync(volumes.image(volumeId), 'r');
  const bytes = Buffer.alloc(65_536);
  readSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
  return bytes;
}

/** What a directory holds, which may be removed at this moment. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Which blocks lie in the store, by snapshot. */
function stored(): Record<string, number> {
  const root = join(server.dataDir, 'snapshots', 'blocks');
  const all: Record<string, number> = {};
  for (const owner of namesIn(root)) {
    const count = namesIn(join(root, owner)).flatMap((group) => namesIn(join(root, owner, group))).length;
    if (count > 0) all[owner] = count;
  }
  return all;
}

test('two snapshots, taken while the volume is being written to', async () => {
  const nbd = await NbdClient.connect(socket);
  await write(nbd, 0, 8 * mebibyte);
  await write(nbd, 20 * mebibyte + 12_345, 100_000);
  first = await snapshot();
  for (let offset = 0; offset < 4 * mebibyte; offset += mebibyte) await write(nbd, offset, 4096);
  await completed(first);
  second = await snapshot();
  await write(nbd, 2 * mebibyte, mebibyte);
  const { FullSnapshotSizeInBytes } = await completed(second);
  expect(FullSnapshotSizeInBytes).toBe(17 * blockBytes);
  expect(stored()).toEqual({ [first]: 17, [second]: 4 });
  await nbd.close();
});

test('volumes made of them hold what the volume held, each under a data key of its own', async () => {
  for (const id of [first, second]) {
    const { volumeId, bytes } = await readBack(id);
    expect(bytes.equals(states.get(id)!)).toBe(true);
    expect(onDisk(volumeId, 5 * mebibyte).equals(onDisk(volume, 5 * mebibyte))).toBe(false);
    await ec2.send(new DeleteVolumeCommand({ VolumeId: volumeId }));
  }
});

test('a larger volume of a snapshot, under another key, is empty beyond', async () => {
  const other = (await kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  const { volumeId, bytes, sizeBytes } = await readBack(first, { Encrypted: true, KmsKeyId: other, Size: 2 });
  expect(bytes.equals(states.get(first)!)).toBe(true);
  expect(sizeBytes).toBe(2 * 1024 * mebibyte);
  expect((await volumes.describe(volumeId)).KmsKeyId).toBe(other);
});

test('deleting the first one frees what the second does not need', async () => {
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId: first }));
  await until(() => stored()[first] === 13, 'the blocks of the first snapshot to be freed');
  expect(stored()).toEqual({ [first]: 13, [second]: 4 });
  const { bytes } = await readBack(second);
  expect(bytes.equals(states.get(second)!)).toBe(true);
});

test('a copy in another region, under a key of that region, outlives its source', async () => {
  const elsewhere = server.as(server.credentials, 'eu-west-1');
  const there = elsewhere.sdk(EC2Client);
  const kmsThere = elsewhere.sdk(KMSClient);
  const KmsKeyId = (await kmsThere.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  const copy = await there.send(
    new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId: second, Encrypted: true, KmsKeyId }),
  );
  expect(await completed(copy.SnapshotId!, there)).toMatchObject({ Encrypted: true, KmsKeyId, Progress: '100%' });
  expect(stored()[copy.SnapshotId!]).toBe(17);
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId: second }));
  // With it go the blocks of the first one that it needed.
  await until(() => !(first in stored() || second in stored()), 'both snapshots to be freed');
  expect(stored()).toEqual({ [copy.SnapshotId!]: 17 });
  await there.send(new DeleteSnapshotCommand({ SnapshotId: copy.SnapshotId! }));
  await until(() => Object.keys(stored()).length === 0, 'the store to be empty');
});

test('a snapshot needs no key, a volume made of it does', async () => {
  const id = await snapshot();
  await kms.send(new DisableKeyCommand({ KeyId: key }));
  await completed(id);
  const create = () => ec2.send(new CreateVolumeCommand({ SnapshotId: id, AvailabilityZone: zone }));
  await expect(create()).rejects.toThrow(/is disabled/);
  await kms.send(new EnableKeyCommand({ KeyId: key }));
  const { bytes } = await readBack(id);
  expect(bytes.equals(model)).toBe(true);
});

test("an instance's volumes have one point in time", async () => {
  const unencrypted = await volumes.create({ Encrypted: false });
  await volumes.attach(unencrypted, instance, '/dev/sdg');
  const { Snapshots } = await ec2.send(
    new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId: instance }, Description: 'both' }),
  );
  expect(Snapshots!.map(({ VolumeId }) => VolumeId).sort()).toEqual([unencrypted, volume].sort());
  for (const { SnapshotId } of Snapshots!) await completed(SnapshotId!);
});

test('kill -9 of the host in the middle of a snapshot loses neither it nor its point in time', async () => {
  const nbd = await NbdClient.connect(socket);
  for (let offset = 0; offset < usedBytes; offset += 4 * mebibyte) await write(nbd, offset, 4 * mebibyte);
  const id = await snapshot();
  await server.kill9('host');
  await nbd.close().catch(() => {});
  let again: NbdClient | undefined;
  await until(async () => {
    again = await NbdClient.connect(socket).catch(() => undefined);
    return again !== undefined;
  }, 'the next host to have opened the volume');
  if (!again) throw new Error('unreachable');
  await write(again, 0, 8 * mebibyte);
  await completed(id);
  await again.close();
  const { bytes } = await readBack(id);
  expect(bytes.equals(states.get(id)!)).toBe(true);
});
