/** Keys that become unusable while their data is being moved: what says so, what goes on, and what resumes. */
import { DescribeVolumesCommand, type VolumeStatusItem } from '@aws-sdk/client-ec2';
import {
  CreateKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  KMSClient,
  ListGrantsCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startServer, type TestServer, until } from './support/server.ts';
import { type Content, range, Stored } from './support/stored.ts';

let server: TestServer;
let stored: Stored;
let kms: KMSClient;
let instance: string;
let key: string;
let snapshot: string;
let content: Content;

beforeAll(async () => {
  server = await startServer();
  stored = new Stored(server);
  kms = server.sdk(KMSClient);
  instance = await stored.runInstance();
  key = await newKey();
  const volume = await stored.create({ KmsKeyId: key });
  content = await stored.write(await stored.attach(volume, instance, '/dev/sdz'), range(0, 8));
  await stored.detach(volume);
  snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);
});
afterAll(() => server?.stop());

async function newKey(): Promise<string> {
  return (await kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
}

/** Does what is asked of the API while no host works, so that whatever it starts has not begun; then another host starts. */
async function whileNoHostWorks(work: () => Promise<void>): Promise<void> {
  const host = server.hostPid!;
  process.kill(host, 'SIGSTOP');
  try {
    await work();
  } finally {
    process.kill(host, 'SIGKILL');
  }
  await until(() => server.hostPid !== undefined && server.hostPid !== host, 'the next host to start');
}

const disable = (KeyId: string) => kms.send(new DisableKeyCommand({ KeyId }));
const enable = (KeyId: string) => kms.send(new EnableKeyCommand({ KeyId }));
const wordsOf = ({ Events }: VolumeStatusItem) => Events?.[0]?.Description;

async function holdsAll(volumeId: string, device: string): Promise<void> {
  expect(await stored.differences(await stored.attach(volumeId, instance, device), content)).toEqual(new Map());
  await stored.detach(volumeId);
}

test('a restore whose key is disabled waits, says so, and goes on when the key is enabled', async () => {
  let restored = '';
  await whileNoHostWorks(async () => {
    restored = await stored.restore(snapshot);
    await disable(key);
  });
  await until(async () => wordsOf(await stored.status(restored)) !== undefined, 'the volume to say what troubles it');
  const status = await stored.status(restored);
  expect(wordsOf(status)).toBe(`${key} is disabled.`);
  expect(status.VolumeStatus!.Status).toBe('impaired');
  expect(status.VolumeStatus!.Details).toContainEqual({ Name: 'initialization-state', Status: 'initializing' });
  await enable(key);
  await stored.initialized(restored);
  expect(wordsOf(await stored.status(restored))).toBeUndefined();
  await holdsAll(restored, '/dev/sdf');
  // What the restore was allowed to do, it may do no more.
  await expect.poll(async () => (await kms.send(new ListGrantsCommand({ KeyId: key }))).Grants).toEqual([]);
});

test('a copy whose key is disabled stays pending, says so, and is completed when the key is enabled', async () => {
  const other = await newKey();
  let copy = '';
  await whileNoHostWorks(async () => {
    copy = await stored.copy(snapshot, { Encrypted: true, KmsKeyId: other });
    await disable(other);
  });
  expect(await stored.trouble(copy)).toBe(`${other} is disabled.`);
  await enable(other);
  await stored.completed(copy);
  expect((await stored.describeSnapshot(copy)).StateMessage).toBeUndefined();
  await holdsAll(await stored.restore(copy), '/dev/sdg');
  await expect.poll(async () => (await kms.send(new ListGrantsCommand({ KeyId: other }))).Grants).toEqual([]);
});

test('a volume or copy under a key of its own doesn’t need the snapshot’s key once it has been asked for', async () => {
  const [sourceKey, own] = [await newKey(), await newKey()];
  const source = await stored.copy(snapshot, { Encrypted: true, KmsKeyId: sourceKey });
  await stored.completed(source);
  let restored = '';
  let copy = '';
  await whileNoHostWorks(async () => {
    restored = await stored.restore(source, { Encrypted: true, KmsKeyId: own });
    copy = await stored.copy(source, { Encrypted: true, KmsKeyId: own });
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: sourceKey, PendingWindowInDays: 7 }));
  });
  await stored.initialized(restored);
  await holdsAll(restored, '/dev/sdh');
  await stored.completed(copy);
  await holdsAll(await stored.restore(copy), '/dev/sdi');
  // The snapshot itself is as good as gone, and says why at once.
  await expect(stored.restore(source)).rejects.toThrow(/is pending deletion/);
  const { Volumes } = await stored.ec2.send(new DescribeVolumesCommand({ VolumeIds: [restored] }));
  expect(Volumes![0]).toMatchObject({ KmsKeyId: own, SnapshotId: source, Encrypted: true });
});

test('an attached volume that is being filled goes on while its key is disabled: the host has the data key', async () => {
  const restored = await stored.restore(snapshot, { VolumeInitializationRate: 100 });
  const socket = await stored.attach(restored, instance, '/dev/sdj');
  await disable(key);
  expect(await stored.differences(socket, content)).toEqual(new Map());
  await stored.initialized(restored);
  await enable(key);
  await stored.detach(restored);
});
