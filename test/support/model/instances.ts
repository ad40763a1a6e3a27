/** Steps on instances: those that are stopped and started again, and those that end and give their place to new ones. */
import {
  DescribeInstancesCommand,
  type Instance,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { imageId } from '../volumes.ts';
import { unlessRefusedForNow } from './snapshots.ts';
import { Traffic } from './traffic.ts';
import { addPlanned, describeVolume, planVolume } from './volumes.ts';
import { type ModelInstance, type ModelVolume, type ModelWorld, type Place, pause, places, waitFor } from './world.ts';

const mappedDevice = '/dev/sdp';

/** Begins an instance at a place; `mayHaveVolume`: perhaps with a new volume that it is started with. */
export async function runInstance(world: ModelWorld, place: Place, mayHaveVolume: boolean): Promise<void> {
  const { random } = world;
  const plan = mayHaveVolume && random.oneIn(2) ? await planVolume(world, place, 1) : undefined;
  const deletesVolume = random.oneIn(2);
  const { Size: VolumeSize, ...volume } = plan?.input ?? { Size: 0 };
  const Ebs = { ...volume, VolumeSize, DeleteOnTermination: deletesVolume };
  const run = new RunInstancesCommand({
    ImageId: imageId,
    InstanceType: 'm5.large',
    MinCount: 1,
    MaxCount: 1,
    Placement: { AvailabilityZone: places[place].zone },
    ...(plan ? { BlockDeviceMappings: [{ DeviceName: mappedDevice, Ebs }] } : {}),
  });
  world.note(`run an instance at ${place}, ${plan ? `with a volume of ${plan.snapshot?.id ?? 'nothing'}` : 'bare'}`);
  const answer = await unlessRefusedForNow(world, world.ec2(place).send(run));
  // The snapshot for its volume was not completed yet.
  if (!answer) return runInstance(world, place, false);
  const instance = { id: answer.Instances![0]!.InstanceId!, place, isRunning: true };
  world.note(`it is ${instance.id}`);
  world.instances.push(instance);
  if (!plan) return;
  await reaches(world, instance, 'running');
  const [mapped] = (await describe(world, instance)).BlockDeviceMappings!;
  world.note(`its volume is ${mapped!.Ebs!.VolumeId}`);
  const made = await addPlanned(world, mapped!.Ebs!.VolumeId!, plan);
  made.attached.push({ instanceId: instance.id, device: mappedDevice, deletesVolume, connection: undefined });
}

/** Ends an instance, and with it the volumes that shall end with it, and runs another one. */
export async function replaceInstance(world: ModelWorld): Promise<void> {
  const { random } = world;
  const instance = random.pick(world.instances);
  const affected = attachedTo(world, instance);
  const traffic = random.oneIn(2) ? await Traffic.begin(world, affected) : undefined;
  await pause(random.below(5));
  world.note(`terminate ${instance.id}`);
  world.instances = world.instances.filter((one) => one !== instance);
  try {
    await world.retried(() =>
      world.ec2(instance.place).send(new TerminateInstancesCommand({ InstanceIds: [instance.id] })),
    );
    await reaches(world, instance, 'terminated');
  } finally {
    await traffic?.end();
  }
  for (const volume of affected) {
    const [own] = volume.attached.filter(({ instanceId }) => instanceId === instance.id);
    own!.connection?.close();
    volume.attached = volume.attached.filter((one) => one !== own);
    if (!own!.deletesVolume) continue;
    world.note(`${volume.id} ends with it`);
    world.volumes.delete(volume.id);
    await waitFor(`${volume.id} to be gone`, async () => (await describeVolume(world, volume)) === undefined);
  }
  await runInstance(world, instance.place, true);
}

/** Stops an instance that runs, or starts one that doesn't. */
export async function stopOrStart(world: ModelWorld): Promise<void> {
  const { random } = world;
  const stopped = world.instances.find(({ isRunning }) => !isRunning);
  if (stopped) {
    // One that has a volume whose key is disabled doesn't start.
    if (world.disabled.size > 0) return;
    world.note(`start ${stopped.id}`);
    await world.retried(() => world.ec2(stopped.place).send(new StartInstancesCommand({ InstanceIds: [stopped.id] })));
    await reaches(world, stopped, 'running');
    stopped.isRunning = true;
    return;
  }
  const instance = random.pick(world.instances);
  const affected = attachedTo(world, instance);
  world.note(`stop ${instance.id}`);
  const traffic = random.oneIn(2) ? await Traffic.begin(world, affected) : undefined;
  await pause(random.below(5));
  instance.isRunning = false;
  try {
    await world.retried(() => world.ec2(instance.place).send(new StopInstancesCommand({ InstanceIds: [instance.id] })));
    await reaches(world, instance, 'stopped');
  } finally {
    await traffic?.end();
  }
  for (const { attached } of affected) {
    for (const one of attached) {
      if (one.instanceId !== instance.id) continue;
      one.connection?.close();
      one.connection = undefined;
    }
  }
}

function attachedTo(world: ModelWorld, { id }: ModelInstance): ModelVolume[] {
  return [...world.volumes.values()].filter(({ attached }) => attached.some(({ instanceId }) => instanceId === id));
}

async function describe(world: ModelWorld, { id, place }: ModelInstance): Promise<Instance> {
  const { Reservations } = await world.retried(() =>
    world.ec2(place).send(new DescribeInstancesCommand({ InstanceIds: [id] })),
  );
  return Reservations![0]!.Instances![0]!;
}

function reaches(
  world: ModelWorld,
  instance: ModelInstance,
  state: 'running' | 'stopped' | 'terminated',
): Promise<void> {
  return waitFor(`${instance.id} to be ${state}`, async () => (await describe(world, instance)).State!.Name === state);
}
