/**
 * A volume as it was at a point in time, read block by block while the volume goes on changing. Files only: the reader may
 * be any thread of the host, with the volume open, closed, opened anew or killed meanwhile.
 */
export interface SnapshotView {
  /** The volume's size at the point in time. */
  readonly sizeBytes: number;
  /** Number of blocks, the last one perhaps cut short by the volume's end. */
  readonly blocks: number;
  /** The snapshot that `isChanged` compares with; undefined: not known, every block counts as changed. */
  readonly changedSince: string | undefined;
  isChanged(index: number): boolean;
  /** The first block from `index` on that may hold data or is yet to be restored, or `blocks`: skips stretches of holes. */
  nextData(index: number): number;
  /**
   * Reads a block as it lies on disk (ciphertext, for an encrypted volume) to `bytes` (524288; zeros beyond the volume's
   * end). `hole`: all zeros, and `bytes` are undefined. `unrestored`: not there yet; the volume has to be open to be
   * restored; ask again later.
   * @throws {PointInTimeError} `Lost` or `Missing` @throws the file system's error (`code` EIO …)
   */
  read(index: number, bytes: Buffer): 'data' | 'hole' | 'unrestored';
  /** A hint that blocks from `index` to `end` (not included) are read soon. */
  prefetch(index: number, end: number): void;
  /**
   * Says that the blocks below `index` are copied and will not be read again, so that the volume's writes stop saving them.
   * Cheap; call it after each few blocks.
   */
  setWatermark(index: number): void;
  close(): void;
}

/** Opens the view of a point in time that `OpenVolumes.markSnapshots` made. @throws {PointInTimeError} */
export function openSnapshotView(volumesDir: string, volumeId: string, snapshotId: string): SnapshotView {
  throw new Error(`not made yet: ${volumesDir} ${volumeId} ${snapshotId}`);
}
