// Measures the data path beside its peers, with fio's nbd engine over Unix sockets:
//
//     bin/coffer-node bench/data-path.ts [--seconds 3] [--rounds 3] [--size-mib 1024] [--json]
//
// Servers take turns within each round, and ratios are made of medians, so that a machine that is slow for a while is
// slow for all. Peers that are not installed are left out and named.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createVolumeImage } from '../src/blocks/images.ts';
import { fadviseDontNeed, libc } from '../src/blocks/libc.ts';
import { openExport } from '../src/host/export.ts';

export interface DataPathOptions {
  /** Length of one measurement. */
  readonly seconds?: number;
  readonly rounds?: number;
  readonly sizeMib?: number;
  /** On a real disk: cold reads from a tmpfs mean nothing. */
  readonly directory?: string;
  readonly log?: (line: string) => void;
}

export interface Measurement {
  readonly workload: string;
  readonly server: string;
  /** I/Os per second for 4 KiB workloads, bytes per second for sequential ones; one value per round. */
  readonly values: number[];
  readonly median: number;
}

export interface Figure {
  readonly name: string;
  readonly ratio: number;
  /** The least that the project promises; undefined where it only reports. */
  readonly wanted: number | undefined;
}

export interface DataPathResults {
  readonly measurements: Measurement[];
  readonly figures: Figure[];
  /** Peers that are not installed. */
  readonly missing: string[];
}

interface Server {
  readonly name: string;
  readonly socket: string;
  readonly image: string;
  stop(): Promise<void>;
}

interface Workload {
  readonly name: string;
  readonly fio: readonly string[];
  readonly unit: 'iops' | 'bytes';
  readonly cold?: boolean;
  readonly servers: readonly string[];
}

const encrypted = 'coffer';
const plain = 'coffer unencrypted';
const nbdkitLuks = 'nbdkit luks';
const nbdkitFile = 'nbdkit file';
const qemuLuks = 'qemu-nbd luks';
const warm = [encrypted, plain, nbdkitLuks, qemuLuks];

const workloads: readonly Workload[] = [
  { name: '4 KiB random read', unit: 'iops', fio: ['--rw=randread', '--bs=4k', '--iodepth=32'], servers: warm },
  { name: '4 KiB random write', unit: 'iops', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=32'], servers: warm },
  { name: '1 MiB read', unit: 'bytes', fio: ['--rw=read', '--bs=1m', '--iodepth=8'], servers: warm },
  { name: '1 MiB write', unit: 'bytes', fio: ['--rw=write', '--bs=1m', '--iodepth=8'], servers: warm },
  {
    name: 'cold 4 KiB random read',
    unit: 'iops',
    fio: ['--rw=randread', '--bs=4k', '--iodepth=32'],
    cold: true,
    servers: [encrypted, nbdkitFile],
  },
];

const wantedFigures: readonly [workload: string, server: string, peer: string, wanted: number | undefined][] = [
  ['4 KiB random read', encrypted, nbdkitLuks, 2],
  ['4 KiB random write', encrypted, nbdkitLuks, 2],
  ['4 KiB random read', encrypted, qemuLuks, 4],
  ['4 KiB random write', encrypted, qemuLuks, 4],
  ['1 MiB read', encrypted, nbdkitLuks, 1.5],
  ['1 MiB write', encrypted, nbdkitLuks, 1.5],
  ['4 KiB random read', encrypted, plain, 0.9],
  ['4 KiB random write', encrypted, plain, 0.9],
  ['1 MiB read', encrypted, plain, undefined],
  ['1 MiB write', encrypted, plain, undefined],
  ['cold 4 KiB random read', encrypted, nbdkitFile, 0.9],
];

/** Runs everything and cleans up. Throws when fio with its nbd engine is missing. */
export async function runDataPathBench(options: DataPathOptions = {}): Promise<DataPathResults> {
  const { seconds = 3, rounds = 3, sizeMib = 1024, directory: parent = '/var/tmp', log = () => {} } = options;
  if (!spawnSync('fio', ['--enghelp'], { encoding: 'utf8' }).stdout?.includes('nbd')) {
    throw new Error('this benchmark needs fio with its nbd engine: apt-get install fio');
  }
  const directory = mkdtempSync(join(parent, 'coffer-bench-'));
  const servers: Server[] = [];
  const missing: string[] = [];
  try {
    servers.push(await startCoffer(directory, encrypted, sizeMib, randomBytes(64)));
    servers.push(await startCoffer(directory, plain, sizeMib, undefined));
    for (const start of [startNbdkitLuks, startQemuLuks]) {
      const server = await start(directory, sizeMib);
      if (typeof server === 'string') missing.push(server);
      else servers.push(server);
    }
    log('filling the images');
    for (const { socket } of servers) fio(socket, sizeMib, ['--rw=write', '--bs=1m', '--iodepth=8', '--end_fsync=1']);
    const file = await startNbdkitFile(directory, servers[1]!.image);
    if (typeof file === 'string') missing.push(file);
    else servers.push(file);

    const measurements: Measurement[] = [];
    for (const workload of workloads) {
      const taking = workload.servers.flatMap((name) => servers.filter((server) => server.name === name));
      const values = new Map(taking.map(({ name }) => [name, [] as number[]]));
      for (let round = 0; round < rounds; round++) {
        for (const server of taking) {
          settle(workload.cold ? taking.map(({ image }) => image) : []);
          values.get(server.name)!.push(measure(server.socket, sizeMib, seconds, workload));
        }
      }
      for (const [server, ofServer] of values) {
        const measurement = { workload: workload.name, server, values: ofServer, median: median(ofServer) };
        measurements.push(measurement);
        log(`${workload.name.padEnd(24)} ${server.padEnd(20)} ${readable(measurement.median, workload.unit)}`);
      }
    }
    return { measurements, figures: makeFigures(measurements), missing };
  } finally {
    for (const server of servers) await server.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

function makeFigures(measurements: readonly Measurement[]): Figure[] {
  const find = (workload: string, server: string) =>
    measurements.find((one) => one.workload === workload && one.server === server)?.median;
  return wantedFigures.flatMap(([workload, server, peer, wanted]) => {
    const [ours, theirs] = [find(workload, server), find(workload, peer)];
    if (ours === undefined || theirs === undefined) return [];
    return [{ name: `${workload}: ${server} / ${peer}`, ratio: ours / theirs, wanted }];
  });
}

function measure(socket: string, sizeMib: number, seconds: number, { fio: how, unit }: Workload): number {
  const job = fio(socket, sizeMib, [...how, '--time_based=1', `--runtime=${seconds}`]);
  const side = job.read.total_ios > 0 ? job.read : job.write;
  return unit === 'iops' ? side.iops : side.bw_bytes;
}

interface FioSide {
  readonly total_ios: number;
  readonly iops: number;
  readonly bw_bytes: number;
}

function fio(socket: string, sizeMib: number, how: readonly string[]): { read: FioSide; write: FioSide } {
  const { status, stdout, stderr } = spawnSync(
    'fio',
    [
      '--name=bench',
      '--ioengine=nbd',
      `--uri=nbd+unix:///?socket=${socket}`,
      `--size=${sizeMib}m`,
      '--output-format=json',
      ...how,
    ],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`fio failed on ${socket}: ${stderr}`);
  return JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs[0];
}

/** Lets what earlier measurements wrote reach the disk, and forgets the images in `cold`. */
function settle(cold: readonly string[]): void {
  spawnSync('sync');
  for (const image of cold) {
    const fd = openSync(image, 'r');
    libc().fadvise(fd, 0, 0, fadviseDontNeed);
    closeSync(fd);
  }
  if (cold.length === 0) return;
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch {
    // Only root may; posix_fadvise has done most of it.
  }
}

async function startCoffer(
  directory: string,
  name: string,
  sizeMib: number,
  dataKey: Buffer | undefined,
): Promise<Server> {
  const image = join(directory, `${name}.img`);
  const sizeBytes = sizeMib * 1024 * 1024;
  createVolumeImage(image, sizeBytes);
  const log = { info: () => {}, warn: console.warn, error: console.error };
  const socketPath = join(directory, `${name.replace(' ', '-')}.sock`);
  const volume = await openExport({ volumeId: name, imagePath: image, sizeBytes, dataKey, socketPath, log });
  return { name, socket: socketPath, image, stop: () => volume.close() };
}

async function startNbdkitLuks(directory: string, sizeMib: number): Promise<Server | string> {
  if (!installed('nbdkit') || !installed('qemu-img')) return `${nbdkitLuks} (apt-get install nbdkit qemu-utils)`;
  const image = luksImage(directory, 'nbdkit', sizeMib);
  const socket = join(directory, 'nbdkit-luks.sock');
  const args = ['-f', '-U', socket, '--filter=luks', 'file', `file=${image}`, `passphrase=+${join(directory, 'pass')}`];
  return startPeer(nbdkitLuks, socket, image, 'nbdkit', args);
}

async function startNbdkitFile(directory: string, image: string): Promise<Server | string> {
  if (!installed('nbdkit')) return `${nbdkitFile} (apt-get install nbdkit)`;
  const socket = join(directory, 'nbdkit-file.sock');
  return startPeer(nbdkitFile, socket, image, 'nbdkit', ['-f', '-r', '-U', socket, 'file', `file=${image}`]);
}

async function startQemuLuks(directory: string, sizeMib: number): Promise<Server | string> {
  if (!installed('qemu-nbd')) return `${qemuLuks} (apt-get install qemu-utils)`;
  const image = luksImage(directory, 'qemu', sizeMib);
  const socket = join(directory, 'qemu-luks.sock');
  return startPeer(qemuLuks, socket, image, 'qemu-nbd', [
    '--persistent',
    `--socket=${socket}`,
    `--object=secret,id=pass,file=${join(directory, 'pass')}`,
    '--image-opts',
    `driver=luks,key-secret=pass,file.driver=file,file.filename=${image}`,
  ]);
}

function luksImage(directory: string, name: string, sizeMib: number): string {
  const pass = join(directory, 'pass');
  writeFileSync(pass, 'benchmark', { mode: 0o600 });
  const image = join(directory, `${name}.luks`);
  const args = ['create', '-q', '-f', 'luks', `--object=secret,id=pass,file=${pass}`];
  args.push('-o', 'key-secret=pass,iter-time=500', image, `${sizeMib}M`);
  // It times its key derivation first, and gives up when the machine is too busy for that.
  for (let attempt = 1; ; attempt++) {
    const { status, stderr } = spawnSync('qemu-img', args, { encoding: 'utf8' });
    if (status === 0) return image;
    if (attempt === 10) throw new Error(`qemu-img create failed: ${stderr}`);
  }
}

async function startPeer(
  name: string,
  socket: string,
  image: string,
  command: string,
  args: readonly string[],
): Promise<Server> {
  const child: ChildProcess = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  for (let waited = 0; !existsSync(socket); waited += 50) {
    if (child.exitCode !== null || waited > 10_000) throw new Error(`${name} did not start`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const stop = async () => {
    if (child.exitCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill();
    await gone;
  };
  return { name, socket, image, stop };
}

function installed(command: string): boolean {
  return spawnSync(command, ['--version']).error === undefined;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function readable(value: number, unit: Workload['unit']): string {
  return unit === 'iops' ? `${Math.round(value / 100) / 10}k IOPS` : `${(value / 1e9).toFixed(2)} GB/s`;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '3' },
      'size-mib': { type: 'string', default: '1024' },
      json: { type: 'boolean', default: false },
    },
  });
  const results = await runDataPathBench({
    seconds: Number(values.seconds),
    rounds: Number(values.rounds),
    sizeMib: Number(values['size-mib']),
    log: (line) => console.error(line),
  });
  if (values.json) console.log(JSON.stringify(results, undefined, 2));
  for (const { name, ratio, wanted } of results.figures) {
    const verdict = wanted === undefined ? '' : ratio >= wanted ? `, at least ${wanted}: met` : `, below ${wanted}`;
    console.error(`${name}: ${ratio.toFixed(2)}${verdict}`);
  }
  if (results.missing.length > 0) console.error(`not measured: ${results.missing.join(', ')}`);
}
