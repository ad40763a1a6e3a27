import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { IAMClient, PutUserPolicyCommand } from '@aws-sdk/client-iam';
import { DescribeKeyCommand, KMSClient, ListKeysCommand } from '@aws-sdk/client-kms';
import { expect, test } from 'vitest';
import { run } from './support/client.ts';
import { coffer, startServer, type TestServer } from './support/server.ts';
import { newUser } from './support/users.ts';
import { Volumes } from './support/volumes.ts';

const timeoutMs = 400_000;

test(
  'coffer demo tells its story, every claim holds, and it is half a minute on a machine with nothing else to do',
  async () => {
    const { stdout, seconds } = await timed('demo', '--json');
    const claims = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(claims.filter((claim) => !claim.holds)).toEqual([]);
    expect(claims.length).toBeGreaterThanOrEqual(31);
    expect(seconds).toBeGreaterThan(1);
    // On a slow machine, as much longer as everything else takes there: a command that asks nobody takes 0.15 s elsewhere.
    const slowness = (await timed('trail', '--help')).seconds / 0.15;
    expect(seconds).toBeLessThan(25 * Math.max(1, slowness));
  },
  timeoutMs,
);

/** Runs a command of coffer; with processor time, in seconds: what else a machine does is not in it, server and host are. */
async function timed(...args: string[]): Promise<{ stdout: string; seconds: number }> {
  const script = 'TIMEFORMAT="%U %S"; time "$0" "$@"';
  const { stdout, stderr } = await run('bash', ['-c', script, coffer, ...args], { timeoutMs });
  const [user, system] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number) as [number, number];
  return { stdout, seconds: user + system };
}

test(
  'against a running server it cleans up after itself',
  async () => {
    await using server = await startServer();
    const { stdout } = await run(coffer, ['demo', '--data', server.dataDir], { timeoutMs });
    expect(stdout).toMatch(/^All \d+ claims hold/m);
    // What is deleted is gone when the host has erased it.
    await expect.poll(() => new Volumes(server).all()).toEqual([]);
    expect(readdirSync(join(server.dataDir, 'volumes'))).toEqual([]);
    expect((await server.awsCli('ec2', 'describe-snapshots', '--owner-ids', 'self')).Snapshots).toEqual([]);
    await expect.poll(() => readdirSync(join(server.dataDir, 'snapshots/blocks'))).toEqual([]);
    expect(await keyStates(server)).toEqual(['PendingDeletion', 'PendingDeletion']);
  },
  timeoutMs,
);

test(
  'it cleans up as well when something is not allowed half-way',
  async () => {
    await using server = await startServer();
    const root = server.sdk(IAMClient);
    const visitor = await newUser(server, 'visitor');
    const PolicyDocument = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Action: '*', Resource: '*' },
        { Effect: 'Deny', Action: 'ec2:CreateSnapshot', Resource: '*' },
      ],
    });
    await root.send(new PutUserPolicyCommand({ UserName: 'visitor', PolicyName: 'most', PolicyDocument }));
    await expect(
      run(coffer, ['demo', '--endpoint', server.endpoint], { env: visitor.environment(), timeoutMs }),
    ).rejects.toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^coffer: .*user\/visitor.*ec2:CreateSnapshot/),
    });
    await expect.poll(() => new Volumes(server).all()).toEqual([]);
    expect(await keyStates(server)).toEqual(['PendingDeletion']);
  },
  timeoutMs,
);

async function keyStates(server: TestServer): Promise<string[]> {
  const kms = server.sdk(KMSClient);
  const { Keys = [] } = await kms.send(new ListKeysCommand({}));
  const described = Keys.map(({ KeyId }) => kms.send(new DescribeKeyCommand({ KeyId })));
  return (await Promise.all(described)).map(({ KeyMetadata }) => KeyMetadata!.KeyState!);
}

test('it stops at once, and says why, where no host serves', async () => {
  await using server = await startServer({ args: ['--no-host'] });
  await expect(run(coffer, ['demo', '--data', server.dataDir])).rejects.toMatchObject({
    exitCode: 69,
    stderr: expect.stringMatching(/^coffer: .*no host.*\n$/i),
  });
});
