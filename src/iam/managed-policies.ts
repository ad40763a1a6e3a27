/** Managed policies and their versions. Source: IAM API reference, CreatePolicy and its kin. */
import type {
  CreatePolicyRequest,
  CreatePolicyResponse,
  GetPolicyRequest,
  GetPolicyResponse,
  ListEntitiesForPolicyRequest,
  ListEntitiesForPolicyResponse,
  ListPoliciesRequest,
  ListPoliciesResponse,
  Policy,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { boolean, oneOf, required, text } from '../aws/validate.ts';
import { newIamId } from './access-keys.ts';
import { check, deleteConflict, entityAlreadyExists, limitExceeded, noSuchEntity } from './errors.ts';
import {
  accessTo,
  arnText,
  iamAccess,
  identitiesChanged,
  pathPrefixText,
  pathText,
  policyNameText,
  putTags,
  recordedTags,
  requestTags,
  tablesOf,
  tagListRule,
  tagsOf,
} from './identities.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { policyText, sizeOf } from './policy-documents.ts';
import { parseIdentityPolicy } from './policy-grammar.ts';
import { findPolicy, type ManagedPolicy, usageOf } from './policy-store.ts';

/** Characters without white space. Source: IAM user guide, quotas. */
const policySizeMax = 6144;
const policiesMax = 1500;

/** A managed policy that a request names, with its tags. */
export interface NamedPolicy {
  readonly arn: string;
  readonly found: ManagedPolicy | undefined;
  readonly tags: Awaited<ReturnType<typeof tagsOf>>;
}

export async function resolvePolicy(call: Call, arn: string): Promise<NamedPolicy> {
  const found = await findPolicy(call, arn);
  return { arn, found, tags: found ? await tagsOf(call, found.id) : [] };
}

/** @throws {AwsError} NoSuchEntity */
export function existingPolicy({ arn, found }: NamedPolicy): ManagedPolicy {
  if (!found) throw noSuchEntity(`Policy ${arn} was not found.`);
  return found;
}

/** A policy of the account's own: those of AWS are nobody's to change. */
export function changeablePolicy(named: NamedPolicy): ManagedPolicy {
  const policy = existingPolicy(named);
  if (policy.account === 'aws') throw noSuchEntity(`Policy ${policy.arn} was not found.`);
  return policy;
}

/** @throws {AwsError} MalformedPolicyDocument, LimitExceeded */
export function checkManagedDocument(document: string): void {
  parseIdentityPolicy(document);
  if (sizeOf(document) > policySizeMax) throw limitExceeded(`Cannot exceed quota for PolicySize: ${policySizeMax}`);
}

const createPolicy = operation<CreatePolicyRequest, CreatePolicyResponse, string>({
  name: 'CreatePolicy',
  effect: 'writes',
  resolve(call, input) {
    check(input, {
      PolicyName: required(policyNameText),
      Path: pathText,
      PolicyDocument: required(policyText),
      Description: text({ max: 1000 }),
      Tags: tagListRule,
    });
    return `arn:aws:iam::${call.account}:policy${input.Path ?? '/'}${input.PolicyName}`;
  },
  access: (call, input, arn) => [
    iamAccess(call, 'CreatePolicy', arn, requestTags(input.Tags)),
    ...(input.Tags?.length ? [iamAccess(call, 'TagPolicy', arn, requestTags(input.Tags))] : []),
  ],
  async handle(call, input, arn) {
    checkManagedDocument(input.PolicyDocument!);
    const iam = tablesOf(call);
    const nameKey = input.PolicyName!.toLowerCase();
    const mine = await iam.selectFrom('iam_policies').select('name_key').where('account', '=', call.account).execute();
    if (mine.some(({ name_key }) => name_key === nameKey))
      throw entityAlreadyExists(`A policy called ${input.PolicyName} already exists. Duplicate names are not allowed.`);
    if (mine.length >= policiesMax) throw limitExceeded(`Cannot exceed quota for PoliciesPerAccount: ${policiesMax}`);
    const now = call.clock.now();
    const policy: ManagedPolicy = {
      arn,
      id: newIamId('ANPA'),
      account: call.account,
      name: input.PolicyName!,
      name_key: nameKey,
      path: input.Path ?? '/',
      description: input.Description ?? null,
      default_version: 1,
      last_version: 1,
      created_at: now,
      updated_at: now,
    };
    await iam.insertInto('iam_policies').values(policy).execute();
    await iam
      .insertInto('iam_policy_versions')
      .values({ arn, version: 1, document: input.PolicyDocument!, created_at: now })
      .execute();
    await putTags(call, policy.id, input.Tags ?? []);
    // Sessions may be limited by one that had this ARN before.
    await identitiesChanged(call);
    return {
      Policy: { ...(await describePolicy(call, policy)), ...(input.Tags?.length ? { Tags: input.Tags } : {}) },
    };
  },
  record: (_call, input, output) => ({
    requestParameters: {
      policyName: input.PolicyName ?? null,
      path: input.Path,
      description: input.Description,
      policyDocument: input.PolicyDocument,
      tags: recordedTags(input.Tags),
    },
    responseElements: output
      ? {
          policy: { policyName: output.Policy!.PolicyName, policyId: output.Policy!.PolicyId, arn: output.Policy!.Arn },
        }
      : null,
  }),
});

const getPolicy = operation<GetPolicyRequest, GetPolicyResponse, NamedPolicy>({
  name: 'GetPolicy',
  effect: 'reads',
  resolve(call, input) {
    check(input, { PolicyArn: required(arnText) });
    return resolvePolicy(call, input.PolicyArn!);
  },
  access: (call, _input, subject) => [accessTo(call, 'GetPolicy', subject)],
  async handle(call, _input, subject) {
    const policy = existingPolicy(subject);
    const description = policy.description === null ? {} : { Description: policy.description };
    return { Policy: { ...(await describePolicy(call, policy)), ...description, Tags: subject.tags } };
  },
  record: (_call, input) => ({ requestParameters: { policyArn: input.PolicyArn ?? null } }),
});

const listPolicies = operation<ListPoliciesRequest, ListPoliciesResponse>({
  name: 'ListPolicies',
  effect: 'reads',
  resolve: (_call, input) =>
    check(input, {
      ...pageRules,
      Scope: oneOf(['All', 'AWS', 'Local']),
      OnlyAttached: boolean(),
      PathPrefix: pathPrefixText,
      PolicyUsageFilter: oneOf(['PermissionsPolicy', 'PermissionsBoundary']),
    }),
  access: (call) => [iamAccess(call, 'ListPolicies', `arn:aws:iam::${call.account}:policy/`)],
  async handle(call, input) {
    const accounts = [...(input.Scope === 'AWS' ? [] : [call.account]), ...(input.Scope === 'Local' ? [] : ['aws'])];
    const after = pageAfter(input);
    const policies = await tablesOf(call)
      .selectFrom('iam_policies')
      .selectAll()
      .where('account', 'in', accounts)
      .where('arn', '>', after)
      .orderBy('arn')
      .execute();
    const shown: Array<{ policy: ManagedPolicy; described: Policy }> = [];
    for (const policy of policies) {
      if (!policy.path.startsWith(input.PathPrefix ?? '/')) continue;
      const described = await describePolicy(call, policy);
      if (input.OnlyAttached && !described.AttachmentCount) continue;
      if (input.PolicyUsageFilter === 'PermissionsPolicy' && !described.AttachmentCount) continue;
      if (input.PolicyUsageFilter === 'PermissionsBoundary' && !described.PermissionsBoundaryUsageCount) continue;
      if (shown.push({ policy, described }) >= pageRows(input)) break;
    }
    const { rows, rest } = pageOf(shown, input, ({ policy }) => policy.arn);
    return { Policies: rows.map(({ described }) => described), ...rest };
  },
});

const deletePolicy = operation<GetPolicyRequest, object, NamedPolicy>({
  name: 'DeletePolicy',
  effect: 'writes',
  resolve(call, input) {
    check(input, { PolicyArn: required(arnText) });
    return resolvePolicy(call, input.PolicyArn!);
  },
  access: (call, _input, subject) => [accessTo(call, 'DeletePolicy', subject)],
  async handle(call, _input, subject) {
    const { arn, id } = changeablePolicy(subject);
    const iam = tablesOf(call);
    const usage = await usageOf(call, arn);
    if (usage.attachments + usage.boundaries > 0) throw deleteConflict('Cannot delete a policy attached to entities.');
    const versions = await iam.selectFrom('iam_policy_versions').select('version').where('arn', '=', arn).execute();
    if (versions.length > 1)
      throw deleteConflict(
        "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.",
      );
    await iam.deleteFrom('iam_policy_versions').where('arn', '=', arn).execute();
    await iam.deleteFrom('iam_tags').where('resource_id', '=', id).execute();
    await iam.deleteFrom('iam_policies').where('arn', '=', arn).execute();
    await identitiesChanged(call);
    return {};
  },
  record: (_call, input) => ({ requestParameters: { policyArn: input.PolicyArn ?? null } }),
});

const listEntitiesForPolicy = operation<ListEntitiesForPolicyRequest, ListEntitiesForPolicyResponse, NamedPolicy>({
  name: 'ListEntitiesForPolicy',
  effect: 'reads',
  resolve(call, input) {
    check(input, {
      ...pageRules,
      PolicyArn: required(arnText),
      EntityFilter: oneOf(['User', 'Role', 'Group', 'LocalManagedPolicy', 'AWSManagedPolicy']),
      PathPrefix: pathPrefixText,
      PolicyUsageFilter: oneOf(['PermissionsPolicy', 'PermissionsBoundary']),
    });
    return resolvePolicy(call, input.PolicyArn!);
  },
  access: (call, _input, subject) => [accessTo(call, 'ListEntitiesForPolicy', subject)],
  async handle(call, input, subject) {
    const { arn } = existingPolicy(subject);
    const iam = tablesOf(call);
    const isBoundary = input.PolicyUsageFilter === 'PermissionsBoundary';
    const attached = iam.selectFrom('iam_attachments').select('identity_id').where('arn', '=', arn);
    const all = await iam
      .selectFrom('iam_identities')
      .selectAll()
      .where('account', '=', call.account)
      .where((where) => (isBoundary ? where('boundary_arn', '=', arn) : where('id', 'in', attached)))
      .where('id', '>', pageAfter(input))
      .orderBy('id')
      .execute();
    const kind = input.EntityFilter?.toLowerCase();
    const wanted = all.filter(
      (row) => (kind === undefined || row.kind === kind) && row.path.startsWith(input.PathPrefix ?? '/'),
    );
    const { rows, rest } = pageOf(wanted, input, (row) => row.id);
    const of = (wantedKind: string) => rows.filter((row) => row.kind === wantedKind);
    return {
      PolicyUsers: of('user').map(({ name, id }) => ({ UserName: name, UserId: id })),
      PolicyGroups: of('group').map(({ name, id }) => ({ GroupName: name, GroupId: id })),
      PolicyRoles: of('role').map(({ name, id }) => ({ RoleName: name, RoleId: id })),
      ...rest,
    };
  },
  record: (_call, input) => ({ requestParameters: { policyArn: input.PolicyArn ?? null } }),
});

export const managedPolicyOperations: readonly Operation[] = [
  createPolicy,
  getPolicy,
  listPolicies,
  deletePolicy,
  listEntitiesForPolicy,
];

async function describePolicy(call: Call, policy: ManagedPolicy): Promise<Policy> {
  const usage = await usageOf(call, policy.arn);
  return {
    PolicyName: policy.name,
    PolicyId: policy.id,
    Arn: policy.arn,
    Path: policy.path,
    DefaultVersionId: `v${policy.default_version}`,
    AttachmentCount: usage.attachments,
    PermissionsBoundaryUsageCount: usage.boundaries,
    IsAttachable: true,
    CreateDate: new Date(policy.created_at),
    UpdateDate: new Date(policy.updated_at),
  };
}
