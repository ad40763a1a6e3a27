/** EBS direct through the running server: what coldsnap and its like do, who may do it, and what is refused. */
import { hash, randomBytes } from 'node:crypto';
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type StartSnapshotCommandInput,
} from '@aws-sdk/client-ebs';
import {
  CreateTagsCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  ModifySnapshotAttributeCommand,
} from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import { CreateKeyCommand, DisableKeyCommand, EnableKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { aggregate } from '../src/cli/transfer/import.ts';
import { type Client, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { newUser } from './support/users.ts';

const blockBytes = 512 * 1024;
let server: TestServer;
let ebs: EBSClient;
let ec2: EC2Client;
let kms: KMSClient;
let keyArn: string;

beforeAll(async () => {
  server = await startServer();
  ebs = server.sdk(EBSClient);
  ec2 = server.sdk(EC2Client);
  kms = server.sdk(KMSClient);
  keyArn = (await kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
});
afterAll(() => server?.stop());

const put = (
  snapshotId: string,
  index: number,
  data: Buffer,
  client = ebs,
  checksum = hash('sha256', data, 'base64'),
) =>
  client.send(
    new PutSnapshotBlockCommand({
      SnapshotId: snapshotId,
      BlockIndex: index,
      BlockData: data,
      DataLength: blockBytes,
      Checksum: checksum,
      ChecksumAlgorithm: 'SHA256',
    }),
  );

async function upload(blocks: ReadonlyMap<number, Buffer>, input: Partial<StartSnapshotCommandInput> = {}) {
  const started = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ...input }));
  const id = started.SnapshotId!;
  await Promise.all([...blocks].map(([index, data]) => put(id, index, data)));
  const digests = new Map([...blocks].map(([index, data]) => [index, hash('sha256', data, 'base64')]));
  const completed = await ebs.send(
    new CompleteSnapshotCommand({
      SnapshotId: id,
      ChangedBlocksCount: blocks.size,
      Checksum: aggregate(digests),
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    }),
  );
  expect(completed.Status).toBe('completed');
  return { id, started };
}

async function download(id: string, client = ebs): Promise<Map<number, Buffer>> {
  const { Blocks = [] } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  const blocks = new Map<number, Buffer>();
  for (const { BlockIndex, BlockToken } of Blocks) {
    const answer = await client.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex, BlockToken }));
    const data = Buffer.from(await answer.BlockData!.transformToByteArray());
    expect(answer).toMatchObject({ DataLength: blockBytes, ChecksumAlgorithm: 'SHA256' });
    expect(hash('sha256', data, 'base64')).toBe(answer.Checksum);
    blocks.set(BlockIndex!, data);
  }
  return blocks;
}

/** Whether two sets of blocks are the same. (Half a megabyte at a time is too much for a comparison element by element.) */
function same(actual: ReadonlyMap<number, Buffer>, expected: ReadonlyMap<number, Buffer>): void {
  expect([...actual.keys()]).toEqual([...expected.keys()]);
  for (const [index, data] of expected) expect(actual.get(index)!.equals(data), `block ${index}`).toBe(true);
}

const describe = async (id: string) =>
  (await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }))).Snapshots![0]!;
const some = (...indexes: number[]) => new Map(indexes.map((index) => [index, randomBytes(blockBytes)]));
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it should have been refused'),
    (error) => ({
      name: error.name,
      status: error.$metadata.httpStatusCode,
      reason: error.Reason,
      message: error.message,
    }),
  );

test.each([
  ['unencrypted', {}],
  ['encrypted', { Encrypted: true, KmsKeyArn: 'key' }],
])('a snapshot that is uploaded comes back the same: %s', async (_, given) => {
  const input = 'KmsKeyArn' in given ? { ...given, KmsKeyArn: keyArn } : given;
  const blocks = some(0, 3, 2047);
  const { id, started } = await upload(blocks, {
    ...input,
    Description: 'from elsewhere',
    Tags: [{ Key: 'a', Value: 'b' }],
  });
  expect(started).toMatchObject({
    BlockSize: blockBytes,
    Status: 'pending',
    VolumeSize: 1,
    OwnerId: '123456789012',
    Description: 'from elsewhere',
    Tags: [{ Key: 'a', Value: 'b' }],
    ...('KmsKeyArn' in input ? { KmsKeyArn: keyArn } : {}),
  });
  expect(started.$metadata.httpStatusCode).toBe(201);
  expect(await describe(id)).toMatchObject({
    State: 'completed',
    Progress: '100%',
    Encrypted: 'KmsKeyArn' in input,
    VolumeSize: 1,
    Description: 'from elsewhere',
    Tags: [{ Key: 'a', Value: 'b' }],
  });
  same(await download(id), blocks);
});

test('boto3 and the aws CLI get the same', async () => {
  const blocks = some(1);
  const { id } = await upload(blocks, { Encrypted: true, KmsKeyArn: keyArn });
  const seen = await server.boto3(`
import hashlib
ebs = client('ebs')
page = ebs.list_snapshot_blocks(SnapshotId='${id}')
block = ebs.get_snapshot_block(SnapshotId='${id}', BlockIndex=1, BlockToken=page['Blocks'][0]['BlockToken'])
data = block['BlockData'].read()
answer({'count': len(page['Blocks']), 'size': page['VolumeSize'], 'sha': hashlib.sha256(data).hexdigest()})`);
  expect(seen).toEqual({ count: 1, size: 1, sha: hash('sha256', blocks.get(1)!, 'hex') });
  const listed = await server.awsCli('ebs', 'list-snapshot-blocks', '--snapshot-id', id);
  expect(listed).toMatchObject({ Blocks: [{ BlockIndex: 1 }], VolumeSize: 1, BlockSize: blockBytes });
});

test('pages of lists continue where they end', async () => {
  const indexes = Array.from({ length: 130 }, (_, index) => index * 3);
  const data = randomBytes(blockBytes);
  const { id } = await upload(new Map(indexes.map((index) => [index, data])));
  const first = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id, MaxResults: 100 }));
  expect(first.Blocks!.map((block) => block.BlockIndex)).toEqual(indexes.slice(0, 100));
  expect(first.NextToken).toMatch(/^[A-Za-z0-9+/=]{1,256}$/);
  const second = await ebs.send(
    new ListSnapshotBlocksCommand({ SnapshotId: id, MaxResults: 100, NextToken: first.NextToken }),
  );
  expect(second.Blocks!.map((block) => block.BlockIndex)).toEqual(indexes.slice(100));
  expect(second.NextToken).toBeUndefined();
  expect(second).toMatchObject({ VolumeSize: 1, BlockSize: blockBytes });
  const from = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id, StartingBlockIndex: 380 }));
  expect(from.Blocks!.map((block) => block.BlockIndex)).toEqual([381, 384, 387]);
});

test('a successor shares what it does not change, and the two are compared', async () => {
  const first = some(0, 1, 2);
  const { id: parent } = await upload(first, { Encrypted: true, KmsKeyArn: keyArn });
  const changes = some(1, 9);
  const { id: child, started } = await upload(changes, { ParentSnapshotId: parent });
  expect(started).toMatchObject({ ParentSnapshotId: parent, KmsKeyArn: keyArn });
  same(await download(child), new Map([...first, ...changes].sort(([left], [right]) => left - right)));
  const { ChangedBlocks } = await ebs.send(
    new ListChangedBlocksCommand({ FirstSnapshotId: parent, SecondSnapshotId: child }),
  );
  expect(ChangedBlocks!.map((block) => block.BlockIndex)).toEqual([1, 9]);
  const [both, added] = ChangedBlocks!;
  expect(added!.FirstBlockToken).toBeUndefined();
  const old = await ebs.send(
    new GetSnapshotBlockCommand({ SnapshotId: parent, BlockIndex: 1, BlockToken: both!.FirstBlockToken }),
  );
  expect(first.get(1)!.equals(await old.BlockData!.transformToByteArray())).toBe(true);

  const { id: stranger } = await upload(some(0));
  expect(
    await failure(ebs.send(new ListChangedBlocksCommand({ FirstSnapshotId: stranger, SecondSnapshotId: child }))),
  ).toMatchObject({ name: 'ValidationException', status: 400, reason: 'UNRELATED_SNAPSHOTS' });
  expect(
    await failure(ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: parent, Encrypted: true }))),
  ).toMatchObject({ name: 'ValidationException' });
});

test('StartSnapshot with the same token is one snapshot; with other parameters a conflict', async () => {
  const input = { VolumeSize: 2, ClientToken: 'once' };
  const one = await ebs.send(new StartSnapshotCommand(input));
  const two = await ebs.send(new StartSnapshotCommand(input));
  expect(two.SnapshotId).toBe(one.SnapshotId);
  expect(two.StartTime).toEqual(one.StartTime);
  expect(await failure(ebs.send(new StartSnapshotCommand({ ...input, VolumeSize: 3 })))).toMatchObject({
    name: 'ConflictException',
    status: 409,
  });
});

test('what is wrong is refused, and named', async () => {
  const { SnapshotId: id } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const data = randomBytes(blockBytes);
  const refused = (promise: Promise<unknown>, reason: string) =>
    failure(promise).then((error) => expect(error).toMatchObject({ name: 'ValidationException', status: 400, reason }));
  await refused(put(id!, 2048, data), 'INVALID_BLOCK');
  await refused(put(id!, 0, data, ebs, hash('sha256', 'something else', 'base64')), 'INVALID_PARAMETER_VALUE');
  await refused(put(id!, 0, data.subarray(1)), 'INVALID_PARAMETER_VALUE');
  await refused(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id })), 'INVALID_SNAPSHOT_ID');
  await refused(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: 'vol-1' })), 'INVALID_SNAPSHOT_ID');
  await refused(ebs.send(new StartSnapshotCommand({ VolumeSize: 65_537 })), 'INVALID_VOLUME_SIZE');
  await refused(ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Timeout: 9 })), 'INVALID_PARAMETER_VALUE');
  await refused(
    ebs.send(new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: 1 })),
    'INVALID_PARAMETER_VALUE',
  );
  expect(
    await failure(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: 'snap-0123456789abcdef0' }))),
  ).toMatchObject({ name: 'ResourceNotFoundException', status: 404, reason: 'SNAPSHOT_NOT_FOUND' });
  const { id: other } = await upload(some(0));
  const { Blocks } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: other }));
  const token = Blocks![0]!.BlockToken!;
  await refused(
    ebs.send(new GetSnapshotBlockCommand({ SnapshotId: other, BlockIndex: 1, BlockToken: token })),
    'INVALID_BLOCK_TOKEN',
  );
  await refused(
    ebs.send(new GetSnapshotBlockCommand({ SnapshotId: other, BlockIndex: 0, BlockToken: 'AAAA' })),
    'INVALID_BLOCK_TOKEN',
  );
  await refused(put(other, 0, data), 'INVALID_SNAPSHOT_ID');
});

test('a block is read only by who may use the key now', async () => {
  const { id } = await upload(some(0), { Encrypted: true, KmsKeyArn: keyArn });
  const alice = await user('alice', [{ Effect: 'Allow', Action: 'ebs:*', Resource: '*' }]);
  const client = alice.sdk(EBSClient);
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  const get = () =>
    client.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: 0, BlockToken: Blocks![0]!.BlockToken }));
  const refusal = await failure(get());
  expect(refusal).toMatchObject({ name: 'AccessDeniedException', status: 403, reason: 'DEPENDENCY_ACCESS_DENIED' });
  expect(refusal.message).toContain('kms:Decrypt');
  expect(refusal.message).toContain(keyArn);
  await give('alice', [
    { Effect: 'Allow', Action: 'ebs:*', Resource: '*' },
    { Effect: 'Allow', Action: 'kms:Decrypt', Resource: keyArn },
  ]);
  await get();
  await kms.send(new DisableKeyCommand({ KeyId: keyArn }));
  expect(await failure(get())).toMatchObject({ name: 'ValidationException', reason: 'INVALID_DEPENDENCY_REQUEST' });
  await kms.send(new EnableKeyCommand({ KeyId: keyArn }));
  await get();
});

test('policies may name the snapshot by its tags', async () => {
  const { id } = await upload(some(0));
  const bob = await user('bob', [
    {
      Effect: 'Allow',
      Action: ['ebs:ListSnapshotBlocks', 'ebs:GetSnapshotBlock'],
      Resource: 'arn:aws:ec2:*::snapshot/*',
      Condition: { StringEquals: { 'aws:ResourceTag/open': 'yes' } },
    },
  ]);
  const refusal = await failure(bob.sdk(EBSClient).send(new ListSnapshotBlocksCommand({ SnapshotId: id })));
  expect(refusal).toMatchObject({ name: 'AccessDeniedException', status: 403 });
  expect(refusal.message).toContain('ebs:ListSnapshotBlocks');
  await ec2.send(new CreateTagsCommand({ Resources: [id], Tags: [{ Key: 'open', Value: 'yes' }] }));
  expect((await download(id, bob.sdk(EBSClient))).size).toBe(1);
});

test('a shared snapshot can be read by the account it is shared with, and by no other', async () => {
  const blocks = some(4);
  const { id } = await upload(blocks);
  const { stdout } = await run(coffer, ['account', 'create', '--name', 'neighbour', '--data', server.dataDir]);
  const account = JSON.parse(stdout);
  const other = server
    .as({ accessKeyId: account.AccessKeyId, secretAccessKey: account.SecretAccessKey })
    .sdk(EBSClient);
  expect(await failure(other.send(new ListSnapshotBlocksCommand({ SnapshotId: id })))).toMatchObject({
    name: 'ResourceNotFoundException',
  });
  await ec2.send(
    new ModifySnapshotAttributeCommand({
      SnapshotId: id,
      Attribute: 'createVolumePermission',
      OperationType: 'add',
      UserIds: [account.Account],
    }),
  );
  same(await download(id, other), blocks);
  expect(await failure(put(id, 0, randomBytes(blockBytes), other))).toMatchObject({
    name: 'ResourceNotFoundException',
  });
});

test('blocks that were acknowledged survive the end of both processes', async () => {
  const { SnapshotId: id } = await ebs.send(
    new StartSnapshotCommand({ VolumeSize: 1, Encrypted: true, KmsKeyArn: keyArn }),
  );
  const blocks = some(0, 1);
  await put(id!, 0, blocks.get(0)!);
  await server.kill9();
  await server.restart();
  const patient = server.sdk(EBSClient, { maxAttempts: 10 });
  await put(id!, 1, blocks.get(1)!, patient);
  const digests = new Map([...blocks].map(([index, data]) => [index, hash('sha256', data, 'base64')]));
  await patient.send(
    new CompleteSnapshotCommand({
      SnapshotId: id,
      ChangedBlocksCount: 2,
      Checksum: aggregate(digests),
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    }),
  );
  same(await download(id!, patient), blocks);
  await until(async () => (await describe(id!)).State === 'completed', 'the snapshot to be complete');
});

async function user(name: string, statements: readonly object[]): Promise<Client> {
  const made = await newUser(server, name);
  await give(name, statements);
  return made;
}

function give(name: string, statements: readonly object[]) {
  return server.sdk(iam.IAMClient).send(
    new iam.PutUserPolicyCommand({
      UserName: name,
      PolicyName: 'given',
      PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: statements }),
    }),
  );
}
