/** EBS direct in the hands of somebody who means harm: to others' requests, to others' share of a host, to what it leaves. */
import { createHash, hash, randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompleteSnapshotCommand, EBSClient, PutSnapshotBlockCommand, StartSnapshotCommand } from '@aws-sdk/client-ebs';
import { DeleteSnapshotCommand, DescribeSnapshotsCommand, EC2Client } from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { sendSigned } from './support/wire.ts';

const blockBytes = 512 * 1024;
let server: TestServer;
let ebs: EBSClient;
let ec2: EC2Client;

beforeAll(async () => {
  server = await startServer();
  ebs = server.sdk(EBSClient);
  ec2 = server.sdk(EC2Client);
  // Once its host is there.
  await until(() => start().then(discard, () => false), 'a snapshot to be begun');
});
afterAll(() => server?.stop());

const start = async () => (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId!;
const put = (SnapshotId: string, BlockIndex: number, data = randomBytes(blockBytes)) =>
  ebs.send(
    new PutSnapshotBlockCommand({
      SnapshotId,
      BlockIndex,
      BlockData: data,
      DataLength: blockBytes,
      Checksum: hash('sha256', data, 'base64'),
      ChecksumAlgorithm: 'SHA256',
    }),
  );

async function discard(SnapshotId: string): Promise<true> {
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  return true;
}

/** The files and directories below a directory of the data directory. */
function namesIn(name: string): string[] {
  const path = join(server.dataDir, name);
  for (;;)
    try {
      return existsSync(path) ? readdirSync(path, { recursive: true, encoding: 'utf8' }) : [];
    } catch (error) {
      // A directory went away while it was looked at: there is less now.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
}

test('only a block may come with a body that is not signed: who changes a request on its way gets nowhere', async () => {
  const send = (path: string, body: string) =>
    sendSigned(server, 'ebs', {
      path,
      headers: { 'content-type': 'application/json', 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' },
      body,
    });
  const started = await send('/snapshots', JSON.stringify({ VolumeSize: 1, Description: 'changed on its way' }));
  expect(started).toMatchObject({
    status: 403,
    text: expect.stringContaining('requires the request body to be signed'),
  });
  const id = await start();
  expect((await send(`/snapshots/completion/${id}`, '')).status).toBe(403);
  const { Snapshots = [] } = await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  expect(Snapshots.map(({ SnapshotId, State }) => [SnapshotId, State])).toEqual([[id, 'pending']]);
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
});

test('a snapshot that is deleted while it is written leaves nothing behind, however late a block comes', async () => {
  const id = await start();
  await put(id, 0);
  const late = Array.from({ length: 40 }, (_, index) => put(id, index));
  const allAnswered = Promise.allSettled(late);
  await late[0];
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
  await allAnswered;
  const left = () => ['uploads', 'snapshots'].flatMap(namesIn).filter((name) => name.includes(id));
  await until(() => left().length === 0, 'everything of it to be gone');
  await expect(put(id, 1)).rejects.toMatchObject({ name: 'ResourceNotFoundException' });
  expect(left()).toEqual([]);
});

test('what a host notes down while an encrypted snapshot is written confirms no guess at its blocks', async () => {
  const { SnapshotId } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Encrypted: true }));
  const guess = Buffer.alloc(blockBytes, 'the same everywhere');
  for (const index of [0, 1]) await put(SnapshotId!, index, guess);
  const digest = hash('sha256', guess, 'buffer');
  const noted = readFileSync(join(server.dataDir, 'uploads', `${SnapshotId}.upload`));
  expect(noted.length).toBeGreaterThan(2 * digest.length);
  expect(noted.includes(digest)).toBe(false);
  const linear = createHash('sha256').update(digest).update(digest).digest('base64');
  const complete = (Checksum: string) =>
    ebs.send(
      new CompleteSnapshotCommand({
        SnapshotId,
        ChangedBlocksCount: 2,
        Checksum,
        ChecksumAlgorithm: 'SHA256',
        ChecksumAggregationMethod: 'LINEAR',
      }),
    );
  await expect(complete(digest.toString('base64'))).rejects.toMatchObject({ Reason: 'INVALID_PARAMETER_VALUE' });
  expect((await complete(linear)).Status).toBe('completed');
});

test('blocks that come while the snapshot is completed are in it or refused, and it can be completed but once', async () => {
  const id = await start();
  const data = randomBytes(blockBytes);
  await put(id, 0, data);
  const complete = () => ebs.send(new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: 1 }));
  const all = await Promise.allSettled([complete(), complete(), put(id, 0), complete(), put(id, 0), put(id, 0, data)]);
  const errors = all.flatMap((one) => (one.status === 'rejected' ? [one.reason.name] : []));
  expect(errors.filter((name) => name !== 'ValidationException')).toEqual([]);
  expect(all.some(({ status }) => status === 'fulfilled')).toBe(true);
  await complete();
  const { stdout } = await run(coffer, ['store', 'check', '--data', server.dataDir, '--json']);
  expect(JSON.parse(stdout)).toMatchObject({ ProblemCount: 0, Unreferenced: { Blocks: 0 } });
});
