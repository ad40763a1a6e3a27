/**
 * How blocks of snapshots travel between the control plane, which answers the EBS direct APIs, and the host, which alone
 * reaches the block store and does the cryptography. The host asks for requests (`coffer-host: TakeBlockRequests`, which
 * waits until there are some) and brings each answer (`coffer-host: AnswerBlockRequest`). docs/host-protocol.md tells more.
 */
import type { SnapshotOutcome } from './host-protocol.ts';

/** Blocks named by one list; EBS direct's pages. */
export interface ListBlocksRequest {
  readonly kind: 'listBlocks';
  readonly snapshotId: string;
  /** The first index that may be listed. */
  readonly from: number;
  readonly count: number;
}

export interface ListChangedBlocksRequest {
  readonly kind: 'listChangedBlocks';
  /** Absent: everything in the second counts as changed. */
  readonly firstSnapshotId?: string;
  readonly secondSnapshotId: string;
  readonly from: number;
  readonly count: number;
}

export interface GetBlockRequest {
  readonly kind: 'getBlock';
  readonly snapshotId: string;
  readonly index: number;
  /** The snapshot's data key, sealed for the host's session; absent when it is not encrypted. */
  readonly dataKey?: string;
}

/** Begins a snapshot that is written from outside. With a parent it starts as that one's copy. */
export interface StartUploadRequest {
  readonly kind: 'startUpload';
  readonly snapshotId: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly parentSnapshotId?: string;
}

export interface PutBlockRequest {
  readonly kind: 'putBlock';
  readonly snapshotId: string;
  readonly index: number;
  /** base64: 524288 bytes of plaintext, whose SHA-256 (base64) has been checked already. */
  readonly data: string;
  readonly sha256: string;
  /** base64: the digest as the host notes it down, under a key that it is given at the end. Absent: as it is. */
  readonly sealedSha256?: string;
  readonly dataKey?: string;
}

/** Ends writing: the blocks are counted and their checksums compared, then the snapshot is complete. */
export interface CompleteUploadRequest {
  readonly kind: 'completeUpload';
  readonly snapshotId: string;
  /** How many different blocks were written. */
  readonly changedBlocks: number;
  /** base64: SHA-256 of the blocks' SHA-256 digests (of the plaintext), one after the other in the order of their indexes. */
  readonly checksum?: string;
  /** The key of the digests that were noted down under one, sealed for the host's session. */
  readonly digestKey?: string;
}

export type BlockRequest =
  | ListBlocksRequest
  | ListChangedBlocksRequest
  | GetBlockRequest
  | StartUploadRequest
  | PutBlockRequest
  | CompleteUploadRequest;

/** What each kind of request is answered with. */
export interface BlockAnswers {
  /** `next`: where the following page begins; absent after the last. */
  readonly listBlocks: { readonly indexes: readonly number[]; readonly next?: number };
  readonly listChangedBlocks: {
    readonly blocks: ReadonlyArray<{ readonly index: number; readonly inFirst: boolean; readonly inSecond: boolean }>;
    readonly next?: number;
  };
  /** Both base64; the digest is that of the plaintext. */
  readonly getBlock: { readonly data: string; readonly sha256: string };
  readonly startUpload: Record<string, never>;
  readonly putBlock: Record<string, never>;
  readonly completeUpload: SnapshotOutcome;
}

/** Why a host could not do it. */
export interface BlockRequestError {
  readonly code: /** The snapshot has no such block. */
    | 'NoSuchBlock'
    /** There is no manifest, or no upload, of that name in the host's store. */
    | 'NoSuchSnapshot'
    /** It has been completed or given up, and takes no more blocks. */
    | 'NotOpen'
    /** The count or the checksum is not that of what was written. */
    | 'ChecksumMismatch'
    /** The key was sealed for another session of the host. */
    | 'OtherSession'
    /** As in StoreError. */
    | 'Corrupt'
    | 'Missing'
    | 'Unavailable'
    | 'Denied'
    | 'Full'
    | 'Internal';
  readonly message: string;
}

/** A request on its way, and what came of it. */
export interface TakenBlockRequest {
  readonly requestId: string;
  readonly request: BlockRequest;
}

export interface TakeBlockRequestsRequest {
  readonly hostId: string;
  readonly sessionId: string;
  /** base64: the session's X25519 public key (32 bytes), for which data keys are sealed. */
  readonly publicKey: string;
  /** At most so many at once. */
  readonly max: number;
  /** Requests that the host works on: whatever else this session took and did not answer was lost on the way. */
  readonly underWay: readonly string[];
}

export interface TakeBlockRequestsResponse {
  readonly requests: readonly TakenBlockRequest[];
}

export interface AnswerBlockRequestRequest {
  readonly hostId: string;
  readonly sessionId: string;
  readonly requestId: string;
  readonly answer?: BlockAnswers[BlockRequest['kind']];
  readonly error?: BlockRequestError;
}
