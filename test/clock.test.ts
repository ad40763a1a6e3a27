/**
 * What ends with time, by a clock in the test's hands: before its last moment it holds, from then on it doesn't. Keys, their
 * material and its import (src/kms), signatures and presigned requests (src/gateway/sigv4.test.ts) and the trail
 * (src/cloudtrail/lookup.test.ts) have theirs beside them.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateAccessKeyCommand,
  CreateRoleCommand,
  CreateUserCommand,
  IAMClient,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam';
import { AssumeRoleCommand, GetCallerIdentityCommand, GetSessionTokenCommand, STSClient } from '@aws-sdk/client-sts';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import { ManualClock } from '../src/aws/clock.ts';
import { parseCredentials } from '../src/cli/credentials-file.ts';
import { type ControlPlane, startControlPlane } from '../src/gateway/control-plane.ts';
import { serveBlocks } from './support/fuzz/block-host.ts';
import { account, FakeHost, World, zone } from './support/world.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

describe('temporary credentials, signed with in time,', () => {
  const clock = new ManualClock(Date.UTC(2026, 7, 1, 12));
  let dataDir: string;
  let server: ControlPlane;
  beforeEach(async () => {
    dataDir = mkdtempSync(join(tmpdir(), 'coffer-clock-'));
    const listen = { host: '127.0.0.1', port: 0 };
    server = await startControlPlane({ dataDir, listen, log: pino({ level: 'silent' }), clock });
  });
  afterEach(async () => {
    await server?.close();
    rmSync(dataDir, { recursive: true });
  });

  interface Credentials {
    AccessKeyId?: string | undefined;
    SecretAccessKey?: string | undefined;
    SessionToken?: string | undefined;
    Expiration?: Date | undefined;
  }
  const configuration = (credentials?: Credentials) => ({
    endpoint: server.endpoint,
    region: 'us-east-1',
    maxAttempts: 1,
    systemClockOffset: clock.now() - Date.now(),
    credentials: credentials
      ? {
          accessKeyId: credentials.AccessKeyId!,
          secretAccessKey: credentials.SecretAccessKey!,
          sessionToken: credentials.SessionToken!,
        }
      : parseCredentials(readFileSync(join(dataDir, 'admin.credentials'), 'utf8')),
  });
  const whoAmI = (credentials: Credentials) =>
    new STSClient(configuration(credentials)).send(new GetCallerIdentityCommand());

  async function endsAt(credentials: Credentials, lifeMs: number): Promise<void> {
    expect(credentials.Expiration!.getTime()).toBe(clock.now() + lifeMs);
    clock.advance(lifeMs - 1);
    await whoAmI(credentials);
    clock.advance(1);
    await expect(whoAmI(credentials)).rejects.toMatchObject({
      name: 'ExpiredToken',
      message: 'The security token included in the request is expired',
    });
  }

  test('of GetSessionToken end at their time', async () => {
    const { Credentials } = await new STSClient(configuration()).send(
      new GetSessionTokenCommand({ DurationSeconds: 900 }),
    );
    await endsAt(Credentials!, 15 * minute);
  });

  test('of a role end at their time', async () => {
    // One for each call: it sets its clock by the server's Date, which is the machine's.
    const iam = () => new IAMClient(configuration());
    const trust = { Effect: 'Allow', Principal: { AWS: account }, Action: 'sts:AssumeRole' };
    const { Role } = await iam().send(
      new CreateRoleCommand({
        RoleName: 'short',
        AssumeRolePolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [trust] }),
      }),
    );
    await iam().send(new CreateUserCommand({ UserName: 'alice' }));
    await iam().send(
      new PutUserPolicyCommand({
        UserName: 'alice',
        PolicyName: 'p',
        PolicyDocument: JSON.stringify({
          Version: '2012-10-17',
          Statement: [{ Effect: 'Allow', Action: 'sts:AssumeRole', Resource: '*' }],
        }),
      }),
    );
    const { AccessKey } = await iam().send(new CreateAccessKeyCommand({ UserName: 'alice' }));
    const { Credentials } = await new STSClient(configuration(AccessKey as Credentials)).send(
      new AssumeRoleCommand({ RoleArn: Role!.Arn, RoleSessionName: 'monday', DurationSeconds: 1800 }),
    );
    await endsAt(Credentials!, 30 * minute);
  });
});

describe('by themselves', () => {
  let world: World;
  let host: FakeHost;
  let blocks: Promise<void>;
  let ending: AbortController;
  beforeEach(async () => {
    world = await World.create();
    host = new FakeHost(world).start();
    ending = new AbortController();
    blocks = serveBlocks(world, 'local', ending.signal);
  });
  afterEach(async () => {
    ending.abort();
    await blocks;
    await host.stop();
    await world.close();
  });

  test('EC2 client tokens are remembered for thirty days', async () => {
    const create = async () =>
      (await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ClientToken: 'once' })).VolumeId;
    const first = await create();
    world.clock.advance(30 * day);
    await world.housekeeping();
    expect(await create()).toBe(first);
    world.clock.advance(1);
    await world.housekeeping();
    expect(await create()).not.toBe(first);
  });

  test('EBS client tokens are remembered for a day', async () => {
    const start = async () =>
      (await world.call('ebs', 'StartSnapshot', { VolumeSize: 1, ClientToken: 'once', Timeout: 2880 })).SnapshotId;
    const first = await start();
    world.clock.advance(day);
    await world.housekeeping();
    expect(await start()).toBe(first);
    world.clock.advance(1);
    await world.housekeeping();
    await host.sync();
    expect(await start()).not.toBe(first);
  });

  test('a snapshot that nobody writes to for as long as it was to wait is given up', async () => {
    const { SnapshotId } = await world.call('ebs', 'StartSnapshot', { VolumeSize: 1, Timeout: 10 });
    const state = async () => {
      await world.housekeeping();
      return (await world.ec2('DescribeSnapshots', { SnapshotIds: [SnapshotId] })).Snapshots[0].State;
    };
    const bytes = Buffer.alloc(524_288);
    const put = () =>
      world.call('ebs', 'PutSnapshotBlock', {
        SnapshotId,
        BlockIndex: 0,
        BlockData: bytes,
        DataLength: bytes.length,
        Checksum: createHash('sha256').update(bytes).digest('base64'),
        ChecksumAlgorithm: 'SHA256',
      });
    world.clock.advance(9 * minute);
    await put();
    world.clock.advance(10 * minute - 1);
    expect(await state()).toBe('pending');
    world.clock.advance(1);
    expect(await state()).toBe('error');
    await expect(put()).rejects.toMatchObject({ fault: 'client' });
  });

  test('events are remembered for thirty days', async () => {
    await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone });
    const count = (await world.events()).length;
    expect(count).toBeGreaterThan(0);
    world.clock.advance(30 * day);
    await world.housekeeping();
    expect(await world.events()).toHaveLength(count);
    world.clock.advance(1);
    await world.housekeeping();
    expect(await world.events()).toEqual([]);
  });

  test.each([
    ['DateLessThan', 'aws:CurrentTime', (ms: number) => new Date(ms).toISOString()],
    ['NumericLessThan', 'aws:EpochTime', (ms: number) => String(ms / 1000)],
  ] as const)('a permission until a time (%s of %s) ends then', async (operator, key, text) => {
    const { User } = await world.call('iam', 'CreateUser', { UserName: 'alice' });
    const principal: Principal = {
      type: 'IAMUser',
      account,
      arn: User.Arn,
      principalId: User.UserId,
      userName: 'alice',
    };
    const until = { [operator]: { [key]: text(world.clock.now() + hour) } };
    await world.call('iam', 'PutUserPolicy', {
      UserName: 'alice',
      PolicyName: 'p',
      PolicyDocument: JSON.stringify({
        Version: '2012-10-17',
        Statement: [{ Effect: 'Allow', Action: 'kms:ListKeys', Resource: '*', Condition: until }],
      }),
    });
    world.clock.advance(hour - 1000);
    await world.kms('ListKeys', {}, { principal });
    world.clock.advance(1000);
    await expect(world.kms('ListKeys', {}, { principal })).rejects.toMatchObject({ code: 'AccessDeniedException' });
  });

  test('a grant and its token hold until the grant is revoked, however late', async () => {
    const KeyId = (await world.kms('CreateKey')).KeyMetadata.Arn;
    const { User } = await world.call('iam', 'CreateUser', { UserName: 'bob' });
    const principal: Principal = { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: 'bob' };
    const { GrantId, GrantToken } = await world.kms('CreateGrant', {
      KeyId,
      GranteePrincipal: User.Arn,
      Operations: ['Encrypt'],
    });
    const encrypt = () =>
      world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x'), GrantTokens: [GrantToken] }, { principal });
    await encrypt();
    world.clock.advance(400 * day);
    await world.housekeeping();
    await encrypt();
    await world.kms('RevokeGrant', { KeyId, GrantId });
    await expect(encrypt()).rejects.toMatchObject({ code: 'AccessDeniedException' });
  });
});
