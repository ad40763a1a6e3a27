/** Tasks in the order in which they are to be done: accounts take turns, so that none waits for all that another wants. */
import type { Call } from '../aws/call.ts';
import type { CreateSnapshotTask, HostTask } from '../aws/host-protocol.ts';
import { type TaskRow, tables } from './records.ts';
import { rowOrder } from './sql-text.ts';

/** How many tasks of a kind a host does at a time, where one can take days. */
const places: { readonly [Kind in HostTask['kind']]?: number } = { initializeVolume: 16, copySnapshot: 16 };
/** So many times that are listed where nobody else wants some: enough for the next ones to begin at once. */
const listedAhead = 4;

/**
 * Up to about `limit` tasks of a host, or of a kind. For each account and kind they are the oldest, and oldest first; a group
 * of snapshots is whole.
 */
export async function tasksInTurn(
  call: Call,
  which: { readonly hostId: string } | { readonly kind: HostTask['kind'] },
  limit: number,
): Promise<TaskRow[]> {
  const all = tables(call).selectFrom('ec2_tasks');
  const asked = 'hostId' in which ? all.where('host_id', '=', which.hostId) : all.where('kind', '=', which.kind);
  const oldestFirst = asked.selectAll().orderBy('created_at').orderBy(rowOrder);
  const oldest = await oldestFirst.limit(limit + 1).execute();
  if (oldest.length <= limit) return inTurn(oldest);
  const owners = await asked.select(['kind', 'account']).distinct().execute();
  const share = Math.max(1, Math.floor(limit / owners.length));
  const rows: TaskRow[] = [];
  for (const { kind, account } of owners)
    rows.push(...(await oldestFirst.where('kind', '=', kind).where('account', '=', account).limit(share).execute()));
  const known = new Set(rows.map((row) => row.snapshot_id));
  const missing = rows.flatMap(groupOf).filter((snapshotId) => !known.has(snapshotId));
  if (missing.length > 0)
    rows.push(
      ...(await oldestFirst.where('kind', '=', 'createSnapshot').where('snapshot_id', 'in', missing).execute()),
    );
  return inTurn(rows);
}

/** The snapshots of the group that a task is one of. */
function groupOf({ kind, payload }: TaskRow): readonly string[] {
  if (kind !== 'createSnapshot' || !payload?.includes('"group"')) return [];
  return (JSON.parse(payload) as Pick<CreateSnapshotTask, 'group'>).group?.snapshotIds ?? [];
}

/** The first of each account and kind, then the second of each, and so on. */
function inTurn(rows: readonly TaskRow[]): TaskRow[] {
  const counts = new Map<string, number>();
  const turns = rows.map((row) => {
    const owner = `${row.kind} ${row.account}`;
    const turn = counts.get(owner) ?? 0;
    counts.set(owner, turn + 1);
    return { row, turn };
  });
  return turns.sort((one, other) => one.turn - other.turn).map(({ row }) => row);
}

/**
 * Without those that go beyond their account's share of a host's places: where several accounts want some, each has as many
 * as the others. Work that is interrupted so goes on later where it was.
 */
export function withinShares(rows: readonly TaskRow[]): TaskRow[] {
  const accounts = new Map<string, Set<string>>();
  for (const { kind, account } of rows) {
    const own = accounts.get(kind);
    if (own) own.add(account);
    else accounts.set(kind, new Set([account]));
  }
  const used = new Map<string, number>();
  return rows.filter(({ kind, account }) => {
    const [most, sharers] = [places[kind], accounts.get(kind)!.size];
    if (most === undefined) return true;
    const owner = `${kind} ${account}`;
    const count = (used.get(owner) ?? 0) + 1;
    used.set(owner, count);
    return count <= (sharers === 1 ? most * listedAhead : Math.ceil(most / sharers));
  });
}
