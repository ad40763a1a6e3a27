/** Snapshots that are being written, and the end of those that were abandoned. */
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import type { EndDirectSnapshot } from '../aws/direct-snapshots.ts';
import type { EbsTables } from './records.ts';

/** The time of the last block is written at most this often, ms: far below any timeout. */
const noteEveryMs = 20_000;
/** How long the token of a StartSnapshot is remembered, ms. */
const tokenLifeMs = 24 * 3600_000;

export function tables(call: Call): Kysely<EbsTables> {
  return call.db;
}

/** Says that a block has been written. `call` has no transaction open. */
export async function noteActivity(call: Call, snapshotId: string, progress: number | undefined): Promise<void> {
  await call.transaction(async (inside) => {
    const now = inside.clock.now();
    const { numUpdatedRows } = await tables(inside)
      .updateTable('ebs_uploads')
      .set({ active_at: now })
      .where('snapshot_id', '=', snapshotId)
      .where('active_at', '<', now - noteEveryMs)
      .executeTakeFirst();
    if (progress !== undefined && numUpdatedRows > 0n)
      await endSnapshot(inside, { SnapshotId: snapshotId, Progress: progress });
  });
}

export async function endSnapshot(call: Call, end: EndDirectSnapshot): Promise<void> {
  await call.invoke('ec2', 'EndDirectSnapshot', end);
}

/** Ends the snapshots that nobody goes on writing, in error, and forgets old client tokens. */
export async function housekeeping(call: Call): Promise<void> {
  await call.transaction(async (inside) => {
    const now = inside.clock.now();
    const abandoned = await tables(inside)
      .deleteFrom('ebs_uploads')
      .where((row) => row(row.ref('active_at'), '<', row(row.val(now), '-', row.ref('timeout_ms'))))
      .returningAll()
      .execute();
    for (const { snapshot_id, account, region, timeout_ms } of abandoned)
      await endSnapshot(inside.asItself(account, region), {
        SnapshotId: snapshot_id,
        Error: `Nothing was written for ${Math.round(timeout_ms / 60_000)} minutes, the timeout that StartSnapshot was given.`,
      });
    await tables(inside)
      .deleteFrom('ebs_client_tokens')
      .where('created_at', '<', now - tokenLifeMs)
      .execute();
  });
}
