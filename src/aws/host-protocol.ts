/**
 * What a host and the control plane say to each other: the messages of `coffer-host: Sync`. docs/host-protocol.md tells
 * how they are used. Plain data, no dependencies: both sides import it.
 */

/** What the host sends: all that it has, each time (not what changed since the last time). */
export interface SyncRequest {
  /** The host's name as its credentials have it; any other is refused. */
  readonly hostId: string;
  /** Random, one per host process. */
  readonly sessionId: string;
  /** When the process started, ms since the epoch. A process is refused once a later one of the same host has synced. */
  readonly startedAt: number;
  /** Grows with each request of a session. A request that arrives after a later one changes nothing. */
  readonly sequence: number;
  /** The zones whose volume storage this host reaches (`us-east-1a`), or `*` for all. */
  readonly zones: readonly string[] | '*';
  /** The host's data directory, absolute: images are `volumes/vol-….img` in it. */
  readonly dataDir: string;
  /** The host's version, for `coffer status`. */
  readonly hostVersion: string;
  /** Every attachment that the host has open, has failed to open, or has closed and not yet seen leave the answer. */
  readonly attachments: readonly ObservedAttachment[];
  /** Instances whose directory is there. */
  readonly instances: readonly string[];
  /** What has become so far of the tasks that the answers still list. */
  readonly tasks: readonly TaskResult[];
  /** The id of the block store that the host reaches (its `store.json`); absent while it can't be read. */
  readonly blockStoreId?: string;
  /** The block store in words for the operator: where it is, and why it can't be used, if it can't. */
  readonly blockStore?: { readonly location: string; readonly error?: string };
  /** The credentials that the host holds and still needs, so that they are not made anew. */
  readonly credentials: readonly HeldCredentials[];
  /** `version` of the last answer; while it is still current the answer waits (up to 20 s). Absent: answer at once. */
  readonly sinceVersion?: string;
}

export interface ObservedAttachment {
  readonly volumeId: string;
  readonly instanceId: string;
  readonly device: string;
  /** The generation of the desired attachment that this state answers. */
  readonly generation: number;
  /**
   * `attached`: the socket accepts connections. `failed`: it could not be opened; nothing is open. `detached`: flushed,
   * socket gone, data key wiped.
   */
  readonly state: 'attached' | 'failed' | 'detached';
  /** For `failed`: why. A refused Decrypt passes KMS's own code and message on. */
  readonly error?: AttachmentError;
  /** For `attached`: the size that new connections get now. A grown volume's modification is completed when it is the new one. */
  readonly sizeBytes?: number;
}

export interface AttachmentError {
  /** The AWS error code of a refused Decrypt (`DisabledException`), or `InternalError` for the host's own troubles. */
  readonly code: string;
  /** A sentence that a user can act on. Never any key material. */
  readonly message: string;
}

export interface HeldCredentials {
  readonly sessionName: string;
  /** What hosts from before snapshots say instead. */
  readonly instanceId?: string;
  /** ISO 8601, as handed out. */
  readonly expiration: string;
}

export interface TaskResult {
  readonly taskId: string;
  /** `failed` is tried again while the task stays listed, unless `final`. */
  readonly state: 'running' | 'done' | 'failed';
  /** For `failed`: a sentence that a user can act on. Never any key material. */
  readonly error?: string;
  /** For `failed`: trying again can't help (the point in time is lost, a block of the source is corrupt). */
  readonly final?: boolean;
  /** createSnapshot: the point in time is fixed, and survives the end of the host's process. */
  readonly marked?: boolean;
  /** Whole percent, 0 to 100, of the blocks to be moved. */
  readonly progress?: number;
  /** createSnapshot, copySnapshot, `done`: what was stored. */
  readonly outcome?: SnapshotOutcome;
}

export interface SnapshotOutcome {
  /** Blocks that hold data, those shared with earlier snapshots included. */
  readonly blocks: number;
  /** Bytes of these blocks: EC2's FullSnapshotSizeInBytes. */
  readonly fullBytes: number;
  /** Bytes that this snapshot alone added to the store. */
  readonly storedBytes: number;
}

/** What the control plane answers: all that this host shall have. What is not listed, the host closes and forgets. */
export interface SyncResponse {
  /** Changes whenever anything below but the credentials does; opaque, the same after a restart. */
  readonly version: string;
  /** Instances of this host that are not terminated; the directory of any other is removed. */
  readonly instances: readonly DesiredInstance[];
  readonly attachments: readonly DesiredAttachment[];
  /**
   * For instances with an encrypted volume yet to be opened and tasks that need a key, unless the request says that the
   * host holds good ones.
   */
  readonly credentials: readonly InfrastructureCredentials[];
  readonly tasks: readonly HostTask[];
}

export interface DesiredInstance {
  readonly instanceId: string;
  readonly account: string;
  readonly region: string;
  readonly state: 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down';
}

/** One volume at one instance. Volume id and instance id together name it (a Multi-Attach volume has several). */
export interface DesiredAttachment {
  readonly volumeId: string;
  readonly instanceId: string;
  readonly account: string;
  readonly region: string;
  /** As the user wrote it (`/dev/sdf`, `xvdf`); `devicePath` is where its socket goes. */
  readonly device: string;
  /** `dev/sdf`: the socket, relative to `DIR/instances/ID`; checked to stay inside. */
  readonly devicePath: string;
  readonly desired: 'attached' | 'detached';
  /** Grows each time `desired` changes. Reports about another generation are not believed. */
  readonly generation: number;
  /** For `detached`: close without waiting for requests in flight. */
  readonly force: boolean;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /**
   * The volume has been open before, so its image must be there. A missing one is then a lost one (a storage that is not
   * mounted, say), and must never be replaced by an empty one.
   */
  readonly hasImage: boolean;
  /** Absent for a volume that is not encrypted. */
  readonly encryption?: VolumeEncryption;
  /** While the volume is being restored from a snapshot: where the blocks come from that are not in the image yet. */
  readonly source?: RestoreSource;
}

/** A snapshot that a volume is restored from. */
export interface RestoreSource {
  readonly snapshotId: string;
  /** The snapshot's size; the volume may be larger, and is empty beyond. */
  readonly sizeBytes: number;
  /** Of the snapshot's blocks; absent when they are not encrypted. Asked with the same credentials as the volume's own. */
  readonly encryption?: VolumeEncryption;
  /** VolumeInitializationRate, MiB/s; absent: as fast as the host sees fit. */
  readonly rate?: number;
}

/**
 * What the host passes to KMS Decrypt, in the region of `keyArn` and with infrastructure credentials, to get the 64-byte
 * data key.
 */
export interface VolumeEncryption {
  readonly keyArn: string;
  /** base64 */
  readonly encryptedDataKey: string;
  readonly encryptionContext: Readonly<Record<string, string>>;
}

/** Temporary credentials of the principal `aws:ec2-infrastructure/‹sessionName›`. */
export interface InfrastructureCredentials {
  /** The id of the instance whose volumes are opened with them, or of the volume or snapshot that a task is about. */
  readonly sessionName: string;
  /** The same, for hosts from before snapshots, which know it by this name: they go on opening volumes until they restart. */
  readonly instanceId?: string;
  readonly account: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  /** ISO 8601 */
  readonly expiration: string;
}

/** Work on volumes and snapshots that is no attachment's. Doing it twice is harmless. What is no longer listed, ends. */
export type HostTask =
  | EraseVolumeTask
  | CreateSnapshotTask
  | InitializeVolumeTask
  | CopySnapshotTask
  | DeleteSnapshotTask;

/** Removes an image and everything beside it, once no snapshot is being made of it any more. */
export interface EraseVolumeTask {
  readonly taskId: string;
  readonly kind: 'eraseVolume';
  readonly volumeId: string;
}

/** Fixes a point in time (`marked`), then copies what the store lacks, as it lies on disk: it needs no key. */
export interface CreateSnapshotTask {
  readonly taskId: string;
  readonly kind: 'createSnapshot';
  readonly volumeId: string;
  readonly snapshotId: string;
  readonly sizeBytes: number;
  /** As with attachments: false means that there may be no image, which is a volume of zeros. */
  readonly hasImage: boolean;
  /** The newest snapshot of this volume before this one that still stands or is being made. */
  readonly parentSnapshotId?: string;
  /** CreateSnapshots: snapshots whose point in time is one and the same. Tasks of a group are listed together. */
  readonly group?: { readonly groupId: string; readonly snapshotIds: readonly string[] };
}

/** Restores a volume in the background, attached or not. Credentials: session name is the volume's id. */
export interface InitializeVolumeTask {
  readonly taskId: string;
  readonly kind: 'initializeVolume';
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly hasImage: boolean;
  readonly encryption?: VolumeEncryption;
  readonly source: RestoreSource;
}

/** Copies a snapshot's blocks under another data key (or none). Credentials: session name is `snapshotId`. */
export interface CopySnapshotTask {
  readonly taskId: string;
  readonly kind: 'copySnapshot';
  readonly snapshotId: string;
  readonly sourceSnapshotId: string;
  readonly sizeBytes: number;
  readonly sourceEncryption?: VolumeEncryption;
  readonly encryption?: VolumeEncryption;
}

/** Frees the blocks of a snapshot that none of `family` needs, then its manifest. Also ends one that is half made. */
export interface DeleteSnapshotTask {
  readonly taskId: string;
  readonly kind: 'deleteSnapshot';
  readonly snapshotId: string;
  /** All other snapshots that may share blocks with it: those with the same first ancestor, none of them pending. */
  readonly family: readonly string[];
}

/** How long an answer may wait for a change, ms. */
export const syncWaitMaxMs = 20_000;
