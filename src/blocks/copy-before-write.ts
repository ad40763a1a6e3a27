/**
 * Points in time of a volume: `vol-….snap-….cow` beside its image keeps what the volume's writes would destroy. Whatever is
 * written for the first time after the point in time is copied to the file before; docs/volume-image.md has the format.
 *
 * Only the newest point in time of a volume saves. Older ones that are still being read find what is missing in the files of
 * those that came after them: they form a chain (`next`), and go in order, the oldest first.
 *
 * The order of writes makes a killed process harmless: old contents, then new contents. A crash of the machine keeps no order,
 * so a point in time of a volume that was open at that moment is lost, and says so; it is never half right.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncDirectory } from '../files/durable.ts';
import { bytesFor } from './bitmap.ts';
import { bootId } from './boot.ts';
import { readSector, WatchedSector, writeSector } from './sector.ts';
import { blocksOf } from './volume-map.ts';

/** How a point in time of a volume stands. `gone`: it was removed (`removeCow`), so it is not made a second time. */
export type PointInTime =
  | { readonly state: 'marked' | 'gone' }
  | {
      readonly state: 'lost';
      /** Why, as a sentence for users. */
      readonly reason: string;
    };

/** A point in time that can't be read (any more). */
export class PointInTimeError extends Error {
  /** `Missing`: there is none of that name. `Lost`: there was one, and trying again does not help. */
  readonly code: 'Missing' | 'Lost';

  constructor(code: 'Missing' | 'Lost', message: string) {
    super(message);
    this.name = 'PointInTimeError';
    this.code = code;
  }
}

/** The first sector: never changes. */
export interface CowIdentity {
  readonly format: 1;
  readonly snapshotId: string;
  /** Of the volume at the point in time. What lies beyond is not saved. */
  readonly sizeBytes: number;
  /** Grows with each point in time of the volume. */
  readonly sequence: number;
  /** What the change set is relative to; absent: there is none, every block counts as changed. */
  readonly changedSince?: string;
  /** The file whose name decides whether a point in time of several volumes came about (its own, if of one). */
  readonly leader: string;
}

/** The second sector: written by whoever has the volume open. */
export interface CowState {
  readonly bootId: string;
  /** The volume has been open for writing since, and was not closed in order. */
  readonly dirty: boolean;
  /** The volume has been open for writing since. */
  readonly opened: boolean;
  /** Why the point in time is lost. */
  readonly lost?: string;
  /** The snapshot of the next point in time, which saves in this one's place. */
  readonly next?: string;
}

const identityMagic = 'COFFERC1';
const stateMagic = 'COFFERCS';
const stateOffset = 512;
/** Written by whoever reads the point in time: u64 LE, blocks below it need not be saved any more. */
const watermarkOffset = 1024;
/** One byte, 1: nobody wants it any more. */
const abandonedOffset = 1032;
/** The change set: a bit a block. */
export const changeSetOffset = 4096;
/** A watermark above every block. */
const everything = 2 ** 40;

/** Where the records begin: after the change set, at a whole page. */
export function logOffset(sizeBytes: number): number {
  return changeSetOffset + Math.ceil(bytesFor(blocksOf(sizeBytes)) / 4096) * 4096;
}

/** The name of a point in time's file; `base` is the image's path without `.img`. */
export function cowPath(base: string, snapshotId: string): string {
  return `${base}.${snapshotId}.cow`;
}

export function readIdentity(fd: number): CowIdentity | undefined {
  const identity = readSector<CowIdentity>(fd, 0, identityMagic);
  return identity?.format === 1 ? identity : undefined;
}

export function writeIdentity(fd: number, identity: CowIdentity): void {
  writeSector(fd, 0, identityMagic, identity);
}

export function readState(fd: number): CowState | undefined {
  return readSector<CowState>(fd, stateOffset, stateMagic);
}

/** The state of a file that is read again and again. */
export function watchState(fd: number): WatchedSector<CowState> {
  return new WatchedSector(fd, stateOffset, stateMagic);
}

export function writeState(fd: number, state: CowState): void {
  writeSector(fd, stateOffset, stateMagic, state);
}

export function readWatermark(fd: number): number {
  const bytes = Buffer.alloc(8);
  return readSync(fd, bytes, 0, 8, watermarkOffset) === 8 ? Number(bytes.readBigUInt64LE()) : 0;
}

export function writeWatermark(fd: number, index: number): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(index));
  writeSync(fd, bytes, 0, 8, watermarkOffset);
}

/** Why a point in time is lost by itself (those after it aside), or undefined. */
export function lossOf(state: CowState | undefined): string | undefined {
  if (!state) return 'the file with what the volume held at that time is damaged';
  if (state.lost !== undefined) return state.lost;
  if (state.dirty && state.bootId !== bootId()) {
    return 'the machine stopped while the volume was in use, before its blocks of that time were copied';
  }
  return undefined;
}

/** A point in time's file. */
export interface CowEntry {
  readonly path: string;
  readonly identity: CowIdentity;
  readonly state: CowState | undefined;
  readonly abandoned: boolean;
}

/** All points in time of a volume, the oldest first. One whose file is damaged has sequence 0. */
export function listCows(base: string): CowEntry[] {
  const directory = dirname(base);
  const prefix = `${basename(base)}.`;
  const entries: CowEntry[] = [];
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(prefix) || !name.endsWith('.cow')) continue;
    const path = join(directory, name);
    const entry = readEntry(path, name.slice(prefix.length, -'.cow'.length));
    if (entry) entries.push(entry);
  }
  return entries.sort((one, other) => one.identity.sequence - other.identity.sequence);
}

function readEntry(path: string, snapshotId: string): CowEntry | undefined {
  const fd = openCow(path, constants.O_RDONLY);
  if (fd === undefined) return undefined;
  try {
    const damaged = { format: 1, snapshotId, sizeBytes: 0, sequence: 0, leader: basename(path) } as const;
    const identity = readIdentity(fd);
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, abandonedOffset);
    return {
      path,
      identity: identity ?? damaged,
      state: identity && readState(fd),
      abandoned: byte[0] === 1,
    };
  } finally {
    closeSync(fd);
  }
}

/** Opens a point in time's file, or answers undefined when there is none. */
export function openCow(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Says in a point in time's file which one has taken its place. */
export function linkCow(path: string, next: string): void {
  const fd = openCow(path, constants.O_RDWR);
  if (fd === undefined) return;
  try {
    const state = readState(fd);
    if (!state || state.next === next) return;
    writeState(fd, { ...state, next });
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** How the point in time `snapshotId` of a volume stands; `gone` when there is none. Reads files only. */
export function pointInTime(volumesDir: string, volumeId: string, snapshotId: string): PointInTime {
  return pointOf(join(volumesDir, volumeId), snapshotId);
}

/** `pointInTime`, for the volume whose image is `base` and `.img`. */
export function pointOf(base: string, snapshotId: string): PointInTime {
  const chain = listCows(base);
  const own = chain.findIndex((entry) => entry.identity.snapshotId === snapshotId);
  if (own < 0 || chain[own]!.abandoned) return { state: 'gone' };
  // What it lacks is in the files of those after it, so their loss is its own.
  for (const entry of chain.slice(own)) {
    const reason = lossOf(entry.state);
    if (reason !== undefined) return { state: 'lost', reason };
  }
  return { state: 'marked' };
}

/**
 * Gives up the point in time `snapshotId` of a volume: its snapshot is complete, or nobody wants it any more. Its file goes
 * at once, or, while an older point in time reads through it, together with that one. Durable when it returns; doing it
 * again is harmless. The volume may be open or not.
 */
export function removeCow(volumesDir: string, volumeId: string, snapshotId: string): void {
  const base = join(volumesDir, volumeId);
  const path = cowPath(base, snapshotId);
  const fd = openCow(path, constants.O_RDWR);
  if (fd === undefined) return;
  try {
    writeSync(fd, Buffer.from([1]), 0, 1, abandonedOffset);
  } finally {
    closeSync(fd);
  }
  for (const entry of listCows(base)) {
    if (!entry.abandoned) break;
    finishGroup(entry);
    discard(entry);
  }
  syncDirectory(volumesDir);
}

/** Lets the volume's thread know (which has the file open) that there is nothing to save any more, and removes the file. */
function discard({ path, identity }: CowEntry): void {
  const fd = openCow(path, constants.O_RDWR);
  if (fd === undefined) return;
  try {
    writeWatermark(fd, everything);
    // The thread may hold it open for a while; the room is free at once.
    ftruncateSync(fd, logOffset(identity.sizeBytes));
  } finally {
    closeSync(fd);
  }
  rmSync(path, { force: true });
}

/**
 * Settles points in time of this volume that were being made when their process ended: a point in time came about if its
 * leader's file has its name. Nobody else may be making or opening one of this volume meanwhile.
 */
export function settlePrepared(base: string): void {
  const directory = dirname(base);
  const prefix = `${basename(base)}.`;
  for (const name of readdirSync(directory)) {
    if (name.startsWith(prefix) && name.endsWith('.cow.new')) settle(join(directory, name));
  }
}

function settle(prepared: string): void {
  const fd = openCow(prepared, constants.O_RDONLY);
  if (fd === undefined) return;
  let leader: string | undefined;
  try {
    leader = readIdentity(fd)?.leader;
  } finally {
    closeSync(fd);
  }
  const path = prepared.slice(0, -'.new'.length);
  const cameAbout = leader !== undefined && leader !== basename(path) && hasFile(join(dirname(path), leader));
  if (cameAbout) renameSync(prepared, path);
  else rmSync(prepared, { force: true });
  syncDirectory(dirname(path));
}

/** Before a leader's file goes: the others of its group get their names. */
function finishGroup({ path, identity }: CowEntry): void {
  if (identity.leader !== basename(path)) return;
  const directory = dirname(path);
  for (const name of readdirSync(directory)) {
    if (!name.endsWith('.cow.new')) continue;
    const prepared = join(directory, name);
    const fd = openCow(prepared, constants.O_RDONLY);
    if (fd === undefined) continue;
    try {
      if (readIdentity(fd)?.leader === identity.leader) renameSync(prepared, prepared.slice(0, -'.new'.length));
    } finally {
      closeSync(fd);
    }
  }
}

function hasFile(path: string): boolean {
  const fd = openCow(path, constants.O_RDONLY);
  if (fd !== undefined) closeSync(fd);
  return fd !== undefined;
}
