/** What the mover's thread is asked to do, and what it says. Keys are moved to it, not copied. */
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';

export interface CreateSnapshotJob {
  readonly kind: 'createSnapshot';
  readonly volumesDir: string;
  readonly journalPath: string;
  readonly volumeId: string;
  readonly snapshotId: string;
  readonly sizeBytes: number;
  readonly parentSnapshotId: string | undefined;
}

export interface CopySnapshotJob {
  readonly kind: 'copySnapshot';
  readonly journalPath: string;
  readonly snapshotId: string;
  readonly sourceSnapshotId: string;
  readonly sizeBytes: number;
  /** 64 bytes each; undefined: not encrypted. */
  readonly sourceKey: ArrayBuffer | undefined;
  readonly key: ArrayBuffer | undefined;
}

export interface DeleteSnapshotJob {
  readonly kind: 'deleteSnapshot';
  readonly snapshotId: string;
  readonly family: readonly string[];
}

export type MoverJob = CreateSnapshotJob | CopySnapshotJob | DeleteSnapshotJob;

export interface MoverInput {
  readonly storeLocation: string;
  /** The id of the store that was there before; another one, or none, is then an error. */
  readonly storeId: string | undefined;
  /** One 32-bit number: MB/s of all jobs together; 0: as fast as can be. */
  readonly pace: SharedArrayBuffer;
}

export type MoverRequest =
  | { readonly type: 'start'; readonly id: number; readonly job: MoverJob }
  | { readonly type: 'cancel'; readonly id: number };

/** How the block store is. */
export interface StoreStatus {
  readonly storeId?: string;
  /** Why it can't be used: a sentence for the operator. */
  readonly error?: string;
}

export type MoverMessage =
  | ({ readonly type: 'store' } & StoreStatus)
  | { readonly type: 'progress'; readonly id: number; readonly percent: number }
  | { readonly type: 'done'; readonly id: number; readonly outcome: SnapshotOutcome | undefined }
  | {
      readonly type: 'failed';
      readonly id: number;
      readonly error: string;
      readonly detail?: string;
      readonly final: boolean;
    };
