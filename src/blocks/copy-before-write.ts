/** How a point in time of a volume stands. `gone`: it was removed (`removeCow`), so it is not made a second time. */
export type PointInTime =
  | { readonly state: 'marked' | 'gone' }
  | {
      readonly state: 'lost';
      /** Why, as a sentence for users. */
      readonly reason: string;
    };

/** A point in time that can't be read (any more). */
export class PointInTimeError extends Error {
  /** `Missing`: there is none of that name. `Lost`: there was one, and trying again does not help. */
  readonly code: 'Missing' | 'Lost';

  constructor(code: 'Missing' | 'Lost', message: string) {
    super(message);
    this.name = 'PointInTimeError';
    this.code = code;
  }
}

/** How the point in time `snapshotId` of a volume stands; `gone` when there is none. Reads files only. */
export function pointInTime(volumesDir: string, volumeId: string, snapshotId: string): PointInTime {
  throw new Error(`not made yet: ${volumesDir} ${volumeId} ${snapshotId}`);
}

/**
 * Gives up the point in time `snapshotId` of a volume: its snapshot is complete, or nobody wants it any more. Its file goes
 * at once, or, while an older point in time reads through it, together with that one. Durable when it returns; doing it
 * again is harmless. The volume may be open or not.
 */
export function removeCow(volumesDir: string, volumeId: string, snapshotId: string): void {
  throw new Error(`not made yet: ${volumesDir} ${volumeId} ${snapshotId}`);
}
