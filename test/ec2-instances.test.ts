/** Instances as the control plane has them, without a host. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { World } from './support/world.ts';

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.close());

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
