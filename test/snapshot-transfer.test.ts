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
import { gzipSync } from 'node:zlib';
import { DescribeSnapshotsCommand, EC2Client } from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TransferJournal } from '../src/cli/transfer/journal.ts';
import { CommandFailed, cleanEnvironment, run } from './support/client.ts';
import { SmallDisk } from './support/faults.ts';
import { Gate } from './support/gate.ts';
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
  const gate = await Gate.before(server.endpoint, 40);
  const child = spawn(coffer, ['snapshot', 'import', big, '--parallel', '1', '--endpoint', gate.endpoint], {
    env: { ...server.environment(), ...environment() },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const state = join(directory, 'state', 'coffer', 'transfers');
  await until(() => existsSync(state) && journalLines(state) > 20, 'some blocks to be imported');
  child.kill('SIGINT');
  gate.open();
  expect(await ended).toBe(1);
  await gate.close();
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

/** Runs a command, which gets no further than `blocks` blocks, until `isSoon`, and kills it. What it said on stderr. */
async function kill9(args: readonly string[], blocks: number, isSoon: () => boolean): Promise<string> {
  const gate = await Gate.before(server.endpoint, blocks);
  const child = spawn(coffer, ['snapshot', ...args, '--endpoint', gate.endpoint], {
    env: { ...server.environment(), ...environment() },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  await until(isSoon, `\`coffer snapshot ${args.join(' ')}\` to get on`, 60_000);
  child.kill('SIGKILL');
  await ended;
  expect(child.signalCode).toBe('SIGKILL');
  await gate.close();
  return stderr;
}

/** Which programs have a file open. */
function usersOf(path: string): string {
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const words = processes.map((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
    } catch {
      return '';
    }
  });
  return words.filter((line) => line.includes(path)).join();
}

test('transfers of qcow2 images that are killed go on, and leave no process behind', async () => {
  const raw = join(directory, 'killed.img');
  const [qcow2, out] = [join(directory, 'killed.qcow2'), join(directory, 'killed.out')];
  const offsets = Array.from({ length: 60 }, (_, index) => index * 5 * mib);
  sparse(raw, gib, offsets);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
  const state = join(directory, 'state', 'coffer', 'transfers');
  const before = existsSync(state) ? journalLines(state) : 0;
  const said = await kill9(
    ['import', qcow2, '--parallel', '1'],
    40,
    () => existsSync(state) && journalLines(state) > before + 20,
  );
  const id = /^coffer: importing into (snap-[0-9a-f]+)$/m.exec(said)![1]!;
  await until(() => usersOf(qcow2) === '', 'all that had the image open to be gone', 60_000);
  expect(await importImage(qcow2, '--resume', id, '--quiet')).toBe(id);

  const partial = `${out}.partial`;
  const lines = () =>
    existsSync(`${partial}.journal`) ? readFileSync(`${partial}.journal`, 'utf8').split('\n').length : 0;
  const toQcow2 = ['export', id, out, '--format', 'qcow2'];
  await kill9([...toQcow2, '--parallel', '1'], 100, () => lines() > 60);
  const { stderr } = await snapshot(toQcow2);
  expect(stderr).toContain('going on with');
  const back = join(directory, 'killed.back');
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', out, back]);
  await run('cmp', [back, raw]);
});

test('an import from standard input is gone on with without its options, also when less comes then', async () => {
  const [first, second] = [randomBytes(3 * mib), randomBytes(2 * mib)];
  const state = join(directory, 'state', 'coffer', 'transfers');
  const before = existsSync(state) ? journalLines(state) : 0;
  const child = spawn(coffer, ['snapshot', 'import', '-', '--size', '1', '--data', server.dataDir], {
    env: environment(),
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.stdin.write(first);
  await until(() => existsSync(state) && journalLines(state) >= before + 6, 'all of it to be imported', 60_000);
  child.kill('SIGKILL');
  await ended;
  const id = /importing into (snap-\w+)/.exec(stderr)![1]!;
  const { stdout } = await snapshot(['import', '-', '--resume', id, '--quiet'], { input: second });
  expect(stdout.trim()).toBe(id);
  const out = join(directory, 'stdin.out');
  await snapshot(['export', id, out, '--quiet']);
  const bytes = readFileSync(out).subarray(0, 4 * mib);
  expect(bytes.subarray(0, second.length).equals(second)).toBe(true);
  expect(bytes.subarray(second.length).every((byte) => byte === 0)).toBe(true);
});

test('a line of a journal that a full disk cut off does not run into the next one', async () => {
  const path = join(directory, 'torn.journal');
  const [digest, other] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')];
  writeFileSync(path, `{"a":1}\n5 ${digest}\n1`);
  TransferJournal.load(path)!.add([{ index: 7, sha256: other }]);
  expect(TransferJournal.load(path)!.done).toEqual(
    new Map([
      [5, digest],
      [7, other],
    ]),
  );
});

test('where an export can’t write is said as what it is', async () => {
  const id = await importImage(image, '--quiet');
  const refused = (args: readonly string[]) =>
    snapshot(args).then(
      () => expect.unreachable('it should have failed'),
      (error: CommandFailed) => ({ exitCode: error.exitCode, stderr: error.stderr }),
    );
  const nowhere = join(directory, 'nowhere', 'x.img');
  expect(await refused(['export', id, nowhere])).toEqual({
    exitCode: 1,
    stderr: `coffer: ${nowhere}.partial.journal can't be written: there is no such file or directory\n`,
  });
  expect(existsSync(join(directory, 'nowhere'))).toBe(false);
  expect((await refused(['export', id, directory, '--force'])).stderr).toContain('is not a file');
  const shell = (command: string) => run('bash', ['-c', command], { env: environment() });
  const toOutput = `"${coffer}" snapshot export ${id} - --quiet --data "${server.dataDir}"`;
  const { stdout, stderr } = await shell(`${toOutput} | head -c 10 | wc -c; echo "\${PIPESTATUS[0]}"`);
  expect(stdout).toBe('10\n1\n');
  expect(stderr).toContain("standard output can't be written: EPIPE");
  await expect(shell(`${toOutput} > /dev/full`)).rejects.toThrow("standard output can't be written: ENOSPC");

  const disk = await SmallDisk.mount(join(directory, 'small'), 2 * mib);
  try {
    for (const format of ['raw', 'qcow2']) {
      const out = join(disk.directory, `out.${format}`);
      const full = await refused(['export', id, out, '--format', format, '--quiet']);
      expect(full).toMatchObject({
        exitCode: 1,
        stderr: expect.stringContaining(`${out}.partial can't be written: no space is left on its disk`),
      });
      await disk.resize(64 * mib);
      await snapshot(['export', id, out, '--format', format, '--quiet']);
      await run('qemu-img', ['compare', '-f', format, '-F', 'raw', out, image]);
      rmSync(out);
      await disk.resize(2 * mib);
    }
  } finally {
    await disk.unmount();
  }
});

test('what is no raw image is not taken for one, and nothing is begun for it', async () => {
  const list = async () =>
    (await server.sdk(EC2Client).send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots!.length;
  const before = await list();
  const file = (name: string, bytes: Buffer | string) => {
    writeFileSync(join(directory, name), bytes);
    return join(directory, name);
  };
  const gz = file('disk.img.gz', gzipSync(randomBytes(mib)));
  const qcow2 = join(directory, 'whole.qcow2');
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image, qcow2]);
  const short = file('short.qcow2', readFileSync(qcow2).subarray(0, mib));
  const cases: ReadonlyArray<readonly [args: readonly string[], reason: string, input?: Buffer]> = [
    [[gz], 'begins as a compressed file (gzip); unpack it first'],
    [[file('disk.vmdk', `KDMV${'x'.repeat(1000)}`)], 'convert it first: qemu-img convert -f vmdk'],
    [[short], 'is cut short'],
    [['-', '--size', '1'], 'standard input begins as a qcow2 image', readFileSync(qcow2).subarray(0, mib)],
    [['-', '--size', '1'], 'standard input begins as a compressed file', readFileSync(gz)],
    [['/dev/null'], 'is neither a file nor a block device'],
  ];
  for (const [args, reason, input] of cases)
    await expect(snapshot(['import', ...args], input ? { input } : {})).rejects.toThrow(reason);
  expect(await list()).toBe(before);
  // Whoever says so means it.
  await importImage(gz, '--format', 'raw', '--quiet');
});

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
