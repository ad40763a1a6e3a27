/** What can't be read any more once a KMS key is gone. The AWS API has no such list; `coffer key usage` asks for it. */
import { sql } from 'kysely';
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
  readonly Type: 'volume' | 'snapshot';
  readonly Id: string;
  readonly State: string;
  readonly SizeGib: number;
  /** Of a volume. */
  readonly Attachments: ReadonlyArray<{ readonly InstanceId: string; readonly Device: string; readonly State: string }>;
}

export interface KeyDependentsInput {
  readonly KeyArn: string;
  readonly MaxResults: number;
  readonly NextToken?: string | undefined;
}

/** Pages go through the volumes first, then the snapshots, each in the order of their creation. */
interface Place {
  readonly type: Dependent['Type'];
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
    const { items, rest } = await page(call, KeyArn, MaxResults, placeOf(NextToken));
    return {
      Counts: counts.get(call.account) ?? none,
      OtherAccounts: isOwn
        ? [...counts].filter(([account]) => account !== call.account).map(([Account, each]) => ({ Account, ...each }))
        : [],
      Dependents: items,
      ...(rest ? { NextToken: `${rest.type}:${rest.after}` } : {}),
    };
  },
});

const none: DependentCounts = { Volumes: 0, Snapshots: 0, Attachments: 0 };

async function countDependents(call: Call, keyArn: string): Promise<Map<string, DependentCounts>> {
  const volumes = await tables(call)
    .selectFrom('ec2_volumes')
    .leftJoin('ec2_attachments', 'ec2_attachments.volume_id', 'ec2_volumes.volume_id')
    .select([
      'ec2_volumes.account',
      sql<number>`count(distinct ec2_volumes.volume_id)`.as('volumes'),
      sql<number>`count(ec2_attachments.volume_id)`.as('attachments'),
    ])
    .where('key_arn', '=', keyArn)
    .where('ec2_volumes.state', '!=', 'deleting')
    .groupBy('ec2_volumes.account')
    .execute();
  return new Map(
    volumes.map((row) => [
      row.account,
      { Volumes: Number(row.volumes), Snapshots: 0, Attachments: Number(row.attachments) },
    ]),
  );
}

async function page(
  call: Call,
  keyArn: string,
  size: number,
  { after }: Place,
): Promise<{ items: Dependent[]; rest: Place | undefined }> {
  const rows = await tables(call)
    .selectFrom('ec2_volumes')
    .select(['seq', 'volume_id', 'state', 'size_gib'])
    .where('key_arn', '=', keyArn)
    .where('account', '=', call.account)
    // Its data key is destroyed already.
    .where('state', '!=', 'deleting')
    .where('seq', '>', after)
    .orderBy('seq')
    .limit(size + 1)
    .execute();
  const shown = rows.slice(0, size);
  const attachments = await attachmentsOf(
    call,
    shown.map((row) => row.volume_id),
  );
  const items = shown.map(
    (row): Dependent => ({
      Type: 'volume',
      Id: row.volume_id,
      State: row.state,
      SizeGib: row.size_gib,
      Attachments: attachments
        .filter((each) => each.volume_id === row.volume_id)
        .map((each) => ({ InstanceId: each.instance_id, Device: each.device, State: each.status })),
    }),
  );
  return { items, rest: rows.length > size ? { type: 'volume', after: shown.at(-1)!.seq } : undefined };
}

async function attachmentsOf(call: Call, volumeIds: readonly string[]) {
  if (volumeIds.length === 0) return [];
  return tables(call)
    .selectFrom('ec2_attachments')
    .select(['volume_id', 'instance_id', 'device', 'status'])
    .where('volume_id', 'in', volumeIds as string[])
    .orderBy('instance_id')
    .execute();
}

function placeOf(token: string | undefined): Place {
  const match = /^(volume|snapshot):(\d{1,15})$/.exec(token ?? '');
  return match ? { type: match[1] as Place['type'], after: Number(match[2]) } : { type: 'volume', after: 0 };
}
