/**
 * The main job, as a person does it: the stock aws CLI and a real file system, from the key down to the disk.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CommandFailed, run } from './support/client.ts';
import { withFileSystem } from './support/file-system.ts';
import { filesUnder, findIn } from './support/files.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

let server: TestServer;
let key: { KeyId: string; Arn: string };
let instance: string;
let volume: string;
let spare: string;
const fileContent = Buffer.concat([
  Buffer.from('a plaintext marker that must never rest on disk. '.repeat(100)),
  randomBytes(500_000),
]);
// biome-ignore lint/suspicious/noExplicitAny: JSON whose shape the assertions state.
type Json = any;
const marker = fileContent.subarray(0, 40);

const aws = (...args: string[]) => server.awsCli(...args);
const socket = () => join(server.dataDir, 'instances', instance, 'dev/sdf');

beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server?.stop();
});

/** What the aws CLI says when the call is refused. */
async function refusal(...args: string[]): Promise<string> {
  try {
    await aws(...args);
  } catch (error) {
    if (error instanceof CommandFailed) return error.stderr;
    throw error;
  }
  throw new Error(`aws ${args.join(' ')} was not refused`);
}

/** The records of one operation about the volume, newest first. */
async function trail(eventName: string): Promise<Json[]> {
  const { Events } = await aws(
    ...['cloudtrail', 'lookup-events', '--lookup-attributes', `AttributeKey=EventName,AttributeValue=${eventName}`],
  );
  return Events.map((event: { CloudTrailEvent: string }) => JSON.parse(event.CloudTrailEvent)).filter(
    (record: { requestParameters: unknown }) => JSON.stringify(record.requestParameters ?? {}).includes(volume),
  );
}

async function failedEvents(): Promise<Json[]> {
  const env = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
  const { stdout } = await run(coffer, ['events', '--json', '--max', '1000'], { env });
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter((event) => event.detail.result === 'failed');
}

test('a key of my own, under an alias', async () => {
  key = (await aws('kms', 'create-key', '--description', 'mine')).KeyMetadata;
  await aws('kms', 'create-alias', '--alias-name', 'alias/mine', '--target-key-id', key.KeyId);
  const described = await aws('kms', 'describe-key', '--key-id', 'alias/mine');
  expect(described.KeyMetadata).toMatchObject({ KeyId: key.KeyId, KeyState: 'Enabled' });
});

test('an instance, and a volume encrypted under the alias', async () => {
  const run = await aws(
    'ec2',
    'run-instances',
    '--image-id',
    'ami-0c0ffe00000000000',
    '--instance-type',
    'm5.large',
    '--placement',
    'AvailabilityZone=us-east-1a',
  );
  instance = run.Instances[0].InstanceId;
  const create = () =>
    aws(
      'ec2',
      'create-volume',
      '--size',
      '1',
      '--availability-zone',
      'us-east-1a',
      '--encrypted',
      '--kms-key-id',
      'alias/mine',
    );
  const created = await create();
  volume = created.VolumeId;
  spare = (await create()).VolumeId;
  expect(created).toMatchObject({ Encrypted: true, KmsKeyId: key.Arn, Size: 1, VolumeType: 'gp2' });
  const described = await aws('ec2', 'describe-volumes', '--volume-ids', volume);
  expect(described.Volumes[0]).toMatchObject({ State: 'available', Encrypted: true, KmsKeyId: key.Arn });
});

test('attached, it takes a file system, and what was written comes back', async () => {
  await aws('ec2', 'attach-volume', '--volume-id', volume, '--instance-id', instance, '--device', '/dev/sdf');
  await aws('ec2', 'wait', 'volume-in-use', '--volume-ids', volume);
  await new Volumes(server).attached(volume);
  await withFileSystem(socket(), { format: true }, (directory) => {
    writeFileSync(join(directory, 'letter'), fileContent);
    expect(readFileSync(join(directory, 'letter')).equals(fileContent)).toBe(true);
  });
});

test('detached and attached again, the data is there', async () => {
  await aws('ec2', 'detach-volume', '--volume-id', volume);
  await aws('ec2', 'wait', 'volume-available', '--volume-ids', volume);
  expect(existsSync(socket())).toBe(false);
  await aws('ec2', 'attach-volume', '--volume-id', volume, '--instance-id', instance, '--device', '/dev/sdf');
  await new Volumes(server).attached(volume);
  await withFileSystem(socket(), {}, (directory) => {
    expect(readFileSync(join(directory, 'letter')).equals(fileContent)).toBe(true);
  });
});

test('on disk there is only ciphertext', () => {
  const needles = new Map([['the plaintext', marker]]);
  const files = filesUnder(server.dataDir);
  expect(files.some((file) => file.endsWith(`${volume}.img`))).toBe(true);
  for (const file of files) expect(findIn(file, needles), file).toBeUndefined();
});

test('the trail shows the three key operations as AWS documents them', async () => {
  const [generate] = await trail('GenerateDataKeyWithoutPlaintext');
  expect(generate).toMatchObject({
    eventSource: 'kms.amazonaws.com',
    userAgent: 'AWS Internal',
    readOnly: true,
    requestParameters: { encryptionContext: { 'aws:ebs:id': volume }, numberOfBytes: 64 },
    responseElements: null,
    resources: [{ ARN: key.Arn, accountId: '123456789012' }],
  });
  const grants = await trail('CreateGrant');
  const principalId = `123456789012:aws:ec2-infrastructure:${instance}`;
  expect(grants).toHaveLength(2);
  expect(grants[0]).toMatchObject({
    eventSource: 'kms.amazonaws.com',
    readOnly: false,
    requestParameters: {
      granteePrincipal: principalId,
      operations: ['Decrypt'],
      constraints: { encryptionContextSubset: { 'aws:ebs:id': volume } },
    },
    responseElements: { grantId: expect.stringMatching(/^[0-9a-f]{64}$/) },
  });
  const decrypts = await trail('Decrypt');
  expect(decrypts).toHaveLength(2);
  expect(decrypts[0]).toMatchObject({
    userIdentity: {
      type: 'AssumedRole',
      arn: `arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/${instance}`,
      principalId,
      sessionContext: { sessionIssuer: { userName: 'aws:ec2-infrastructure' } },
    },
    requestParameters: { encryptionContext: { 'aws:ebs:id': volume }, encryptionAlgorithm: 'SYMMETRIC_DEFAULT' },
    responseElements: null,
  });
});

test('with the key disabled, the attached volume goes on working', async () => {
  await aws('kms', 'disable-key', '--key-id', key.KeyId);
  await withFileSystem(socket(), {}, (directory) => {
    expect(readFileSync(join(directory, 'letter')).equals(fileContent)).toBe(true);
    writeFileSync(join(directory, 'second letter'), 'written while the key was disabled');
  });
});

test('a new attach, a new volume and the start of a stopped instance fail at once, naming key and state', async () => {
  const sentence = `${key.Arn} is disabled.`;
  expect(
    await refusal('ec2', 'attach-volume', '--volume-id', spare, '--instance-id', instance, '--device', '/dev/sdg'),
  ).toContain(sentence);
  expect(
    await refusal(
      'ec2',
      'create-volume',
      '--size',
      '1',
      '--availability-zone',
      'us-east-1a',
      '--encrypted',
      '--kms-key-id',
      'alias/mine',
    ),
  ).toContain(sentence);
  await aws('ec2', 'stop-instances', '--instance-ids', instance);
  await aws('ec2', 'wait', 'instance-stopped', '--instance-ids', instance);
  expect(existsSync(socket())).toBe(false);
  expect(await refusal('ec2', 'start-instances', '--instance-ids', instance)).toContain(sentence);
  const described = await aws('ec2', 'describe-volumes', '--volume-ids', spare);
  expect(described.Volumes[0]).toMatchObject({ State: 'available', Attachments: [] });
});

test('each of them raised its event', async () => {
  const events = await failedEvents();
  expect(events.map((event) => event.detail.event).sort()).toEqual(['attachVolume', 'createVolume', 'reattachVolume']);
  for (const event of events) {
    expect(event).toMatchObject({
      source: 'aws.ec2',
      'detail-type': 'EBS Volume Notification',
      account: '123456789012',
      region: 'us-east-1',
    });
    expect(event.detail.cause).toBe(`${key.Arn} is disabled.`);
  }
  const attach = events.find((event) => event.detail.event === 'attachVolume');
  expect(attach.resources).toEqual([`arn:aws:ec2:us-east-1:123456789012:volume/${spare}`, key.Arn]);
});

test('with the key enabled again the instance starts, and everything written is there', async () => {
  await aws('kms', 'enable-key', '--key-id', key.KeyId);
  await aws('ec2', 'start-instances', '--instance-ids', instance);
  await new Volumes(server).attached(volume);
  await withFileSystem(socket(), {}, (directory) => {
    expect(readFileSync(join(directory, 'letter')).equals(fileContent)).toBe(true);
    expect(readFileSync(join(directory, 'second letter'), 'utf8')).toBe('written while the key was disabled');
  });
});

test('terminated and deleted, nothing of the volume stays on disk', async () => {
  await aws('ec2', 'terminate-instances', '--instance-ids', instance);
  await aws('ec2', 'wait', 'instance-terminated', '--instance-ids', instance);
  await aws('ec2', 'wait', 'volume-available', '--volume-ids', volume);
  await aws('ec2', 'delete-volume', '--volume-id', volume);
  await until(() => !filesUnder(server.dataDir).some((file) => file.includes(volume)), 'the image to be gone');
  expect(await refusal('ec2', 'describe-volumes', '--volume-ids', volume)).toContain('InvalidVolume.NotFound');
});
