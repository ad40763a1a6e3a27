/** Volumes made: what is asked and refused, and encryption by default. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { account, otherAccount, stranger, World, zone } from './support/world.ts';

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.close());

const create = (more: object = {}, caller = {}) =>
  world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ...more }, caller);
const newKey = async (input: object = {}, caller = {}) => (await world.kms('CreateKey', input, caller)).KeyMetadata.Arn;

describe('CreateVolume', () => {
  test('shows at once, with the members that clients rely on', async () => {
    const made = await create();
    expect(made).toMatchObject({ State: 'creating', Encrypted: false, SnapshotId: '', VolumeType: 'gp2' });
    const { Volumes } = await world.ec2('DescribeVolumes', { VolumeIds: [made.VolumeId] });
    expect(Volumes).toEqual([
      {
        ...made,
        State: 'available',
        Size: 1,
        AvailabilityZone: zone,
        AvailabilityZoneId: 'use1-az1',
        CreateTime: new Date(world.clock.now()),
        Attachments: [],
        MultiAttachEnabled: false,
        FastRestored: false,
        Iops: 100,
        Tags: [],
      },
    ]);
    expect((await world.events()).at(-1)).toMatchObject({
      source: 'aws.ec2',
      'detail-type': 'EBS Volume Notification',
      account,
      region: 'us-east-1',
      resources: [`arn:aws:ec2:us-east-1:${account}:volume/${made.VolumeId}`],
      detail: { event: 'createVolume', result: 'available', cause: '' },
    });
  });

  test('leaves the records that the trail is known for', async () => {
    const KmsKeyId = await newKey();
    await world.kms('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: KmsKeyId });
    const { VolumeId } = await create({ Encrypted: true, KmsKeyId: 'alias/mine' });
    const [made] = await world.trail('CreateVolume');
    expect(made).toMatchObject({
      eventSource: 'ec2.amazonaws.com',
      readOnly: false,
      requestParameters: { size: '1', zone, encrypted: true, masterEncryptionKeyId: 'alias/mine' },
      responseElements: { volumeId: VolumeId, status: 'creating', encrypted: true, masterEncryptionKeyId: KmsKeyId },
    });
    const [dataKey] = await world.trail('GenerateDataKeyWithoutPlaintext');
    expect(dataKey).toMatchObject({
      eventSource: 'kms.amazonaws.com',
      sourceIPAddress: 'AWS Internal',
      userAgent: 'AWS Internal',
      userIdentity: { type: 'Root', accountId: account },
      requestParameters: { keyId: 'alias/mine', numberOfBytes: 64, encryptionContext: { 'aws:ebs:id': VolumeId } },
      responseElements: null,
      readOnly: true,
      resources: [{ ARN: KmsKeyId, accountId: account }],
    });
  });

  test('gives every volume a data key of its own', async () => {
    const volumes = [await create({ Encrypted: true }), await create({ Encrypted: true })];
    const keys = await Promise.all(
      volumes.map(async ({ VolumeId }) => (await world.call('coffer', 'InspectVolume', { VolumeId })).EncryptedDataKey),
    );
    expect(new Set(keys).size).toBe(2);
    expect(volumes[0].KmsKeyId).toBe(volumes[1].KmsKeyId);
    expect((await world.trail('GenerateDataKeyWithoutPlaintext'))[0].requestParameters.keyId).toBe('alias/aws/ebs');
  });

  test('takes a key by id, ARN, alias and alias ARN, and shows its ARN', async () => {
    const arn = await newKey();
    await world.kms('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: arn });
    const names = [arn.split('/')[1], arn, 'alias/mine', `arn:aws:kms:us-east-1:${account}:alias/mine`];
    for (const KmsKeyId of names) expect((await create({ Encrypted: true, KmsKeyId })).KmsKeyId).toBe(arn);
  });

  test('refuses a key that can not encrypt it at once: by its name, with its event, and without a volume', async () => {
    const rsa = await newKey({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
    const hmac = await newKey({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    const external = await newKey({ Origin: 'EXTERNAL' });
    const disabled = await newKey();
    await world.kms('DisableKey', { KeyId: disabled });
    const doomed = await newKey();
    await world.kms('ScheduleKeyDeletion', { KeyId: doomed });
    const foreign = await newKey({}, stranger);
    const missing = `arn:aws:kms:us-east-1:${account}:key/11111111-2222-3333-4444-555555555555`;
    const cases: Array<[string, string, string]> = [
      [rsa, 'InvalidParameterValue', 'asymmetric'],
      [hmac, 'InvalidParameterValue', 'HMAC'],
      [external, 'InvalidKMSKey.InvalidState', `${external} is pending import.`],
      [disabled, 'InvalidKMSKey.InvalidState', `${disabled} is disabled.`],
      [doomed, 'InvalidKMSKey.InvalidState', `${doomed} is pending deletion.`],
      [foreign, 'UnauthorizedOperation', foreign],
      [missing, 'InvalidParameterValue', missing],
      ['alias/nobody', 'InvalidParameterValue', 'alias/nobody'],
    ];
    for (const [KmsKeyId, code, part] of cases) {
      await expect(create({ Encrypted: true, KmsKeyId })).rejects.toMatchObject({
        code,
        message: expect.stringContaining(part),
      });
      const event = (await world.events('EBS Volume Notification')).at(-1)!;
      expect(event.detail).toMatchObject({ event: 'createVolume', result: 'failed' });
    }
    const causes = (await world.events('EBS Volume Notification')).map((event) => event.detail.cause);
    expect(causes).toContain(`${disabled} is disabled.`);
    expect((await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
    expect((await world.trail('CreateVolume')).map((record) => record.errorCode)).toEqual(
      cases.map(([, code]) => code),
    );
  });

  test('with a ClientToken makes one volume; other parameters or a volume that is gone are a mismatch', async () => {
    const request = { ClientToken: 'a'.repeat(64), Encrypted: true };
    const first = await create(request);
    expect((await create(request)).VolumeId).toBe(first.VolumeId);
    await expect(create({ ...request, Size: 2 })).rejects.toMatchObject({ code: 'IdempotentParameterMismatch' });
    await expect(create({ ClientToken: 'a'.repeat(65) })).rejects.toMatchObject({ code: 'InvalidParameterValue' });
    // The same token is another one in another account, region or operation.
    expect((await create(request, stranger)).VolumeId).not.toBe(first.VolumeId);
    await world.ec2('DeleteVolume', { VolumeId: first.VolumeId });
    await expect(create(request)).rejects.toMatchObject({ code: 'IdempotentParameterMismatch' });
    expect((await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
  });

  test('with DryRun checks everything, makes nothing and takes no token', async () => {
    const request = { ClientToken: 'once', Encrypted: true };
    await expect(create({ ...request, DryRun: true })).rejects.toMatchObject({
      code: 'DryRunOperation',
      httpStatus: 412,
    });
    await expect(create({ DryRun: true, Size: 0 })).rejects.toMatchObject({ code: 'InvalidParameterValue' });
    expect((await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
    expect(await world.trail('GenerateDataKeyWithoutPlaintext')).toEqual([]);
    await create({ ...request, Size: 2 });
  });

  test.each([
    [{ AvailabilityZone: undefined }, 'MissingParameter'],
    [{ AvailabilityZone: 'us-east-1z' }, 'InvalidZone.NotFound'],
    [{ AvailabilityZone: 'eu-west-1a' }, 'InvalidZone.NotFound'],
    [{ AvailabilityZoneId: 'use1-az1' }, 'InvalidParameterCombination'],
    [{ KmsKeyId: 'alias/aws/ebs' }, 'InvalidParameterDependency'],
    [{ KmsKeyId: 'alias/aws/ebs', Encrypted: false }, 'InvalidParameterDependency'],
    [{ SnapshotId: 'snap-0123456789abcdef0' }, 'InvalidSnapshot.NotFound'],
    [{ SnapshotId: 'x' }, 'InvalidParameterValue'],
    [{ VolumeInitializationRate: 100 }, 'InvalidParameterCombination'],
    [{ TagSpecifications: [{ ResourceType: 'snapshot', Tags: [] }] }, 'InvalidParameterValue'],
    [{ TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'aws:x', Value: '' }] }] }, 'InvalidParameterValue'],
  ])('refuses %j with %s', async (more, code) => {
    await expect(create(more)).rejects.toMatchObject({ code });
    expect((await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
  });
});

describe('encryption by default', () => {
  test('encrypts what nobody asked to encrypt, under the default key of the account and region', async () => {
    const key = await newKey();
    expect(await world.ec2('GetEbsEncryptionByDefault')).toMatchObject({ EbsEncryptionByDefault: false });
    expect(await world.ec2('GetEbsDefaultKmsKeyId')).toEqual({ KmsKeyId: 'alias/aws/ebs' });
    expect(await world.ec2('EnableEbsEncryptionByDefault')).toEqual({ EbsEncryptionByDefault: true });
    expect(await create({ Encrypted: false })).toMatchObject({ Encrypted: true });
    expect(await world.ec2('ModifyEbsDefaultKmsKeyId', { KmsKeyId: key })).toEqual({ KmsKeyId: key });
    expect(await world.ec2('GetEbsDefaultKmsKeyId')).toEqual({ KmsKeyId: key });
    expect(await create()).toMatchObject({ Encrypted: true, KmsKeyId: key });
    const named = await newKey();
    expect(await create({ KmsKeyId: named })).toMatchObject({ Encrypted: true, KmsKeyId: named });
    await world.ec2('ResetEbsDefaultKmsKeyId');
    expect((await create()).KmsKeyId).not.toBe(key);
    await world.ec2('DisableEbsEncryptionByDefault');
    expect(await create()).toMatchObject({ Encrypted: false });
  });

  test('is a setting of one account in one region', async () => {
    await world.ec2('EnableEbsEncryptionByDefault');
    expect(await create({ AvailabilityZone: 'eu-west-1a' }, { region: 'eu-west-1' })).toMatchObject({
      Encrypted: false,
    });
    expect(await create({}, stranger)).toMatchObject({ Encrypted: false });
  });

  test('takes no default key that can not encrypt', async () => {
    const rsa = await newKey({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' });
    for (const KmsKeyId of [rsa, 'alias/nobody'])
      await expect(world.ec2('ModifyEbsDefaultKmsKeyId', { KmsKeyId })).rejects.toMatchObject({
        code: 'InvalidParameterValue',
        message: expect.stringContaining(KmsKeyId),
      });
    expect(await world.ec2('GetEbsDefaultKmsKeyId')).toEqual({ KmsKeyId: 'alias/aws/ebs' });
  });
});

test('attributes: AutoEnableIO is kept, EnableVolumeIO has nothing to do, and others are refused', async () => {
  const { VolumeId } = await create();
  const attribute = (Attribute?: string) => world.ec2('DescribeVolumeAttribute', { VolumeId, Attribute });
  expect(await attribute('autoEnableIO')).toEqual({ VolumeId, AutoEnableIO: { Value: false } });
  await world.ec2('ModifyVolumeAttribute', { VolumeId, AutoEnableIO: { Value: true } });
  expect(await attribute('autoEnableIO')).toEqual({ VolumeId, AutoEnableIO: { Value: true } });
  expect(await attribute('productCodes')).toEqual({ VolumeId, ProductCodes: [] });
  await expect(attribute('size')).rejects.toMatchObject({ code: 'InvalidParameterValue' });
  await expect(attribute()).rejects.toMatchObject({ code: 'MissingParameter' });
  await expect(world.ec2('EnableVolumeIO', { VolumeId, DryRun: true })).rejects.toMatchObject({
    code: 'DryRunOperation',
  });
  expect(await world.ec2('EnableVolumeIO', { VolumeId })).toEqual({});
});

test('accounts and regions see nothing of each other', async () => {
  const { VolumeId } = await create({ Encrypted: true });
  const abroad = { region: 'eu-west-1' };
  for (const caller of [stranger, abroad]) {
    expect((await world.ec2('DescribeVolumes', {}, caller)).Volumes).toEqual([]);
    expect((await world.ec2('DescribeTags', {}, caller)).Tags).toEqual([]);
    for (const [operation, input] of [
      ['DescribeVolumes', { VolumeIds: [VolumeId] }],
      ['DescribeVolumeStatus', { VolumeIds: [VolumeId] }],
      ['DeleteVolume', { VolumeId }],
      ['ModifyVolumeAttribute', { VolumeId, AutoEnableIO: { Value: true } }],
    ] as const)
      await expect(world.ec2(operation, input, caller)).rejects.toMatchObject({ code: 'InvalidVolume.NotFound' });
    await expect(world.call('coffer', 'InspectVolume', { VolumeId }, caller)).rejects.toMatchObject({
      code: 'InvalidVolume.NotFound',
    });
  }
  await expect(world.call('coffer', 'DescribeHosts', {}, stranger)).rejects.toMatchObject({
    code: 'AccessDeniedException',
  });
  expect((await world.events()).filter((event) => event.account === otherAccount)).toEqual([]);
});
