/** What EC2 does by itself every minute, and at start: finishes what a crash or a lost host left open, and forgets. */
import type { Call } from '../aws/call.ts';
import { settleInstance } from './attachment-flow.ts';
import { tokenLifeMs } from './client-tokens.ts';
import { expireDirectSnapshots } from './direct-snapshots.ts';
import { completeClosed } from './modification-store.ts';
import { tables } from './records.ts';
import { undoSnapshot } from './snapshot-ends.ts';
import { resumeDeletions } from './volume-store.ts';

/** How long a terminated instance stays to be seen, ms. */
const terminatedShownMs = 3600_000;
const failureLifeMs = 600_000;
/** Nobody waits longer than this for a snapshot's point in time, ms. */
const unmarkedLifeMs = 60_000;

export async function housekeeping(call: Call): Promise<void> {
  await call.transaction(async (inside) => {
    await settleInstances(inside);
    await forgetTerminated(inside);
    await endForgottenSnapshots(inside);
    await expireDirectSnapshots(inside);
    await resumeDeletions(inside);
    await completeClosed(inside);
    const now = inside.clock.now();
    await tables(inside)
      .deleteFrom('ec2_failures')
      .where('created_at', '<', now - failureLifeMs)
      .execute();
    await tables(inside)
      .deleteFrom('ec2_client_tokens')
      .where('created_at', '<', now - tokenLifeMs)
      .execute();
  });
}

/** Snapshots whose point in time was never fixed because the call that asked for them died. */
async function endForgottenSnapshots(call: Call): Promise<void> {
  const forgotten = await tables(call)
    .selectFrom('ec2_snapshots')
    .selectAll()
    .where('state', '=', 'pending')
    .where('is_marked', '=', 0)
    .where('started_at', '<', call.clock.now() - unmarkedLifeMs)
    .execute();
  for (const snapshot of forgotten) await undoSnapshot(call.asItself(snapshot.account, snapshot.region), snapshot);
}

/** Instances on their way to another state get there when nothing holds them any more. */
async function settleInstances(call: Call): Promise<void> {
  const onTheWay = await tables(call)
    .selectFrom('ec2_instances')
    .select(['instance_id', 'account', 'region'])
    .where('state', 'in', ['pending', 'stopping', 'shutting-down'])
    .execute();
  for (const { instance_id, account, region } of onTheWay)
    await settleInstance(call.asItself(account, region), instance_id);
}

async function forgetTerminated(call: Call): Promise<void> {
  const terminated = await tables(call)
    .selectFrom('ec2_instances')
    .select('instance_id')
    .where('state', '=', 'terminated')
    .where('ended_at', '<', call.clock.now() - terminatedShownMs)
    .limit(1000)
    .execute();
  const ids = terminated.map((row) => row.instance_id);
  if (ids.length === 0) return;
  await tables(call).deleteFrom('ec2_tags').where('resource_id', 'in', ids).execute();
  await tables(call).deleteFrom('ec2_instances').where('instance_id', 'in', ids).execute();
}
