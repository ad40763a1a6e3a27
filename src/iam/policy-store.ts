/** Managed policies in the database. */
import type { Call } from '../aws/call.ts';
import { tablesOf } from './identities.ts';
import type { IamTables } from './records.ts';

export type ManagedPolicy = IamTables['iam_policies'];

/** A managed policy that the caller's account can use: its own, or one of AWS's. */
export function findPolicy(call: Call, arn: string): Promise<ManagedPolicy | undefined> {
  return tablesOf(call)
    .selectFrom('iam_policies')
    .selectAll()
    .where('arn', '=', arn)
    .where('account', 'in', [call.account, 'aws'])
    .executeTakeFirst();
}

/** To how many identities it is attached, and of how many it is the boundary; of this account only. */
export async function usageOf(call: Call, arn: string): Promise<{ attachments: number; boundaries: number }> {
  const iam = tablesOf(call);
  const attached = await iam
    .selectFrom('iam_attachments')
    .innerJoin('iam_identities', 'iam_identities.id', 'iam_attachments.identity_id')
    .select((select) => select.fn.countAll<number>().as('count'))
    .where('arn', '=', arn)
    .where('account', '=', call.account)
    .executeTakeFirstOrThrow();
  const boundaries = await iam
    .selectFrom('iam_identities')
    .select((select) => select.fn.countAll<number>().as('count'))
    .where('boundary_arn', '=', arn)
    .where('account', '=', call.account)
    .executeTakeFirstOrThrow();
  return { attachments: attached.count, boundaries: boundaries.count };
}
