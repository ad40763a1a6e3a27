/** The story that `coffer demo` tells. */
import { createDecipheriv, randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  EC2Client,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DecryptCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  KMSClient,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms';
import type { ListEventsOutput } from '../events/list.ts';
import type { Connection } from './connection.ts';
import type { Narrator } from './demo-narrator.ts';
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

const imageId = 'ami-0c0ffe00000000000';
const device = '/dev/sdf';
const mebibyte = 1024 * 1024;
const settleMs = 10_000;

/**
 * @param ownDataDir the data directory of a server that belongs to the demo: then all of it is searched for plaintext
 */
export async function tellStory(connection: Connection, tell: Narrator, ownDataDir?: string): Promise<void> {
  const configuration = connection.sdkConfiguration();
  const kms = new KMSClient(configuration);
  const ec2 = new EC2Client(configuration);
  const trail = new CloudTrailClient(configuration);
  const alias = `alias/demo-${randomBytes(4).toString('hex')}`;
  const zone = `${connection.region}a`;
  const startedAt = new Date();

  tell.chapter('A key of my own');
  tell.doing(`aws kms create-key;  aws kms create-alias --alias-name ${alias} --target-key-id …`);
  const key = (await kms.send(new CreateKeyCommand({ Description: 'coffer demo' }))).KeyMetadata!;
  await kms.send(new CreateAliasCommand({ AliasName: alias, TargetKeyId: key.KeyId }));
  tell.claim('the key is there and enabled', key.KeyState === 'Enabled', key.Arn);

  tell.chapter('An encrypted volume at an instance');
  tell.doing(`aws ec2 run-instances --image-id ${imageId} --instance-type m5.large`);
  const instance = (
    await ec2.send(
      new RunInstancesCommand({
        ImageId: imageId,
        InstanceType: 'm5.large',
        MinCount: 1,
        MaxCount: 1,
        Placement: { AvailabilityZone: zone },
      }),
    )
  ).Instances![0]!.InstanceId!;
  tell.doing(`aws ec2 create-volume --size 1 --availability-zone ${zone} --encrypted --kms-key-id ${alias}`);
  const create = () =>
    ec2.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: alias }));
  const created = await create();
  const volume = created.VolumeId!;
  const other = (await create()).VolumeId!;
  tell.claim(
    'the volume is encrypted under my key',
    created.Encrypted === true && created.KmsKeyId === key.Arn,
    volume,
  );

  const inspection = await connection.call<VolumeInspection>('InspectVolume', { VolumeId: volume });
  const image = inspection.ImagePath;
  if (image === null)
    throw new CommandError(`no host serves the zone ${zone}; start one with: coffer host`, exitCodes.unavailable);
  const dataDir = ownDataDir ?? dirname(dirname(image));
  if (!existsSync(dataDir)) {
    throw new CommandError(
      `the volumes of ${connection.endpoint.url} are not on this machine (${dataDir}); run the demo where its host runs`,
      exitCodes.unavailable,
    );
  }
  const socket = join(dataDir, 'instances', instance, device);
  const state = async () =>
    (await ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume] }))).Volumes![0]!.Attachments?.[0]?.State;
  const attach = async (volumeId: string, to = device) => {
    await ec2.send(new AttachVolumeCommand({ VolumeId: volumeId, InstanceId: instance, Device: to }));
  };
  const attached = () => settles(async () => (await state()) === 'attached' && existsSync(socket));
  const gone = () => settles(async () => (await state()) === undefined && !existsSync(socket));
  tell.doing(`aws ec2 attach-volume --volume-id ${volume} --instance-id ${instance} --device ${device}`);
  await attach(volume);
  tell.claim('it is attached, and served over NBD', await attached(), `nbd+unix:///?socket=${socket}`);

  tell.chapter('Data goes in, ciphertext comes to rest');
  const marker = `the plaintext of ${volume}, `.repeat(200).slice(0, 4096);
  const written = Buffer.concat([Buffer.from(marker), randomBytes(mebibyte - 4096)]);
  const at = 8 * mebibyte;
  let nbd = await NbdClient.connect(socket);
  await nbd.write(at, written);
  await nbd.flush();
  tell.claim('1 MiB written and flushed reads back as it was', (await nbd.read(at, written.length)).equals(written));
  const needle = Buffer.from(marker.slice(0, 40));
  const searched = ownDataDir ? filesUnder(ownDataDir) : [image];
  tell.claim(
    `the plaintext is in none of ${searched.length} files ${ownDataDir ? 'under the data directory' : '(the image)'}`,
    searched.every((file) => !fileContains(file, needle)),
  );
  tell.doing(`coffer volume inspect ${volume};  aws kms decrypt …;  decrypt the image with AES-256-XTS`);
  const bytesOnDisk = readAt(image, at, written.length);
  const dataKey = (
    await kms.send(
      new DecryptCommand({
        CiphertextBlob: Buffer.from(inspection.EncryptedDataKey, 'base64'),
        EncryptionContext: inspection.EncryptionContext,
      }),
    )
  ).Plaintext!;
  const decrypted = decryptUnits(bytesOnDisk, dataKey, at, inspection.DataUnitBytes);
  dataKey.fill(0);
  tell.claim(
    "KMS Decrypt and Node.js's own AES-256-XTS turn the image's bytes into what was written",
    decrypted.equals(written) && !bytesOnDisk.equals(written),
  );

  tell.chapter('Detach, attach again');
  await nbd.close();
  tell.doing(`aws ec2 detach-volume --volume-id ${volume}`);
  await ec2.send(new DetachVolumeCommand({ VolumeId: volume }));
  tell.claim('the socket is gone, and with it the data key', await gone());
  await attach(volume);
  await attached();
  nbd = await NbdClient.connect(socket);
  tell.claim('attached again, the data is there', (await nbd.read(at, written.length)).equals(written));

  tell.chapter('Every step is on record');
  for (const EventName of ['GenerateDataKeyWithoutPlaintext', 'CreateGrant', 'Decrypt']) {
    tell.doing(`aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=${EventName}`);
    const found = await trail.send(
      new LookupEventsCommand({
        LookupAttributes: [{ AttributeKey: 'EventName', AttributeValue: EventName }],
        StartTime: new Date(startedAt.getTime() - 1000),
      }),
    );
    const record = (found.Events ?? [])
      .map((event) => JSON.parse(event.CloudTrailEvent!))
      .find((record) => JSON.stringify(record.requestParameters ?? {}).includes(`"aws:ebs:id":"${volume}"`));
    tell.claim(`${EventName} names the volume`, record !== undefined, record?.userIdentity?.arn);
  }

  tell.chapter('The key is disabled');
  tell.doing(`aws kms disable-key --key-id ${key.KeyId}`);
  await kms.send(new DisableKeyCommand({ KeyId: key.KeyId }));
  const more = randomBytes(mebibyte);
  await nbd.write(0, more);
  await nbd.flush();
  tell.claim('the attached volume goes on: written, flushed, read', (await nbd.read(0, more.length)).equals(more));
  await nbd.close();
  const refuses = async (what: string, work: () => Promise<unknown>) => {
    const error = await work().then(
      () => undefined,
      (error: Error) => error,
    );
    const isClear = error?.message.includes(`${key.Arn} is disabled`) ?? false;
    tell.claim(
      `${what} is refused at once, naming key and state`,
      isClear,
      error ? `${error.name}: ${error.message}` : '',
    );
  };
  await refuses('a new volume', create);
  await refuses('attaching another volume', () => attach(other, '/dev/sdg'));
  tell.doing(`aws ec2 stop-instances --instance-ids ${instance};  aws ec2 start-instances …`);
  await ec2.send(new StopInstancesCommand({ InstanceIds: [instance] }));
  await settles(() => !existsSync(socket));
  await refuses('starting the stopped instance', () =>
    ec2.send(new StartInstancesCommand({ InstanceIds: [instance] })),
  );
  tell.doing('coffer events');
  const { Events } = await connection.call<ListEventsOutput>('ListEvents', { Limit: 1000 });
  for (const name of ['createVolume', 'attachVolume', 'reattachVolume']) {
    const event = Events.find(
      ({ detail, time }) =>
        detail.event === name && detail.result === 'failed' && Date.parse(time) >= startedAt.getTime() - 1000,
    );
    tell.claim(
      `the event ${name} says so`,
      String(event?.detail.cause).includes(`${key.Arn} is disabled`),
      String(event?.detail.cause ?? ''),
    );
  }

  tell.chapter('The key is enabled again');
  await kms.send(new EnableKeyCommand({ KeyId: key.KeyId }));
  await ec2.send(new StartInstancesCommand({ InstanceIds: [instance] }));
  await attached();
  nbd = await NbdClient.connect(socket);
  tell.claim(
    'the instance starts, and all the data is there',
    (await nbd.read(0, more.length)).equals(more) && (await nbd.read(at, written.length)).equals(written),
  );
  await nbd.close();

  tell.chapter('Cleaning up');
  await ec2.send(new TerminateInstancesCommand({ InstanceIds: [instance] }));
  await gone();
  await settles(
    async () =>
      (await ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume] }))).Volumes![0]!.State === 'available',
  );
  for (const VolumeId of [volume, other]) await ec2.send(new DeleteVolumeCommand({ VolumeId }));
  await kms.send(new ScheduleKeyDeletionCommand({ KeyId: key.KeyId, PendingWindowInDays: 7 }));
  tell.claim('a deleted volume leaves no image', await settles(() => !existsSync(image)));
  for (const client of [kms, ec2, trail]) client.destroy();
}

/** Waits until `condition` holds, for a while; whether it came to hold. */
async function settles(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadline = Date.now() + settleMs;
  while (!(await condition())) {
    if (Date.now() > deadline) return false;
    await new Promise((wake) => setTimeout(wake, 25));
  }
  return true;
}

function readAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const file = openSync(path, 'r');
  try {
    readSync(file, bytes, 0, length, offset);
  } finally {
    closeSync(file);
  }
  return bytes;
}

/**
 * AES-256-XTS as docs/volume-image.md has it: the tweak is the number of the data unit, 128 bits, little-endian.
 */
function decryptUnits(ciphertext: Buffer, dataKey: Uint8Array, offset: number, unitBytes: number): Buffer {
  const plaintext: Buffer[] = [];
  for (let at = 0; at < ciphertext.length; at += unitBytes) {
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt((offset + at) / unitBytes));
    const decipher = createDecipheriv('aes-256-xts', dataKey, tweak);
    plaintext.push(decipher.update(ciphertext.subarray(at, at + unitBytes)), decipher.final());
  }
  return Buffer.concat(plaintext);
}

function filesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Searches the parts of a file that hold data; images are sparse and mostly holes, which read as zeros quickly. */
function fileContains(path: string, needle: Buffer): boolean {
  const stepBytes = 64 * mebibyte;
  const overlapBytes = needle.length - 1;
  if (path.endsWith('.img')) return imageContains(path, needle, stepBytes, overlapBytes);
  return readFileSync(path).includes(needle);
}

function imageContains(path: string, needle: Buffer, stepBytes: number, overlapBytes: number): boolean {
  const buffer = Buffer.alloc(stepBytes);
  const file = openSync(path, 'r');
  try {
    for (let offset = 0; ; offset += stepBytes - overlapBytes) {
      const length = readSync(file, buffer, 0, stepBytes, offset);
      if (buffer.subarray(0, length).includes(needle)) return true;
      if (length < stepBytes) return false;
    }
  } finally {
    closeSync(file);
  }
}
