/** Volumes from snapshots, copies of snapshots and of volumes: encryption outcomes, keys, and what hosts are told. */
import { beforeEach, describe, expect, test } from 'vitest';
import type { CopySnapshotTask, InitializeVolumeTask } from '../src/aws/host-protocol.ts';
import { eachInItsWorld, infrastructureArn, type SnapshotWorld, until } from './support/snapshots.ts';
import { account, done, half, otherAccount, stranger, zone } from './support/world.ts';

const held = eachInItsWorld();
let w: SnapshotWorld;
beforeEach(() => {
  w = held.current;
});
const running = () => ({ state: 'running' }) as const;
const abroad = { region: 'eu-west-1' };
const managedKey = async (caller = {}) =>
  (await w.world.kms('DescribeKey', { KeyId: 'alias/aws/ebs' }, caller)).KeyMetadata.Arn as string;
const restored = (SnapshotId: string, more: object = {}, caller = {}) =>
  w.world.ec2('CreateVolume', { SnapshotId, AvailabilityZone: zone, ...more }, caller);
const copied = async (SourceSnapshotId: string, more: object = {}, caller = {}) =>
  (await w.world.ec2('CopySnapshot', { SourceSnapshotId, SourceRegion: 'us-east-1', ...more }, caller))
    .SnapshotId as string;
/** Lets another account use a key through EC2 and a snapshot. */
async function share(snapshotId: string, keyArn?: string) {
  await w.world.ec2('ModifySnapshotAttribute', {
    SnapshotId: snapshotId,
    CreateVolumePermission: { Add: [{ UserId: otherAccount }] },
  });
  if (!keyArn) return;
  const everyone = [account, otherAccount].map((id) => `arn:aws:iam::${id}:root`);
  const statement = { Effect: 'Allow', Principal: { AWS: everyone }, Action: 'kms:*', Resource: '*' };
  const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] });
  await w.world.kms('PutKeyPolicy', { KeyId: keyArn, Policy });
}

/** The rows and columns of the table of encryption outcomes. */
const sources = ['empty', 'unencrypted', 'unencrypted shared', 'encrypted', 'encrypted shared'] as const;
const requests = {
  nothing: {},
  'Encrypted=false': { Encrypted: false },
  Encrypted: { Encrypted: true },
  'Encrypted and a key': { Encrypted: true, KmsKeyId: 'named' },
  'a key alone': { KmsKeyId: 'named' },
} as const;
type Outcome = 'unencrypted' | 'default' | 'its own' | 'named' | 'refused';

function outcomeOf(source: string, request: string, byDefault: boolean, isCopy: boolean): Outcome {
  if (request === 'a key alone' && !byDefault) return 'refused';
  if (request.endsWith('key') || request === 'a key alone') return 'named';
  // AWS has no way to ask for a copy that is not encrypted of one that is.
  if (isCopy && request === 'Encrypted=false' && source.startsWith('encrypted')) return 'refused';
  if (source === 'encrypted') return 'its own';
  if (source === 'encrypted shared' || byDefault || request === 'Encrypted') return 'default';
  return 'unencrypted';
}

describe.each([false, true])('encryption by default %s', (byDefault) => {
  test.each(sources)('source %s: volumes and copies have the outcomes of the table', async (source) => {
    const caller = source.endsWith('shared') ? stranger : {};
    const owned = source.startsWith('encrypted') ? await w.newKey() : undefined;
    const snapshotId =
      source === 'empty' ? undefined : await w.stored(owned ? { Encrypted: true, KmsKeyId: owned } : {});
    if (snapshotId && source.endsWith('shared')) await share(snapshotId, owned);
    const defaultKey = await w.newKey(caller);
    await w.world.ec2('ModifyEbsDefaultKmsKeyId', { KmsKeyId: defaultKey }, caller);
    if (byDefault) await w.world.ec2('EnableEbsEncryptionByDefault', {}, caller);
    const named = await w.newKey(caller);
    const keys = { unencrypted: undefined, default: defaultKey, 'its own': owned, named };
    for (const [name, request] of Object.entries(requests)) {
      const asked = 'KmsKeyId' in request ? { ...request, KmsKeyId: named } : request;
      const makers = {
        volume: () =>
          snapshotId
            ? restored(snapshotId, asked, caller)
            : w.world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ...asked }, caller),
        ...(snapshotId ? { copy: async () => w.describe(await copied(snapshotId, asked, caller), caller) } : {}),
      };
      for (const [what, make] of Object.entries(makers)) {
        const outcome = outcomeOf(source, name, byDefault, what === 'copy');
        if (outcome === 'refused')
          await expect(make(), `${what}, ${name}`).rejects.toMatchObject({
            code: expect.stringMatching(/^InvalidParameter(Dependency|Combination)$/),
          });
        else {
          const { Encrypted, KmsKeyId } = await make();
          expect([what, name, Encrypted, KmsKeyId]).toEqual([what, name, outcome !== 'unencrypted', keys[outcome]]);
        }
      }
    }
  });
});

describe('CreateVolume from a snapshot', () => {
  test('gives it a data key of its own, and the host both keys under one grant for as long as it restores', async () => {
    const [theirs, KmsKeyId] = [await w.newKey(), await w.newKey()];
    const source = await w.stored({ Encrypted: true, KmsKeyId: theirs });
    w.host.perform = (task) => (task.kind === 'initializeVolume' ? running() : done(task));
    const { VolumeId, ...made } = await restored(source, { Encrypted: true, KmsKeyId, VolumeInitializationRate: 200 });
    expect(made).toMatchObject({ State: 'creating', Size: 1, SnapshotId: source, VolumeInitializationRate: 200 });
    expect(await w.describeVolume(VolumeId)).toMatchObject({ State: 'available', SnapshotId: source });
    const [task] = await w.listed('initializeVolume');
    const context = { 'aws:ebs:id': VolumeId };
    expect(task).toMatchObject({
      volumeId: VolumeId,
      sizeBytes: 1024 ** 3,
      hasImage: false,
      encryption: { keyArn: KmsKeyId, encryptionContext: context },
      source: { snapshotId: source, rate: 200, encryption: { keyArn: KmsKeyId, encryptionContext: context } },
    });
    const blobs = [task!.encryption!.encryptedDataKey, task!.source.encryption!.encryptedDataKey];
    const grantee = infrastructureArn(VolumeId);
    const { Grants } = await w.world.kms('ListGrants', { KeyId: KmsKeyId });
    expect(Grants).toMatchObject([
      { GranteePrincipal: grantee, Operations: ['Decrypt'], Constraints: { EncryptionContextSubset: context } },
    ]);
    // What the two blobs hold is the new volume's key, and the key of the source's blocks.
    const open = async (text: string) =>
      (await w.world.kms('Decrypt', { CiphertextBlob: Buffer.from(text, 'base64'), EncryptionContext: context }))
        .Plaintext as Uint8Array;
    const [own, blocks] = await Promise.all(blobs.map(open));
    expect(Buffer.from(own!).equals(blocks!)).toBe(false);
    expect(blocks).toHaveLength(64);
    expect(w.host.answers.some((answer) => answer.credentials.some((one) => one.sessionName === VolumeId))).toBe(true);
    w.host.perform = done;
    await until(async () => (await w.listed('initializeVolume')).length === 0);
    expect((await w.world.kms('ListGrants', { KeyId: KmsKeyId })).Grants).toEqual([]);
  });

  test('is shown by DescribeVolumeStatus, and tells each attachment where its blocks are', async () => {
    const source = await w.stored();
    w.host.perform = (task) => (task.kind === 'initializeVolume' ? { state: 'running', progress: 50 } : done(task));
    const { VolumeId } = await restored(source, { Size: 2, VolumeInitializationRate: 100 });
    const status = async () => (await w.world.ec2('DescribeVolumeStatus', { VolumeIds: [VolumeId] })).VolumeStatuses[0];
    await until(async () => (await status()).InitializationStatusDetails.Progress === 50);
    expect(await status()).toMatchObject({
      VolumeStatus: {
        Status: 'ok',
        Details: expect.arrayContaining([{ Name: 'initialization-state', Status: 'initializing' }]),
      },
      InitializationStatusDetails: { InitializationType: 'provisioned-rate', Progress: 50 },
    });
    await w.world.ec2('AttachVolume', { VolumeId, InstanceId: await w.newInstance(), Device: '/dev/sdf' });
    const attachment = w.host.answers.at(-1)!.attachments[0];
    expect(attachment).toMatchObject({
      sizeBytes: 2 * 1024 ** 3,
      source: { snapshotId: source, sizeBytes: 1024 ** 3, rate: 100 },
    });
    // The snapshot's blocks are needed until all are in the image.
    await w.world.ec2('DeleteSnapshot', { SnapshotId: source });
    expect(await w.listed('deleteSnapshot')).toEqual([]);
    w.host.perform = (task) => (task.kind === 'deleteSnapshot' ? running() : done(task));
    await until(async () => (await w.listed('deleteSnapshot')).length === 1);
    expect((await status()).InitializationStatusDetails).toEqual({
      InitializationType: 'provisioned-rate',
      Progress: 100,
      EstimatedTimeToCompleteInSeconds: 0,
    });
    expect((await w.host.sync()).attachments[0]).not.toHaveProperty('source');
  });

  test('with a block that is corrupt is impaired, and says which', async () => {
    const source = await w.stored();
    const error = 'block 7 of snap-1 is not what was stored';
    w.host.perform = (task) => (task.kind === 'initializeVolume' ? { state: 'failed', error } : done(task));
    const { VolumeId } = await restored(source);
    await until(async () => {
      const [status] = (await w.world.ec2('DescribeVolumeStatus', { VolumeIds: [VolumeId] })).VolumeStatuses;
      return status.VolumeStatus.Status === 'impaired' && status.Events[0].Description === error;
    });
  });

  test('deleted while it is restored, it needs snapshot, grant and task no more', async () => {
    const source = await w.stored({ Encrypted: true });
    w.host.perform = (task) => (task.kind === 'initializeVolume' ? running() : done(task));
    const { VolumeId, KmsKeyId } = await restored(source);
    await w.world.ec2('DeleteVolume', { VolumeId });
    const state = () =>
      w.describeVolume(VolumeId).then(
        ({ State }) => State,
        ({ code }) => code,
      );
    await until(async () => (await state()) === 'InvalidVolume.NotFound');
    expect(await w.found({})).toEqual([source]);
    expect(await w.listed('initializeVolume')).toEqual([]);
    expect((await w.world.kms('ListGrants', { KeyId: KmsKeyId })).Grants).toEqual([]);
  });

  test.each([
    [{ SnapshotId: 'snap-00000000000000001' }, 'InvalidSnapshot.NotFound'],
    [{ VolumeInitializationRate: 99 }, 'InvalidParameterValue'],
    [{ VolumeInitializationRate: 301 }, 'InvalidParameterValue'],
    [{ Size: 1 }, 'InvalidParameterValue'],
    [{ VolumeType: 'st1' }, 'InvalidParameterValue'],
  ])('answers %j with %s', async (more, code) => {
    const source = await w.stored({ Size: 4 });
    await expect(restored(source, more)).rejects.toMatchObject({ code });
  });

  test('asked again with its token it is the same volume, though the snapshot is gone and settings have changed', async () => {
    const source = await w.stored();
    const request = { ClientToken: 'once', KmsKeyId: await w.newKey() };
    await w.world.ec2('EnableEbsEncryptionByDefault');
    const { VolumeId } = await restored(source, request);
    await w.world.ec2('DisableEbsEncryptionByDefault');
    await w.world.ec2('DeleteSnapshot', { SnapshotId: source });
    expect(await restored(source, request)).toMatchObject({ VolumeId, SnapshotId: source });
    await expect(restored(source, { ...request, Size: 9 })).rejects.toMatchObject({
      code: 'IdempotentParameterMismatch',
    });
    await expect(restored(source, { ...request, DryRun: true })).rejects.toMatchObject({ code: 'DryRunOperation' });
    await w.world.ec2('DeleteVolume', { VolumeId });
    await expect(restored(source, request)).rejects.toMatchObject({ code: 'IdempotentParameterMismatch' });
  });

  test('does not take one that is pending, nor a stranger one that is not shared', async () => {
    const source = await w.stored();
    await expect(restored(source, {}, stranger)).rejects.toMatchObject({ code: 'InvalidSnapshot.NotFound' });
    w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const pending = await w.snapshot(await w.volume());
    await expect(restored(pending)).rejects.toMatchObject({ code: 'IncorrectState' });
    await expect(copied(pending)).rejects.toMatchObject({ code: 'IncorrectState' });
  });
});

describe('CopySnapshot', () => {
  test('within a region gives the copy a data key and context of its own, under one grant', async () => {
    const source = await w.stored({ Encrypted: true, KmsKeyId: await w.newKey() });
    const key = await w.newKey();
    w.host.perform = (task) => (task.kind === 'copySnapshot' ? running() : done(task));
    const id = await copied(source, { Encrypted: true, KmsKeyId: key, Description: 'mine' });
    expect(await w.describe(id)).toMatchObject({
      State: 'pending',
      Progress: '0%',
      VolumeId: 'vol-ffffffff',
      Description: 'mine',
      KmsKeyId: key,
      TransferType: 'standard',
    });
    const context = { 'aws:ebs:id': id };
    const [task] = await w.listed('copySnapshot');
    expect(task).toMatchObject({
      snapshotId: id,
      sourceSnapshotId: source,
      sourceEncryption: { keyArn: key, encryptionContext: context },
      encryption: { keyArn: key, encryptionContext: context },
    });
    expect((await w.world.kms('ListGrants', { KeyId: key })).Grants).toMatchObject([
      { GranteePrincipal: infrastructureArn(id), Constraints: { EncryptionContextSubset: context } },
    ]);
    w.host.perform = done;
    await w.completed(id);
    expect((await w.world.kms('ListGrants', { KeyId: key })).Grants).toEqual([]);
    expect((await w.world.events('EBS Snapshot Notification')).at(-1)!.detail).toMatchObject({
      event: 'copySnapshot',
      result: 'succeeded',
      source: `arn:aws:ec2::us-east-1:snapshot/${source}`,
      Incremental: 'false',
    });
  });

  test('from another region takes the default key there, and a grant on the source key here', async () => {
    const sourceKey = await w.newKey();
    const VolumeId = await w.volume({ Encrypted: true, KmsKeyId: sourceKey });
    const source = await w.snapshot(VolumeId);
    await w.completed(source);
    w.host.perform = (task) => (task.kind === 'copySnapshot' ? running() : done(task));
    const id = await copied(source, {}, abroad);
    const task = (await w.listed('copySnapshot'))[0] as CopySnapshotTask;
    const there = await managedKey(abroad);
    expect(task).toMatchObject({
      sourceEncryption: { keyArn: sourceKey, encryptionContext: { 'aws:ebs:id': VolumeId } },
      encryption: { keyArn: there, encryptionContext: { 'aws:ebs:id': id } },
    });
    const grants = async () => (await w.world.kms('ListGrants', { KeyId: sourceKey })).Grants;
    expect(await grants()).toMatchObject([{ GranteePrincipal: infrastructureArn(id) }]);
    expect(w.host.answers.flatMap((answer) => answer.credentials)).toContainEqual(
      expect.objectContaining({ sessionName: id, account, region: 'eu-west-1' }),
    );
    await w.world.ec2('DeleteSnapshot', { SnapshotId: id }, abroad);
    expect(await grants()).toEqual([]);
    expect(await w.listed('copySnapshot')).toEqual([]);
    expect(await w.found({ OwnerIds: ['self'] }, abroad)).toEqual([]);
  });

  test('keeps the source until it is done, cancels by deletion, and fails with the reason', async () => {
    const source = await w.stored();
    w.host.perform = (task) =>
      task.kind === 'copySnapshot' || task.kind === 'deleteSnapshot' ? running() : done(task);
    const id = await copied(source);
    await w.world.ec2('DeleteSnapshot', { SnapshotId: source });
    expect(await w.listed('deleteSnapshot')).toEqual([]);
    await w.world.ec2('DeleteSnapshot', { SnapshotId: id });
    expect((await w.listed('deleteSnapshot')).map((task) => task.snapshotId).sort()).toEqual([id, source].sort());
    w.host.perform = (task) =>
      task.kind === 'copySnapshot' ? { state: 'failed', final: true, error: 'block 3 is corrupt' } : done(task);
    const lost = await copied(await w.stored());
    await until(async () => (await w.describe(lost)).State === 'error');
    expect(await w.describe(lost)).toMatchObject({ StateMessage: 'block 3 is corrupt' });
  });

  test('takes durations in steps of fifteen minutes, and twenty copies at a time', async () => {
    const source = await w.stored();
    w.host.perform = running;
    const id = await copied(source, { CompletionDurationMinutes: 30 });
    expect(await w.describe(id)).toMatchObject({ TransferType: 'time-based', CompletionDurationMinutes: 30 });
    expect(await w.found({ Filters: [{ Name: 'transfer-type', Values: ['time-based'] }] })).toEqual([id]);
    for (let index = 1; index < 20; index++) await copied(source);
    await expect(copied(source)).rejects.toMatchObject({ code: 'ResourceLimitExceeded' });
    await copied(source, {}, abroad);
  });

  test.each([
    [{ CompletionDurationMinutes: 20 }, 'InvalidParameterValue'],
    [{ SourceRegion: undefined }, 'MissingParameter'],
    [{ SourceRegion: 'nowhere' }, 'InvalidParameterValue'],
    [{ SourceRegion: 'eu-west-1' }, 'InvalidSnapshot.NotFound'],
    [{ KmsKeyId: 'alias/aws/ebs' }, 'InvalidParameterDependency'],
    [{ DryRun: true }, 'DryRunOperation'],
  ])('answers %j with %s', async (more, code) => {
    await expect(copied(await w.stored(), more)).rejects.toMatchObject({ code });
  });
});

describe('CopyVolumes', () => {
  test('makes a volume from a point in time that the API does not show', async () => {
    w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const source = await w.volume({ Encrypted: true, VolumeType: 'gp3' });
    const request = { SourceVolumeId: source, Size: 2, VolumeType: 'gp3', ClientToken: 'once' };
    const [copy] = (await w.world.ec2('CopyVolumes', request)).Volumes;
    expect(copy).toMatchObject({ State: 'creating', Size: 2, SourceVolumeId: source, Encrypted: true, SnapshotId: '' });
    expect((await w.world.ec2('CopyVolumes', request)).Volumes[0].VolumeId).toBe(copy.VolumeId);
    expect(await w.found({ OwnerIds: ['self'] })).toEqual([]);
    expect((await w.describeVolume(copy.VolumeId)).State).toBe('creating');
    const attach = async () =>
      w.world.ec2('AttachVolume', { VolumeId: copy.VolumeId, InstanceId: await w.newInstance(), Device: '/dev/sdf' });
    await expect(attach()).rejects.toMatchObject({ code: 'IncorrectState' });
    const tasks: InitializeVolumeTask[] = [];
    w.host.perform = (task) => {
      if (task.kind === 'initializeVolume') tasks.push(task);
      return done(task);
    };
    await until(async () => (await w.describeVolume(copy.VolumeId)).State === 'available');
    await until(async () => {
      const [status] = (await w.world.ec2('DescribeVolumeStatus', { VolumeIds: [copy.VolumeId] })).VolumeStatuses;
      return status.InitializationStatusDetails.Progress === 100;
    });
    expect(tasks[0]).toMatchObject({ volumeId: copy.VolumeId, sizeBytes: 2 * 1024 ** 3 });
    // Its point in time has gone with the last use of it.
    await until(async () => {
      const rows = await w.world.database.run((db) => db.selectFrom('ec2_snapshots').selectAll().execute());
      return rows.length === 0;
    });
    await attach();
  });

  test('asked again with its token it is the same volume, though the source has grown or is gone', async () => {
    const source = await w.volume();
    const request = { SourceVolumeId: source, Size: 2, ClientToken: 'once' };
    const copy = async () => (await w.world.ec2('CopyVolumes', request)).Volumes[0].VolumeId;
    const made = await copy();
    await w.world.ec2('ModifyVolume', { VolumeId: source, Size: 3 });
    expect(await copy()).toBe(made);
    await until(async () => (await w.describeVolume(made)).State === 'available');
    await w.world.ec2('DeleteVolume', { VolumeId: source });
    expect(await copy()).toBe(made);
  });

  test('is gone, with its event, when the point in time can not be stored', async () => {
    w.host.perform = (task) => (task.kind === 'createSnapshot' ? half : done(task));
    const [copy] = (await w.world.ec2('CopyVolumes', { SourceVolumeId: await w.volume() })).Volumes;
    w.host.perform = (task) =>
      task.kind === 'createSnapshot' ? { state: 'failed', final: true, error: 'lost' } : done(task);
    await until(async () => (await w.world.ec2('DescribeVolumes')).Volumes.length === 1);
    const failed = (await w.world.events('EBS Volume Notification')).filter(({ detail }) => detail.result === 'failed');
    expect(failed).toMatchObject([{ resources: [expect.stringContaining(copy.VolumeId)], detail: { cause: 'lost' } }]);
  });
});
