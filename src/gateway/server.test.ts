import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import { EBSClient, GetSnapshotBlockCommand, PutSnapshotBlockCommand, StartSnapshotCommand } from '@aws-sdk/client-ebs';
import { CreateTagsCommand, CreateVolumeCommand, DescribeVolumesCommand, EC2Client } from '@aws-sdk/client-ec2';
import { DescribeKeyCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { AwsError } from '../aws/errors.ts';
import type { PipelineRequest } from './pipeline.ts';
import { account, clientConfig, principal, type Running, startServer } from './testing.ts';

let running: Running;
let answer: (request: PipelineRequest) => unknown;
let seen: PipelineRequest[];

beforeAll(async () => {
  running = await startServer((request) => {
    seen.push(request);
    return answer(request);
  });
});
afterAll(() => running.server.close());
beforeEach(() => {
  seen = [];
});

test('a KMS request of the SDK arrives whole, and its answer is read back whole', async () => {
  answer = () => ({
    CiphertextBlob: Buffer.from([1, 2, 3]),
    KeyId: 'arn:key',
    EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
  });
  const client = new KMSClient(clientConfig(running.endpoint));
  const output = await client.send(
    new EncryptCommand({ KeyId: 'alias/a', Plaintext: Buffer.from('ß'), EncryptionContext: { 'aws:ebs:id': 'vol-1' } }),
  );
  expect(output.CiphertextBlob).toEqual(Uint8Array.of(1, 2, 3));
  expect(output.KeyId).toBe('arn:key');
  const { input, region, sourceIp, requestId, operation } = seen[0]!;
  expect(operation.name).toBe('Encrypt');
  expect(input).toEqual({
    KeyId: 'alias/a',
    Plaintext: Buffer.from('ß'),
    EncryptionContext: { 'aws:ebs:id': 'vol-1' },
  });
  expect([region, sourceIp, seen[0]!.principal]).toEqual(['us-east-1', '127.0.0.1', principal]);
  expect(output.$metadata.requestId).toBe(requestId);
});

test('an EC2 request of the SDK arrives whole, and its answer is read back whole', async () => {
  const createTime = new Date('2030-01-31T23:59:59Z');
  answer = () => ({
    VolumeId: 'vol-1',
    Size: 4,
    Encrypted: true,
    CreateTime: createTime,
    Attachments: [],
    Tags: [{ Key: 'a', Value: '<b>&' }],
  });
  const client = new EC2Client(clientConfig(running.endpoint));
  const output = await client.send(
    new CreateVolumeCommand({
      AvailabilityZone: 'us-east-1a',
      Size: 4,
      Encrypted: true,
      ClientToken: 't',
      TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'a', Value: 'b c+d' }] }],
    }),
  );
  expect(output).toMatchObject({
    VolumeId: 'vol-1',
    Size: 4,
    Encrypted: true,
    CreateTime: createTime,
    Attachments: [],
    Tags: [{ Key: 'a', Value: '<b>&' }],
  });
  expect(output.$metadata.requestId).toBe(seen[0]!.requestId);
  expect(seen[0]!.input).toEqual({
    AvailabilityZone: 'us-east-1a',
    Size: 4,
    Encrypted: true,
    ClientToken: 't',
    TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'a', Value: 'b c+d' }] }],
  });
});

test('EC2 answers without output say true, and empty sets are there', async () => {
  const client = new EC2Client(clientConfig(running.endpoint));
  answer = () => undefined;
  await client.send(new CreateTagsCommand({ Resources: ['vol-1'], Tags: [{ Key: 'a', Value: '' }] }));
  expect(seen[0]!.input).toEqual({ Resources: ['vol-1'], Tags: [{ Key: 'a', Value: '' }] });
  answer = () => ({ Volumes: [] });
  expect((await client.send(new DescribeVolumesCommand({ MaxResults: 5 }))).Volumes).toEqual([]);
});

test('STS', async () => {
  answer = () => ({ Account: account, Arn: principal.arn, UserId: account });
  const client = new STSClient(clientConfig(running.endpoint));
  expect(await client.send(new GetCallerIdentityCommand())).toMatchObject({
    Account: account,
    Arn: principal.arn,
    UserId: account,
  });
});

test('CloudTrail takes times and gives them', async () => {
  const at = new Date('2030-01-31T23:59:59Z');
  answer = () => ({ Events: [{ EventId: 'e', EventTime: at }] });
  const client = new CloudTrailClient(clientConfig(running.endpoint));
  const output = await client.send(new LookupEventsCommand({ StartTime: at, MaxResults: 3 }));
  expect(output.Events).toEqual([{ EventId: 'e', EventTime: at }]);
  expect(seen[0]!.input).toEqual({ StartTime: at, MaxResults: 3 });
});

test('EBS direct binds path, query, headers and payload, both ways', async () => {
  const client = new EBSClient(clientConfig(running.endpoint));
  answer = () => ({ SnapshotId: 'snap-1', BlockSize: 524288 });
  expect((await client.send(new StartSnapshotCommand({ VolumeSize: 8, ClientToken: 't' }))).BlockSize).toBe(524288);
  const block = Buffer.alloc(524288, 7);
  answer = () => ({ Checksum: 'sum', ChecksumAlgorithm: 'SHA256' });
  const put = await client.send(
    new PutSnapshotBlockCommand({
      SnapshotId: 'snap-1',
      BlockIndex: 3,
      BlockData: block,
      DataLength: 524288,
      Checksum: 'sum',
      ChecksumAlgorithm: 'SHA256',
    }),
  );
  expect([put.$metadata.httpStatusCode, put.Checksum]).toEqual([201, 'sum']);
  expect(seen[1]!.input).toMatchObject({
    SnapshotId: 'snap-1',
    BlockIndex: 3,
    DataLength: 524288,
    ChecksumAlgorithm: 'SHA256',
  });
  expect(block.equals((seen[1]!.input as { BlockData: Buffer }).BlockData)).toBe(true);
  answer = () => ({ DataLength: 3, BlockData: Buffer.from('abc'), Checksum: 'c', ChecksumAlgorithm: 'SHA256' });
  const got = await client.send(
    new GetSnapshotBlockCommand({ SnapshotId: 'snap-1', BlockIndex: 3, BlockToken: 'a+/=' }),
  );
  expect(await got.BlockData!.transformToString()).toBe('abc');
  expect([got.DataLength, got.Checksum]).toEqual([3, 'c']);
  expect(seen[2]!.input).toEqual({ SnapshotId: 'snap-1', BlockIndex: 3, BlockToken: 'a+/=' });
});

test('errors of operations reach the SDK with code, message and status', async () => {
  answer = () => {
    throw new AwsError('InvalidVolume.NotFound', "The volume 'vol-<1>' does not exist.");
  };
  const ec2 = new EC2Client(clientConfig(running.endpoint));
  await expect(ec2.send(new DescribeVolumesCommand({}))).rejects.toMatchObject({
    name: 'InvalidVolume.NotFound',
    message: "The volume 'vol-<1>' does not exist.",
    $metadata: { httpStatusCode: 400 },
  });
  answer = () => {
    throw new AwsError('NotFoundException', 'no such key');
  };
  const kms = new KMSClient(clientConfig(running.endpoint));
  await expect(kms.send(new DescribeKeyCommand({ KeyId: 'x' }))).rejects.toMatchObject({
    name: 'NotFoundException',
    message: 'no such key',
    $metadata: { httpStatusCode: 400 },
  });
  answer = () => {
    throw new AwsError('ResourceNotFoundException', 'no such snapshot', { members: { Reason: 'SNAPSHOT_NOT_FOUND' } });
  };
  const ebs = new EBSClient(clientConfig(running.endpoint));
  await expect(ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).rejects.toMatchObject({
    name: 'ResourceNotFoundException',
    Reason: 'SNAPSHOT_NOT_FOUND',
    $metadata: { httpStatusCode: 404 },
  });
});
