/** A world with a host at work in the background, and what tests of snapshots do again and again. */
import { afterEach, beforeEach } from 'vitest';
import type { HostTask } from '../../src/aws/host-protocol.ts';
import { account, type Caller, FakeHost, World, zone } from './world.ts';

export class SnapshotWorld {
  readonly world: World;
  readonly host: FakeHost;

  constructor(world: World, host: FakeHost) {
    this.world = world;
    this.host = host;
  }

  async volume(more: object = {}, caller: Caller = {}): Promise<string> {
    const zoneThere = `${caller.region ?? 'us-east-1'}a`;
    return (await this.world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zoneThere, ...more }, caller)).VolumeId;
  }

  /** A snapshot whose point in time is fixed. */
  async snapshot(VolumeId: string, more: object = {}, caller: Caller = {}): Promise<string> {
    return (await this.world.ec2('CreateSnapshot', { VolumeId, ...more }, caller)).SnapshotId;
  }

  /** A completed snapshot of a new volume. */
  async stored(more: object = {}, caller: Caller = {}): Promise<string> {
    const id = await this.snapshot(await this.volume(more, caller), {}, caller);
    await this.completed(id, caller);
    return id;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the API's own shape.
  async describe(SnapshotId: string, caller: Caller = {}): Promise<any> {
    return (await this.world.ec2('DescribeSnapshots', { SnapshotIds: [SnapshotId] }, caller)).Snapshots[0];
  }

  // biome-ignore lint/suspicious/noExplicitAny: the API's own shape.
  async describeVolume(VolumeId: string, caller: Caller = {}): Promise<any> {
    return (await this.world.ec2('DescribeVolumes', { VolumeIds: [VolumeId] }, caller)).Volumes[0];
  }

  async found(input: object, caller: Caller = {}): Promise<string[]> {
    const { Snapshots } = await this.world.ec2('DescribeSnapshots', input, caller);
    return Snapshots.map(({ SnapshotId }: { SnapshotId: string }) => SnapshotId);
  }

  async completed(id: string, caller: Caller = {}): Promise<void> {
    await until(async () => (await this.describe(id, caller)).State === 'completed');
  }

  async newKey(caller: Caller = {}, input: object = {}): Promise<string> {
    return (await this.world.kms('CreateKey', input, caller)).KeyMetadata.Arn;
  }

  async newInstance(): Promise<string> {
    const run = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1 };
    const answer = await this.world.ec2('RunInstances', { ...run, Placement: { AvailabilityZone: zone } });
    return answer.Instances[0].InstanceId;
  }

  /** What the host is told now, of one kind. */
  async listed<Kind extends HostTask['kind']>(kind: Kind): Promise<Array<Extract<HostTask, { kind: Kind }>>> {
    const { tasks } = await this.host.sync({ tasks: this.host.tasks });
    return tasks.filter((task) => task.kind === kind) as Array<Extract<HostTask, { kind: Kind }>>;
  }
}

/** Resolves when it is so; fails after a minute. */
export async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error('it did not come about');
}

/** Makes a new world before each test, and ends it after. */
export function eachInItsWorld(): { readonly current: SnapshotWorld } {
  const held = { current: undefined as unknown as SnapshotWorld };
  beforeEach(async () => {
    const world = await World.create();
    const host = new FakeHost(world);
    await host.sync();
    host.start();
    held.current = new SnapshotWorld(world, host);
  });
  afterEach(async () => {
    await held.current.host.stop();
    await held.current.world.close();
  });
  return held;
}

/** The principal ARN of a host at work on a volume or snapshot. */
export const infrastructureArn = (id: string) => `arn:aws:sts::${account}:assumed-role/aws:ec2-infrastructure/${id}`;
