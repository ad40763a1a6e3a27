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
  /** Results of tasks that the answers still list. */
  readonly tasks: readonly TaskResult[];
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
}

export interface AttachmentError {
  /** The AWS error code of a refused Decrypt (`DisabledException`), or `InternalError` for the host's own troubles. */
  readonly code: string;
  /** A sentence that a user can act on. Never any key material. */
  readonly message: string;
}

export interface HeldCredentials {
  readonly instanceId: string;
  /** ISO 8601, as handed out. */
  readonly expiration: string;
}

export interface TaskResult {
  readonly taskId: string;
  readonly state: 'done' | 'failed';
  readonly error?: string;
}

/** What the control plane answers: all that this host shall have. What is not listed, the host closes and forgets. */
export interface SyncResponse {
  /** Changes whenever anything below but the credentials does; opaque, the same after a restart. */
  readonly version: string;
  /** Instances of this host that are not terminated; the directory of any other is removed. */
  readonly instances: readonly DesiredInstance[];
  readonly attachments: readonly DesiredAttachment[];
  /** For instances with an encrypted volume yet to be opened, unless the request says that the host holds good ones. */
  readonly credentials: readonly InstanceCredentials[];
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
}

/** What the host passes to KMS Decrypt in `region`, with the instance's credentials, to get the 64-byte data key. */
export interface VolumeEncryption {
  readonly keyArn: string;
  /** base64 */
  readonly encryptedDataKey: string;
  readonly encryptionContext: Readonly<Record<string, string>>;
}

/** Temporary credentials of the principal `aws:ec2-infrastructure/i-…`. */
export interface InstanceCredentials {
  readonly instanceId: string;
  readonly account: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  /** ISO 8601 */
  readonly expiration: string;
}

/** Work on a volume's image that outlives any attachment. Doing it twice is harmless. */
export interface HostTask {
  readonly taskId: string;
  readonly kind: 'eraseVolume';
  readonly volumeId: string;
}

/** How long an answer may wait for a change, ms. */
export const syncWaitMaxMs = 20_000;
