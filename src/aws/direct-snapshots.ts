/**
 * What EBS direct asks of EC2, whose snapshots these are: internal operations of `ec2`, for services only. Each acts for
 * the caller, in the caller's account and region, and asks KMS for the caller where a key is needed.
 */

/** `FindDirectSnapshot` {SnapshotId}: one that the caller may see (own, shared, public). @throws InvalidSnapshot.NotFound */
export interface DirectSnapshot {
  readonly snapshotId: string;
  readonly ownerId: string;
  readonly state: 'pending' | 'completed' | 'error';
  /** Being written by StartSnapshot's caller. */
  readonly isUpload: boolean;
  readonly sizeGib: number;
  readonly isEncrypted: boolean;
  readonly keyArn?: string;
  readonly description: string;
  readonly startTime: Date;
  readonly parentSnapshotId?: string;
  /** The first ancestor's id: snapshots of one family can be compared. */
  readonly family: string;
  readonly tags: Readonly<Record<string, string>>;
  /** The host that shall serve its blocks: the one that takes the upload, else any that is live; absent when none is. */
  readonly hostId?: string;
}

/** `BeginDirectSnapshot`: makes the record of a snapshot that is going to be written. Answers a DirectSnapshot. */
export interface BeginDirectSnapshot {
  readonly VolumeSize: number;
  readonly ParentSnapshotId?: string | undefined;
  readonly Encrypted?: boolean | undefined;
  readonly KmsKeyArn?: string | undefined;
  readonly Description?: string | undefined;
  readonly Tags?: ReadonlyArray<{ readonly Key: string; readonly Value: string }> | undefined;
}

/**
 * `UseDirectSnapshotKey` {SnapshotId}: the plaintext data key, from KMS Decrypt for the caller; whoever gets it wipes it.
 */
export interface DirectSnapshotKey {
  readonly dataKey: Uint8Array;
}

/**
 * `EndDirectSnapshot`: completed with what was stored, or in error with the reason.
 */
export interface EndDirectSnapshot {
  readonly SnapshotId: string;
  readonly Progress?: number;
  readonly Outcome?: { readonly blocks: number; readonly fullBytes: number; readonly storedBytes: number };
  readonly Error?: string;
}
