/** What depends on a key and when it was last used, as the control plane tells it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeHost, otherAccount, stranger, World, zone } from './support/world.ts';

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.close());

const newKey = async (input: object = {}) => (await world.kms('CreateKey', input)).KeyMetadata.Arn as string;
const newVolume = async (KmsKeyId: string, caller = {}) =>
  (await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId }, caller)).VolumeId;
const usage = (KeyId: string, more: object = {}, caller = {}) =>
  world.call('coffer', 'DescribeKeyUsage', { KeyId, ...more }, caller);

describe('dependents', () => {
  test('are the volumes under the key, with their attachments, by whatever name it is asked for', async () => {
    const host = new FakeHost(world);
    await host.sync();
    host.start();
    const key = await newKey();
    await world.kms('CreateAlias', { AliasName: 'alias/databases', TargetKeyId: key });
    await newVolume(await newKey());
    const [attached, free] = [await newVolume(key), await newVolume('alias/databases')];
    const { Instances } = await world.ec2('RunInstances', {
      ImageId: 'ami-0c0ffe00000000000',
      MinCount: 1,
      MaxCount: 1,
    });
    const { InstanceId } = Instances[0];
    await world.ec2('AttachVolume', { VolumeId: attached, InstanceId, Device: '/dev/sdf' });
    for (const name of [key, key.split('/')[1]!, 'alias/databases', key.replace(/key\/.*/, 'alias/databases')])
      expect(await usage(name)).toMatchObject({
        KeyArn: key,
        KeyState: 'Enabled',
        Counts: { Volumes: 2, Snapshots: 0, Attachments: 1 },
        OtherAccounts: [],
        Dependents: [
          { Type: 'volume', Id: attached, State: 'in-use', Attachments: [{ InstanceId, Device: '/dev/sdf' }] },
          { Type: 'volume', Id: free, State: 'available', Attachments: [] },
        ],
      });
    await world.ec2('DetachVolume', { VolumeId: attached });
    await world.ec2('DeleteVolume', { VolumeId: attached });
    expect(await usage(key)).toMatchObject({ Counts: { Volumes: 1, Attachments: 0 }, Dependents: [{ Id: free }] });
    await host.stop();
  });

  test('of an AWS managed key are found by its alias', async () => {
    const { VolumeId } = await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, Encrypted: true });
    expect(await usage('alias/aws/ebs')).toMatchObject({ Counts: { Volumes: 1 }, Dependents: [{ Id: VolumeId }] });
  });

  test('come in pages, and are counted whole on each', async () => {
    const key = await newKey();
    const made: string[] = [];
    for (let i = 0; i < 5; i++) made.push(await newVolume(key));
    const seen: string[] = [];
    let NextToken: string | undefined;
    do {
      const page = await usage(key, { MaxResults: 2, NextToken });
      expect(page.Counts.Volumes).toBe(5);
      seen.push(...page.Dependents.map(({ Id }: { Id: string }) => Id));
      NextToken = page.NextToken;
    } while (NextToken);
    expect(seen).toEqual(made);
  });

  test('are the snapshots, too, after the volumes, whatever page they come on', async () => {
    const host = new FakeHost(world);
    await host.sync();
    host.start();
    const key = await newKey();
    const volume = await newVolume(key);
    const snapshot = async () => (await world.ec2('CreateSnapshot', { VolumeId: volume })).SnapshotId as string;
    const snapshots = [await snapshot(), await snapshot()];
    const whole = await usage(key);
    expect(whole).toMatchObject({ Counts: { Volumes: 1, Snapshots: 2, Attachments: 0 } });
    const ids = whole.Dependents.map(({ Id }: { Id: string }) => Id);
    expect(ids).toEqual([volume, ...snapshots]);
    const first = await usage(key, { MaxResults: 1 });
    const second = await usage(key, { MaxResults: 1, NextToken: first.NextToken });
    const third = await usage(key, { MaxResults: 1, NextToken: second.NextToken });
    expect([first, second, third].map((page) => page.Dependents[0].Id)).toEqual(ids);
    expect(third.NextToken).toBeUndefined();
    await host.stop();
  });

  test('of other accounts are counted for the account of the key alone', async () => {
    const owner = 'arn:aws:iam::123456789012:root';
    const statement = (AWS: string) => ({ Effect: 'Allow', Principal: { AWS }, Action: 'kms:*', Resource: '*' });
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [statement(owner), statement(`arn:aws:iam::${otherAccount}:root`)],
    });
    const key = await newKey({ Policy });
    const theirs = await newVolume(key, stranger);
    const mine = await newVolume(key);
    expect(await usage(key)).toMatchObject({
      Counts: { Volumes: 1 },
      OtherAccounts: [{ Account: otherAccount, Volumes: 1, Snapshots: 0, Attachments: 0 }],
      Dependents: [{ Id: mine }],
    });
    expect(await usage(key, {}, stranger)).toMatchObject({ OtherAccounts: [], Dependents: [{ Id: theirs }] });
  });
});

describe('the last use', () => {
  test('is the newest cryptographic call that was answered, however much else was asked since', async () => {
    const KeyId = await newKey();
    expect((await usage(KeyId)).LastUse).toEqual({ Known: 'unused' });
    await world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x') });
    world.clock.advance(60_000);
    await world.kms('GenerateDataKey', { KeyId, KeySpec: 'AES_256' });
    const Time = new Date(world.clock.now()).toISOString().replace('.000Z', 'Z');
    world.clock.advance(60_000);
    await expect(world.kms('Decrypt', { KeyId, CiphertextBlob: Buffer.alloc(200) })).rejects.toMatchObject({});
    for (let i = 0; i < 2_100; i++) await world.kms('DescribeKey', { KeyId });
    expect((await usage(KeyId)).LastUse).toMatchObject({
      Known: 'used',
      Time,
      Operation: 'GenerateDataKey',
      By: 'arn:aws:iam::123456789012:root',
    });
  });

  test('names the service on whose way it came', async () => {
    const KeyId = await newKey();
    await newVolume(KeyId);
    expect((await usage(KeyId)).LastUse).toMatchObject({
      Operation: 'GenerateDataKeyWithoutPlaintext',
      Via: 'AWS Internal',
    });
  });
});

test('a key that is not there, and input that is none, are refused by name', async () => {
  await expect(usage('alias/nobody')).rejects.toMatchObject({ code: 'NotFoundException' });
  await expect(usage('')).rejects.toMatchObject({ code: 'ValidationException' });
  await expect(usage('alias/aws/ebs', { MaxResults: 0 })).rejects.toMatchObject({ code: 'ValidationException' });
});
