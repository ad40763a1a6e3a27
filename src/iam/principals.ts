/** How the principals of this system look in ARNs, in STS answers and in the trail. */

import { partitionOf } from '../aws/arn.ts';
import type { Principal } from '../aws/call.ts';
import type { Identity } from './records.ts';

/** The role as which a host asks for an instance's data keys. Source: KMS developer guide, EBS encryption in CloudTrail. */
export const infrastructureRole = 'aws:ec2-infrastructure';

export function rootPrincipal(account: string, accessKeyId?: string): Principal {
  return { type: 'Root', account, arn: `arn:aws:iam::${account}:root`, principalId: account, accessKeyId };
}

export function userPrincipal(user: Identity, accessKeyId?: string): Principal {
  return {
    type: 'IAMUser',
    account: user.account,
    arn: identityArn(user),
    principalId: user.id,
    userName: user.name,
    accessKeyId,
  };
}

/** `arn:aws:iam::123456789012:user/division/alice` */
export function identityArn({ account, kind, path, name }: Pick<Identity, 'account' | 'kind' | 'path' | 'name'>) {
  return `arn:aws:iam::${account}:${kind}${path}${name}`;
}

/** A host of this system; its credentials open only the operations that are for hosts. */
export function hostPrincipal(account: string, hostId: string, accessKeyId: string): Principal {
  return {
    type: 'AWSService',
    account,
    arn: `arn:aws:iam::${account}:host/${hostId}`,
    principalId: hostId,
    userName: hostId,
    accessKeyId,
  };
}

/** The host of one instance, asking for the keys of the volumes attached to it. */
export function infrastructurePrincipal(account: string, region: string, instanceId: string): Principal {
  const partition = partitionOf(region);
  return {
    type: 'AssumedRole',
    account,
    arn: `arn:${partition}:sts::${account}:assumed-role/${infrastructureRole}/${instanceId}`,
    principalId: `${account}:${infrastructureRole}:${instanceId}`,
    sessionIssuer: {
      arn: `arn:${partition}:iam::${account}:role/${infrastructureRole}`,
      principalId: `${account}:${infrastructureRole}`,
      userName: infrastructureRole,
    },
  };
}
