/**
 * A data directory of an earlier version, opened by this one. fixtures/data-directory-before-snapshots.tar.gz was made by
 * commit dfced9e, the last before snapshots, imported keys and rotation: its database has none of the later migrations, and
 * its images have no maps. expected.json in it tells what was put in, by the names below. Each of the volumes but `never`
 * holds its own id, padded with dots to 512 bytes, at three places, and 600 KiB of nothing from 4096 on.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  EC2Client,
  GetEbsDefaultKmsKeyIdCommand,
  GetEbsEncryptionByDefaultCommand,
} from '@aws-sdk/client-ec2';
import {
  DecryptCommand,
  DescribeKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  KMSClient,
  ListKeyRotationsCommand,
  ListResourceTagsCommand,
  RotateKeyOnDemandCommand,
  VerifyCommand,
  VerifyMacCommand,
} from '@aws-sdk/client-kms';
import { AssumeRoleCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Credentials } from '../src/cli/credentials-file.ts';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { run } from './support/client.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { Volumes, zone } from './support/volumes.ts';

interface Expected {
  readonly key: string;
  readonly signing: string;
  readonly mac: string;
  readonly disabled: string;
  readonly ciphertext: string;
  readonly signature: string;
  readonly code: string;
  readonly alice: Credentials;
  readonly instance: string;
  readonly encrypted: string;
  readonly plain: string;
  readonly detached: string;
  readonly never: string;
}

const account = '123456789012';
const hello = Buffer.from('hello');
let dataDir: string;
let made: Expected;
let server: TestServer;
let volumes: Volumes;
let kms: KMSClient;

beforeAll(async () => {
  dataDir = join(mkdtempSync(join(tmpdir(), 'coffer-old-')), 'data');
  mkdirSync(dataDir, { mode: 0o700 });
  const archive = join(import.meta.dirname, 'fixtures/data-directory-before-snapshots.tar.gz');
  await run('tar', ['-xzf', archive, '-C', dataDir]);
  made = JSON.parse(readFileSync(join(dataDir, 'expected.json'), 'utf8'));
  server = await startServer({ dataDir });
  volumes = new Volumes(server);
  kms = server.sdk(KMSClient);
});
afterAll(async () => {
  await server?.stop();
  if (dataDir) rmSync(join(dataDir, '..'), { recursive: true, force: true });
});

const blob = (base64: string) => Buffer.from(base64, 'base64');

/** That the volume behind a socket holds what `volumeId` was given. */
async function expectContents(socket: string, volumeId: string): Promise<void> {
  const client = await NbdClient.connect(socket);
  for (const at of [0, 1234567, 2 ** 30 - 512]) {
    expect((await client.read(at, 512)).toString()).toBe(volumeId.padEnd(512, '.'));
  }
  expect((await client.read(4096, 600 * 1024)).every((byte) => byte === 0)).toBe(true);
  await client.close();
}

test('attached volumes are attached again, and hold what they held', async () => {
  await volumes.attached(made.encrypted);
  await volumes.attached(made.plain);
  await expectContents(volumes.socket(made.instance, '/dev/sdf'), made.encrypted);
  await expectContents(volumes.socket(made.instance, '/dev/sdg'), made.plain);
  expect(await volumes.describe(made.encrypted)).toMatchObject({
    Encrypted: true,
    KmsKeyId: `arn:aws:kms:us-east-1:${account}:key/${made.key}`,
    Tags: [{ Key: 'team', Value: 'blue' }],
  });
});

test('so are those that were not attached, and one that never was', async () => {
  await expectContents(await volumes.attach(made.detached, made.instance, '/dev/sdh'), made.detached);
  const client = await NbdClient.connect(await volumes.attach(made.never, made.instance, '/dev/sdi'));
  expect((await client.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
  await client.close();
});

test.each(['encrypted', 'plain'] as const)('a snapshot of the %s one has what it had', async (which) => {
  const ec2 = server.sdk(EC2Client);
  const { SnapshotId } = await ec2.send(new CreateSnapshotCommand({ VolumeId: made[which] }));
  await until(async () => {
    const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId!] }));
    return Snapshots![0]!.State === 'completed';
  }, 'the snapshot');
  const { VolumeId } = await ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: zone }));
  const device = which === 'plain' ? '/dev/sdp' : '/dev/sdq';
  await expectContents(await volumes.attach(VolumeId!, made.instance, device), made[which]);
});

test('keys decrypt, verify and keep their aliases, tags and states; rotation keeps what was before', async () => {
  const decrypt = async () => {
    const input = { CiphertextBlob: blob(made.ciphertext), EncryptionContext: { purpose: 'test' } };
    expect(Buffer.from((await kms.send(new DecryptCommand(input))).Plaintext!)).toEqual(hello);
  };
  await decrypt();
  const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId: 'alias/mine' }));
  expect(KeyMetadata).toMatchObject({ KeyId: made.key, Description: 'made before snapshots', MultiRegion: false });
  const { Tags } = await kms.send(new ListResourceTagsCommand({ KeyId: made.key }));
  expect(Tags).toEqual([{ TagKey: 'team', TagValue: 'blue' }]);
  const signed = { KeyId: made.signing, Message: hello, SigningAlgorithm: 'ECDSA_SHA_256' as const };
  const verified = await kms.send(new VerifyCommand({ ...signed, Signature: blob(made.signature) }));
  expect(verified.SignatureValid).toBe(true);
  const code = { KeyId: made.mac, Message: hello, MacAlgorithm: 'HMAC_SHA_256' as const, Mac: blob(made.code) };
  expect((await kms.send(new VerifyMacCommand(code))).MacValid).toBe(true);
  const encrypt = new EncryptCommand({ KeyId: made.disabled, Plaintext: hello });
  await expect(kms.send(encrypt)).rejects.toThrow('is disabled');
  await kms.send(new EnableKeyCommand({ KeyId: made.disabled }));
  await kms.send(encrypt);

  await kms.send(new RotateKeyOnDemandCommand({ KeyId: made.key }));
  await until(async () => {
    const { Rotations } = await kms.send(new ListKeyRotationsCommand({ KeyId: made.key }));
    return Rotations!.length > 0;
  }, 'the rotation');
  await decrypt();
});

test('users, roles and grants go on, and so do the settings of the account', async () => {
  const alice = server.as(made.alice);
  expect((await alice.sdk(EC2Client).send(new DescribeVolumesCommand())).Volumes!.length).toBeGreaterThanOrEqual(4);
  const RoleArn = `arn:aws:iam::${account}:role/operators`;
  const { Credentials } = await alice.sdk(STSClient).send(new AssumeRoleCommand({ RoleArn, RoleSessionName: 'after' }));
  const role = server.as({
    accessKeyId: Credentials!.AccessKeyId!,
    secretAccessKey: Credentials!.SecretAccessKey!,
    sessionToken: Credentials!.SessionToken!,
  });
  // By a grant alone: no policy says it.
  const input = { CiphertextBlob: blob(made.ciphertext), EncryptionContext: { purpose: 'test' } };
  expect(Buffer.from((await role.sdk(KMSClient).send(new DecryptCommand(input))).Plaintext!)).toEqual(hello);
  const ec2 = server.sdk(EC2Client);
  expect((await ec2.send(new GetEbsEncryptionByDefaultCommand())).EbsEncryptionByDefault).toBe(true);
  expect((await ec2.send(new GetEbsDefaultKmsKeyIdCommand())).KmsKeyId).toContain(made.key);
});
