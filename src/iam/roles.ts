/** Roles. Source: IAM API reference, CreateRole and its kin. */
import type {
  CreateRoleRequest,
  CreateRoleResponse,
  DeleteRoleRequest,
  GetRoleResponse,
  ListRolesResponse,
  Role,
  UpdateAssumeRolePolicyRequest,
  UpdateRoleRequest,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type PrincipalIds, shownPolicy } from '../aws/policy-principals.ts';
import { type Operation, operation } from '../aws/service.ts';
import { integer, required, text } from '../aws/validate.ts';
import { boundaryOf, requireBoundary } from './boundaries.ts';
import { check, deleteConflict, limitExceeded } from './errors.ts';
import {
  accessTo,
  accessToCreate,
  arnText,
  deleteIdentity,
  existing,
  identitiesChanged,
  insertIdentity,
  type NamedIdentity,
  nameOf,
  pathText,
  recordedTags,
  resolveIdentity,
  resolveNewIdentity,
  tablesOf,
  tagListRule,
} from './identities.ts';
import { listOperation } from './identity-lists.ts';
import { requireNoPolicies } from './policies-of-identities.ts';
import { encodeDocument, policyText, sizeOf } from './policy-documents.ts';
import { parseTrustPolicy } from './policy-grammar.ts';
import { arnsOf, trustedIds } from './principal-ids.ts';
import { identityArn } from './principals.ts';
import type { Identity } from './records.ts';

const roleName = nameOf('role');
const sessionDuration = integer({ min: 3600, max: 43_200 });
const description = text({ max: 1000 });
/** Characters without white space. Source: IAM user guide, quotas. */
const trustPolicySizeMax = 2048;

/** Checks a trust policy, and finds out whom it means. */
async function trustColumns(call: Call, text: string): Promise<Pick<Identity, 'trust_policy' | 'trusted_ids'>> {
  const document = parseTrustPolicy(text);
  if (sizeOf(text) > trustPolicySizeMax)
    throw limitExceeded(`Cannot exceed quota for ACLSizePerRole: ${trustPolicySizeMax}`);
  return { trust_policy: text, trusted_ids: JSON.stringify(await trustedIds(call, document)) };
}

const createRole = operation<CreateRoleRequest, CreateRoleResponse, NamedIdentity>({
  name: 'CreateRole',
  effect: 'writes',
  resolve(call, input) {
    check(input, {
      RoleName: required(roleName),
      AssumeRolePolicyDocument: required(policyText),
      Path: pathText,
      Description: description,
      MaxSessionDuration: sessionDuration,
      PermissionsBoundary: arnText,
      Tags: tagListRule,
    });
    return resolveNewIdentity(call, 'role', input.RoleName!, input.Path);
  },
  access: (call, input, subject) => accessToCreate(call, 'Role', subject, input),
  async handle(call, input) {
    const trust = await trustColumns(call, input.AssumeRolePolicyDocument!);
    await requireBoundary(call, input.PermissionsBoundary);
    const role = await insertIdentity(
      call,
      'role',
      {
        name: input.RoleName!,
        path: input.Path ?? '/',
        description: input.Description ?? null,
        ...trust,
        session_max_s: input.MaxSessionDuration ?? 3600,
        boundary_arn: input.PermissionsBoundary ?? null,
      },
      input.Tags,
    );
    return { Role: { ...describeRole(role), ...(input.Tags?.length ? { Tags: input.Tags } : {}) } };
  },
  record: (_call, input, output) => ({
    requestParameters: {
      roleName: input.RoleName ?? null,
      path: input.Path,
      description: input.Description,
      assumeRolePolicyDocument: input.AssumeRolePolicyDocument,
      maxSessionDuration: input.MaxSessionDuration,
      permissionsBoundary: input.PermissionsBoundary,
      tags: recordedTags(input.Tags),
    },
    responseElements: output
      ? { role: { roleName: output.Role!.RoleName, roleId: output.Role!.RoleId, arn: output.Role!.Arn } }
      : null,
  }),
});

const listRoles = listOperation(
  'ListRoles',
  'role',
  async (rows, call): Promise<Pick<ListRolesResponse, 'Roles'>> => ({
    Roles: await Promise.all(rows.map((row) => currentRole(call, row))),
  }),
);

type AboutRole = DeleteRoleRequest & UpdateRoleRequest & Partial<Pick<UpdateAssumeRolePolicyRequest, 'PolicyDocument'>>;

/** An operation on one role by its name. */
function onRole<Output>(
  name: string,
  effect: 'reads' | 'writes',
  rules: Parameters<typeof check>[1],
  handle: (call: Call, role: Identity, input: AboutRole, named: NamedIdentity) => Promise<Output> | Output,
) {
  return operation<AboutRole, Output, NamedIdentity>({
    name,
    effect,
    resolve(call, input) {
      check(input, { RoleName: required(roleName), ...rules });
      return resolveIdentity(call, 'role', input.RoleName!);
    },
    access: (call, _input, subject) => [accessTo(call, name, subject)],
    handle: (call, input, subject) => handle(call, existing(subject), input, subject),
    record: (_call, input) => ({
      requestParameters: {
        roleName: input.RoleName ?? null,
        description: input.Description,
        maxSessionDuration: input.MaxSessionDuration,
        policyDocument: input.PolicyDocument,
      },
    }),
  });
}

const getRole = onRole<GetRoleResponse>('GetRole', 'reads', {}, async (call, role, _input, { tags }) => ({
  Role: { ...(await currentRole(call, role)), ...boundaryOf(role), ...(tags.length ? { Tags: [...tags] } : {}) },
}));

const updateRole = onRole(
  'UpdateRole',
  'writes',
  { Description: description, MaxSessionDuration: sessionDuration },
  async (call, role, input) => {
    await change(call, role, {
      description: input.Description ?? role.description,
      session_max_s: input.MaxSessionDuration ?? role.session_max_s,
    });
    return {};
  },
);

/** An older way to the same. */
const updateRoleDescription = onRole(
  'UpdateRoleDescription',
  'writes',
  { Description: required(description) },
  async (call, role, { Description }) => {
    await change(call, role, { description: Description! });
    return { Role: await currentRole(call, { ...role, description: Description! }) };
  },
);

const updateAssumeRolePolicy = onRole(
  'UpdateAssumeRolePolicy',
  'writes',
  { PolicyDocument: required(policyText) },
  async (call, role, input) => {
    await change(call, role, await trustColumns(call, input.PolicyDocument!));
    return {};
  },
);

const deleteRole = onRole('DeleteRole', 'writes', {}, async (call, role) => {
  const profile = await tablesOf(call)
    .selectFrom('iam_instance_profiles')
    .select('id')
    .where('role_id', '=', role.id)
    .limit(1)
    .executeTakeFirst();
  if (profile) throw deleteConflict('Cannot delete entity, must remove roles from instance profile first.');
  await requireNoPolicies(call, role);
  await deleteIdentity(call, role);
  return {};
});

export const roleOperations: readonly Operation[] = [
  createRole,
  getRole,
  listRoles,
  updateRole,
  updateRoleDescription,
  updateAssumeRolePolicy,
  deleteRole,
];

async function change(call: Call, { id }: Identity, values: Partial<Identity>): Promise<void> {
  await tablesOf(call).updateTable('iam_identities').set(values).where('id', '=', id).execute();
  await identitiesChanged(call);
}

/** A role, its trust policy naming whom it trusts as they are called now. */
export async function currentRole(call: Call, role: Identity): Promise<Role> {
  const ids: PrincipalIds = JSON.parse(role.trusted_ids ?? '{}');
  const trust_policy = shownPolicy(role.trust_policy ?? '', ids, await arnsOf(call, Object.values(ids)));
  return describeRole({ ...role, trust_policy });
}

function describeRole(role: Identity): Role {
  return {
    Path: role.path,
    RoleName: role.name,
    RoleId: role.id,
    Arn: identityArn(role),
    CreateDate: new Date(role.created_at),
    AssumeRolePolicyDocument: encodeDocument(role.trust_policy ?? ''),
    ...(role.description === null ? {} : { Description: role.description }),
    MaxSessionDuration: role.session_max_s ?? 3600,
  };
}
