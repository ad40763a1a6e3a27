// Measures the memory of control plane and host together: idle, and with ten encrypted volumes attached and written to.
//
//     bin/coffer-node bench/memory.ts [--json]

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { startServer, type TestServer } from '../test/support/server.ts';
import { Volumes } from '../test/support/volumes.ts';

export interface MemoryFigure {
  readonly situation: string;
  /** Resident set sizes, MiB. Pages that both processes share count twice. */
  readonly controlPlaneMib: number;
  readonly hostMib: number;
  /** The most that the project promises, MiB, for both together. */
  readonly wantedMib: number;
}

const settleMs = 5_000;
const volumeCount = 10;
const mebibyte = 1024 * 1024;

export async function runMemoryBench(): Promise<MemoryFigure[]> {
  const server = await startServer();
  try {
    await settle();
    const idle = figure(server, 'idle', 300);
    const volumes = new Volumes(server);
    const instance = await volumes.runInstance();
    for (let i = 0; i < volumeCount; i++) {
      const device = `/dev/sd${String.fromCharCode(0x66 + i)}`;
      const nbd = await NbdClient.connect(await volumes.attach(await volumes.create(), instance, device));
      for (let at = 0; at < 64; at++) await nbd.write(at * mebibyte, randomBytes(mebibyte));
      await nbd.flush();
      for (let at = 0; at < 64; at++) await nbd.read(at * mebibyte, mebibyte);
      await nbd.close();
    }
    await settle();
    return [idle, figure(server, `${volumeCount} volumes attached, each written and read`, 700)];
  } finally {
    await server.stop();
  }
}

function figure(server: TestServer, situation: string, wantedMib: number): MemoryFigure {
  return { situation, controlPlaneMib: rssMib(server.controlPlanePid), hostMib: rssMib(server.hostPid!), wantedMib };
}

function rssMib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
}

function settle(): Promise<void> {
  return new Promise((wake) => setTimeout(wake, settleMs));
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { json: { type: 'boolean' } } });
  const figures = await runMemoryBench();
  if (values.json) console.log(JSON.stringify(figures, null, 2));
  else
    for (const { situation, controlPlaneMib, hostMib, wantedMib } of figures)
      console.log(
        `${situation}: control plane ${controlPlaneMib.toFixed(0)} + host ${hostMib.toFixed(0)} = ${(controlPlaneMib + hostMib).toFixed(0)} MiB (wanted: under ${wantedMib})`,
      );
}
