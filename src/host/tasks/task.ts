/** What the work of a task gets and gives; one file beside this one for each kind. */
import type { Logger } from 'pino';
import type { HostTask, SnapshotOutcome, VolumeEncryption } from '../../aws/host-protocol.ts';
import type { Uploads } from '../direct/uploads.ts';
import type { Mover } from '../movers/mover.ts';
import type { OpenVolumes } from '../volumes.ts';

export interface TaskWorld {
  /** Absolute: images and what lies beside them. */
  readonly volumesDir: string;
  /** Absolute: what tasks that belong to no volume note down. */
  readonly tasksDir: string;
  /** Where the blocks of snapshots are. */
  readonly storeLocation: string;
  /** Which store that is; undefined as long as none has been there. */
  readonly storeId: () => string | undefined;
  readonly volumes: OpenVolumes;
  readonly mover: Mover;
  /** What is being written of snapshots from outside. */
  readonly uploads: Pick<Uploads, 'giveUp'>;
  /**
   * A data key in a buffer of its own that the caller wipes, asked for as `aws:ec2-infrastructure/‹sessionName›`.
   * @throws {AwsError} KMS's refusal
   */
  dataKey(encryption: VolumeEncryption, sessionName: string, signal: AbortSignal): Promise<Buffer>;
  readonly log: Logger;
}

export interface TaskContext {
  /** Aborted when the task is no longer listed, or the process ends: the work stops soon, and rejects. */
  readonly signal: AbortSignal;
  /** Whole percent. Told to the control plane once in a while. */
  progress(percent: number): void;
}

/** Does a task from wherever an earlier attempt stopped; resolves when it is done. */
export type TaskWork<Kind extends HostTask['kind']> = (
  task: Extract<HostTask, { kind: Kind }>,
  world: TaskWorld,
  context: TaskContext,
) => Promise<SnapshotOutcome | undefined>;

/** A failure that trying again can't mend. */
export class FinalTaskError extends Error {}
