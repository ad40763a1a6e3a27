/**
 * The volumes that this process has open. Each has one thread, shared by all that use it: the sockets of attachments (several
 * with Multi-Attach), the background restore, points in time. The thread ends with its last user.
 */
import type { RestoreSource } from '../aws/host-protocol.ts';
import type { PointInTime } from '../blocks/copy-before-write.ts';
import type { ExportFailure, ExportLog, ExportStats } from './export.ts';

export interface VolumeSpec {
  readonly volumeId: string;
  /** `volumes/vol-….img`; map and copy-before-write files lie beside it. */
  readonly imagePath: string;
  /** An image that is smaller is grown to it. */
  readonly sizeBytes: number;
  /** The image must be there (a missing one is lost); otherwise it is made when it is missing. */
  readonly hasImage: boolean;
  /** 64 bytes, wiped in any case. Undefined: the volume is not encrypted. */
  readonly dataKey?: Buffer;
  /** Given while the volume is (or may be) yet to be restored. */
  readonly restore?: RestoreSpec;
}

export interface RestoreSpec {
  readonly source: RestoreSource;
  /** 64 bytes, wiped in any case. Undefined: the snapshot is not encrypted. */
  readonly sourceDataKey?: Buffer;
  /** For `openStore`: a directory or `s3://bucket/prefix`. */
  readonly storeLocation: string;
}

export interface RestoreProgress {
  /** Blocks that the snapshot has data for. */
  readonly blocks: number;
  /** How many of them are not in the image yet. 0: restored (durably so when `onRestored` calls). */
  readonly left: number;
  /** The last trouble of the background restore: what the store said, with the block's name. Gone when it goes on. */
  readonly trouble?: { readonly code: string; readonly message: string; readonly final: boolean };
}

export interface ListenOptions {
  /** At most 107 bytes. Its directory is made (0700) when missing; a socket left there by a crash is replaced. */
  readonly socketPath: string;
  /** What NBD clients ask for; the empty name works, too. Default: the volume's id. */
  readonly exportName?: string;
  readonly readOnly?: boolean;
}

/** One socket of an open volume. */
export interface VolumeExport {
  readonly volumeId: string;
  readonly socketPath: string;
  /**
   * Takes no more requests, lets those under way finish (5 s at most, not at all with `force`), drops the connections,
   * and puts all that was written on stable storage. Rejects when that failed; the socket is gone all the same.
   */
  close(options?: { readonly force?: boolean }): Promise<void>;
  stats(): ExportStats;
}

/** One user's hold on an open volume. */
export interface VolumeHandle {
  readonly volumeId: string;
  /** Serves the volume on one more socket. Resolves when clients can connect. */
  listen(options: ListenOptions): Promise<VolumeExport>;
  restoreProgress(): RestoreProgress;
  /** Calls back once when the whole volume is restored, durably; at once when it is already. */
  onRestored(callback: () => void): void;
  /** MiB/s for the background restore; undefined: as fast as is sensible. */
  setRate(mibPerSecond: number | undefined): void;
  /** Grows the volume. Connections from now on see the new size, those that exist keep theirs. */
  resize(sizeBytes: number): Promise<void>;
  /** Calls back when the storage refuses requests (once per kind of error and minute) or the thread has died. */
  onFailure(callback: (failure: ExportFailure) => void): void;
  /**
   * Gives the volume up, its exports included. The last user's release flushes, wipes the keys and ends the thread; it
   * rejects when the flush failed, and the volume is closed all the same.
   */
  release(): Promise<void>;
}

export interface MarkMember {
  readonly volumeId: string;
  readonly snapshotId: string;
  readonly sizeBytes: number;
  readonly imagePath: string;
  /** The image must be there. Otherwise a volume without one is marked as empty. */
  readonly hasImage: boolean;
}

export interface OpenVolumes {
  /**
   * Opens a volume, or joins those who have it open: then its keys are there already and those given are only wiped. A
   * larger size grows it. Rejects with an Error whose `code` is `ImageMissing`, `ImageInUse`, `ImageSizeMismatch`,
   * `MapMissing`, a StoreErrorCode (the snapshot's manifest can't be had) or an errno's name.
   */
  open(spec: VolumeSpec): Promise<VolumeHandle>;
  isOpen(volumeId: string): boolean;
  /**
   * Fixes one point in time of all `members`, open or not, while their I/O goes on. When it resolves, each of them survives
   * the end of this process. All or none: a point in time that some members have is never given to others later; those are
   * `gone`. Doing it again changes nothing. A volume that is to be restored must have been opened once before.
   */
  markSnapshots(members: readonly MarkMember[]): Promise<PointInTime[]>;
  /** Closes everything. */
  close(): Promise<void>;
}

export function createOpenVolumes(options: { readonly log: ExportLog }): OpenVolumes {
  throw new Error(`not made yet: ${String(options)}`);
}
