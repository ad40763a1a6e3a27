/** Where `coffer demo` plays: an instance on a host of this machine, and all that is made on the way. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  AttachVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type EC2Client,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { type KMSClient, ScheduleKeyDeletionCommand } from '@aws-sdk/client-kms';
import { settles } from './demo-evidence.ts';
import { CommandError, exitCodes } from './errors.ts';
import { NbdClient } from './nbd-client.ts';

/** What InspectVolume tells. */
export interface VolumeInspection {
  /** Null while no host serves the volume's zone. */
  readonly ImagePath: string | null;
  readonly EncryptedDataKey: string;
  readonly EncryptionContext: Record<string, string>;
  readonly DataUnitBytes: number;
}

export class Stage {
  readonly ec2: EC2Client;
  readonly kms: KMSClient;
  /** What has been made, by id. */
  readonly keys: string[] = [];
  readonly volumes: string[] = [];
  readonly snapshots: string[] = [];
  instance = '';
  /** The data directory of the instance's host. */
  dataDir = '';

  constructor(ec2: EC2Client, kms: KMSClient) {
    this.ec2 = ec2;
    this.kms = kms;
  }

  /** Where a device of the instance is served over NBD. */
  socket(device: string): string {
    return join(this.dataDir, 'instances', this.instance, device);
  }

  /** Connects to a device of the instance. */
  async open(device: string): Promise<NbdClient> {
    try {
      return await NbdClient.connect(this.socket(device));
    } catch (error) {
      const { message } = error as Error;
      throw new CommandError(
        `${device} is not served (${message}); does the host run? see coffer status`,
        exitCodes.unavailable,
      );
    }
  }

  async attach(volume: string, device: string): Promise<void> {
    await this.ec2.send(new AttachVolumeCommand({ VolumeId: volume, InstanceId: this.instance, Device: device }));
  }

  /** Whether the volume is served, soon at least. */
  attached(volume: string, device: string): Promise<boolean> {
    return settles(async () => (await this.#attachment(volume)) === 'attached' && existsSync(this.socket(device)));
  }

  async detach(volume: string, device: string): Promise<boolean> {
    await this.ec2.send(new DetachVolumeCommand({ VolumeId: volume }));
    return this.#detached(volume, device);
  }

  /** Deletes all that was made; keys go after a waiting period of 7 days, which is the shortest. */
  async clear(): Promise<void> {
    if (this.instance) await this.ec2.send(new TerminateInstancesCommand({ InstanceIds: [this.instance] }));
    for (const VolumeId of this.volumes) {
      await settles(async () => (await this.#attachment(VolumeId)) === undefined);
      await this.ec2.send(new DeleteVolumeCommand({ VolumeId }));
    }
    for (const SnapshotId of this.snapshots) await this.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
    for (const KeyId of this.keys)
      await this.kms.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
  }

  async #attachment(volume: string): Promise<string | undefined> {
    const { Volumes } = await this.ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume] }));
    return Volumes![0]!.Attachments?.[0]?.State;
  }

  #detached(volume: string, device: string): Promise<boolean> {
    return settles(async () => (await this.#attachment(volume)) === undefined && !existsSync(this.socket(device)));
  }
}
