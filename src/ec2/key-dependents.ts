/** What can't be read any more once a KMS key is gone. The AWS API has no such list; `coffer key usage` asks for it. */
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { tables } from './records.ts';

export interface KeyDependents {
  /** All there are of the caller's account, however many the page shows. */
  readonly Counts: DependentCounts;
  /** For the key's own account: what others have under it, by account. */
  readonly OtherAccounts: ReadonlyArray<DependentCounts & { readonly Account: string }>;
  readonly Dependents: readonly Dependent[];
  readonly NextToken?: string;
}

export interface DependentCounts {
  readonly Volumes: number;
  readonly Snapshots: number;
  readonly Attachments: number;
}

export interface Dependent {
  readonly Type: DependentType;
  readonly Id: string;
  readonly State: string;
  readonly SizeGib: number;
  /** Of a volume. */
  readonly Attachments: ReadonlyArray<{ readonly InstanceId: string; readonly Device: string; readonly State: string }>;
}

type DependentType = 'volume' | 'snapshot';

export interface KeyDependentsInput {
  readonly KeyArn: string;
  readonly MaxResults: number;
  readonly NextToken?: string | undefined;
}

/** Pages go through the volumes first, then the snapshots, each in the order of their creation. */
interface Place {
  readonly type: DependentType;
  readonly after: number;
}

/** DescribeKeyDependents (internal): for who may see the account's volumes and snapshots. */
export const describeKeyDependents = operation<KeyDependentsInput, KeyDependents>({
  name: 'DescribeKeyDependents',
  effect: 'reads',
  audience: 'service',
  recorded: false,
  access: (call) => [allow(call, 'DescribeVolumes'), allow(call, 'DescribeSnapshots')],
  async handle(call, { KeyArn, MaxResults, NextToken }) {
    const counts = await countDependents(call, KeyArn);
    const isOwn = KeyArn.split(':')[4] === call.account;
    const found = await dependentsAfter(call, KeyArn, placeOf(NextToken), MaxResults + 1);
    const shown = found.slice(0, MaxResults);
    const last = shown.at(-1);
    return {
      Counts: counts.get(call.account) ?? none,
      OtherAccounts: isOwn
        ? [...counts].filter(([account]) => account !== call.account).map(([Account, each]) => ({ Account, ...each }))
        : [],
      Dependents: await withAttachments(call, shown),
      ...(last && found.length > shown.length ? { NextToken: `${last.Type}:${last.seq}` } : {}),
    };
  },
});

const none: DependentCounts = { Volumes: 0, Snapshots: 0, Attachments: 0 };

/** Of all accounts that have any. What is being deleted has lost its data key already. */
async function countDependents(call: Call, keyArn: string): Promise<Map<string, DependentCounts>> {
  const volumes = tables(call)
    .selectFrom('ec2_volumes')
    .where('key_arn', '=', keyArn)
    .where('ec2_volumes.state', '!=', 'deleting');
  const attached = volumes.innerJoin('ec2_attachments', 'ec2_attachments.volume_id', 'ec2_volumes.volume_id');
  const snapshots = shownSnapshots(call).where('key_arn', '=', keyArn);
  const counts = new Map<string, DependentCounts>();
  const add = (name: keyof DependentCounts, rows: ReadonlyArray<{ account: string; count: unknown }>) => {
    for (const { account, count } of rows)
      counts.set(account, { ...(counts.get(account) ?? none), [name]: Number(count) });
  };
  const column = 'ec2_volumes.account' as const;
  add(
    'Volumes',
    await volumes
      .select(({ fn }) => [column, fn.countAll().as('count')])
      .groupBy(column)
      .execute(),
  );
  add(
    'Attachments',
    await attached
      .select(({ fn }) => [column, fn.countAll().as('count')])
      .groupBy(column)
      .execute(),
  );
  add(
    'Snapshots',
    await snapshots
      .select(({ fn }) => ['account', fn.countAll().as('count')])
      .groupBy('account')
      .execute(),
  );
  return counts;
}

/** The snapshots that the API shows. */
function shownSnapshots(call: Call) {
  return tables(call).selectFrom('ec2_snapshots').where('is_marked', '=', 1).where('origin', '!=', 'internal');
}

type Found = Omit<Dependent, 'Attachments'> & { readonly seq: number };

async function dependentsAfter(call: Call, keyArn: string, place: Place, limit: number): Promise<Found[]> {
  const found: Found[] = [];
  if (place.type === 'volume') {
    const rows = await tables(call)
      .selectFrom('ec2_volumes')
      .select(['seq', 'volume_id', 'state', 'size_gib'])
      .where('key_arn', '=', keyArn)
      .where('account', '=', call.account)
      .where('state', '!=', 'deleting')
      .where('seq', '>', place.after)
      .orderBy('seq')
      .limit(limit)
      .execute();
    for (const { seq, volume_id, state, size_gib } of rows)
      found.push({ Type: 'volume', Id: volume_id, State: state, SizeGib: size_gib, seq });
  }
  const room = limit - found.length;
  if (room === 0) return found;
  const rows = await shownSnapshots(call)
    .select(['seq', 'snapshot_id', 'state', 'size_gib'])
    .where('key_arn', '=', keyArn)
    .where('account', '=', call.account)
    .where('seq', '>', place.type === 'snapshot' ? place.after : 0)
    .orderBy('seq')
    .limit(room)
    .execute();
  for (const { seq, snapshot_id, state, size_gib } of rows)
    found.push({ Type: 'snapshot', Id: snapshot_id, State: state, SizeGib: size_gib, seq });
  return found;
}

async function withAttachments(call: Call, found: readonly Found[]): Promise<Dependent[]> {
  const volumeIds = found.filter(({ Type }) => Type === 'volume').map(({ Id }) => Id);
  const rows =
    volumeIds.length === 0
      ? []
      : await tables(call)
          .selectFrom('ec2_attachments')
          .select(['volume_id', 'instance_id', 'device', 'status'])
          .where('volume_id', 'in', volumeIds)
          .orderBy('instance_id')
          .execute();
  return found.map(({ seq: _, ...dependent }) => ({
    ...dependent,
    Attachments: rows
      .filter((row) => row.volume_id === dependent.Id)
      .map((row) => ({ InstanceId: row.instance_id, Device: row.device, State: row.status })),
  }));
}

function placeOf(token: string | undefined): Place {
  const match = /^(volume|snapshot):(\d{1,15})$/.exec(token ?? '');
  return match ? { type: match[1] as DependentType, after: Number(match[2]) } : { type: 'volume', after: 0 };
}
