import { beforeEach, describe, expect, test } from 'vitest';
import { otherAccount, root, TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});
const throughEc2 = { via: 'ec2.amazonaws.com' };

describe('alias/aws/ebs', () => {
  test('is listed before its key exists, and names it afterwards', async () => {
    const AliasArn = 'arn:aws:kms:us-east-1:123456789012:alias/aws/ebs';
    expect((await kms.run('ListAliases')).Aliases).toEqual([{ AliasName: 'alias/aws/ebs', AliasArn }]);
    const { KeyMetadata } = await kms.run('DescribeKey', { KeyId: 'alias/aws/ebs' });
    expect(KeyMetadata).toMatchObject({ KeyManager: 'AWS', KeyState: 'Enabled', KeySpec: 'SYMMETRIC_DEFAULT' });
    expect((await kms.run('ListAliases')).Aliases).toMatchObject([{ AliasArn, TargetKeyId: KeyMetadata.KeyId }]);
    expect((await kms.run('ListAliases', { KeyId: KeyMetadata.KeyId })).Aliases).toHaveLength(1);
    expect((await kms.run('DescribeKey', { KeyId: AliasArn })).KeyMetadata.KeyId).toBe(KeyMetadata.KeyId);
  });

  test('is one key in each account and region', async () => {
    const ids = new Set<string>();
    for (const ofAccount of ['123456789012', otherAccount])
      for (const region of ['us-east-1', 'eu-west-1', 'us-east-1'])
        ids.add(
          (await kms.run('DescribeKey', { KeyId: 'alias/aws/ebs' }, { principal: root(ofAccount), region })).KeyMetadata
            .KeyId,
        );
    expect(ids.size).toBe(4);
  });

  test('other predefined names have no key', async () => {
    for (const KeyId of ['alias/aws/s3', 'alias/aws/', 'alias/aws/constructor'])
      expect(await kms.code('DescribeKey', { KeyId })).toBe('NotFoundException');
  });

  test('asks to be used through EC2 only, by its policy and by the request', async () => {
    await kms.run('GenerateDataKeyWithoutPlaintext', { KeyId: 'alias/aws/ebs', NumberOfBytes: 64 }, throughEc2);
    const [access] = kms.last.access;
    expect(access).toMatchObject({ onlyVia: 'ec2.amazonaws.com', action: 'kms:GenerateDataKeyWithoutPlaintext' });
    expect(access!.resourcePolicy).toMatchObject({
      Statement: [
        {
          Principal: { AWS: '*' },
          Condition: {
            StringEquals: { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com', 'kms:CallerAccount': '123456789012' },
          },
        },
        { Action: ['kms:Describe*', 'kms:Get*', 'kms:List*', 'kms:RevokeGrant'] },
      ],
    });
  });

  test('is changed by nobody, whoever may', async () => {
    const { KeyId, Arn } = (await kms.run('DescribeKey', { KeyId: 'alias/aws/ebs' })).KeyMetadata;
    const { Policy } = await kms.run('GetKeyPolicy', { KeyId });
    const changes: Array<[string, object]> = [
      ['DisableKey', { KeyId }],
      ['EnableKey', { KeyId }],
      ['ScheduleKeyDeletion', { KeyId }],
      ['CancelKeyDeletion', { KeyId }],
      ['UpdateKeyDescription', { KeyId, Description: 'x' }],
      ['PutKeyPolicy', { KeyId, Policy }],
      ['TagResource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] }],
      ['UntagResource', { KeyId, TagKeys: ['a'] }],
      ['CreateAlias', { AliasName: 'alias/x', TargetKeyId: KeyId }],
    ];
    for (const [name, input] of changes)
      expect(await kms.fails(name, input, throughEc2), name).toEqual({
        code: 'AccessDeniedException',
        message: expect.stringContaining(
          `User: arn:aws:iam::123456789012:root is not authorized to perform: kms:${name} on resource: ${Arn} because `,
        ),
      });
    const { KeyId: mine } = await kms.key();
    for (const [name, input] of [
      ['CreateAlias', { TargetKeyId: mine }],
      ['UpdateAlias', { TargetKeyId: mine }],
      ['DeleteAlias', {}],
    ] as const)
      expect(await kms.code(name, { AliasName: 'alias/aws/ebs', ...input })).toBe('NotAuthorizedException');
  });
});
