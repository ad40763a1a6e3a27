/** The command line as people and scripts meet it. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CommandFailed, cleanEnvironment, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

interface Ended {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function type(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; command?: string } = {},
): Promise<Ended> {
  try {
    const { stdout, stderr } = await run(options.command ?? coffer, args, options);
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    if (error instanceof CommandFailed) return error;
    throw error;
  }
}

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'coffer-cli-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const commands = [
  'serve',
  'host',
  'demo',
  'status',
  'account',
  'account create',
  'account host-key',
  'key',
  'key usage',
  'key delete',
  'volume',
  'volume inspect',
  'snapshot',
  'snapshot import',
  'snapshot export',
  'store',
  'store check',
  'trail',
  'events',
];

describe('help', () => {
  test.each(commands)('coffer %s --help explains, with examples, and ends with 0', async (command) => {
    const { exitCode, stdout, stderr } = await type([...command.split(' '), '--help']);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toMatch(/^Usage: coffer /);
    if (!['account', 'key', 'volume', 'snapshot', 'store'].includes(command))
      expect(stdout).toMatch(/Examples:\n {2}coffer .*[\s\S]*Exit codes: /);
  });

  test('coffer --help lists every command; coffer alone says the same and ends with 2', async () => {
    const help = await type(['--help']);
    expect(help.exitCode).toBe(0);
    for (const command of commands) expect(help.stdout).toMatch(new RegExp(`^  ${command.split(' ')[0]} `, 'm'));
    const alone = await type([]);
    expect(alone.exitCode).toBe(2);
    expect(alone.stdout + alone.stderr).toContain('Usage: coffer');
  });

  test('coffer help COMMAND is the same, also of a command in a command', async () => {
    const { exitCode, stdout } = await type(['help', 'key', 'usage']);
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: (await type(['key', 'usage', '--help'])).stdout });
    expect(stdout.indexOf('--max'), 'what is particular comes first').toBeLessThan(stdout.indexOf('--endpoint'));
  });

  test('coffer --version prints the version', async () => {
    expect((await type(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('wrong usage ends with 2 and one line that says what is wrong', () => {
  test.each([
    [['trial'], "unknown command 'trial' (Did you mean trail?); see coffer --help"],
    [['help', 'trial'], "unknown command 'trial' (Did you mean trail?); see coffer --help"],
    [['trail', '--foo'], "unknown option '--foo'"],
    [['volume', 'inspect'], "missing required argument 'volume-id'; see coffer volume inspect --help"],
    [['key', 'delete', 'alias/mine', '--days', '6'], '--days must be from 7 to 30'],
    [['trail', '--max', 'many'], '--max must be'],
    [['events', '--max', '-1'], '--max must be'],
    [['trail', '--since', 'yesterday'], 'is not a time'],
    [['trail', '--event', 'Decrypt', '--user', 'x'], 'one of --event'],
    [['status', '--endpoint', 'ftp://x'], 'not an http or https address'],
    [['status', '--endpoint', '127.0.0.1:4600'], 'as http://127.0.0.1:4600 is'],
    [['serve', '--listen', '4600'], 'is not HOST:PORT'],
    [['serve', '--listen', '127.0.0.1:99999'], 'is not HOST:PORT'],
    [['serve', '--listen', '0.0.0.0:0'], 'without TLS'],
    [['serve', '--tls-cert', '/nowhere.pem'], 'go together'],
    [['serve', '--log-level', 'loud'], 'Allowed choices'],
    [['serve', '--data', '/dev/null/x'], "data directory can't be used"],
    [['status', '--endpoint', 'http://127.0.0.1:9', '--profile', 'nobody'], 'no credentials'],
  ])('%j', async (args, words) => {
    const { exitCode, stderr } = await type(args, { cwd: scratch });
    expect(stderr).toContain(words);
    expect(stderr).toMatch(/^coffer: .*\n$/);
    expect(exitCode).toBe(2);
  });

  test('a data directory whose sockets would have too long a path, and nothing is left of it', async () => {
    const path = join(scratch, 'x'.repeat(80));
    const { exitCode, stderr } = await type(['serve', '--data', path]);
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('choose a shorter') });
    expect(existsSync(path)).toBe(false);
  });
});

describe('without a server', () => {
  test('a data directory that never had one: 69, and how to start it', async () => {
    const { exitCode, stderr } = await type(['status', '--data', scratch]);
    expect(stderr).toContain('coffer serve --data');
    expect(exitCode).toBe(69);
  });

  test.each([['status'], ['trail'], ['events'], ['account', 'create'], ['volume', 'inspect', 'vol-0123456789abcdef0']])(
    'coffer %s to an address where nobody listens: 69',
    async (...args) => {
      const env = { ...cleanEnvironment(), AWS_ACCESS_KEY_ID: 'AKIAEXAMPLEEXAMPLE00', AWS_SECRET_ACCESS_KEY: 'x' };
      const { exitCode, stderr } = await type([...args.flat(), '--endpoint', 'http://127.0.0.1:9'], { env });
      expect(stderr).toMatch(/^coffer: no server answers at http:\/\/127\.0\.0\.1:9 .*is it running\?\n$/);
      expect(exitCode).toBe(69);
    },
  );

  test('a start that fails when the server listens already ends all the same', async () => {
    const dataDir = join(scratch, 'unwritable');
    mkdirSync(join(dataDir, 'server.json.new'), { recursive: true });
    const { exitCode, stdout, stderr } = await type(['serve', '--data', dataDir, '--listen', '127.0.0.1:0']);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
    expect(stderr).toMatch(/^coffer: .*server\.json\.new/);
  });

  test.each(['4k', '100k'])('a disk that fills up at the first start, after %s: 69, and what to do', async (size) => {
    const disk = join(scratch, `disk-${size}`);
    mkdirSync(disk);
    const script = `mount -t tmpfs -o size=${size} tmpfs "$1" && exec "$2" serve --data "$1/data" --listen 127.0.0.1:0`;
    const args = ['--map-root-user', '--mount', 'sh', '-c', script, 'sh', disk, coffer];
    const { exitCode, stderr } = await type(args, { command: 'unshare' });
    expect(stderr).toBe('coffer: the disk is full; make room and start again\n');
    expect(exitCode).toBe(69);
  });

  test('a port in use: 69, and what to do', async () => {
    await using other = await startServer({ args: ['--no-host'] });
    const { host } = new URL(other.endpoint);
    const { exitCode, stderr } = await type(['serve', '--data', join(scratch, 'second'), '--listen', host]);
    expect(stderr).toBe(`coffer: ${host} is in use by another program; choose another address with --listen\n`);
    expect(exitCode).toBe(69);
  });
});

test('a host that can not be started is tried again, and the server goes on meanwhile', async () => {
  await using server = await startServer();
  const log = join(server.dataDir, 'host.log');
  rmSync(log);
  mkdirSync(log);
  await server.kill9('host');
  await until(() => server.output.includes('could not be started: EISDIR'), 'the server to say so');
  expect(server.isRunning).toBe(true);
  rmSync(log, { recursive: true });
  await until(() => server.hostPid !== undefined, 'the next host');
});

describe('with a server', () => {
  let server: TestServer;
  let volumes: Volumes;
  let volume: string;
  beforeAll(async () => {
    server = await startServer();
    volumes = new Volumes(server);
    volume = await volumes.create();
    await volumes.attach(volume, await volumes.runInstance());
  });
  afterAll(async () => {
    await server?.stop();
  });
  const withData = (...args: string[]) => type([...args, '--data', server.dataDir]);

  test('account create prints the keys of an isolated account', async () => {
    const { stdout } = await withData('account', 'create', '--name', 'payments');
    const made = JSON.parse(stdout);
    expect(Object.keys(made)).toEqual(['Account', 'AccessKeyId', 'SecretAccessKey']);
    expect(made.Account).toMatch(/^\d{12}$/);
    const theirs = server.as({ accessKeyId: made.AccessKeyId, secretAccessKey: made.SecretAccessKey });
    expect(await theirs.awsCli('sts', 'get-caller-identity')).toMatchObject({ Account: made.Account });
    expect((await theirs.awsCli('ec2', 'describe-volumes')).Volumes).toEqual([]);
    const env = { ...theirs.environment(), COFFER_ENDPOINT: server.endpoint };
    const refused = await type(['account', 'create'], { env });
    expect(refused).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/^coffer: AccessDenied.*operator/) });
    const hidden = await type(['volume', 'inspect', volume], { env });
    expect(hidden).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('InvalidVolume.NotFound') });
    expect(JSON.parse((await type(['status', '--json'], { env })).stdout)).not.toHaveProperty('Hosts');
  });

  test('account host-key prints a credentials file', async () => {
    const { stdout } = await withData('account', 'host-key', 'rack7');
    expect(stdout).toMatch(
      /^# Coffer host rack7\n\[default\]\naws_access_key_id = AKIA\w{16}\naws_secret_access_key = \S{40}\n$/,
    );
  });

  test('volume inspect prints JSON', async () => {
    expect(JSON.parse((await withData('volume', 'inspect', volume)).stdout)).toMatchObject({
      ImagePath: volumes.image(volume),
      Cipher: 'aes-xts-plain64',
      DataUnitBytes: 4096,
      KmsKeyArn: expect.stringMatching(/^arn:aws:kms:us-east-1:123456789012:key\//),
      EncryptedDataKey: expect.stringMatching(/^[A-Za-z0-9+/]+=*$/),
      EncryptionContext: { 'aws:ebs:id': volume },
    });
  });

  test('https to a server without TLS: 69, and what to try', async () => {
    const endpoint = server.endpoint.replace('http:', 'https:');
    const { exitCode, stderr } = await type(['status', '--endpoint', endpoint], { env: server.environment() });
    expect(stderr).toBe(`coffer: what answers at ${endpoint} does not speak TLS (EPROTO); is it ${server.endpoint}?\n`);
    expect(exitCode).toBe(69);
  });

  test('status shows server, host and counts', async () => {
    const text = (await withData('status')).stdout;
    expect(text).toContain(server.endpoint);
    expect(text).toMatch(/^volumes +1 in-use\nsnapshots +none$/m);
    expect(text).toMatch(/^local +connected /m);
    expect(JSON.parse((await withData('status', '--json')).stdout)).toMatchObject({
      Endpoint: server.endpoint,
      Account: '123456789012',
      Volumes: { 'in-use': 1 },
      Instances: { running: 1 },
      Hosts: [{ HostId: 'local', Connected: true }],
    });
  });

  test('trail shows calls, as a table or as whole records', async () => {
    const table = (await withData('trail', '--event', 'Decrypt')).stdout.trimEnd().split('\n');
    expect(table[0]).toMatch(/^TIME +SERVICE +CALL +WHO +ERROR +RESOURCES$/);
    expect(table[1]).toMatch(/ kms +Decrypt +assumed-role\/aws:ec2-infrastructure\/i-/);
    const { KeyMetadata } = await server.awsCli('kms', 'create-key');
    await server.awsCli('kms', 'create-alias', '--alias-name', 'alias/cli', '--target-key-id', KeyMetadata.KeyId);
    expect((await withData('trail', '--event', 'CreateAlias', '--max', '1')).stdout).toMatch(/ root .* alias\/cli$/m);
    for (const name of ['alias/cli', KeyMetadata.KeyId, KeyMetadata.Arn])
      expect((await withData('trail', '--resource', name)).stdout).toContain(' CreateAlias ');
    expect((await withData('trail', '--service', 'kms', '--max', '1')).stdout).toContain(' kms ');
    const lines = (await withData('trail', '--event', 'Decrypt', '--json')).stdout.trimEnd().split('\n');
    expect(JSON.parse(lines[0]!)).toMatchObject({ eventName: 'Decrypt', eventVersion: expect.any(String) });
    expect((await withData('trail', '--max', '3', '--json')).stdout.trimEnd().split('\n')).toHaveLength(3);
    expect((await withData('trail', '--resource', volume, '--json')).stdout).toContain('"eventName":"CreateVolume"');
  });

  test('events shows what happened to the volume', async () => {
    const text = (await withData('events', '--max', '1000')).stdout;
    expect(text).toContain(`EBS Volume Notification  createVolume available  ${volume}`);
    expect((await withData('events', '--max', '1', '--region', 'us-east-1')).stdout).toMatch(/^.* Notification .*\n$/);
    expect((await withData('events', '--region', 'eu-west-1')).stdout).toBe('');
    for (const line of (await withData('events', '--json')).stdout.trimEnd().split('\n')) {
      expect(JSON.parse(line)).toMatchObject({ version: '0', id: expect.any(String) });
    }
  });

  test('events --follow shows them as they come, also after the server was killed and started again', async () => {
    const args = ['events', '--follow', '--json', '--max', '0', '--data', server.dataDir];
    const child = spawn(coffer, args, { env: cleanEnvironment() });
    const ended = new Promise((resolve) => child.once('close', resolve));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    try {
      // A new volume each time, until one was made after the command had begun to listen, and is told of.
      const shows = async (what: string) => {
        const made: string[] = [];
        const isTold = () => made.some((id) => output.includes(id));
        await until(async () => {
          made.push(await volumes.create());
          await until(isTold, what, 1_000).catch(() => {});
          return isTold();
        }, what);
      };
      await shows('an event');
      expect(output, '--max 0 shows nothing of the past').not.toContain(volume);
      await server.kill9('control plane');
      await server.restart();
      await shows('an event after the restart');
    } finally {
      child.kill('SIGINT');
      await ended;
    }
  });

  test('the environment decides: COFFER_ENDPOINT with AWS keys, COFFER_DATA alone, a profile', async () => {
    const byKeys = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
    expect((await type(['status'], { env: byKeys, cwd: scratch })).exitCode).toBe(0);
    const byData = { ...cleanEnvironment(), COFFER_DATA: server.dataDir };
    expect((await type(['status'], { env: byData, cwd: scratch })).exitCode).toBe(0);
    const file = join(scratch, 'credentials');
    const { accessKeyId, secretAccessKey } = server.credentials;
    writeFileSync(file, `[mine]\naws_access_key_id=${accessKeyId}\naws_secret_access_key=${secretAccessKey}\n`);
    const byProfile = { ...cleanEnvironment(), AWS_SHARED_CREDENTIALS_FILE: file, AWS_PROFILE: 'mine' };
    expect((await type(['status', '--endpoint', server.endpoint], { env: byProfile, cwd: scratch })).exitCode).toBe(0);
  });

  test('unknown keys are refused, and the error says where they came from', async () => {
    const env = {
      ...server.environment(),
      COFFER_ENDPOINT: server.endpoint,
      AWS_ACCESS_KEY_ID: 'AKIAAAAAAAAAAAAAAAAA',
    };
    const { exitCode, stderr } = await type(['events'], { env });
    expect(exitCode).toBe(1);
    expect(stderr).toContain('AWS_ACCESS_KEY_ID in the environment');
  });

  test('coffer works through a symlink, from any directory, also with a blank in its path', async () => {
    const directory = join(scratch, 'a blank');
    mkdirSync(directory);
    const link = join(directory, 'co ffer');
    symlinkSync(coffer, link);
    symlinkSync('co ffer', join(directory, 'again'));
    const ended = await type(['status', '--data', server.dataDir], { command: join(directory, 'again'), cwd: '/' });
    expect(ended).toMatchObject({ exitCode: 0, stderr: '' });
  });
});
