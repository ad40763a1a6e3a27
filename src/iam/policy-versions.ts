/** Versions of managed policies: at most five, one of them in force. Source: IAM API reference, CreatePolicyVersion. */
import type {
  CreatePolicyVersionRequest,
  CreatePolicyVersionResponse,
  GetPolicyVersionRequest,
  GetPolicyVersionResponse,
  ListPolicyVersionsRequest,
  ListPolicyVersionsResponse,
  PolicyVersion,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { boolean, required, text } from '../aws/validate.ts';
import { check, deleteConflict, limitExceeded, noSuchEntity } from './errors.ts';
import { accessTo, arnText, identitiesChanged, tablesOf } from './identities.ts';
import {
  changeablePolicy,
  checkManagedDocument,
  existingPolicy,
  type NamedPolicy,
  resolvePolicy,
} from './managed-policies.ts';
import { pageAfter, pageOf, pageRows, pageRules } from './paging.ts';
import { encodeDocument, policyText } from './policy-documents.ts';
import type { ManagedPolicy } from './policy-store.ts';
import type { IamTables } from './records.ts';

const versionsMax = 5;
const versionId = text({ pattern: /v[1-9][0-9]*(\.[A-Za-z0-9-]*)?/ });

type Row = IamTables['iam_policy_versions'];

const createPolicyVersion = operation<CreatePolicyVersionRequest, CreatePolicyVersionResponse, NamedPolicy>({
  name: 'CreatePolicyVersion',
  effect: 'writes',
  resolve(call, input) {
    check(input, { PolicyArn: required(arnText), PolicyDocument: required(policyText), SetAsDefault: boolean() });
    return resolvePolicy(call, input.PolicyArn!);
  },
  access: (call, _input, subject) => [accessTo(call, 'CreatePolicyVersion', subject)],
  async handle(call, input, subject) {
    const policy = changeablePolicy(subject);
    checkManagedDocument(input.PolicyDocument!);
    if ((await versionsOf(call, policy)).length >= versionsMax)
      throw limitExceeded(
        `A managed policy can have up to ${versionsMax} versions. Before you create a new version, you must delete an existing version.`,
      );
    const now = call.clock.now();
    const row: Row = {
      arn: policy.arn,
      version: policy.last_version + 1,
      document: input.PolicyDocument!,
      created_at: now,
    };
    const default_version = input.SetAsDefault ? row.version : policy.default_version;
    await tablesOf(call).insertInto('iam_policy_versions').values(row).execute();
    await updatePolicy(call, policy, { last_version: row.version, default_version, updated_at: now });
    return { PolicyVersion: describe(row, default_version) };
  },
  record: (_call, input, output) => ({
    requestParameters: {
      policyArn: input.PolicyArn ?? null,
      policyDocument: input.PolicyDocument,
      setAsDefault: input.SetAsDefault ?? false,
    },
    responseElements: output
      ? {
          policyVersion: {
            versionId: output.PolicyVersion!.VersionId,
            isDefaultVersion: output.PolicyVersion!.IsDefaultVersion,
          },
        }
      : null,
  }),
});

const getPolicyVersion = operation<GetPolicyVersionRequest, GetPolicyVersionResponse, NamedPolicy>({
  name: 'GetPolicyVersion',
  effect: 'reads',
  resolve: resolveWithVersion,
  access: (call, _input, subject) => [accessTo(call, 'GetPolicyVersion', subject)],
  async handle(call, input, subject) {
    const policy = existingPolicy(subject);
    const row = await versionOf(call, policy, input.VersionId!);
    return {
      PolicyVersion: { Document: encodeDocument(row.document), ...describe(row, policy.default_version) },
    };
  },
  record,
});

const listPolicyVersions = operation<ListPolicyVersionsRequest, ListPolicyVersionsResponse, NamedPolicy>({
  name: 'ListPolicyVersions',
  effect: 'reads',
  resolve(call, input) {
    check(input, { PolicyArn: required(arnText), ...pageRules });
    return resolvePolicy(call, input.PolicyArn!);
  },
  access: (call, _input, subject) => [accessTo(call, 'ListPolicyVersions', subject)],
  async handle(call, input, subject) {
    const policy = existingPolicy(subject);
    const before = Number(pageAfter(input) || Number.MAX_SAFE_INTEGER);
    const versions = (await versionsOf(call, policy)).filter(({ version }) => version < before);
    const { rows, rest } = pageOf(versions.slice(0, pageRows(input)), input, ({ version }) => String(version));
    return { Versions: rows.map((row) => describe(row, policy.default_version)), ...rest };
  },
  record,
});

const setDefaultPolicyVersion = operation<GetPolicyVersionRequest, object, NamedPolicy>({
  name: 'SetDefaultPolicyVersion',
  effect: 'writes',
  resolve: resolveWithVersion,
  access: (call, _input, subject) => [accessTo(call, 'SetDefaultPolicyVersion', subject)],
  async handle(call, input, subject) {
    const policy = changeablePolicy(subject);
    const { version } = await versionOf(call, policy, input.VersionId!);
    await updatePolicy(call, policy, { default_version: version, updated_at: call.clock.now() });
    return {};
  },
  record,
});

const deletePolicyVersion = operation<GetPolicyVersionRequest, object, NamedPolicy>({
  name: 'DeletePolicyVersion',
  effect: 'writes',
  resolve: resolveWithVersion,
  access: (call, _input, subject) => [accessTo(call, 'DeletePolicyVersion', subject)],
  async handle(call, input, subject) {
    const policy = changeablePolicy(subject);
    const { version } = await versionOf(call, policy, input.VersionId!);
    if (version === policy.default_version) throw deleteConflict('Cannot delete the default version of a policy.');
    await tablesOf(call)
      .deleteFrom('iam_policy_versions')
      .where('arn', '=', policy.arn)
      .where('version', '=', version)
      .execute();
    return {};
  },
  record,
});

export const policyVersionOperations: readonly Operation[] = [
  createPolicyVersion,
  getPolicyVersion,
  listPolicyVersions,
  setDefaultPolicyVersion,
  deletePolicyVersion,
];

function resolveWithVersion(call: Call, input: GetPolicyVersionRequest): Promise<NamedPolicy> {
  check(input, { PolicyArn: required(arnText), VersionId: required(versionId) });
  return resolvePolicy(call, input.PolicyArn!);
}

function record(_call: Call, input: { PolicyArn?: string; VersionId?: string }) {
  return { requestParameters: { policyArn: input.PolicyArn ?? null, versionId: input.VersionId } };
}

/** Newest first. */
function versionsOf(call: Call, { arn }: ManagedPolicy): Promise<Row[]> {
  return tablesOf(call)
    .selectFrom('iam_policy_versions')
    .selectAll()
    .where('arn', '=', arn)
    .orderBy('version', 'desc')
    .execute();
}

/** @throws {AwsError} NoSuchEntity */
async function versionOf(call: Call, policy: ManagedPolicy, id: string): Promise<Row> {
  const row = (await versionsOf(call, policy)).find(({ version }) => `v${version}` === id);
  if (!row) throw noSuchEntity(`Policy ${policy.arn} version ${id} does not exist or is not attachable.`);
  return row;
}

async function updatePolicy(call: Call, { arn }: ManagedPolicy, values: Partial<ManagedPolicy>): Promise<void> {
  await tablesOf(call).updateTable('iam_policies').set(values).where('arn', '=', arn).execute();
  await identitiesChanged(call);
}

function describe(row: Row, defaultVersion: number): PolicyVersion {
  return {
    VersionId: `v${row.version}`,
    IsDefaultVersion: row.version === defaultVersion,
    CreateDate: new Date(row.created_at),
  };
}
