/** `coffer serve --store s3://…` on a real S3 server, with a proxy between that does what networks do on their bad days. */
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import { DeleteSnapshotCommand } from '@aws-sdk/client-ec2';
import { CreateBucketCommand, paginateListObjectsV2, S3Client } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type S3Server, startCeph } from './support/ceph.ts';
import { run } from './support/client.ts';
import { type Fault, FaultyS3 } from './support/faulty-s3.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { type Content, range, Stored } from './support/stored.ts';
import { failure } from './support/wire.ts';

const always = Number.POSITIVE_INFINITY;
let ceph: S3Server;
let admin: S3Client;
let proxy: FaultyS3;
let server: TestServer;
let stored: Stored;
let instance: string;
let volume: string;
let socket: string;
let content: Content;
let snapshot: string;
let unanswered: string;
let contentOfUnanswered: Content;

beforeAll(async () => {
  ceph = await startCeph();
  const { accessKeyId, secretAccessKey } = ceph;
  const credentials = { accessKeyId, secretAccessKey };
  admin = new S3Client({ endpoint: ceph.endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  await admin.send(new CreateBucketCommand({ Bucket: 'blocks' }));
  proxy = new FaultyS3(ceph.endpoint);
  server = await startServer({
    args: ['--store', 's3://blocks/coffer'],
    env: {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      COFFER_S3_ENDPOINT: await proxy.start(),
    },
  });
  await until(async () => {
    const { stdout } = await run(coffer, ['status', '--json', '--data', server.dataDir]);
    return /"BlockStoreProblem": ?null/.test(stdout) && stdout.includes('s3://blocks/coffer');
  }, 'the host to have opened its block store');
  stored = new Stored(server);
  instance = await stored.runInstance();
  volume = await stored.create();
  socket = await stored.attach(volume, instance);

  // One request of the first snapshot gets no answer. It takes until the end of all tests to be given up.
  const other = await stored.create();
  contentOfUnanswered = await stored.write(await stored.attach(other, instance, '/dev/sdz'), [3]);
  proxy.break('silence', ['PUT'], 1);
  const before = proxy.requests;
  unanswered = await stored.snapshot(other);
  await until(() => proxy.requests > before, 'the request that gets no answer');
});
afterEach(() => {
  proxy.heal();
  proxy.inFlightMax = always;
});
afterAll(async () => {
  await server?.stop();
  await proxy?.stop();
  admin?.destroy();
  await ceph?.stop();
});

async function objectsOf(snapshotId: string): Promise<number> {
  let count = 0;
  for await (const { Contents = [] } of paginateListObjectsV2({ client: admin }, { Bucket: 'blocks' }))
    count += Contents.filter(({ Key }) => Key!.includes(snapshotId)).length;
  return count;
}

async function expectRestored(snapshotId: string, expected: Content, device: string): Promise<void> {
  const restored = await stored.restore(snapshotId);
  const there = await stored.attach(restored, instance, device);
  expect(await stored.differences(there, expected)).toEqual(new Map());
  await stored.initialized(restored);
  await stored.detach(restored);
}

async function getBlock(snapshotId: string, index: number): Promise<Buffer> {
  const ebs = server.sdk(EBSClient);
  const { Blocks } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: snapshotId }));
  const { BlockToken } = Blocks!.find(({ BlockIndex }) => BlockIndex === index)!;
  const input = { SnapshotId: snapshotId, BlockIndex: index, BlockToken };
  const { BlockData } = await ebs.send(new GetSnapshotBlockCommand(input));
  return Buffer.from(await BlockData!.transformToByteArray());
}

/** Each of the faults meets one of the next requests; one that is sent alone meets them all, and gets through in the end. */
function passing(faults: readonly Fault[], methods: readonly string[]): void {
  for (const fault of faults) proxy.break(fault, methods, 1);
}

const writeFaults = ['slowDown', 'reset', 'flipRequest', 'internalError', 'notXml'] as const;
const readFaults = ['truncate', 'slowDown', 'flip', 'reset', 'notXml'] as const;

test('snapshots, volumes, copies and deletions come out right in spite of passing faults', async () => {
  content = await stored.write(socket, range(0, 12));
  passing(writeFaults, ['PUT']);
  snapshot = await stored.snapshot(volume);
  await stored.completed(snapshot);

  passing(readFaults, ['GET']);
  await expectRestored(snapshot, content, '/dev/sdg');
  passing(readFaults, ['GET']);
  expect((await getBlock(snapshot, 7)).equals(content.get(7)!)).toBe(true);

  passing(readFaults, ['GET']);
  passing(writeFaults, ['PUT']);
  const copy = await stored.copy(snapshot, { Encrypted: true });
  await stored.completed(copy);
  expect(await objectsOf(copy)).toBeGreaterThanOrEqual(12);

  passing(['slowDown', 'reset', 'internalError'], ['DELETE', 'POST']);
  await stored.ec2.send(new DeleteSnapshotCommand({ SnapshotId: copy }));
  await until(async () => (await objectsOf(copy)) === 0, 'the copy’s objects to be gone');
});

test('a server that lets only two requests in at a time makes it slow, not wrong', async () => {
  proxy.inFlightMax = 2;
  const after = new Map([...content, ...(await stored.write(socket, range(4, 16)))]);
  const next = await stored.snapshot(volume);
  await stored.completed(next);
  const restored = await stored.restore(next);
  const there = await stored.attach(restored, instance, '/dev/sdh');
  // A read that is turned away again and again fails in the end; it is never wrong.
  await until(async () => {
    const found = await stored.differences(there, after);
    expect([...found.values()]).not.toContain('other bytes');
    return found.size === 0;
  }, 'all blocks to be read');
  await stored.initialized(restored);
  await stored.detach(restored);
});

test.each<[Fault, RegExp]>([
  ['accessDenied', /Access ?Denied|refuses|not allowed/i],
  ['quotaExceeded', /quota|no room|full/i],
])(
  'a server that refuses all: who asks hears it, work waits with the reason, and goes on after: %s',
  async (fault, words) => {
    proxy.break(fault, ['GET', 'PUT'], always);
    const refusal = await failure(getBlock(snapshot, 7));
    expect(refusal.status).toBeGreaterThanOrEqual(400);
    const written = await stored.write(socket, [2]);
    const next = await stored.snapshot(volume);
    expect(await stored.trouble(next)).toMatch(words);
    const copy = await stored.copy(snapshot, { Encrypted: true });
    expect(await stored.trouble(copy)).toMatch(words);
    expect(await stored.differences(socket, written)).toEqual(new Map());
    proxy.heal();
    await stored.completed(next);
    await stored.completed(copy);
    await expectRestored(next, written, '/dev/sdi');
    await expectRestored(copy, content, '/dev/sdj');
  },
);

test('a server that changes every answer: what it sends is called damaged, and nothing wrong is given out', async () => {
  const early = await stored.restore(snapshot);
  const socketOfEarly = await stored.attach(early, instance, '/dev/sdk');
  await stored.initialized(early);
  proxy.break('flip', ['GET'], always);
  const refusal = await failure(getBlock(snapshot, 7));
  expect(refusal.message).toMatch(/damaged/);
  const restored = await stored.restore(snapshot);
  await expect(stored.attach(restored, instance, '/dev/sdl')).rejects.toThrow(/damaged/);
  expect(await stored.impaired(restored)).toMatch(/damaged/);
  const copy = await stored.copy(snapshot, { Encrypted: true });
  await until(
    async () => /damaged/.test((await stored.describeSnapshot(copy)).StateMessage ?? ''),
    'the copy to say so',
  );
  expect((await stored.describeSnapshot(copy)).State).not.toBe('completed');
  expect(await stored.differences(socketOfEarly, content)).toEqual(new Map());
  proxy.heal();
  await stored.initialized(restored);
  const there = await stored.attach(restored, instance, '/dev/sdl');
  expect(await stored.differences(there, content)).toEqual(new Map());
});

test('a server that took a request and never answered was asked again, and the snapshot is whole', async () => {
  await stored.completed(unanswered);
  expect((await getBlock(unanswered, 3)).equals(contentOfUnanswered.get(3)!)).toBe(true);
});
