/** The instance profile that an instance is run with, which hands a role on to it. Source: EC2 API reference, RunInstances. */
import type { IamInstanceProfileSpecification } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import type { AccessRequest } from '../aws/service.ts';
import { invalidCombination, invalidValue } from './errors.ts';

export interface ChosenProfile {
  readonly arn: string;
  readonly id: string;
  /** Leave to hand its role on. */
  readonly passRole: AccessRequest;
}

/** What IAM knows of a profile by its name. */
export interface KnownProfile {
  readonly Arn: string;
  readonly Id: string;
  readonly PassRole?: AccessRequest;
}

/** @throws {AwsError} InvalidParameterCombination; InvalidParameterValue when there is no such profile, or no role in it */
export async function profileOf(
  call: Call,
  asked: IamInstanceProfileSpecification | undefined,
): Promise<ChosenProfile | undefined> {
  const { Arn, Name } = asked ?? {};
  if (Arn === undefined && Name === undefined) return undefined;
  if (Arn !== undefined && Name !== undefined)
    throw invalidCombination(
      "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'",
    );
  const name = Name ?? Arn!.slice(Arn!.lastIndexOf('/') + 1);
  const { Profile } = await call.invoke<{ Profile?: KnownProfile }>('iam', 'DescribeInstanceProfile', { Name: name });
  if (!Profile || (Arn !== undefined && Profile.Arn !== Arn))
    throw invalidValue(
      Arn === undefined
        ? `Value (${Name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name`
        : `Value (${Arn}) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN`,
    );
  if (!Profile.PassRole) throw invalidValue(`IAM Instance Profile "${Profile.Arn}" has no associated IAM Roles`);
  return { arn: Profile.Arn, id: Profile.Id, passRole: Profile.PassRole };
}
