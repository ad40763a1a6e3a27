/** Permissions boundaries: the managed policy that bounds what a user or role can be given. */
import type { AttachedPermissionsBoundary } from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { required } from '../aws/validate.ts';
import { check, noSuchEntity } from './errors.ts';
import {
  accessTo,
  arnText,
  type Conditions,
  existing,
  identitiesChanged,
  type NamedIdentity,
  nameOf,
  resolveIdentity,
  tablesOf,
} from './identities.ts';
import { findPolicy } from './policy-store.ts';
import type { Identity } from './records.ts';

/** @throws {AwsError} NoSuchEntity when the policy isn't there or is another account's */
export async function requireBoundary(call: Call, arn: string | undefined): Promise<void> {
  if (arn !== undefined && !(await findPolicy(call, arn)))
    throw noSuchEntity(`Scope ARN: ${arn} does not exist or is not attachable.`);
}

/** How the boundary shows in answers. */
export function boundaryOf(identity: Identity): { PermissionsBoundary?: AttachedPermissionsBoundary } {
  if (!identity.boundary_arn) return {};
  return {
    PermissionsBoundary: {
      PermissionsBoundaryType: 'PermissionsBoundaryPolicy',
      PermissionsBoundaryArn: identity.boundary_arn,
    },
  };
}

export const boundaryOperations: readonly Operation[] = (['user', 'role'] as const).flatMap((kind) => {
  const Kind = kind === 'user' ? 'User' : 'Role';
  type Input = { UserName?: string; RoleName?: string; PermissionsBoundary?: string };
  const member = `${Kind}Name` as 'UserName' | 'RoleName';
  const record = (_call: Call, input: Input) => ({
    requestParameters: { [`${kind}Name`]: input[member] ?? null, permissionsBoundary: input.PermissionsBoundary },
  });
  const set = async (call: Call, subject: NamedIdentity, arn: string | null) => {
    const identity = existing(subject);
    await requireBoundary(call, arn ?? undefined);
    await tablesOf(call)
      .updateTable('iam_identities')
      .set({ boundary_arn: arn })
      .where('id', '=', identity.id)
      .execute();
    await identitiesChanged(call);
    return {};
  };
  const boundaryContext = (arn: string | null | undefined): Conditions =>
    arn ? { 'iam:PermissionsBoundary': arn } : {};
  return [
    operation<Input, object, NamedIdentity>({
      name: `Put${Kind}PermissionsBoundary`,
      effect: 'writes',
      resolve(call, input) {
        check(input, { [member]: required(nameOf(kind)), PermissionsBoundary: required(arnText) });
        return resolveIdentity(call, kind, input[member]!);
      },
      access: (call, input, subject) => [
        accessTo(call, `Put${Kind}PermissionsBoundary`, subject, boundaryContext(input.PermissionsBoundary)),
      ],
      handle: (call, input, subject) => set(call, subject, input.PermissionsBoundary!),
      record,
    }),
    operation<Input, object, NamedIdentity>({
      name: `Delete${Kind}PermissionsBoundary`,
      effect: 'writes',
      resolve(call, input) {
        check(input, { [member]: required(nameOf(kind)) });
        return resolveIdentity(call, kind, input[member]!);
      },
      access: (call, _input, subject) => [
        accessTo(call, `Delete${Kind}PermissionsBoundary`, subject, boundaryContext(subject.found?.boundary_arn)),
      ],
      handle: (call, _input, subject) => set(call, subject, null),
      record,
    }),
  ];
});
