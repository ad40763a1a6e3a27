/** The policies with conditions of docs/permissions.md do what the page says. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import { account, FakeHost, World, zone } from './support/world.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/permissions.md'), 'utf8');
const section = /^## Conditions\n(.*?)^## /ms.exec(page)![1]!;
const [ofContext, ofTeam, ofBoundary] = [...section.matchAll(/```json\n(.*?)```/gs)].map(([, text]) => text!);

let world: World;
let host: FakeHost;
let key: string;
beforeEach(async () => {
  world = await World.create();
  host = new FakeHost(world).start();
  key = (await world.kms('CreateKey')).KeyMetadata.Arn;
});
afterEach(async () => {
  await host.stop();
  await world.close();
});

const iam = (operation: string, input: object, caller = {}) => world.call('iam', operation, input, caller);
async function userWith(PolicyDocument: string, Tags: object[] = []): Promise<{ principal: Principal }> {
  const { User } = await iam('CreateUser', { UserName: 'alice', Tags });
  await iam('PutUserPolicy', { UserName: 'alice', PolicyName: 'p', PolicyDocument });
  return {
    principal: { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: 'alice' },
  };
}
const refused = { code: expect.stringMatching(/^(?:AccessDenied(?:Exception)?|UnauthorizedOperation)$/) };

it('one encryption context', async () => {
  const alice = await userWith(ofContext!);
  const encrypt = (EncryptionContext?: object) =>
    world.kms('Encrypt', { KeyId: key, Plaintext: Buffer.from('x'), EncryptionContext }, alice);
  const { CiphertextBlob } = await encrypt({ app: 'billing' });
  await world.kms('Decrypt', { CiphertextBlob, EncryptionContext: { app: 'billing' } }, alice);
  await encrypt({ APP: 'billing', more: 'x' });
  for (const context of [undefined, {}, { app: 'Billing' }, { app: 'billing', App: 'other' }])
    await expect(encrypt(context)).rejects.toMatchObject(refused);
});

it("encrypted volumes of the own team, through EC2's leave for the key alone", async () => {
  const alice = await userWith(ofTeam!, [{ Key: 'team', Value: 'red' }]);
  const create = (team: string, more: object = {}, caller: object = alice) =>
    world.ec2(
      'CreateVolume',
      {
        Size: 1,
        AvailabilityZone: zone,
        Encrypted: true,
        KmsKeyId: key,
        TagSpecifications: [{ ResourceType: 'volume', Tags: [{ Key: 'team', Value: team }] }],
        ...more,
      },
      caller,
    );
  const { VolumeId } = await create('red');
  for (const [team, more] of [
    ['blue', {}],
    ['red', { Size: 101 }],
    ['red', { Encrypted: false, KmsKeyId: undefined }],
    ['red', { TagSpecifications: [] }],
  ] as const)
    await expect(create(team, more), JSON.stringify([team, more])).rejects.toMatchObject(refused);
  const theirs = (await create('blue', {}, {})).VolumeId;
  const launch = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, Placement: { AvailabilityZone: zone } };
  const [instance] = (await world.ec2('RunInstances', launch)).Instances;
  const attach = (volume: string) =>
    world.ec2('AttachVolume', { VolumeId: volume, InstanceId: instance.InstanceId, Device: '/dev/sdf' }, alice);
  await attach(VolumeId);
  await expect(attach(theirs)).rejects.toMatchObject(refused);
  await world.ec2('DetachVolume', { VolumeId }, alice);
  await expect(world.ec2('DeleteVolume', { VolumeId: theirs }, alice)).rejects.toMatchObject(refused);
  const retag = { Resources: [theirs], Tags: [{ Key: 'team', Value: 'red' }] };
  await expect(world.ec2('CreateTags', retag, alice)).rejects.toMatchObject(refused);
  await expect(
    world.kms('GenerateDataKeyWithoutPlaintext', { KeyId: key, NumberOfBytes: 64 }, alice),
  ).rejects.toMatchObject(refused);
  await world.ec2('DeleteVolume', { VolumeId }, alice);
});

it('users within a boundary', async () => {
  const alice = await userWith(ofBoundary!);
  const PolicyDocument = JSON.stringify({
    Version: '2012-10-17',
    Statement: { Effect: 'Allow', Action: '*', Resource: '*' },
  });
  const PermissionsBoundary = (await iam('CreatePolicy', { PolicyName: 'volumes-only', PolicyDocument })).Policy.Arn;
  await iam('CreateUser', { UserName: 'free' });
  const put = (UserName: string) => iam('PutUserPolicy', { UserName, PolicyName: 'p', PolicyDocument }, alice);
  await iam('CreateUser', { UserName: 'bound', PermissionsBoundary }, alice);
  await put('bound');
  await expect(iam('CreateUser', { UserName: 'unbound' }, alice)).rejects.toMatchObject(refused);
  const other = 'arn:aws:iam::aws:policy/AdministratorAccess';
  await expect(iam('CreateUser', { UserName: 'unbound', PermissionsBoundary: other }, alice)).rejects.toMatchObject(
    refused,
  );
  for (const name of ['free', 'alice']) await expect(put(name)).rejects.toMatchObject(refused);
  await expect(iam('DeleteUserPermissionsBoundary', { UserName: 'bound' }, alice)).rejects.toMatchObject(refused);
});
