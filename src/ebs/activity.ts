/** Tells EC2 that a snapshot is being written, so that it is not given up. */
import type { Call } from '../aws/call.ts';
import { asking } from './errors.ts';

/** A snapshot's activity is told at most this often, ms: far below any timeout. */
const noteEveryMs = 20_000;
const notedMax = 10_000;

export class Activity {
  readonly #notedAt = new Map<string, number>();

  /** A block has been written. @param progress percent, as the client sees it */
  async note(call: Call, snapshotId: string, progress: number | undefined): Promise<void> {
    const now = call.clock.now();
    const last = this.#notedAt.get(snapshotId);
    if (last !== undefined && now >= last && now - last < noteEveryMs) return;
    if (this.#notedAt.size >= notedMax) this.#notedAt.clear();
    this.#notedAt.set(snapshotId, now);
    await asking(() =>
      call.invoke('ec2', 'TouchDirectSnapshot', {
        SnapshotId: snapshotId,
        ...(progress === undefined ? {} : { Progress: progress }),
      }),
    );
  }
}
