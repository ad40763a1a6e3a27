/** The policies of users, groups and roles: written into them, or managed ones attached. The three have the same operations. */
import type { AttachedPolicy } from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { required } from '../aws/validate.ts';
import { check, deleteConflict, limitExceeded, noSuchEntity } from './errors.ts';
import {
  accessTo,
  arnText,
  type Conditions,
  existing,
  identitiesChanged,
  type NamedIdentity,
  nameOf,
  pathPrefixText,
  policyNameText,
  resolveIdentity,
  tablesOf,
} from './identities.ts';
import { type PageInput, pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { encodeDocument, policyText, sizeOf } from './policy-documents.ts';
import { parseIdentityPolicy } from './policy-grammar.ts';
import { findPolicy } from './policy-store.ts';
import type { Identity, IdentityKind } from './records.ts';

/** Characters without white space, over all inline policies of one identity. Source: IAM user guide, quotas. */
const inlineSizeMax = { user: 2048, group: 5120, role: 10_240 } as const;
const attachmentsMax = 10;

interface Input extends PageInput {
  readonly UserName?: string;
  readonly GroupName?: string;
  readonly RoleName?: string;
  readonly PolicyName?: string;
  readonly PolicyDocument?: string;
  readonly PolicyArn?: string;
  readonly PathPrefix?: string;
}

const kinds = { user: 'User', group: 'Group', role: 'Role' } as const;

export const identityPolicyOperations: readonly Operation[] = (['user', 'group', 'role'] as const).flatMap((kind) => [
  ...inlineOperations(kind),
  ...attachmentOperations(kind),
]);

/** What the operations of one kind share: the name's member, its check, the trail's parameters. */
function common(kind: IdentityKind) {
  const Kind = kinds[kind];
  const member = `${Kind}Name` as 'UserName' | 'GroupName' | 'RoleName';
  return {
    Kind,
    member,
    resolve(call: Call, input: Input, rules: Parameters<typeof check>[1]): Promise<NamedIdentity> {
      check(input, { [member]: required(nameOf(kind)), ...rules });
      return resolveIdentity(call, kind, input[member]!);
    },
    record: (_call: Call, input: Input) => ({
      requestParameters: {
        [`${kind}Name`]: input[member] ?? null,
        policyName: input.PolicyName,
        policyArn: input.PolicyArn,
        policyDocument: input.PolicyDocument,
      },
    }),
    boundary: ({ found }: NamedIdentity): Conditions =>
      found?.boundary_arn ? { 'iam:PermissionsBoundary': found.boundary_arn } : {},
  };
}

function inlineOperations(kind: IdentityKind): readonly Operation[] {
  const { Kind, member, resolve, record, boundary } = common(kind);
  const notFound = (name: string) => noSuchEntity(`The ${kind} policy with name ${name} cannot be found.`);
  return [
    operation<Input, object, NamedIdentity>({
      name: `Put${Kind}Policy`,
      effect: 'writes',
      resolve: (call, input) =>
        resolve(call, input, { PolicyName: required(policyNameText), PolicyDocument: required(policyText) }),
      access: (call, _input, subject) => [accessTo(call, `Put${Kind}Policy`, subject, boundary(subject))],
      async handle(call, input, subject) {
        const identity = existing(subject);
        parseIdentityPolicy(input.PolicyDocument!);
        const row = { identity_id: identity.id, name: input.PolicyName!, document: input.PolicyDocument! };
        await tablesOf(call).replaceInto('iam_inline_policies').values(row).execute();
        const all = await inlinePolicies(call, identity);
        if (all.reduce((sum, { document }) => sum + sizeOf(document), 0) > inlineSizeMax[kind])
          throw limitExceeded(
            `Maximum policy size of ${inlineSizeMax[kind]} bytes exceeded for ${kind} ${identity.name}`,
          );
        await identitiesChanged(call);
        return {};
      },
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `Get${Kind}Policy`,
      effect: 'reads',
      resolve: (call, input) => resolve(call, input, { PolicyName: required(policyNameText) }),
      access: (call, _input, subject) => [accessTo(call, `Get${Kind}Policy`, subject)],
      async handle(call, input, subject) {
        const identity = existing(subject);
        const policy = (await inlinePolicies(call, identity)).find(({ name }) => name === input.PolicyName);
        if (!policy) throw notFound(input.PolicyName!);
        return {
          [member]: identity.name,
          PolicyName: policy.name,
          PolicyDocument: encodeDocument(policy.document),
        };
      },
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `List${Kind}Policies`,
      effect: 'reads',
      resolve: (call, input) => resolve(call, input, pageRules),
      access: (call, _input, subject) => [accessTo(call, `List${Kind}Policies`, subject)],
      async handle(call, input, subject) {
        const after = pageAfter(input);
        const all = (await inlinePolicies(call, existing(subject)))
          .map(({ name }) => name)
          .filter((name) => name > after);
        const { rows, rest } = pageOf(all, input, (name) => name);
        return { PolicyNames: rows, ...rest };
      },
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `Delete${Kind}Policy`,
      effect: 'writes',
      resolve: (call, input) => resolve(call, input, { PolicyName: required(policyNameText) }),
      access: (call, _input, subject) => [accessTo(call, `Delete${Kind}Policy`, subject, boundary(subject))],
      async handle(call, input, subject) {
        const { numDeletedRows } = await tablesOf(call)
          .deleteFrom('iam_inline_policies')
          .where('identity_id', '=', existing(subject).id)
          .where('name', '=', input.PolicyName!)
          .executeTakeFirst();
        if (numDeletedRows === 0n) throw notFound(input.PolicyName!);
        await identitiesChanged(call);
        return {};
      },
      record,
    }),
  ];
}

function attachmentOperations(kind: IdentityKind): readonly Operation[] {
  const { Kind, resolve, record, boundary } = common(kind);
  const access = (call: Call, action: string, input: Input, subject: NamedIdentity) => [
    accessTo(call, action, subject, { 'iam:PolicyARN': input.PolicyArn ?? '', ...boundary(subject) }),
  ];
  return [
    operation<Input, object, NamedIdentity>({
      name: `Attach${Kind}Policy`,
      effect: 'writes',
      resolve: (call, input) => resolve(call, input, { PolicyArn: required(arnText) }),
      access: (call, input, subject) => access(call, `Attach${Kind}Policy`, input, subject),
      async handle(call, input, subject) {
        const identity = existing(subject);
        const policy = await findPolicy(call, input.PolicyArn!);
        if (!policy) throw noSuchEntity(`Policy ${input.PolicyArn} does not exist or is not attachable.`);
        const attached = await attachedPolicies(call, identity);
        if (attached.some(({ arn }) => arn === policy.arn)) return {};
        if (attached.length >= attachmentsMax)
          throw limitExceeded(`Cannot exceed quota for PoliciesPer${Kind}: ${attachmentsMax}`);
        await tablesOf(call)
          .insertInto('iam_attachments')
          .values({ identity_id: identity.id, arn: policy.arn })
          .execute();
        await identitiesChanged(call);
        return {};
      },
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `Detach${Kind}Policy`,
      effect: 'writes',
      resolve: (call, input) => resolve(call, input, { PolicyArn: required(arnText) }),
      access: (call, input, subject) => access(call, `Detach${Kind}Policy`, input, subject),
      async handle(call, input, subject) {
        const { numDeletedRows } = await tablesOf(call)
          .deleteFrom('iam_attachments')
          .where('identity_id', '=', existing(subject).id)
          .where('arn', '=', input.PolicyArn!)
          .executeTakeFirst();
        if (numDeletedRows === 0n) throw noSuchEntity(`Policy ${input.PolicyArn} was not found.`);
        await identitiesChanged(call);
        return {};
      },
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `ListAttached${Kind}Policies`,
      effect: 'reads',
      resolve: (call, input) => resolve(call, input, { ...pageRules, PathPrefix: pathPrefixText }),
      access: (call, _input, subject) => [accessTo(call, `ListAttached${Kind}Policies`, subject)],
      async handle(call, input, subject) {
        const after = pageAfter(input);
        const all = (await attachedPolicies(call, existing(subject)))
          .filter(({ path, arn }) => path.startsWith(input.PathPrefix ?? '/') && arn > after)
          .slice(0, pageRows(input));
        const { rows, rest } = pageOf(all, input, ({ arn }) => arn);
        const policies: AttachedPolicy[] = rows.map(({ name, arn }) => ({ PolicyName: name, PolicyArn: arn }));
        return { AttachedPolicies: policies, ...rest };
      },
      record,
    }),
  ];
}

/** @throws {AwsError} DeleteConflict while an identity has policies of its own, or attached ones */
export async function requireNoPolicies(call: Call, identity: Identity): Promise<void> {
  if ((await inlinePolicies(call, identity)).length > 0)
    throw deleteConflict('Cannot delete entity, must delete policies first.');
  if ((await attachedPolicies(call, identity)).length > 0)
    throw deleteConflict('Cannot delete entity, must detach all policies first.');
}

function inlinePolicies(call: Call, { id }: Identity) {
  return tablesOf(call)
    .selectFrom('iam_inline_policies')
    .select(['name', 'document'])
    .where('identity_id', '=', id)
    .orderBy('name')
    .execute();
}

function attachedPolicies(call: Call, { id }: Identity) {
  return tablesOf(call)
    .selectFrom('iam_attachments')
    .innerJoin('iam_policies', 'iam_policies.arn', 'iam_attachments.arn')
    .select(['iam_policies.arn', 'iam_policies.name', 'iam_policies.path'])
    .where('identity_id', '=', id)
    .orderBy('iam_policies.arn')
    .execute();
}
