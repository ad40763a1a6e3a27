/** The whole path over TLS, with a certificate that no authority signed. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { type CommandFailed, cleanEnvironment, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';

let scratch: string;
let certificate: string;
let server: TestServer;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'coffer-tls-'));
  certificate = join(scratch, 'cert.pem');
  const key = join(scratch, 'key.pem');
  const subject = ['-subj', '/CN=coffer.example', '-addext', 'subjectAltName=DNS:coffer.example,IP:127.0.0.1'];
  await run('openssl', [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    key,
    '-out',
    certificate,
    ...subject,
  ]);
  server = await startServer({ args: ['--tls-cert', certificate, '--tls-key', key] });
});
afterAll(async () => {
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const aws = async (...args: string[]) => {
  const all = ['--endpoint-url', server.endpoint, '--ca-bundle', certificate, '--output', 'json', ...args];
  const { stdout } = await run('/usr/bin/aws', all, { env: server.environment() });
  return stdout ? JSON.parse(stdout) : undefined;
};

test('a volume is made, attached by the host and used', async () => {
  expect(server.endpoint).toMatch(/^https:\/\/127\.0\.0\.1:/);
  const placement = ['--placement', 'AvailabilityZone=us-east-1a'];
  const instances = await aws(
    'ec2',
    'run-instances',
    '--image-id',
    'ami-0c0ffe00000000000',
    '--instance-type',
    'm5.large',
    ...placement,
  );
  const instance = instances.Instances[0].InstanceId;
  const volume = (await aws('ec2', 'create-volume', '--size', '1', '--availability-zone', 'us-east-1a', '--encrypted'))
    .VolumeId;
  await aws('ec2', 'attach-volume', '--volume-id', volume, '--instance-id', instance, '--device', '/dev/sdf');
  const socket = join(server.dataDir, 'instances', instance, 'dev/sdf');
  await until(() => existsSync(socket), 'the volume to be attached');
  const nbd = await NbdClient.connect(socket);
  await nbd.write(0, Buffer.from('over TLS'));
  expect((await nbd.read(0, 8)).toString()).toBe('over TLS');
  await nbd.close();
});

test('the host finds the server again after it was killed', async () => {
  await server.kill9('control plane');
  await server.restart();
  const log = () => readFileSync(join(server.dataDir, 'host.log'), 'utf8');
  await until(() => log().includes('control plane is back'), 'the host to reconnect');
});

test('commands trust the certificate in the data directory, or the one they are given, and no other', async () => {
  const status = (...args: string[]) => run(coffer, ['status', '--json', ...args], { env: server.environment() });
  const env = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
  expect(JSON.parse((await status('--data', server.dataDir)).stdout)).toMatchObject({ Volumes: { 'in-use': 1 } });
  expect(JSON.parse((await status('--endpoint', server.endpoint, '--ca-file', certificate)).stdout)).toMatchObject({
    Account: '123456789012',
  });
  await expect(run(coffer, ['status'], { env })).rejects.toMatchObject({
    exitCode: 69,
    stderr: expect.stringContaining('name it with --ca-file'),
  });
});

test('a host that has not been told of the certificate says in its log what to do', async () => {
  const { stdout: key } = await run(coffer, ['account', 'host-key', 'rack7', '--data', server.dataDir]);
  const credentials = join(scratch, 'host.credentials');
  writeFileSync(credentials, key);
  const args = ['--endpoint', server.endpoint, '--credentials', credentials, '--host-id', 'rack7'];
  const host = spawn(coffer, ['host', '--data', join(scratch, 'rack7'), ...args], {
    env: cleanEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise((resolve) => host.once('close', resolve));
  let log = '';
  host.stderr.on('data', (chunk) => {
    log += chunk;
  });
  try {
    await until(() => log.includes('name it with --ca-file'), 'the advice');
  } finally {
    host.kill('SIGTERM');
    await ended;
  }
});

test('plain HTTP gets no answer', async () => {
  const plain = server.endpoint.replace('https', 'http');
  const args = ['status', '--endpoint', plain];
  const error = await run(coffer, args, { env: server.environment() }).catch((error: CommandFailed) => error);
  expect(error).toMatchObject({ exitCode: 69 });
});
