/** `coffer key`, as people and scripts meet it. */
import { IAMClient, PutUserPolicyCommand } from '@aws-sdk/client-iam';
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KeyMetadata,
  KMSClient,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { KeyUsage } from '../src/gateway/key-usage.ts';
import { type Client, CommandFailed, run } from './support/client.ts';
import { coffer, startServer, type TestServer } from './support/server.ts';
import { newUser } from './support/users.ts';
import { Volumes } from './support/volumes.ts';

let server: TestServer;
let kms: KMSClient;
let volumes: Volumes;
beforeAll(async () => {
  server = await startServer();
  kms = server.sdk(KMSClient);
  volumes = new Volumes(server);
});
afterAll(() => server.stop());

async function newKey(Description = ''): Promise<string> {
  return (await kms.send(new CreateKeyCommand({ Description }))).KeyMetadata!.Arn!;
}

async function keyOf(KeyId: string): Promise<KeyMetadata> {
  return (await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata!;
}

/** Runs `coffer key …` as someone; a script by default, with no terminal. */
async function key(args: readonly string[], by: Client = server) {
  const env = { ...by.environment(), COFFER_ENDPOINT: by.endpoint };
  try {
    const { stdout, stderr } = await run(coffer, ['key', ...args], { env });
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    if (error instanceof CommandFailed) return error;
    throw error;
  }
}

/** The same at a terminal, where someone types `answer` once asked. Needs `script` (apt-get install bsdutils). */
async function atTerminal(args: readonly string[], answer: string): Promise<{ exitCode: number; screen: string }> {
  const env = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
  const command = [coffer, 'key', ...args].join(' ');
  try {
    const typed = ['-qefc', `sleep 0.1; ${command}`, '/dev/null'];
    return { exitCode: 0, screen: (await run('script', typed, { env, input: `${answer}\n` })).stdout };
  } catch (error) {
    if (error instanceof CommandFailed) return { exitCode: error.exitCode, screen: error.stdout };
    throw error;
  }
}

describe('coffer key usage', () => {
  test('lists what depends on a key, with who used it last, for a person and for a program', async () => {
    const arn = await newKey('of the databases');
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/databases', TargetKeyId: arn }));
    const id = await volumes.create({ KmsKeyId: arn });
    const instance = await volumes.runInstance();
    await volumes.attach(id, instance);
    const { exitCode, stdout } = await key(['usage', 'alias/databases']);
    expect(exitCode).toBe(0);
    expect(stdout).toContain(`${arn} (Enabled, "of the databases")`);
    expect(stdout).toMatch(
      /^Last used 20\S+Z: Decrypt by arn:aws:sts::\d{12}:assumed-role\/aws:ec2-infrastructure\/i-/m,
    );
    expect(stdout).toContain('What depends on it: 1 volume (1 attachment), 0 snapshots');
    expect(stdout).toMatch(new RegExp(`^volume +${id} +in-use +1 GiB +${instance} /dev/sdf \\(attached\\)$`, 'm'));
    const json = JSON.parse((await key(['usage', arn, '--json'])).stdout) as KeyUsage;
    expect(json).toMatchObject({ KeyArn: arn, Counts: { Volumes: 1, Attachments: 1 }, Dependents: [{ Id: id }] });
    await volumes.detach(id);
  });

  test('counts all, lists fifty, and says how to see the rest', async () => {
    const arn = await newKey();
    await Promise.all(Array.from({ length: 53 }, () => volumes.create({ KmsKeyId: arn })));
    const { stdout } = await key(['usage', arn]);
    expect(stdout).toContain('What depends on it: 53 volumes, 0 snapshots');
    expect(stdout.match(/^volume +vol-/gm)).toHaveLength(50);
    expect(stdout).toContain('… and 3 more; coffer key usage --max 53 lists them');
    expect((await key(['usage', arn, '--max', '53'])).stdout.match(/^volume +vol-/gm)).toHaveLength(53);
    const json = JSON.parse((await key(['usage', arn, '--json'])).stdout) as KeyUsage;
    expect(json.Dependents).toHaveLength(53);
    expect(json.NextToken).toBeUndefined();
  });

  test('asks the same permissions of everyone as the AWS API does, and no more', async () => {
    const arn = await newKey();
    const id = await volumes.create({ KmsKeyId: arn });
    const allowed = ['kms:DescribeKey', 'ec2:DescribeVolumes', 'ec2:DescribeSnapshots', 'cloudtrail:LookupEvents'];
    const iam = server.sdk(IAMClient);
    const user = async (UserName: string, without?: string) => {
      const made = await newUser(server, UserName);
      const Statement = { Effect: 'Allow', Action: allowed.filter((action) => action !== without), Resource: '*' };
      const PolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement });
      await iam.send(new PutUserPolicyCommand({ UserName, PolicyName: 'look', PolicyDocument }));
      return made;
    };
    expect((await key(['usage', arn], await user('whole'))).stdout).toContain(id);
    for (const missing of allowed.slice(0, 3)) {
      const { exitCode, stderr, stdout } = await key(['usage', arn], await user(missing.replace(':', '-'), missing));
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
      expect(stderr).toContain(missing);
    }
    const { exitCode, stdout } = await key(['usage', arn], await user('no-trail', 'cloudtrail:LookupEvents'));
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/When it was last used is not known: .*cloudtrail:LookupEvents/);
    expect(stdout).toContain(id);
    iam.destroy();
  });
});

describe('coffer key delete', () => {
  test('of a key that nothing depends on, and nobody used, needs no question', async () => {
    const arn = await newKey();
    const { exitCode, stdout } = await key(['delete', arn, '--days', '7']);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/will be deleted on 20\d\d-\d\d-\d\d\.\n.*cancel-key-deletion/);
    const { KeyState, DeletionDate } = await keyOf(arn);
    expect(KeyState).toBe('PendingDeletion');
    expect(DeletionDate!.getTime() - Date.now()).toBeLessThan(7 * 86_400_000 + 1000);
  });

  test('of a key in use shows what depends on it and refuses a script that does not say --yes', async () => {
    const arn = await newKey();
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/in-use', TargetKeyId: arn }));
    const id = await volumes.create({ KmsKeyId: arn });
    const { exitCode, stdout, stderr } = await key(['delete', 'alias/in-use']);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
    expect(stderr).toContain(id);
    expect(stderr).toMatch(/^coffer: 1 volume, 0 snapshots would be lost .* add --yes/m);
    expect((await keyOf(arn)).KeyState).toBe('Enabled');
    const scheduled = await key(['delete', 'alias/in-use', '--yes', '--json']);
    expect(JSON.parse(scheduled.stdout)).toMatchObject({
      KeyId: arn,
      KeyState: 'PendingDeletion',
      PendingWindowInDays: 30,
    });
    expect((await keyOf(arn)).KeyState).toBe('PendingDeletion');
  });

  test('of a key that was used lately asks too: what was encrypted by hand is on no list', async () => {
    const arn = await newKey();
    await kms.send(new EncryptCommand({ KeyId: arn, Plaintext: Buffer.from('by hand') }));
    const { exitCode, stdout, stderr } = await key(['delete', arn]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
    expect(stderr).toMatch(/^Last used 20\S+Z: Encrypt by .*\nNo volume or snapshot depends on it\.$/m);
    expect(stderr).toMatch(/^coffer: this key was used in the last 90 days, .* add --yes/m);
    expect((await keyOf(arn)).KeyState).toBe('Enabled');
    expect((await key(['delete', arn, '--yes'])).exitCode).toBe(0);
    expect((await keyOf(arn)).KeyState).toBe('PendingDeletion');
  });

  test('asks at a terminal, and takes nothing but yes for one', async () => {
    const arn = await newKey();
    const id = await volumes.create({ KmsKeyId: arn });
    const no = await atTerminal(['delete', arn], 'y');
    expect(no.exitCode).toBe(1);
    expect(no.screen).toContain(id);
    expect(no.screen).toContain('Type yes:');
    expect(no.screen).toContain('nothing was changed');
    expect((await keyOf(arn)).KeyState).toBe('Enabled');
    const yes = await atTerminal(['delete', arn], 'yes');
    expect(yes.exitCode).toBe(0);
    expect((await keyOf(arn)).KeyState).toBe('PendingDeletion');
  });

  test('says what the key service has against it, and what is wrong with the command', async () => {
    const arn = await newKey();
    expect((await key(['delete', arn, '--days', '7'])).exitCode).toBe(0);
    const again = await key(['delete', arn, '--days', '7']);
    expect(again.exitCode).toBe(1);
    expect(again.stderr).toContain('is pending deletion');
    for (const days of ['3', '31', 'soon']) expect((await key(['delete', arn, '--days', days])).exitCode).toBe(2);
    expect((await key(['delete', 'alias/nobody', '--yes'])).stderr).toContain('NotFoundException');
    expect((await key(['delete', 'alias/aws/ebs', '--yes'])).exitCode).toBe(1);
  });
});
