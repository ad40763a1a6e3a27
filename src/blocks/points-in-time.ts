/**
 * The points in time of one volume, for whoever has its image locked: the volume's thread while it is open, anybody who marks
 * it while it is not.
 *
 * A point in time comes about in steps, so that several volumes can share one: `prepare` (slow, while I/O goes on), then, with
 * no write carried out in between, `fix`, the renaming that decides it, and `commit`.
 */
import { type CowIdentity, cowPath, linkCow, listCows, settlePrepared } from './copy-before-write.ts';
import { CowWriter } from './cow-writer.ts';
import type { VolumeMap } from './volume-map.ts';

export class PointsInTime {
  readonly #base: string;
  readonly #map: VolumeMap | undefined;
  readonly #isOpen: boolean;
  /** The oldest first; the last one saves. */
  #writers: CowWriter[] = [];
  #sequence: number;
  #preparing: CowWriter | undefined;

  /**
   * Takes up what is there.
   * @param base the image's path without `.img`
   * @param map of the open volume; undefined for a volume that has none yet
   * @param isOpen writes may follow: every pending point in time is made ready for them, durably
   */
  constructor(base: string, map: VolumeMap | undefined, isOpen: boolean) {
    this.#base = base;
    this.#map = map;
    this.#isOpen = isOpen;
    settlePrepared(base);
    const entries = listCows(base);
    // A crash may have come before these were linked; nothing was written in between.
    for (const [position, entry] of entries.entries()) {
      const next = entries[position + 1];
      if (next) linkCow(entry.path, next.identity.snapshotId);
    }
    if (isOpen) {
      this.#writers = entries.map(({ path }) => CowWriter.reopen(path)).filter((writer) => writer !== undefined);
    }
    const newest = entries.at(-1)?.identity;
    this.#sequence = Math.max(newest?.sequence ?? 0, map?.header.marks ?? 0);
    if (map && newest && newest.sequence > map.header.marks) map.countFrom(newest.snapshotId, newest.sequence);
  }

  /** The one that saves, or undefined when nothing has to be saved. */
  get saving(): CowWriter | undefined {
    const newest = this.#writers.at(-1);
    return newest && !newest.isOver ? newest : undefined;
  }

  /** Makes the file of a point in time that is about to come. `leader`: the file's name that decides about it. */
  async prepare(snapshotId: string, sizeBytes: number, leader: string): Promise<void> {
    if (this.#preparing) throw new Error('a point in time of this volume is being made already');
    const lastSnapshotId = this.#map?.header.lastSnapshotId;
    const identity: CowIdentity = {
      format: 1,
      snapshotId,
      sizeBytes,
      sequence: ++this.#sequence,
      ...(lastSnapshotId === undefined ? {} : { changedSince: lastSnapshotId }),
      leader,
    };
    const path = `${cowPath(this.#base, snapshotId)}.new`;
    this.#preparing = await CowWriter.prepare(path, identity, this.#isOpen);
  }

  /** The moment itself. From here to `commit` or `abort` nothing may be written to the volume. */
  fix(): void {
    if (!this.#preparing) throw new Error('no point in time of this volume is being made');
    this.#preparing.fix(this.#map?.changed);
    if (!this.#isOpen) this.#preparing.finish();
  }

  /** After its file has its name: from now on it is the one that saves. */
  commit(): void {
    const made = this.#preparing;
    if (!made) throw new Error('no point in time of this volume is being made');
    this.#preparing = undefined;
    const { snapshotId, sequence } = made.identity;
    const left = this.#writers.filter((writer) => !writer.closeIfRemoved());
    const before = left.at(-1);
    this.#writers = [...left, made];
    try {
      if (this.#isOpen) before?.seal(snapshotId);
      else this.#linkLast(snapshotId, sequence);
      this.#map?.countFrom(snapshotId, sequence);
    } catch (error) {
      for (const writer of this.#writers) writer.lose('its beginning could not be noted on the disk');
      throw error;
    }
  }

  abort(): void {
    this.#preparing?.abort();
    this.#preparing = undefined;
  }

  /** The volume is being closed; `clean`: all that was written to it is on stable storage. */
  close(clean: boolean): void {
    this.abort();
    for (const writer of this.#writers) {
      if (clean && this.#isOpen) writer.finish();
      writer.close();
    }
    this.#writers = [];
  }

  #linkLast(next: string, sequence: number): void {
    const last = listCows(this.#base).findLast(({ identity }) => identity.sequence < sequence);
    if (last) linkCow(last.path, next);
  }
}
