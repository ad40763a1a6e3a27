/** What a process of ours does about itself: no core dumps, one process per lock file. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { libc, lockExclusive, lockNonBlocking, lockShared } from '../blocks/libc.ts';

/**
 * Forbids core dumps of this process and debuggers of the same user: its memory holds keys. Where that can't be done
 * (no koffi), `ulimit -c 0` in bin/coffer still stands.
 */
export function forbidDumps(): void {
  try {
    libc().forbidDumps();
  } catch {
    // Without koffi: see above.
  }
}

/**
 * To be called when a start is over: writes down compiled code for the next one, now and not at the end, for this process may
 * never come to a proper one; and gives back the memory that only the start needed.
 */
export function endStart(): void {
  flushCompileCache();
  try {
    libc().trimMemory();
  } catch {
    // Without glibc or koffi it stays where it is.
  }
}

/** A lock that ends with the process, however it ends. */
export interface ProcessLock {
  release(): void;
}

/** Takes the lock `path`, or answers undefined while another process has it. */
export function tryLock(path: string): ProcessLock | undefined {
  const file = openSync(path, 'a', 0o600);
  if (libc().flock(file, lockExclusive | lockNonBlocking) === 0) return { release: () => closeSync(file) };
  closeSync(file);
  return undefined;
}

/** Whether a process holds the lock `path`. */
export function isLocked(path: string): boolean {
  const file = openSync(path, 'a', 0o600);
  try {
    return libc().flock(file, lockShared | lockNonBlocking) !== 0;
  } finally {
    closeSync(file);
  }
}

/** The process id that a pid file names, or undefined. */
export function readPid(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'utf8'));
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}
