/** What the process and the thread of an open volume say to each other. */

/** What the thread gets. The keys are moved there, not copied. */
export interface ThreadInput {
  readonly volumeId: string;
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly hasImage: boolean;
  readonly key: ArrayBuffer | undefined;
  readonly restore: RestoreInput | undefined;
  /** Doubles, written by the thread: blocks that the snapshot has data for, and how many of them are missing. */
  readonly restoreProgress: SharedArrayBuffer;
}

export interface RestoreInput {
  readonly snapshotId: string;
  readonly key: ArrayBuffer | undefined;
  readonly storeLocation: string;
  /** The store that must be there, where it is known. */
  readonly storeId: string | undefined;
  readonly rate: number | undefined;
}

/** Requests. Each is answered, in order of its completion. */
export type ThreadCall =
  | {
      readonly call: 'listen';
      readonly listener: number;
      readonly socketPath: string;
      readonly exportName: string;
      readonly readOnly: boolean;
      /** Doubles, in the order of `statFields`, written by the thread only. */
      readonly stats: SharedArrayBuffer;
    }
  /** Ends a listener within `graceMs`, then flushes. */
  | { readonly call: 'closeListener'; readonly listener: number; readonly graceMs: number }
  | { readonly call: 'setRate'; readonly rate: number | undefined }
  | { readonly call: 'resize'; readonly sizeBytes: number }
  /** The steps of a point in time: src/blocks/points-in-time.ts. */
  | { readonly call: 'prepare'; readonly snapshotId: string; readonly sizeBytes: number; readonly leader: string }
  | { readonly call: 'hold' | 'fix' | 'commit' | 'abort' }
  /** `fix`, the renaming of the prepared file to `path`, and `commit`, at a stroke: for one volume alone. */
  | { readonly call: 'fixAlone'; readonly path: string }
  /** Flushes, wipes the keys, ends the thread. */
  | { readonly call: 'close'; readonly graceMs: number };

export type ThreadRequest = ThreadCall & { readonly id: number };

export interface ThreadError {
  readonly code?: string;
  readonly message: string;
  /** For the operator: see StoreError. */
  readonly detail?: string | undefined;
}

export type ThreadMessage =
  | { readonly type: 'ready'; readonly implementation: string }
  | { readonly type: 'answer'; readonly id: number; readonly error?: ThreadError }
  | ({ readonly type: 'refused' | 'crashed' } & ThreadError)
  /** The storage refused a request of a client. */
  | { readonly type: 'trouble'; readonly code?: string; readonly message: string }
  | {
      readonly type: 'restoreTrouble';
      readonly trouble: (ThreadError & { readonly code: string; readonly final: boolean }) | undefined;
    }
  | { readonly type: 'restored' };

export const statFields = ['connections', 'reads', 'readBytes', 'writes', 'writeBytes', 'flushes'] as const;
