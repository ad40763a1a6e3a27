// Measures what snapshots cost the volume they are taken of, and how soon a volume made from one is usable:
//
//     bin/coffer-node bench/volume-snapshots.ts [--seconds 3] [--rounds 5] [--size-mib 1024] [--json]
//
// fio writes through NBD while a point in time is pending that nobody copies (every first write to a unit saves it: the
// worst case), and while it is being copied to a block store. Each is compared with normal writes just before it, and the
// median of the ratios is taken.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { removeCow } from '../src/blocks/copy-before-write.ts';
import { Journal } from '../src/host/movers/journal.ts';
import { Mover } from '../src/host/movers/mover.ts';
import { TestClient } from '../src/host/nbd/testing-client.ts';
import { createOpenVolumes } from '../src/host/volumes.ts';

export interface VolumeSnapshotsOptions {
  readonly seconds?: number;
  readonly rounds?: number;
  readonly sizeMib?: number;
  readonly directory?: string;
  readonly log?: (line: string) => void;
}

export interface VolumeSnapshotsResults {
  /** 4 KiB random writes a second, depth 32; medians. */
  readonly normalIops: number;
  readonly pendingIops: number;
  readonly copyingIops: number;
  /** Medians of the ratios to the normal writes just before. */
  readonly pendingRatio: number;
  readonly copyingRatio: number;
  /** The longest time that a write took, ms: the worst of all rounds. */
  readonly normalStallMs: number;
  readonly pendingStallMs: number;
  readonly copyingStallMs: number;
  /** From asking for the point in time until it is fixed, with writes going on, ms: the worst. */
  readonly markMs: number;
  /** MB/s of a full snapshot while nothing else happens. */
  readonly fullSnapshotMbPerSecond: number;
  /** From opening a volume made from it until its first 4 KiB are read, ms: median. */
  readonly firstReadMs: number;
  /** MB/s of the background restore while nothing else happens: median. */
  readonly restoreMbPerSecond: number;
}

const mib = 1024 * 1024;
const volumeId = 'vol-0be0c400000000001';

export async function runVolumeSnapshotsBench(options: VolumeSnapshotsOptions = {}): Promise<VolumeSnapshotsResults> {
  const { seconds = 3, rounds = 5, sizeMib = 1024, directory: parent = '/var/tmp', log = () => {} } = options;
  const directory = mkdtempSync(join(parent, 'coffer-bench-'));
  const sizeBytes = sizeMib * mib;
  const quiet = { info: () => {}, warn: console.warn, error: console.error };
  const volumes = createOpenVolumes({ log: quiet });
  const storeLocation = join(directory, 'store');
  const mover = new Mover({ storeLocation, onStore: () => {}, volumeRequests: () => volumes.requests });
  mover.start();
  try {
    const volumesDir = join(directory, 'volumes');
    mkdirSync(volumesDir, { recursive: true });
    const imagePath = join(volumesDir, `${volumeId}.img`);
    const key = randomBytes(64);
    const dataKey = () => Buffer.from(key);
    const volume = await volumes.open({ volumeId, imagePath, sizeBytes, hasImage: false, dataKey: dataKey() });
    const { socketPath } = await volume.listen({ socketPath: join(directory, 'volume.sock') });
    await fio(socketPath, sizeMib, ['--rw=write', '--bs=1m', '--iodepth=4']);

    const writes = () =>
      fio(socketPath, sizeMib, [
        ...['--rw=randwrite', '--bs=4k', '--iodepth=32', '--randrepeat=0'],
        ...['--time_based=1', `--runtime=${seconds}`],
      ]);
    let snapshots = 0;
    const mark = async () => {
      const snapshotId = `snap-${(++snapshots).toString(16).padStart(17, '0')}`;
      const began = performance.now();
      await volumes.markSnapshots([{ volumeId, snapshotId, sizeBytes, imagePath, hasImage: true }]);
      return { snapshotId, ms: performance.now() - began };
    };
    const copy = async (snapshotId: string) => {
      const journalPath = join(volumesDir, `${volumeId}.${snapshotId}.journal`);
      Journal.create(journalPath, snapshotId);
      const job = { kind: 'createSnapshot', volumesDir, journalPath, volumeId, snapshotId, sizeBytes } as const;
      await mover.run({ ...job, parentSnapshotId: undefined }, new AbortController().signal);
    };

    const all = { normal: [] as Fio[], pending: [] as Beside[], copying: [] as Beside[], markMs: [] as number[] };
    const normally = async () => {
      const normal = await writes();
      all.normal.push(normal);
      return normal;
    };
    for (let round = 0; round < rounds; round++) {
      const beforePending = await normally();
      const idle = await mark();
      const pending = { ...(await writes()), normal: beforePending };
      all.pending.push(pending);
      removeCow(volumesDir, volumeId, idle.snapshotId);
      const beforeCopying = await normally();
      const running = writes();
      await new Promise((resolve) => setTimeout(resolve, 300));
      const { snapshotId, ms } = await mark();
      all.markMs.push(ms);
      await Promise.all([copy(snapshotId), running]);
      const copying = { ...(await running), normal: beforeCopying };
      all.copying.push(copying);
      log(`round ${round + 1} of ${rounds}: pending ${describe(pending)}; copying ${describe(copying)}`);
    }

    const { snapshotId: whole } = await mark();
    const copyBegan = performance.now();
    await copy(whole);
    const fullSnapshotMbPerSecond = sizeBytes / 1000 / (performance.now() - copyBegan);
    const firstReads: number[] = [];
    const rates: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const restoredId = `vol-0be0c40000000001${round}`;
      const began = performance.now();
      const restored = await volumes.open({
        volumeId: restoredId,
        imagePath: join(volumesDir, `${restoredId}.img`),
        sizeBytes,
        hasImage: false,
        dataKey: randomBytes(64),
        restore: { source: { snapshotId: whole, sizeBytes }, sourceDataKey: dataKey(), storeLocation },
      });
      const socket = await restored.listen({ socketPath: join(directory, `restored-${round}.sock`) });
      const client = await TestClient.connect(socket.socketPath);
      await client.read(sizeBytes / 2 + 12_288, 4096);
      firstReads.push(performance.now() - began);
      await new Promise<void>((resolve) => restored.onRestored(resolve));
      rates.push(sizeBytes / 1000 / (performance.now() - began));
      await restored.release();
      rmSync(join(volumesDir, `${restoredId}.img`));
    }
    const ratio = (some: readonly Beside[]) => median(some.map(({ iops, normal }) => iops / normal.iops));
    return {
      normalIops: median(all.normal.map(({ iops }) => iops)),
      pendingIops: median(all.pending.map(({ iops }) => iops)),
      copyingIops: median(all.copying.map(({ iops }) => iops)),
      pendingRatio: ratio(all.pending),
      copyingRatio: ratio(all.copying),
      normalStallMs: worst(all.normal),
      pendingStallMs: worst(all.pending),
      copyingStallMs: worst(all.copying),
      markMs: Math.max(...all.markMs),
      fullSnapshotMbPerSecond,
      firstReadMs: median(firstReads),
      restoreMbPerSecond: median(rates),
    };
  } finally {
    await volumes.close();
    await mover.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Fio {
  readonly iops: number;
  readonly longestMs: number;
}

/** Writes beside a snapshot, and those just before. */
interface Beside extends Fio {
  readonly normal: Fio;
}

async function fio(socket: string, sizeMib: number, how: readonly string[]): Promise<Fio> {
  const args = ['--name=bench', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, `--size=${sizeMib}m`];
  const child = spawn('fio', [...args, '--output-format=json', ...how], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const status = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (status !== 0) throw new Error('fio failed; this benchmark needs it with its nbd engine: apt-get install fio');
  const { write } = JSON.parse(output.slice(output.indexOf('{'))).jobs[0];
  return { iops: write.iops, longestMs: write.clat_ns.max / 1e6 };
}

function describe({ iops, longestMs, normal }: Beside): string {
  return `${Math.round(iops)} of ${Math.round(normal.iops)} IOPS (longest ${longestMs.toFixed(0)} ms)`;
}

const worst = (all: readonly Fio[]) => Math.max(...all.map(({ longestMs }) => longestMs));

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '5' },
      'size-mib': { type: 'string', default: '1024' },
      json: { type: 'boolean', default: false },
    },
  });
  const results = await runVolumeSnapshotsBench({
    seconds: Number(values.seconds),
    rounds: Number(values.rounds),
    sizeMib: Number(values['size-mib']),
    log: (line) => console.error(line),
  });
  if (values.json) console.log(JSON.stringify(results, undefined, 2));
  else console.log(results);
}
