/** The story that `coffer demo` tells. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import {
  CreateVolumeCommand,
  EC2Client,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
} from '@aws-sdk/client-ec2';
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DecryptCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  KMSClient,
} from '@aws-sdk/client-kms';
import type { ListEventsOutput } from '../events/list.ts';
import { filesUnder } from '../files/files-under.ts';
import type { Connection } from './connection.ts';
import { decryptUnits, fileContains, readAt, settles } from './demo-evidence.ts';
import type { Narrator } from './demo-narrator.ts';
import { blocksOf, tellOfSnapshots } from './demo-snapshots.ts';
import { Stage, type VolumeInspection } from './demo-stage.ts';
import { CommandError, exitCodes } from './errors.ts';

const imageId = 'ami-0c0ffe00000000000';
const device = '/dev/sdf';
const mebibyte = 1024 * 1024;

/**
 * Tells the story, and deletes what it made, also when it comes to no good end.
 * @param ownDataDir the data directory of a server that belongs to the demo: then all of it is searched for plaintext
 */
export async function tellStory(connection: Connection, tell: Narrator, ownDataDir?: string): Promise<void> {
  const configuration = connection.sdkConfiguration();
  const stage = new Stage(new EC2Client(configuration), new KMSClient(configuration));
  try {
    await play(stage, connection, tell, ownDataDir);
  } catch (error) {
    if (!ownDataDir) await stage.clear().catch(() => {});
    throw error;
  } finally {
    stage.ec2.destroy();
    stage.kms.destroy();
  }
}

async function play(stage: Stage, connection: Connection, tell: Narrator, ownDataDir?: string): Promise<void> {
  const { ec2, kms } = stage;
  const configuration = connection.sdkConfiguration();
  const trail = new CloudTrailClient(configuration);
  const alias = `alias/demo-${randomBytes(4).toString('hex')}`;
  const zone = `${connection.region}a`;
  const startedAt = new Date();

  tell.chapter('A key of my own');
  tell.doing(`aws kms create-key;  aws kms create-alias --alias-name ${alias} --target-key-id …`);
  const key = (await kms.send(new CreateKeyCommand({ Description: 'coffer demo' }))).KeyMetadata!;
  stage.keys.push(key.KeyId!);
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
  stage.instance = instance;
  tell.doing(`aws ec2 create-volume --size 1 --availability-zone ${zone} --encrypted --kms-key-id ${alias}`);
  const create = async () => {
    const request = { Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: alias };
    const made = await ec2.send(new CreateVolumeCommand(request));
    stage.volumes.push(made.VolumeId!);
    return made;
  };
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
  stage.dataDir = dataDir;
  const socket = stage.socket(device);
  tell.doing(`aws ec2 attach-volume --volume-id ${volume} --instance-id ${instance} --device ${device}`);
  await stage.attach(volume, device);
  tell.claim(
    'it is attached, and served over NBD',
    await stage.attached(volume, device),
    `nbd+unix:///?socket=${socket}`,
  );

  tell.chapter('Data goes in, ciphertext comes to rest');
  const marker = `the plaintext of ${volume}, `.repeat(200).slice(0, 4096);
  const written = Buffer.concat([Buffer.from(marker), randomBytes(mebibyte - 4096)]);
  const at = 8 * mebibyte;
  let nbd = await stage.open(device);
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
  tell.claim('the socket is gone, and with it the data key', await stage.detach(volume, device));
  await stage.attach(volume, device);
  await stage.attached(volume, device);
  nbd = await stage.open(device);
  tell.claim('attached again, the data is there', (await nbd.read(at, written.length)).equals(written));

  const copy = await tellOfSnapshots({
    connection,
    stage,
    tell,
    volume,
    image,
    nbd,
    written: { at, bytes: written, needle },
    alias: `${alias}-copy`,
    zone,
    ownDataDir,
  });

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
      .filter((record) => JSON.stringify(record.requestParameters ?? {}).includes(`"aws:ebs:id":"${volume}"`))
      // The first of them: the data key was asked for before there was anything else to decrypt with it.
      .at(-1);
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
  await refuses('attaching another volume', () => stage.attach(other, '/dev/sdg'));
  await stage.attach(copy, '/dev/sdh');
  await stage.attached(copy, '/dev/sdh');
  const restored = await stage.open('/dev/sdh');
  tell.claim(
    'the volume from the snapshot is under the other key: it is attached, and has the data',
    (await restored.read(at, written.length)).equals(written),
  );
  await restored.close();
  await stage.detach(copy, '/dev/sdh');
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
  await stage.attached(volume, device);
  nbd = await stage.open(device);
  tell.claim(
    'the instance starts, and all the data is there',
    (await nbd.read(0, more.length)).equals(more) && (await nbd.read(at, written.length)).equals(written),
  );
  await nbd.close();

  tell.chapter('Cleaning up');
  const isStoreHere = stage.snapshots.some((id) => existsSync(blocksOf(stage, id)));
  await stage.clear();
  tell.claim('a deleted volume leaves no image', await settles(() => !existsSync(image)));
  const areGone = () => stage.snapshots.every((id) => !existsSync(blocksOf(stage, id)));
  if (isStoreHere) tell.claim('a deleted snapshot leaves no blocks', await settles(areGone));
  trail.destroy();
}
