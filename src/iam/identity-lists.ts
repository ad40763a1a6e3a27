/** ListUsers, ListGroups and ListRoles: pages of an account's identities, by name. */
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { check } from './errors.ts';
import { iamAccess, pathPrefixText, tablesOf } from './identities.ts';
import { type PageInput, pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import type { Identity, IdentityKind } from './records.ts';

interface ListInput extends PageInput {
  readonly PathPrefix?: string;
}

/** @param show the answer's member with the identities of the page */
export function listOperation<Output extends object>(
  name: string,
  kind: IdentityKind,
  show: (rows: readonly Identity[], call: Call) => Output | Promise<Output>,
) {
  return operation<ListInput, Output & { IsTruncated: boolean; Marker?: string }>({
    name,
    effect: 'reads',
    resolve: (_call, input) => check(input, { ...pageRules, PathPrefix: pathPrefixText }),
    access: (call) => [iamAccess(call, name, `arn:aws:iam::${call.account}:${kind}/`)],
    async handle(call, input) {
      const { rows, rest } = pageOf(await read(call, kind, input), input, (row) => row.name_key);
      return { ...(await show(rows, call)), ...rest };
    },
  });
}

function read(call: Call, kind: IdentityKind, input: ListInput): Promise<Identity[]> {
  const prefix = input.PathPrefix ?? '/';
  return tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', call.account)
    .where('kind', '=', kind)
    .where('name_key', '>', pageAfter(input))
    .where((where) => where(where.fn('substr', ['path', where.lit(1), where.val(prefix.length)]), '=', prefix))
    .orderBy('name_key')
    .limit(pageRows(input))
    .execute();
}
