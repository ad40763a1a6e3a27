/** Instances and volumes as tests need them, made through the SDK. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  EC2Client,
  RunInstancesCommand,
  type Volume,
} from '@aws-sdk/client-ec2';
import { type TestServer, until } from './server.ts';

export const imageId = 'ami-0c0ffe00000000000';
export const zone = 'us-east-1a';

export class Volumes {
  readonly server: TestServer;
  readonly ec2: EC2Client;

  constructor(server: TestServer) {
    this.server = server;
    this.ec2 = server.sdk(EC2Client);
  }

  async runInstance(): Promise<string> {
    const run = { ImageId: imageId, InstanceType: 'm5.large' as const, MinCount: 1, MaxCount: 1 };
    const answer = await this.ec2.send(new RunInstancesCommand({ ...run, Placement: { AvailabilityZone: zone } }));
    return answer.Instances![0]!.InstanceId!;
  }

  async create(more: { KmsKeyId?: string; Encrypted?: boolean; ClientToken?: string } = {}): Promise<string> {
    const create = { Size: 1, AvailabilityZone: zone, Encrypted: true, ...more };
    return (await this.ec2.send(new CreateVolumeCommand(create))).VolumeId!;
  }

  async describe(volumeId: string): Promise<Volume> {
    return (await this.ec2.send(new DescribeVolumesCommand({ VolumeIds: [volumeId] }))).Volumes![0]!;
  }

  /** Every volume of the account, all pages. */
  async all(): Promise<Volume[]> {
    const volumes: Volume[] = [];
    let NextToken: string | undefined;
    do {
      const page = await this.ec2.send(new DescribeVolumesCommand({ NextToken, MaxResults: 500 }));
      volumes.push(...page.Volumes!);
      NextToken = page.NextToken;
    } while (NextToken);
    return volumes;
  }

  /** Attaches and waits until the socket accepts connections; its path. */
  async attach(volumeId: string, instanceId: string, device = '/dev/sdf'): Promise<string> {
    await this.ec2.send(new AttachVolumeCommand({ VolumeId: volumeId, InstanceId: instanceId, Device: device }));
    await this.attached(volumeId);
    return this.socket(instanceId, device);
  }

  async attached(volumeId: string): Promise<void> {
    await until(async () => {
      const attachment = (await this.describe(volumeId)).Attachments?.[0];
      return attachment?.State === 'attached' && existsSync(this.socket(attachment.InstanceId!, attachment.Device!));
    }, `${volumeId} to be attached`);
  }

  async detach(volumeId: string): Promise<void> {
    await this.ec2.send(new DetachVolumeCommand({ VolumeId: volumeId }));
    await until(async () => (await this.describe(volumeId)).State === 'available', `${volumeId} to be detached`);
  }

  socket(instanceId: string, device = '/dev/sdf'): string {
    return join(this.server.dataDir, 'instances', instanceId, device.startsWith('/dev/') ? device : `dev/${device}`);
  }

  image(volumeId: string): string {
    return join(this.server.dataDir, 'volumes', `${volumeId}.img`);
  }
}
