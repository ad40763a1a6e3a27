/** How fast blocks are moved beside volumes in use: where processors are short, it would take from clients what it takes. */
import { readFileSync } from 'node:fs';

/** Fewer requests a second are no use worth stepping aside for. */
const busyPerSecond = 500;
/** MB/s for each processor, beside clients that leave none idle: a snapshot is to be completed, however busy its volume. */
const leastPace = 12;
/** Threads that wait for each other leave processors idle at times, which is no room: so busy is busy. */
const fullUtilization = 0.75;

/**
 * MB/s of all jobs together. 0: as fast as can be.
 * @param requestsPerSecond what clients are answered
 * @param utilization of the machine's processors, 0 to 1
 * @param processors how many of them this process may use
 */
export function paceBeside(requestsPerSecond: number, utilization: number, processors: number): number {
  if (requestsPerSecond < busyPerSecond) return 0;
  // Where processors are half as busy there is room for four times as much.
  return Math.round((processors * leastPace) / Math.min(1, Math.max(0.1, utilization / fullUtilization)) ** 2);
}

/** Time that all processors together have had so far, and how much of it they were idle; in the kernel's ticks. */
export interface ProcessorTime {
  readonly total: number;
  readonly idle: number;
}

/** proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. */
export function processorTime(): ProcessorTime {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!;
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  return { total: ticks.reduce((sum, each) => sum + each, 0), idle: ticks[3]! + ticks[4]! };
}

export function utilizationBetween(before: ProcessorTime, after: ProcessorTime): number {
  const total = after.total - before.total;
  return total > 0 ? 1 - Math.max(0, after.idle - before.idle) / total : 1;
}
