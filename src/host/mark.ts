/**
 * One point in time of several volumes, open or not. Each prepares a file; then all hold their writes, fix what has changed,
 * and go on. The file of the first, the leader, decides by getting its name: before that none of the points in time has come
 * about, after it all have, whenever the process ends (src/blocks/copy-before-write.ts settles the rest).
 */
import { existsSync, fdatasync, mkdirSync, renameSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { cowPath, type PointInTime, pointOf, settlePrepared } from '../blocks/copy-before-write.ts';
import { ImageError } from '../blocks/images.ts';
import { openImageAsItIs } from '../blocks/open-volume.ts';
import { PointsInTime } from '../blocks/points-in-time.ts';
import { syncDirectory } from '../files/durable.ts';
import type { VolumeThread } from './volume-thread.ts';

export interface MarkMember {
  readonly volumeId: string;
  readonly snapshotId: string;
  readonly sizeBytes: number;
  readonly imagePath: string;
  /** The image must be there. Otherwise a volume without one is marked as empty. */
  readonly hasImage: boolean;
}

/** A volume that takes part, wherever its points in time are kept. */
interface Participant {
  prepare(leader: string): Promise<void>;
  hold(): Promise<void>;
  fix(): Promise<void>;
  commit(): Promise<void>;
  /** All of these at a stroke and the renaming to `file`, when nobody else takes part; where that makes it quicker. */
  alone?(file: string): Promise<void>;
  /** Ends without a point in time. */
  abort(): Promise<void>;
  end(): void;
}

/**
 * Fixes one point in time of all members, unless they have it. Nobody else opens, closes or marks one of them meanwhile.
 * @param threadOf the thread of a volume that is open
 */
export async function markMembers(
  members: readonly MarkMember[],
  threadOf: (volumeId: string) => VolumeThread | undefined,
): Promise<PointInTime[]> {
  const bases = members.map(({ imagePath }) => imagePath.replace(/\.img$/, ''));
  for (const base of bases) {
    mkdirSync(dirname(base), { recursive: true, mode: 0o700 });
    settlePrepared(base);
  }
  const look = () => members.map(({ snapshotId }, position) => pointOf(bases[position]!, snapshotId));
  const found = look();
  if (found.some(({ state }) => state !== 'gone')) return found;

  const files = members.map(({ snapshotId }, position) => cowPath(bases[position]!, snapshotId));
  const participants: Participant[] = [];
  let isDecided = false;
  try {
    for (const [position, member] of members.entries()) {
      const thread = threadOf(member.volumeId);
      participants.push(thread ? openVolume(member, thread) : await closedVolume(member, bases[position]!));
    }
    const all = (step: 'hold' | 'fix' | 'commit') => Promise.all(participants.map((one) => one[step]()));
    await Promise.all(participants.map((one) => one.prepare(basename(files[0]!))));
    const alone = participants.length === 1 ? participants[0]!.alone : undefined;
    if (alone) {
      await alone(files[0]!);
      isDecided = true;
    } else {
      await all('hold');
      await all('fix');
      renameSync(`${files[0]!}.new`, files[0]!);
      isDecided = true;
      try {
        for (const file of files.slice(1)) renameSync(`${file}.new`, file);
      } finally {
        await all('commit');
      }
    }
    for (const directory of new Set(files.map((file) => dirname(file)))) syncDirectory(directory);
  } finally {
    if (!isDecided) await Promise.allSettled(participants.map((one) => one.abort()));
    for (const one of participants) one.end();
  }
  return look();
}

function openVolume({ snapshotId, sizeBytes }: MarkMember, thread: VolumeThread): Participant {
  return {
    prepare: (leader) => thread.ask({ call: 'prepare', snapshotId, sizeBytes, leader }),
    hold: () => thread.ask({ call: 'hold' }),
    fix: () => thread.ask({ call: 'fix' }),
    commit: () => thread.ask({ call: 'commit' }),
    alone: (path) => thread.ask({ call: 'fixAlone', path }),
    abort: () => thread.ask({ call: 'abort' }),
    end: () => {},
  };
}

/** A volume that nobody has open: its image, if it has one, stays locked until the end. */
async function closedVolume(member: MarkMember, base: string): Promise<Participant> {
  const { snapshotId, sizeBytes, imagePath, hasImage } = member;
  const hasOne = existsSync(imagePath);
  if (hasImage && !hasOne) throw new ImageError('ImageMissing', `the volume image ${imagePath} is missing`);
  const files = hasOne ? openImageAsItIs(imagePath) : undefined;
  const end = () => {
    files?.map.close();
    files?.image.close();
  };
  try {
    // What a killed process wrote is not on stable storage yet, and nobody will say that it was lost.
    if (files) await syncFile(files.image.fd);
    files?.map.recover();
    const points = new PointsInTime(base, files?.map, false);
    return {
      prepare: (leader) => points.prepare(snapshotId, sizeBytes, leader),
      hold: async () => {},
      fix: async () => points.fix(),
      async commit() {
        points.commit();
        files?.map.sync();
      },
      abort: async () => points.abort(),
      end() {
        points.close(false);
        end();
      },
    };
  } catch (error) {
    end();
    throw error;
  }
}

function syncFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())));
}
