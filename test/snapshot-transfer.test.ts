/** `coffer snapshot import` and `export`: disk images of both formats, streams, interruptions. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DescribeSnapshotsCommand, EC2Client } from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CommandFailed, cleanEnvironment, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';

const mib = 2 ** 20;
const gib = 2 ** 30;
let server: TestServer;
let directory: string;
let keyArn: string;
/** A sparse raw image of 1 GiB and a bit less, with data at both ends and between. */
let image: string;

beforeAll(async () => {
  server = await startServer();
  directory = mkdtempSync(join(tmpdir(), 'coffer-transfer-'));
  keyArn = (await server.sdk(KMSClient).send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  image = join(directory, 'disk.img');
  sparse(image, gib - 1000, [0, 300 * mib + 4096, gib - 1000 - mib]);
});
afterAll(async () => {
  await server?.stop();
  rmSync(directory, { recursive: true, force: true });
});

function sparse(path: string, sizeBytes: number, offsets: readonly number[]): void {
  const fd = openSync(path, 'w');
  for (const offset of offsets) writeSync(fd, randomBytes(mib), 0, mib, offset);
  closeSync(fd);
  truncateSync(path, sizeBytes);
}

const environment = () => ({ ...cleanEnvironment(), XDG_STATE_HOME: join(directory, 'state') });
const snapshot = (args: readonly string[], options: { input?: Buffer } = {}) =>
  run(coffer, ['snapshot', ...args, '--data', server.dataDir], { env: environment(), ...options });
const importImage = async (...args: string[]) => (await snapshot(['import', ...args])).stdout.trim();
const describe = async (id: string) =>
  (await server.sdk(EC2Client).send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }))).Snapshots![0]!;

/** Whether a file begins with another's bytes and holds zeros beyond. */
async function isImage(path: string, original: string): Promise<void> {
  expect(statSync(path).size).toBe(gib);
  await run('cmp', ['-n', String(statSync(original).size), path, original]);
  expect(
    readFileSync(path)
      .subarray(statSync(original).size)
      .every((byte) => byte === 0),
  ).toBe(true);
}

test('a raw image becomes an encrypted snapshot and a raw image again, and stays sparse', async () => {
  const id = await importImage(
    image,
    '--kms-key-id',
    keyArn,
    '--description',
    'a disk',
    '--tag',
    'team=red',
    '--quiet',
  );
  expect(await describe(id)).toMatchObject({
    State: 'completed',
    Encrypted: true,
    KmsKeyId: keyArn,
    VolumeSize: 1,
    Description: 'a disk',
    Tags: [{ Key: 'team', Value: 'red' }],
  });
  const out = join(directory, 'out.img');
  await snapshot(['export', id, out]);
  await isImage(out, image);
  expect(statSync(out).blocks * 512).toBeLessThan(8 * mib);
  expect(existsSync(`${out}.partial`)).toBe(false);
  await expect(snapshot(['export', id, out])).rejects.toThrow('exists; --force replaces it');
});

test('a qcow2 image goes in, and comes out as one that qemu-img finds the same', async () => {
  const qcow2 = join(directory, 'disk.qcow2');
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image, qcow2]);
  const imported = await snapshot(['import', qcow2, '--encrypted']);
  expect(imported.stderr).toMatch(/importing 100 % \(.*\), .*\/s/);
  const id = imported.stdout.trim();
  expect((await describe(id)).Encrypted).toBe(true);
  const out = join(directory, 'out.qcow2');
  const { stderr } = await snapshot(['export', id, out, '--format', 'qcow2', '--parallel', '3']);
  expect(stderr).toMatch(/exporting 100 % \(1\.0 GiB of 1\.0 GiB\), .*\/s/);
  const info = JSON.parse((await run('qemu-img', ['info', '--output=json', out])).stdout);
  expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': gib });
  expect(info['actual-size']).toBeLessThan(8 * mib);
  const raw = join(directory, 'back.img');
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', out, raw]);
  await isImage(raw, image);
});

test('standard input and standard output', async () => {
  const bytes = Buffer.concat([randomBytes(3 * mib + 5), Buffer.alloc(4 * mib), randomBytes(mib)]);
  const { stdout } = await snapshot(['import', '-', '--size', '1', '--json'], { input: bytes });
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ VolumeSize: 1, BlocksWritten: expect.any(Number) });
  // 8 MiB and 5 bytes: 17 blocks, of which the zeros in the middle are not stored.
  expect(result.BlocksWritten).toBeLessThan(12);
  const { stdoutBytes } = await run(
    'sh',
    ['-c', `"${coffer}" snapshot export ${result.SnapshotId} - --data "${server.dataDir}" | head -c 16777216`],
    { env: environment() },
  );
  expect(stdoutBytes.subarray(0, bytes.length).equals(bytes)).toBe(true);
  expect(stdoutBytes.subarray(bytes.length).every((byte) => byte === 0)).toBe(true);
  await expect(snapshot(['import', '-'], { input: bytes })).rejects.toThrow('name the size of the volume with --size');
});

test('a later image as a successor: what it lacks is gone, what it shares is stored once', async () => {
  const parent = await importImage(image);
  const later = join(directory, 'later.img');
  sparse(later, gib, [500 * mib]);
  const child = await importImage(later, '--parent', parent);
  const out = join(directory, 'later.out');
  await snapshot(['export', child, out, '--quiet']);
  await run('cmp', [out, later]);
});

test('an import that is interrupted goes on where it was', async () => {
  const big = join(directory, 'big.img');
  sparse(
    big,
    gib,
    Array.from({ length: 60 }, (_, index) => index * 5 * mib),
  );
  const child = spawn(coffer, ['snapshot', 'import', big, '--parallel', '1', '--data', server.dataDir], {
    env: environment(),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const state = join(directory, 'state', 'coffer', 'transfers');
  await until(() => existsSync(state) && journalLines(state) > 20, 'some blocks to be imported');
  child.kill('SIGINT');
  expect(await ended).toBe(1);
  const resume = /coffer snapshot import --resume (snap-\w+)/.exec(stderr);
  expect(resume).not.toBeNull();
  const id = resume![1]!;
  const done = journalLines(state);
  expect(done).toBeLessThan(120);
  await expect(snapshot(['import', image, '--resume', id])).rejects.toThrow('is not the one that the import');
  expect(await importImage(big, '--resume', id, '--quiet')).toBe(id);
  const out = join(directory, 'big.out');
  await snapshot(['export', id, out, '--quiet']);
  await run('cmp', [out, big]);
  await expect(snapshot(['import', big, '--resume', id])).rejects.toThrow('there is no record of an import');
});

/** How many blocks the journals of imports under way name. */
function journalLines(state: string): number {
  const texts = readdirSync(state).map((name) => readFileSync(join(state, name), 'utf8'));
  return texts.reduce((sum, text) => sum + text.split('\n').length - 2, 0);
}

test('an export that is interrupted goes on where it was', async () => {
  const id = await importImage(image, '--quiet');
  const out = join(directory, 'resumed.img');
  const journal = `${out}.partial.journal`;
  await snapshot(['export', id, out, '--quiet']);
  // As an interrupted export leaves it: some blocks noted, the rest missing.
  renameSync(out, `${out}.partial`);
  const fd = openSync(`${out}.partial`, 'r+');
  writeSync(fd, Buffer.alloc(mib), 0, mib, 300 * mib);
  closeSync(fd);
  const digest = randomBytes(32).toString('base64');
  writeFileSync(
    journal,
    `${JSON.stringify({ snapshotId: id, format: 'raw', volumeSize: 1 })}\n0 ${digest}\n1 ${digest}\n2046 ${digest}\n20`,
  );
  const { stderr } = await snapshot(['export', id, out]);
  expect(stderr).toContain('going on with');
  await isImage(out, image);
  expect(existsSync(journal)).toBe(false);
});

test.each([
  [['import', '/nowhere.img'], '^coffer: there is no /nowhere.img\\n$'],
  [['import', '/tmp'], '^coffer: /tmp is a directory\\n$'],
  [['export', 'snap-0123456789abcdef0', '/tmp/never.img'], 'ResourceNotFoundException: .*snap-0123456789abcdef0'],
  [
    ['export', 'snap-0123456789abcdef0', '-', '--format', 'qcow2'],
    'only a raw image can be written to standard output',
  ],
  [['import', '-', '--format', 'qcow2', '--size', '1'], 'can only be read from a file'],
  [['import', 'x', '--size', '0'], 'whole number from 1 to 65536'],
  [['import', 'x', '--resume', 'snap-1', '--parallel', '65'], 'whole number from 1 to 64'],
])('%j is refused with a reason', async (args, reason) => {
  await expect(snapshot(args)).rejects.toSatisfy(
    (error) => error instanceof CommandFailed && new RegExp(reason).test(error.stderr),
  );
  expect(existsSync('/tmp/never.img.partial')).toBe(false);
});

test('an image that reaches into other files is refused', async () => {
  const overlay = join(directory, 'overlay.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image, overlay]);
  await expect(importImage(overlay)).rejects.toThrow('takes data from another file');
  const smaller = ['--size', '1'];
  const large = join(directory, 'large.img');
  sparse(large, gib + 1, []);
  await expect(importImage(large, ...smaller)).rejects.toThrow('--size must be 2 at least');
});
