/** What EC2 tells EBS direct of a snapshot, and what EBS direct asks of EC2: internal operations of `ec2`, for services only. */

export interface DirectSnapshot {
  readonly SnapshotId: string;
  readonly OwnerId: string;
  /** Whether the caller is the owner; if not, it is shared with it. */
  readonly IsOwn: boolean;
  /** Whether it was begun by StartSnapshot. */
  readonly IsDirect: boolean;
  /** Whether blocks can be written to it: it was begun by StartSnapshot, and is neither completed nor given up. */
  readonly IsOpen: boolean;
  readonly State: 'pending' | 'completed' | 'error';
  readonly StateMessage: string | null;
  readonly Description: string;
  readonly VolumeSize: number;
  readonly SizeBytes: number;
  readonly StartTime: Date;
  readonly ParentSnapshotId: string | null;
  /** Snapshots of one family come of one first ancestor: their blocks can be compared. */
  readonly Family: string;
  /** The volume it was made from, or the arbitrary one of a copy. */
  readonly VolumeId: string;
  /** The host that takes its blocks, while it is open. */
  readonly HostId: string | null;
  readonly Encryption: {
    readonly KeyArn: string;
    readonly EncryptedDataKey: Uint8Array;
    readonly EncryptionContext: Readonly<Record<string, string>>;
  } | null;
  /** The owner's tags, for conditions on them; empty for one that is shared. */
  readonly Tags: ReadonlyMap<string, string>;
}

/** What it takes to move blocks of a snapshot now. */
export interface DirectAccess {
  /** The host to ask; null when none that reaches the block store is connected. */
  readonly HostId: string | null;
  /** The plaintext data key, 64 bytes, where one was asked for and there is one; whoever gets it wipes it. */
  readonly DataKey: Uint8Array | null;
}
