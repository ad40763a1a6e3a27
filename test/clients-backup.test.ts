/** What backup tools do: Velero's volume snapshotter, and those that move blocks (coldsnap, flexible-snapshot-proxy). */
import { createHash, hash, randomBytes } from 'node:crypto';
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  paginateListSnapshotBlocks,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import {
  CreateSnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  type Snapshot,
} from '@aws-sdk/client-ec2';
import { CreateAliasCommand, CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { Volumes, zone } from './support/volumes.ts';
import { failure, sendSigned } from './support/wire.ts';

const blockBytes = 512 * 1024;
let server: TestServer;
let volumes: Volumes;
let ec2: EC2Client;
let ebs: EBSClient;
let instance: string;
const keys = { id: '', arn: '', alias: 'alias/backup', aliasArn: '' };

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  ec2 = server.sdk(EC2Client);
  ebs = server.sdk(EBSClient);
  const kms = server.sdk(KMSClient);
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}));
  Object.assign(keys, { id: KeyMetadata!.KeyId, arn: KeyMetadata!.Arn });
  keys.aliasArn = keys.arn.replace(/key\/.*/, keys.alias);
  await kms.send(new CreateAliasCommand({ AliasName: keys.alias, TargetKeyId: keys.id }));
  instance = await volumes.runInstance();
});
afterAll(() => server?.stop());

async function describeOne(id: string): Promise<Snapshot> {
  const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }));
  expect(Snapshots).toHaveLength(1);
  return Snapshots![0]!;
}
const completed = (id: string) => until(async () => (await describeOne(id)).State === 'completed', `${id} to be done`);

describe('Velero', () => {
  const data = randomBytes(1024 * 1024);
  const restored: string[] = [];
  let volume: string;
  let snapshot: string;

  test('backs a volume up, with its tags', async () => {
    volume = await volumes.create({ KmsKeyId: keys.arn });
    await ec2.send(new CreateTagsCommand({ Resources: [volume], Tags: [{ Key: 'app', Value: 'shop' }] }));
    const nbd = await NbdClient.connect(await volumes.attach(volume, instance));
    await nbd.write(0, data);
    await nbd.close();
    const { Tags, VolumeType, AvailabilityZone } = await volumes.describe(volume);
    expect({ VolumeType, AvailabilityZone }).toEqual({ VolumeType: 'gp2', AvailabilityZone: zone });
    const all = [...Tags!, { Key: 'velero.io/backup', Value: 'nightly' }];
    const TagSpecifications = [{ ResourceType: 'snapshot' as const, Tags: all }];
    const made = await ec2.send(new CreateSnapshotCommand({ VolumeId: volume, TagSpecifications }));
    snapshot = made.SnapshotId!;
    expect(made.Tags).toEqual(expect.arrayContaining(all));
    expect((await describeOne(snapshot)).Tags).toEqual(expect.arrayContaining(all));
    await completed(snapshot);
  });

  test.each(['id', 'arn', 'alias', 'aliasArn', 'none'] as const)(
    'restores it without naming a size, its key named by %s',
    async (kind) => {
      const { Encrypted, Tags } = await describeOne(snapshot);
      const made = await ec2.send(
        new CreateVolumeCommand({
          SnapshotId: snapshot,
          AvailabilityZone: zone,
          VolumeType: 'gp3',
          Encrypted,
          ...(kind === 'none' ? {} : { KmsKeyId: keys[kind] }),
          TagSpecifications: [{ ResourceType: 'volume', Tags }],
        }),
      );
      restored.push(made.VolumeId!);
      expect(made).toMatchObject({ Size: 1, Encrypted: true, KmsKeyId: keys.arn, SnapshotId: snapshot });
      expect(made.Tags).toEqual(expect.arrayContaining(Tags!));
      expect(await volumes.describe(made.VolumeId!)).toMatchObject({ KmsKeyId: keys.arn, Attachments: [] });
    },
  );

  test('the data is back, also after the volume is gone, and deleting a snapshot twice is no surprise', async () => {
    await volumes.detach(volume);
    await ec2.send(new DeleteVolumeCommand({ VolumeId: volume }));
    const nbd = await NbdClient.connect(await volumes.attach(restored[0]!, instance));
    expect((await nbd.read(0, data.length)).equals(data)).toBe(true);
    await nbd.close();
    await ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot }));
    const again = await failure(ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot })));
    expect(again).toMatchObject({ name: 'InvalidSnapshot.NotFound', message: expect.stringContaining(snapshot) });
    await volumes.detach(restored[0]!);
    for (const VolumeId of restored) await ec2.send(new DeleteVolumeCommand({ VolumeId }));
  });
});

describe('tools that move blocks', () => {
  /** PutSnapshotBlock as their SDK sends it: the body is not part of the signature. */
  const put = (snapshotId: string, index: number, data: Buffer, checksum = hash('sha256', data, 'base64')) =>
    sendSigned(server, 'ebs', {
      method: 'PUT',
      path: `/snapshots/${snapshotId}/blocks/${index}`,
      headers: {
        'content-type': 'application/octet-stream',
        'x-amz-content-sha256': 'UNSIGNED-PAYLOAD',
        'x-amz-data-length': String(data.length),
        'x-amz-checksum': checksum,
        'x-amz-checksum-algorithm': 'SHA256',
      },
      body: data,
    });

  /** Does it with up to 64 workers, as coldsnap does. */
  async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const queue = items.values();
    const worker = async () => {
      for (const item of queue) await work(item);
    };
    await Promise.all(Array.from({ length: 64 }, worker));
  }

  async function upload(blocks: ReadonlyMap<number, Buffer>, start: object, withChecksum: boolean): Promise<string> {
    const started = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Timeout: 60, ...start }));
    expect(started.$metadata.httpStatusCode).toBe(201);
    expect(started.BlockSize).toBe(blockBytes);
    await inParallel([...blocks], async ([index, data]) => {
      const reply = await put(started.SnapshotId!, index, data);
      expect(reply.status).toBe(201);
      expect(reply.headers.get('x-amz-checksum')).toBe(hash('sha256', data, 'base64'));
      expect(reply.headers.get('x-amz-checksum-algorithm')).toBe('SHA256');
    });
    const linear = createHash('sha256');
    for (const index of [...blocks.keys()].sort((left, right) => left - right))
      linear.update(hash('sha256', blocks.get(index)!, 'buffer'));
    const whole = {
      Checksum: linear.digest('base64'),
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    } as const;
    const { $metadata } = await ebs.send(
      new CompleteSnapshotCommand({
        SnapshotId: started.SnapshotId,
        ChangedBlocksCount: blocks.size,
        ...(withChecksum ? whole : {}),
      }),
    );
    expect($metadata.httpStatusCode).toBe(202);
    await completed(started.SnapshotId!);
    expect(await describeOne(started.SnapshotId!)).toMatchObject({ Progress: '100%', VolumeSize: 1 });
    return started.SnapshotId!;
  }

  async function download(id: string): Promise<Map<number, Buffer>> {
    const listed: Array<{ BlockIndex?: number; BlockToken?: string }> = [];
    for await (const page of paginateListSnapshotBlocks({ client: ebs, pageSize: 100 }, { SnapshotId: id })) {
      expect(page).toMatchObject({ VolumeSize: 1, BlockSize: blockBytes });
      listed.push(...page.Blocks!);
    }
    const blocks = new Map<number, Buffer>(listed.map(({ BlockIndex }) => [BlockIndex!, Buffer.alloc(0)]));
    await inParallel(listed, async ({ BlockIndex, BlockToken }) => {
      expect(BlockToken).toMatch(/^[A-Za-z0-9+/=]{1,256}$/);
      const answer = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex, BlockToken }));
      const data = Buffer.from(await answer.BlockData!.transformToByteArray());
      expect(answer).toMatchObject({ DataLength: blockBytes, ChecksumAlgorithm: 'SHA256' });
      expect(answer.Checksum).toBe(hash('sha256', data, 'base64'));
      blocks.set(BlockIndex!, data);
    });
    return blocks;
  }

  function same(actual: ReadonlyMap<number, Buffer>, expected: ReadonlyMap<number, Buffer>): void {
    const indexes = [...expected.keys()].sort((left, right) => left - right);
    expect([...actual.keys()]).toEqual(indexes);
    for (const index of indexes) expect(actual.get(index)!.equals(expected.get(index)!), `block ${index}`).toBe(true);
  }

  const some = (...indexes: number[]) => new Map(indexes.map((index) => [index, randomBytes(blockBytes)]));

  test('coldsnap: up and down, 64 blocks at a time, becomes a volume', async () => {
    const blocks = some(...Array.from({ length: 104 }, (_, index) => index * 7));
    const start = { Description: 'uploaded', Encrypted: true, KmsKeyArn: keys.arn };
    const id = await upload(blocks, start, false);
    same(await download(id), blocks);
    const { VolumeId } = await ec2.send(new CreateVolumeCommand({ SnapshotId: id, AvailabilityZone: zone }));
    const nbd = await NbdClient.connect(await volumes.attach(VolumeId!, instance, '/dev/sdg'));
    for (const index of [0, 7, 103 * 7])
      expect((await nbd.read(index * blockBytes, blockBytes)).equals(blocks.get(index)!)).toBe(true);
    expect(await nbd.read(blockBytes, 4096)).toEqual(Buffer.alloc(4096));
    await nbd.close();
    await volumes.detach(VolumeId!);
  });

  test('flexible-snapshot-proxy: what changed since the parent, checked as a whole', async () => {
    const [first, changes] = [some(0, 1, 500), some(1, 501)];
    const parent = await upload(first, {}, true);
    const child = await upload(changes, { ParentSnapshotId: parent }, true);
    same(await download(child), new Map([...first, ...changes]));
    const changed = new ListChangedBlocksCommand({ FirstSnapshotId: parent, SecondSnapshotId: child });
    const { ChangedBlocks, NextToken } = await ebs.send(changed);
    expect(NextToken).toBeUndefined();
    expect(ChangedBlocks).toEqual([
      { BlockIndex: 1, FirstBlockToken: expect.any(String), SecondBlockToken: expect.any(String) },
      { BlockIndex: 501, SecondBlockToken: expect.any(String) },
    ]);
  });

  test('what is not what its checksum says is refused, and can be sent again', async () => {
    const { SnapshotId } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
    const [data] = [...some(0).values()];
    const altered = Buffer.from(data!);
    altered[5]! ^= 1;
    const refusal = await put(SnapshotId!, 0, altered, hash('sha256', data!, 'base64'));
    expect(refusal.status).toBe(400);
    expect(refusal.headers.get('x-amzn-errortype')).toContain('ValidationException');
    expect((await put(SnapshotId!, 0, data!)).status).toBe(201);
    const wrong = new CompleteSnapshotCommand({
      SnapshotId,
      ChangedBlocksCount: 1,
      Checksum: hash('sha256', 'something else', 'base64'),
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    });
    expect(await failure(ebs.send(wrong))).toMatchObject({ name: 'ValidationException', status: 400 });
    await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 1 }));
    await completed(SnapshotId!);
    same(await download(SnapshotId!), new Map([[0, data!]]));
  });
});
