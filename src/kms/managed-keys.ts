/** AWS managed keys: made for an account and region when a predefined alias is first named, usable through one service. */
import { randomUUID } from 'node:crypto';
import { partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { newMaterial } from './key-specs.ts';
import type { Key, KeyStore } from './key-store.ts';

/** How often they rotate by themselves. Source: KMS developer guide, "AWS managed keys". */
const rotationDays = 365;
const msPerDay = 86_400_000;

interface ManagedKey {
  /** The service whose calls alone may use it. */
  readonly service: string;
  readonly description: string;
  readonly policyId: string;
  readonly sid: string;
}

const managedKeys: Readonly<Record<string, ManagedKey>> = {
  'alias/aws/ebs': {
    service: 'ec2',
    description: 'Default key that protects my EBS volumes when no other key is defined',
    policyId: 'auto-ebs-2',
    sid: 'Allow access through EBS for all principals in the account that are authorized to use EBS',
  },
};

export const managedAliases: readonly string[] = Object.keys(managedKeys);

export function isManagedAlias(alias: string): boolean {
  return Object.hasOwn(managedKeys, alias);
}

/** The service through which alone an AWS managed key may be used (`ec2.amazonaws.com`); undefined for other keys. */
export function managingService(key: Key): string | undefined {
  return key.managed_alias ? `${managedKeys[key.managed_alias]!.service}.amazonaws.com` : undefined;
}

/** Makes the key of a predefined alias; the caller knows that there is none yet. */
export async function ensureManagedKey(call: Call, store: KeyStore, alias: string): Promise<Key> {
  const managed = managedKeys[alias]!;
  const material = await newMaterial('SYMMETRIC_DEFAULT');
  try {
    return await store.insert(
      call,
      {
        key_id: randomUUID(),
        region: call.region,
        account: call.account,
        created_at: call.clock.now(),
        description: managed.description,
        key_usage: 'ENCRYPT_DECRYPT',
        key_spec: 'SYMMETRIC_DEFAULT',
        origin: 'AWS_KMS',
        key_manager: 'AWS',
        managed_alias: alias,
        state: 'Enabled',
        deletion_at: null,
        rotation_period_days: rotationDays,
        next_rotation_at: call.clock.now() + rotationDays * msPerDay,
        policy: JSON.stringify(managedPolicy(call, managed), null, 2),
      },
      material,
    );
  } finally {
    material.secret.fill(0);
  }
}

/** Everyone in the account, but only through the service; everyone may look. In the form of AWS's own. */
function managedPolicy(call: Call, { service, policyId, sid }: ManagedKey) {
  return {
    Version: '2012-10-17',
    Id: policyId,
    Statement: [
      {
        Sid: sid,
        Effect: 'Allow',
        Principal: { AWS: '*' },
        Action: [
          'kms:Encrypt',
          'kms:Decrypt',
          'kms:ReEncrypt*',
          'kms:GenerateDataKey*',
          'kms:CreateGrant',
          'kms:DescribeKey',
        ],
        Resource: '*',
        Condition: {
          StringEquals: {
            'kms:ViaService': `${service}.${call.region}.amazonaws.com`,
            'kms:CallerAccount': call.account,
          },
        },
      },
      {
        Sid: 'Allow direct access to key metadata to the account',
        Effect: 'Allow',
        Principal: { AWS: `arn:${partitionOf(call.region)}:iam::${call.account}:root` },
        Action: ['kms:Describe*', 'kms:Get*', 'kms:List*', 'kms:RevokeGrant'],
        Resource: '*',
      },
    ],
  };
}
