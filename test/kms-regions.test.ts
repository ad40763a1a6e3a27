/** Multi-Region keys and rotation through the whole pipeline: permissions in both regions, trails, volumes, restarts. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import { account, World, zone } from './support/world.ts';

const day = 86_400_000;
const west = { region: 'eu-west-1' };
let world: World;
let KeyId: string;
beforeEach(async () => {
  world = await World.create();
  KeyId = (await world.kms('CreateKey', { MultiRegion: true })).KeyMetadata.KeyId;
});
afterEach(() => world.close());

const allow = (Action: string, Condition?: object) => ({ Effect: 'Allow', Action, Resource: '*', Condition });
const inRegion = (region: string) => ({ StringEquals: { 'aws:RequestedRegion': region } });

async function newUser(UserName: string): Promise<Principal> {
  const { User } = await world.call('iam', 'CreateUser', { UserName });
  return { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: UserName };
}
const give = ({ userName }: Principal, ...Statement: object[]) =>
  world.call('iam', 'PutUserPolicy', {
    UserName: userName,
    PolicyName: 'p',
    PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement }),
  });
const refused = (call: Promise<unknown>, action: string) =>
  expect(call).rejects.toMatchObject({
    code: 'AccessDeniedException',
    message: expect.stringContaining(`perform: ${action} `),
  });
const regionsOf = async () => {
  const { MultiRegionConfiguration } = (await world.kms('DescribeKey', { KeyId })).KeyMetadata;
  return [MultiRegionConfiguration.PrimaryKey, ...MultiRegionConfiguration.ReplicaKeys].map(({ Region }) => Region);
};

test('to replicate takes ReplicateKey in the primary key’s region and CreateKey in the other', async () => {
  const alice = await newUser('alice');
  const replicate = (more = {}) =>
    world.kms('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1', ...more }, { principal: alice });
  await refused(replicate(), 'kms:ReplicateKey');
  const mayReplicate = allow('kms:ReplicateKey', { StringEquals: { 'kms:ReplicaRegion': 'eu-west-1' } });
  await give(alice, mayReplicate);
  await refused(replicate(), 'kms:CreateKey');
  await give(alice, mayReplicate, allow('kms:CreateKey', inRegion('us-east-1')));
  await refused(replicate(), 'kms:CreateKey');
  const mayCreate = allow('kms:CreateKey', {
    StringEquals: {
      'aws:RequestedRegion': 'eu-west-1',
      'kms:MultiRegionKeyType': 'REPLICA',
      'kms:PrimaryRegion': 'us-east-1',
    },
    Bool: { 'kms:MultiRegion': 'true' },
  });
  await give(alice, mayReplicate, mayCreate);
  await refused(replicate({ Tags: [{ TagKey: 'a', TagValue: 'b' }] }), 'kms:TagResource');
  expect(await regionsOf()).toEqual(['us-east-1']);
  await replicate();
  expect(await regionsOf()).toEqual(['us-east-1', 'eu-west-1']);
  await refused(
    world.kms('ReplicateKey', { KeyId, ReplicaRegion: 'eu-north-1' }, { principal: alice }),
    'kms:ReplicateKey',
  );
  const made = (await world.trail('CreateKey')).filter((record) => record.awsRegion === 'eu-west-1');
  const denied = 'AccessDeniedException';
  expect(made.map((record) => record.errorCode)).toEqual([denied, denied, denied, undefined]);
  expect(made.at(-1)).toMatchObject({ userIdentity: { userName: 'alice', invokedBy: 'AWS Internal' } });
});

test('to move the primary key takes UpdatePrimaryRegion on both keys', async () => {
  const alice = await newUser('alice');
  await world.kms('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' });
  const update = () => world.kms('UpdatePrimaryRegion', { KeyId, PrimaryRegion: 'eu-west-1' }, { principal: alice });
  await give(alice, allow('kms:UpdatePrimaryRegion', inRegion('us-east-1')));
  await refused(update(), 'kms:UpdatePrimaryRegion');
  expect((await regionsOf())[0]).toBe('us-east-1');
  await give(alice, allow('kms:UpdatePrimaryRegion'));
  await update();
  expect((await regionsOf())[0]).toBe('eu-west-1');
});

test('a policy of one region’s key says nothing about the other', async () => {
  await world.kms('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' });
  const alice = await newUser('alice');
  const Policy = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' },
      { Effect: 'Allow', Principal: { AWS: alice.arn }, Action: 'kms:Encrypt', Resource: '*' },
    ],
  });
  await world.kms('PutKeyPolicy', { KeyId, Policy }, west);
  const encrypt = (region: string) =>
    world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x') }, { principal: alice, region });
  await encrypt('eu-west-1');
  await refused(encrypt('us-east-1'), 'kms:Encrypt');
});

test('a volume’s data key is decrypted after its key has rotated, and after a restart', async () => {
  const { Arn } = (await world.kms('CreateKey', {})).KeyMetadata;
  const create = { Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: Arn };
  const { VolumeId } = await world.ec2('CreateVolume', create);
  await world.kms('EnableKeyRotation', { KeyId: Arn, RotationPeriodInDays: 90 });
  world.clock.advance(90 * day);
  world.restart();
  await world.housekeeping();
  expect(await world.events('KMS CMK Rotation')).toMatchObject([{ source: 'aws.kms', resources: [Arn] }]);
  const { EncryptedDataKey } = await world.call('coffer', 'InspectVolume', { VolumeId });
  const CiphertextBlob = Buffer.from(EncryptedDataKey, 'base64');
  const opened = await world.kms('Decrypt', { CiphertextBlob, EncryptionContext: { 'aws:ebs:id': VolumeId } });
  expect(opened.Plaintext).toHaveLength(64);
  const { Rotations } = await world.kms('ListKeyRotations', { KeyId: Arn });
  expect(opened.KeyMaterialId).not.toBe(Rotations[0].KeyMaterialId);
});

test('nobody but the service calls its own operations', async () => {
  const own = ['RotateKey', 'DeleteKey', 'DeleteExpiredKeyMaterial', 'SynchronizeMultiRegionKey', 'CreateReplicaKey'];
  for (const name of [...own, 'PromoteReplicaKey'])
    await expect(world.kms(name, { KeyId, RotationType: 'ON_DEMAND' })).rejects.toMatchObject({
      code: 'AccessDeniedException',
    });
});
