/** Volumes, tags, filters and encryption by default, operation by operation. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { account, FakeHost, otherAccount, stranger, World, zone } from './support/world.ts';

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.close());

const create = (more: object = {}, caller = {}) =>
  world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ...more }, caller);
const ids = (volumes: Array<{ VolumeId: string }>) => volumes.map((volume) => volume.VolumeId);
const filtered = async (Name: string, ...Values: string[]) =>
  ids((await world.ec2('DescribeVolumes', { Filters: [{ Name, Values }] })).Volumes);
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
      [foreign, 'InvalidParameterValue', foreign],
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

describe('DescribeVolumes', () => {
  test('by ids fails as a whole and names all that are missing', async () => {
    const { VolumeId } = await create();
    const missing = ['vol-00000000000000001', 'vol-00000000000000002'];
    await expect(world.ec2('DescribeVolumes', { VolumeIds: [VolumeId, ...missing] })).rejects.toMatchObject({
      code: 'InvalidVolume.NotFound',
      message: `The volumes '${missing.join(', ')}' do not exist.`,
    });
  });

  test('takes 500 ids', async () => {
    const made: string[] = [];
    for (let i = 0; i < 500; i++) made.push((await create()).VolumeId);
    const { Volumes, NextToken } = await world.ec2('DescribeVolumes', { VolumeIds: made });
    expect(ids(Volumes)).toEqual(made);
    expect(NextToken).toBeUndefined();
  });

  test('pages through everything once, and ends without a token', async () => {
    const made: string[] = [];
    for (let i = 0; i < 13; i++) made.push((await create()).VolumeId);
    const seen: string[] = [];
    let NextToken: string | undefined;
    do {
      const page = await world.ec2('DescribeVolumes', { MaxResults: 5, NextToken });
      expect(page.Volumes.length).toBeLessThanOrEqual(5);
      seen.push(...ids(page.Volumes));
      // What is deleted meanwhile doesn't shift the pages.
      if (!NextToken) await world.ec2('DeleteVolume', { VolumeId: made[0] });
      NextToken = page.NextToken;
      if (NextToken === undefined) expect('NextToken' in page).toBe(false);
    } while (NextToken);
    expect(seen).toEqual(made);
    for (const bad of [{ MaxResults: 4 }, { NextToken: 'x' }])
      await expect(world.ec2('DescribeVolumes', bad)).rejects.toMatchObject({ code: /^Invalid/ });
    await expect(world.ec2('DescribeVolumes', { MaxResults: 5, VolumeIds: [made[1]] })).rejects.toMatchObject({
      code: 'InvalidParameterCombination',
    });
  });

  test('filters by everything that is documented, with wildcards', async () => {
    const host = new FakeHost(world);
    await host.sync();
    host.start();
    const tags = (Name: string) => ({
      TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'Name', Value: Name }] }],
    });
    const plain = (await create(tags('web-1'))).VolumeId;
    world.clock.advance(24 * 3600_000);
    const big = (await create({ Size: 12, VolumeType: 'gp3', Encrypted: true, ...tags('Web-2') })).VolumeId;
    const far = (
      await create({ AvailabilityZone: 'us-east-1b', VolumeType: 'io2', Size: 10, Iops: 100, MultiAttachEnabled: true })
    ).VolumeId;
    const { Instances } = await world.ec2('RunInstances', {
      ImageId: 'ami-0c0ffe00000000000',
      MinCount: 1,
      MaxCount: 1,
    });
    const InstanceId = Instances[0].InstanceId;
    await world.ec2('AttachVolume', { VolumeId: plain, InstanceId, Device: '/dev/sdf' });
    const cases: Array<[string[], string[]]> = [
      [
        ['volume-id', plain, big],
        [plain, big],
      ],
      [
        ['volume-id', 'vol-*'],
        [plain, big, far],
      ],
      [
        ['size', '1?'],
        [big, far],
      ],
      [['size', '1'], [plain]],
      [
        ['status', 'available'],
        [big, far],
      ],
      [['status', 'in-*'], [plain]],
      [['encrypted', 'true'], [big]],
      [
        ['encrypted', 'f*'],
        [plain, far],
      ],
      [['multi-attach-enabled', 'true'], [far]],
      [['availability-zone', 'us-east-1b'], [far]],
      [
        ['availability-zone-id', 'use1-az1'],
        [plain, big],
      ],
      [
        ['volume-type', 'io2', 'gp2'],
        [plain, far],
      ],
      [['create-time', '2026-08-01T12:00:00.000Z'], [plain]],
      [
        ['create-time', '2026-08-02*'],
        [big, far],
      ],
      [['tag:Name', 'web-1'], [plain]],
      [['tag:Name', 'web-*'], [plain]],
      [
        ['tag:Name', '?eb-?'],
        [plain, big],
      ],
      [['tag:name', '*'], []],
      [
        ['tag-key', 'Name'],
        [plain, big],
      ],
      [['attachment.instance-id', InstanceId], [plain]],
      [['attachment.device', '/dev/sd*'], [plain]],
      [['attachment.status', 'attached'], [plain]],
      [['attachment.delete-on-termination', 'false'], [plain]],
      [['attachment.attach-time', '2026-08-02*'], [plain]],
      [['snapshot-id', 'snap-*'], []],
      [
        ['fast-restored', 'false'],
        [plain, big, far],
      ],
      [['operator.managed', 'true'], []],
    ];
    for (const [[name, ...values], expected] of cases)
      expect([name, values, await filtered(name!, ...values)]).toEqual([name, values, expected]);
    const both = {
      Filters: [
        { Name: 'size', Values: ['1*'] },
        { Name: 'tag-key', Values: ['Name'] },
      ],
    };
    expect(ids((await world.ec2('DescribeVolumes', both)).Volumes)).toEqual([plain, big]);
    expect(ids((await world.ec2('DescribeVolumes', { ...both, VolumeIds: [big, far] })).Volumes)).toEqual([big]);
    await expect(filtered('colour', 'red')).rejects.toMatchObject({ code: 'InvalidParameterValue' });
    await host.stop();
  });
});

describe('tags', () => {
  test('are put, replaced, found and deleted by key, or by key and value', async () => {
    const { VolumeId } = await create();
    const { Instances } = await world.ec2('RunInstances', {
      ImageId: 'ami-0c0ffe00000000000',
      MinCount: 1,
      MaxCount: 1,
      TagSpecifications: [{ ResourceType: 'instance', Tags: [{ Key: 'Name', Value: 'box' }] }],
    });
    const InstanceId = Instances[0].InstanceId;
    expect(Instances[0].Tags).toEqual([{ Key: 'Name', Value: 'box' }]);
    const put = (...Tags: object[]) => world.ec2('CreateTags', { Resources: [VolumeId, InstanceId], Tags });
    const drop = (Tags?: object[]) => world.ec2('DeleteTags', { Resources: [VolumeId], Tags });
    const tags = async () => (await world.ec2('DescribeVolumes')).Volumes[0].Tags;
    await put({ Key: 'a', Value: '1' }, { Key: 'b' });
    await put({ Key: 'a', Value: '2' });
    expect(await tags()).toEqual([
      { Key: 'a', Value: '2' },
      { Key: 'b', Value: '' },
    ]);
    const described = await world.ec2('DescribeTags', { Filters: [{ Name: 'resource-type', Values: ['instance'] }] });
    expect(described.Tags).toEqual([
      { Key: 'Name', ResourceId: InstanceId, ResourceType: 'instance', Value: 'box' },
      { Key: 'a', ResourceId: InstanceId, ResourceType: 'instance', Value: '2' },
      { Key: 'b', ResourceId: InstanceId, ResourceType: 'instance', Value: '' },
    ]);
    await drop([{ Key: 'a', Value: '1' }]);
    expect(await tags()).toHaveLength(2);
    await drop([{ Key: 'a' }]);
    expect(await tags()).toEqual([{ Key: 'b', Value: '' }]);
    await drop();
    expect(await tags()).toEqual([]);
  });

  test('have limits, and only exist on what exists', async () => {
    const { VolumeId } = await create();
    const many = Array.from({ length: 50 }, (_, index) => ({ Key: `k${index}`, Value: '' }));
    const put = (Resources: string[], Tags: object[], caller = {}) =>
      world.ec2('CreateTags', { Resources, Tags }, caller);
    await put([VolumeId], many);
    const one = [{ Key: 'one-more', Value: '' }];
    const cases: Array<[() => Promise<unknown>, string]> = [
      [() => put([VolumeId], one), 'TagLimitExceeded'],
      [() => put([VolumeId], [{ Key: 'aws:x' }]), 'InvalidParameterValue'],
      [() => put([VolumeId], [{ Key: 'x'.repeat(129) }]), 'InvalidParameterValue'],
      [() => put(['vol-00000000000000001'], one), 'InvalidVolume.NotFound'],
      [() => put(['i-00000000000000001'], one), 'InvalidInstanceID.NotFound'],
      [() => put(['snap-1'], one), 'InvalidID'],
      [() => put([VolumeId], one, stranger), 'InvalidVolume.NotFound'],
    ];
    for (const [attempt, code] of cases) await expect(attempt()).rejects.toMatchObject({ code });
    expect((await world.ec2('DescribeVolumes')).Volumes[0].Tags).toHaveLength(50);
  });
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

test('instances: types, images, counts and states have their rules', async () => {
  const run = (more: object) =>
    world.ec2('RunInstances', { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, ...more });
  const cases: Array<[object, string]> = [
    [{ ImageId: 'ami-0123456789abcdef0' }, 'InvalidAMIID.NotFound'],
    [{ ImageId: 'x' }, 'InvalidAMIID.Malformed'],
    [{ InstanceType: 'm99.huge' }, 'InvalidParameterValue'],
    [{ MinCount: 2 }, 'InvalidParameterCombination'],
    [{ MinCount: 0, MaxCount: 0 }, 'InvalidParameterValue'],
    [{ SubnetId: 'subnet-1' }, 'InvalidSubnetID.NotFound'],
    [{ Placement: { AvailabilityZone: 'us-east-1z' } }, 'InvalidZone.NotFound'],
    [{ DryRun: true }, 'DryRunOperation'],
  ];
  for (const [more, code] of cases) await expect(run(more)).rejects.toMatchObject({ code });
  expect((await world.ec2('DescribeInstances')).Reservations).toEqual([]);

  const { Instances, ReservationId } = await run({ MinCount: 1, MaxCount: 3, ClientToken: 'three' });
  expect(Instances).toHaveLength(3);
  expect((await run({ MinCount: 1, MaxCount: 3, ClientToken: 'three' })).ReservationId).toBe(ReservationId);
  await expect(run({ ClientToken: 'three' })).rejects.toMatchObject({ code: 'IdempotentParameterMismatch' });
  const [InstanceId] = Instances.map((instance: { InstanceId: string }) => instance.InstanceId);
  const states = async (Name: string, ...Values: string[]) =>
    (await world.ec2('DescribeInstances', { Filters: [{ Name, Values }] })).Reservations.flatMap(
      (reservation: { Instances: Array<{ InstanceId: string }> }) => reservation.Instances,
    ).length;
  expect(await states('instance-state-name', 'running')).toBe(3);
  expect(await states('instance-type', 'm5.*')).toBe(3);
  expect(await states('launch-index', '2')).toBe(1);
  expect(await states('vpc-id', '*')).toBe(0);
  await world.ec2('StopInstances', { InstanceIds: [InstanceId] });
  expect((await world.ec2('DescribeInstanceStatus')).InstanceStatuses).toHaveLength(2);
  expect((await world.ec2('DescribeInstanceStatus', { IncludeAllInstances: true })).InstanceStatuses).toHaveLength(3);
  await world.ec2('ModifyInstanceAttribute', { InstanceId, DisableApiTermination: { Value: true } });
  await expect(world.ec2('TerminateInstances', { InstanceIds: [InstanceId] })).rejects.toMatchObject({
    code: 'OperationNotPermitted',
  });
  await world.ec2('ModifyInstanceAttribute', { InstanceId, Attribute: 'disableApiTermination', Value: 'false' });
  await world.ec2('TerminateInstances', { InstanceIds: [InstanceId] });
  await expect(world.ec2('StartInstances', { InstanceIds: [InstanceId] })).rejects.toMatchObject({
    code: 'IncorrectInstanceState',
  });
  expect(await states('instance-state-name', 'terminated')).toBe(1);
  world.clock.advance(3601_000);
  await world.housekeeping();
  await expect(world.ec2('DescribeInstances', { InstanceIds: [InstanceId] })).rejects.toMatchObject({
    code: 'InvalidInstanceID.NotFound',
  });
  const notifications = await world.events('EC2 Instance State-change Notification');
  expect(
    notifications.filter((event) => event.detail['instance-id'] === InstanceId).map((event) => event.detail.state),
  ).toEqual(['pending', 'running', 'stopping', 'stopped', 'shutting-down', 'terminated']);
});
