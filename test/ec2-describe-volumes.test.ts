/** Volumes and tags found again: ids, pages, filters. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeHost, stranger, World, zone } from './support/world.ts';

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

test('a value with wildcards that is longer than anything it could match finds nothing', async () => {
  const { VolumeId } = await create();
  const found = async (...Values: string[]) =>
    ids((await world.ec2('DescribeVolumes', { Filters: [{ Name: 'volume-id', Values }] })).Volumes);
  for (const long of [`*${'a'.repeat(60_000)}`, '[?'.repeat(20_000), '\\*'.repeat(20_000) + '*']) {
    expect(await found(long)).toEqual([]);
    expect(await found(long, 'vol-*')).toEqual([VolumeId]);
  }
});

test('a request that asks very much of each volume gets its answer in parts, all of it in the end', async () => {
  const made: string[] = [];
  for (let index = 0; index < 60; index++) {
    const { VolumeId } = await create(index % 10 === 0 ? { Size: 2 } : {});
    await world.ec2('CreateTags', { Resources: [VolumeId], Tags: [{ Key: 'Name', Value: `n${index}` }] });
    if (index % 20 === 0) await world.ec2('ModifyVolume', { VolumeId, Size: 3 });
    made.push(VolumeId);
  }
  const heavy = Array.from({ length: 190 }, (_, index) => `${'*a'.repeat(1000)}${index}`);
  const all = async (operation: string, member: string, Filters: object[], more: object = {}) => {
    const seen: string[] = [];
    let pages = 0;
    let NextToken: string | undefined;
    do {
      const answer = await world.ec2(operation, { Filters, ...more, NextToken });
      pages++;
      NextToken = answer.NextToken;
      seen.push(...answer[member].map(({ VolumeId }: { VolumeId: string }) => VolumeId));
    } while (NextToken);
    return { seen, pages };
  };
  const everywhere = [{ Name: 'availability-zone', Values: ['us-*', ...heavy] }];
  for (const [operation, member] of [
    ['DescribeVolumes', 'Volumes'],
    ['DescribeVolumeStatus', 'VolumeStatuses'],
  ] as const) {
    const { seen, pages } = await all(operation, member, everywhere, { MaxResults: 7 });
    expect(seen).toEqual(made);
    expect(pages).toBeGreaterThan(8);
    expect((await all(operation, member, everywhere)).pages).toBeGreaterThan(2);
  }
  const named = [{ Name: 'tag:Name', Values: ['n?0', ...heavy] }];
  expect((await all('DescribeVolumes', 'Volumes', named)).seen).toEqual(
    made.filter((_, index) => index > 0 && index % 10 === 0),
  );
  const changed = [{ Name: 'target-volume-type', Values: ['g*', ...heavy] }];
  const { seen } = await all('DescribeVolumesModifications', 'VolumesModifications', changed);
  expect(seen).toEqual(made.filter((_, index) => index % 20 === 0));
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

  test('are paged through each once, whatever goes meanwhile', async () => {
    const made: string[] = [];
    for (let index = 0; index < 4; index++) made.push((await create()).VolumeId);
    for (const VolumeId of made)
      await world.ec2('CreateTags', {
        Resources: [VolumeId],
        Tags: ['a', 'b', 'c'].map((Key) => ({ Key, Value: VolumeId })),
      });
    const heavy = Array.from({ length: 190 }, (_, index) => `${'*a'.repeat(2000)}${index}`);
    for (const Filters of [[], [{ Name: 'key', Values: ['?', ...heavy] }]]) {
      const seen: string[] = [];
      let NextToken: string | undefined;
      do {
        const page = await world.ec2('DescribeTags', { Filters, MaxResults: 5, NextToken });
        NextToken = page.NextToken;
        for (const { ResourceId, Key } of page.Tags) {
          seen.push(`${ResourceId} ${Key}`);
          if (Key === 'b') await world.ec2('DeleteTags', { Resources: [ResourceId], Tags: [{ Key }] });
        }
      } while (NextToken);
      const keys = Filters.length === 0 ? ['a', 'b', 'c'] : ['a', 'c'];
      expect(seen.sort()).toEqual(made.flatMap((id) => keys.map((key) => `${id} ${key}`)).sort());
    }
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
      [() => put(['x-1'], one), 'InvalidID'],
      [() => put(['snap-00000000000000001'], one), 'InvalidSnapshot.NotFound'],
      [() => put([VolumeId], one, stranger), 'InvalidVolume.NotFound'],
    ];
    for (const [attempt, code] of cases) await expect(attempt()).rejects.toMatchObject({ code });
    expect((await world.ec2('DescribeVolumes')).Volumes[0].Tags).toHaveLength(50);
  });
});
