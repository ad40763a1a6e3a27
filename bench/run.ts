// npm run bench: measures everything that the project promises figures for, side by side with its peers, and writes
// docs/benchmarks.md. Exit code 1 when a figure is missed.
//
//     npm run bench [-- --seconds 3 --rounds 3]

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type CallFigure, runControlPlaneBench } from './control-plane.ts';
import { type DataPathResults, runDataPathBench } from './data-path.ts';
import { type MemoryFigure, runMemoryBench } from './memory.ts';
import { type PermissionFigure, runPermissionsBench } from './permissions.ts';
import { runScaleBench, type ScaleResults, scaleConnections } from './scale.ts';
import { runSnapshotsBench, type SnapshotFigure } from './snapshots.ts';
import { runVolumeSnapshotsBench, type VolumeSnapshotsResults } from './volume-snapshots.ts';

// Other programs' load spoils figures; the page says how much there was.
const loadBefore = os.loadavg()[0]!;
const { values } = parseArgs({ options: { seconds: { type: 'string' }, rounds: { type: 'string' } } });
const options = {
  ...(values.seconds ? { seconds: Number(values.seconds) } : {}),
  ...(values.rounds ? { rounds: Number(values.rounds) } : {}),
  log: console.log,
};

console.log('Memory …');
const memory = await runMemoryBench();
console.log('Control plane …');
const calls = await runControlPlaneBench(options);
console.log('Permissions …');
const permissions = await runPermissionsBench(options);
console.log('A full key service …');
const scale = await runScaleBench({ rounds: options.rounds, log: options.log });
console.log('Data path …');
const dataPath = await runDataPathBench(options);
console.log('Snapshots …');
const underSnapshots = volumeSnapshotFigures(await runVolumeSnapshotsBench(options));
const snapshots = [...underSnapshots, ...(await runSnapshotsBench({ log: options.log }))];

const page = [
  heading(),
  dataPathSection(dataPath),
  snapshotSection(snapshots),
  callSection(calls),
  permissionSection(permissions),
  scaleSection(scale),
  memorySection(memory),
].join('\n\n');
writeFileSync(join(import.meta.dirname, '../docs/benchmarks.md'), `${page}\n`);
console.log(`\n${page}\n\nWritten to docs/benchmarks.md`);
const isMissed =
  dataPath.figures.some(({ ratio, wanted }) => wanted !== undefined && ratio < wanted) ||
  snapshots.some((figure) => !isKept(figure)) ||
  calls.some(({ median, wanted }) => median < wanted) ||
  permissions.some(({ ratio, wanted }) => wanted !== undefined && ratio < wanted) ||
  scale.figures.some(({ ratio, wanted }) => ratio > wanted) ||
  scale.startSeconds.some((seconds) => seconds >= scale.wantedStartSeconds) ||
  memory.some(({ controlPlaneMib, hostMib, wantedMib }) => controlPlaneMib + hostMib >= wantedMib);
process.exitCode = isMissed ? 1 : 0;

function heading(): string {
  const [cpu] = os.cpus();
  const of = (command: string, ...args: string[]) =>
    spawnSync(command, args, { encoding: 'utf8' }).stdout?.trim().split('\n')[0] || 'not installed';
  const system = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  return `# Benchmarks

    npm run bench

measures all of this and writes this page. Absolute figures say as much about the machine as about Coffer; the ratios, to
peers that take turns on the same machine in the same run, say more.

| | |
|---|---|
| date | ${new Date().toISOString().slice(0, 10)} |
| processor | ${os.cpus().length} × ${cpu?.model.trim()} |
| memory | ${Math.round(os.totalmem() / 2 ** 30)} GiB |
| system | ${system}, Linux ${os.release()} |
| load before the run | ${loadBefore.toFixed(1)} |
| Node.js | ${process.version} |
| nbdkit | ${of('nbdkit', '--version')} |
| qemu-nbd | ${of('qemu-nbd', '--version')} |
| fio | ${of('fio', '--version')} |`;
}

function dataPathSection({ measurements, figures, missing }: DataPathResults): string {
  const shown = (workload: string, value: number) =>
    workload.includes('1 MiB')
      ? `${(value / 1e9).toFixed(2)} GB/s`
      : `${Math.round(value).toLocaleString('en-US')} IOPS`;
  return `## Data path
fio's nbd engine over a Unix socket; medians.

| workload | server | median |
|---|---|---|
${measurements.map(({ workload, server, median }) => `| ${workload} | ${server} | ${shown(workload, median)} |`).join('\n')}

| figure | ratio | promised | |
|---|---|---|---|
${figures.map(({ name, ratio, wanted }) => `| ${name} | ${ratio.toFixed(2)} | ${wanted === undefined ? '' : `≥ ${wanted}`} | ${wanted === undefined ? '' : verdict(ratio >= wanted)} |`).join('\n')}
${missing.length > 0 ? `\nNot installed, so not measured: ${missing.join(', ')}.` : ''}`.trimEnd();
}

/** What a snapshot that is taken costs the volume's writers. */
function volumeSnapshotFigures(results: VolumeSnapshotsResults): SnapshotFigure[] {
  const writes = '4 KiB random writes';
  return [
    { name: `${writes} while a snapshot is pending, to normal`, value: results.pendingRatio, unit: '×', wanted: 0.6 },
    { name: `${writes} while it is copied, to normal`, value: results.copyingRatio, unit: '×', wanted: 0.6 },
    { name: `${writes}: the longest, normally`, value: results.normalStallMs, unit: 'ms' },
    {
      name: `${writes}: the longest while a snapshot is pending`,
      value: results.pendingStallMs,
      unit: 'ms',
      wanted: 100,
      isMost: true,
    },
    {
      name: `${writes}: the longest while it is copied`,
      value: results.copyingStallMs,
      unit: 'ms',
      wanted: 100,
      isMost: true,
    },
  ];
}

function isKept({ value, wanted, isMost }: SnapshotFigure): boolean {
  if (wanted === undefined) return true;
  return isMost ? value <= wanted : value >= wanted;
}

function snapshotSection(figures: readonly SnapshotFigure[]): string {
  const shown = ({ value, unit }: SnapshotFigure) => `${value.toFixed(unit === '×' || unit === 's' ? 2 : 0)} ${unit}`;
  return `## Snapshots
Of encrypted volumes, through the API, to a block store in a directory; writes at depth 32 through NBD.

| | measured | promised | |
|---|---|---|---|
${figures.map((figure) => `| ${figure.name} | ${shown(figure)} | ${figure.wanted === undefined ? '' : `${figure.isMost ? '≤' : '≥'} ${figure.wanted} ${figure.unit}`} | ${figure.wanted === undefined ? '' : verdict(isKept(figure))} |`).join('\n')}`;
}

function callSection(figures: readonly CallFigure[]): string {
  return `## Control plane
API calls a second: signed, authorized, and recorded on disk before the answer; 64 connections from another process on the
same machine.

| call | calls/s (median) | latency, median | p99 | promised | |
|---|---|---|---|---|---|
${figures.map((figure) => `| ${figure.operation} | ${Math.round(figure.median).toLocaleString('en-US')} | ${figure.medianMs.toFixed(1)} ms | ${figure.p99Ms.toFixed(1)} ms | ≥ ${figure.wanted.toLocaleString('en-US')} | ${verdict(figure.median >= figure.wanted)} |`).join('\n')}`;
}

function permissionSection(figures: readonly PermissionFigure[]): string {
  return `## Permissions
The same calls by an account's root and by users whom a key policy, an identity policy with conditions, or a grant allows;
all of it in force on one key. The ratio is to the root's rate in the same round; medians.

| call | allowed by | calls/s | ratio | promised | |
|---|---|---|---|---|---|
${figures.map(({ operation, by, median, ratio, wanted }) => `| ${operation} | ${by} | ${Math.round(median).toLocaleString('en-US')} | ${wanted === undefined ? '' : ratio.toFixed(2)} | ${wanted === undefined ? '' : `≥ ${wanted}`} | ${wanted === undefined ? '' : verdict(ratio >= wanted)} |`).join('\n')}`;
}

function scaleSection({ figures, startSeconds, wantedStartSeconds }: ScaleResults): string {
  const slowest = Math.max(...startSeconds);
  return `## A full key service
100,000 keys and 1,000,000 grants beside 100 keys. The time of a call is one over the rate that the server sustains with
${scaleConnections} connections, each of which asks for other keys than the rest; medians.

| call | 100 keys | 100,000 keys | ratio | promised | |
|---|---|---|---|---|---|
${figures.map(({ call, smallUs, fullUs, ratio, wanted }) => `| ${call} | ${smallUs.toFixed(0)} µs | ${fullUs.toFixed(0)} µs | ${ratio.toFixed(2)} | ≤ ${wanted} | ${verdict(ratio <= wanted)} |`).join('\n')}

The full server is ready ${slowest.toFixed(1)} s after its command (the slowest of ${startSeconds.length} starts; promised: under ${wantedStartSeconds} s): ${verdict(slowest < wantedStartSeconds)}.`;
}

function memorySection(figures: readonly MemoryFigure[]): string {
  return `## Memory
Resident set sizes.

| situation | control plane | host | together | promised | |
|---|---|---|---|---|---|
${figures.map(({ situation, controlPlaneMib, hostMib, wantedMib }) => `| ${situation} | ${controlPlaneMib.toFixed(0)} MiB | ${hostMib.toFixed(0)} MiB | ${(controlPlaneMib + hostMib).toFixed(0)} MiB | < ${wantedMib} MiB | ${verdict(controlPlaneMib + hostMib < wantedMib)} |`).join('\n')}`;
}

function verdict(wasKept: boolean): string {
  return wasKept ? 'kept' : '**missed**';
}
