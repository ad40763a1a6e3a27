/**
 * What tests of attachments share: a world of its own for each test, hosts that are stopped after it, and short names for
 * what all of them do.
 */
import { afterEach, beforeEach } from 'vitest';
import { FakeHost, World, zone } from './world.ts';

export let world: World;
/** The hosts that the running test has started, in order. */
export let hosts: FakeHost[];

/** Gives each test of the file that calls it a new world. */
export function useWorldWithHosts(): void {
  beforeEach(async () => {
    world = await World.create();
    hosts = [];
  });
  afterEach(async () => {
    for (const host of hosts) await host.stop();
    await world.close();
  });
}

export function newHost(options: ConstructorParameters<typeof FakeHost>[1] = {}): FakeHost {
  const host = new FakeHost(world, options);
  hosts.push(host);
  return host;
}

export async function newKey(): Promise<string> {
  return (await world.kms('CreateKey', {})).KeyMetadata.Arn;
}

export async function newVolume(more: object = {}): Promise<string> {
  return (await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ...more })).VolumeId;
}

export async function newInstance(more: object = {}): Promise<string> {
  const input = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, ...more };
  return (await world.ec2('RunInstances', input)).Instances[0].InstanceId;
}

export const attach = (VolumeId: string, InstanceId: string, Device = '/dev/sdf') =>
  world.ec2('AttachVolume', { VolumeId, InstanceId, Device });

export async function volume(id: string) {
  return (await world.ec2('DescribeVolumes', { VolumeIds: [id] })).Volumes[0];
}

export async function instanceState(id: string): Promise<string> {
  return (await world.ec2('DescribeInstances', { InstanceIds: [id] })).Reservations[0].Instances[0].State.Name;
}

export async function grants(KeyId: string): Promise<object[]> {
  return (await world.kms('ListGrants', { KeyId })).Grants;
}

export const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error) => error.code ?? String(error),
  );
