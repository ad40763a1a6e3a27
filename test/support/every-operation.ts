/**
 * Valid input for every operation of every service, each on resources of its own, so that operations can be asked for one
 * after the other, by whoever is to be asked as.
 */
import { ebsInputs, ec2Inputs, onVolume } from './inputs/ec2.ts';
import { iamInputs, stsInputs } from './inputs/iam.ts';
import { type Inputs, nothing } from './inputs/inputs.ts';
import { kmsInputs, ofKey } from './inputs/kms.ts';

/** By service and operation. */
export const everyInput: Readonly<Record<string, Inputs>> = {
  kms: kmsInputs,
  ec2: ec2Inputs,
  ebs: ebsInputs,
  sts: stsInputs,
  iam: iamInputs,
  cloudtrail: { LookupEvents: nothing },
  coffer: {
    DescribeKeyUsage: ofKey,
    ListEvents: nothing,
    InspectVolume: onVolume(),
  },
};
