/** Volumes attached and detached, instances started and stopped, with a host at work. */
import { beforeEach, describe, expect, test } from 'vitest';
import {
  attach,
  code,
  grants,
  hosts,
  instanceState,
  newHost,
  newInstance,
  newKey,
  newVolume,
  useWorldWithHosts,
  volume,
  world,
} from './support/attachments.ts';
import { account, infrastructure, stranger } from './support/world.ts';

useWorldWithHosts();

describe('with a host at work', () => {
  beforeEach(async () => {
    const host = newHost();
    await host.sync();
    host.start();
  });

  test('a volume is attached under a grant of its own, and detached without it', async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    expect(await attach(id, instance)).toMatchObject({ State: 'attached', Device: '/dev/sdf' });
    expect(await volume(id)).toMatchObject({
      State: 'in-use',
      Attachments: [{ InstanceId: instance, State: 'attached' }],
    });
    expect(await grants(KmsKeyId)).toMatchObject([
      {
        GranteePrincipal: `arn:aws:sts::${account}:assumed-role/aws:ec2-infrastructure/${instance}`,
        Operations: ['Decrypt'],
        Constraints: { EncryptionContextSubset: { 'aws:ebs:id': id } },
      },
    ]);
    expect(await world.ec2('DetachVolume', { VolumeId: id })).toMatchObject({ State: 'detached' });
    expect(await volume(id)).toMatchObject({ State: 'available', Attachments: [] });
    expect(await grants(KmsKeyId)).toEqual([]);
  });

  test('the grant and the credentials open this data key, and no other', async () => {
    const KmsKeyId = await newKey();
    const [id, other] = [
      await newVolume({ Encrypted: true, KmsKeyId }),
      await newVolume({ Encrypted: true, KmsKeyId }),
    ];
    const instance = await newInstance();
    await attach(id, instance);
    const answer = hosts[0]!.answers.findLast((each) => each.credentials.length > 0)!;
    expect(answer.credentials).toMatchObject([{ sessionName: instance, account, region: 'us-east-1' }]);
    const { keyArn, encryptedDataKey, encryptionContext } = answer.attachments[0]!.encryption!;
    const blob = Buffer.from(encryptedDataKey, 'base64');
    const decrypt = (CiphertextBlob: Buffer, EncryptionContext: object) =>
      world.kms('Decrypt', { KeyId: keyArn, CiphertextBlob, EncryptionContext }, infrastructure(instance));
    expect((await decrypt(blob, encryptionContext)).Plaintext).toHaveLength(64);
    const inspected = await world.call('coffer', 'InspectVolume', { VolumeId: other });
    await expect(
      decrypt(Buffer.from(inspected.EncryptedDataKey, 'base64'), inspected.EncryptionContext),
    ).rejects.toMatchObject({ code: 'AccessDeniedException' });
    await expect(decrypt(blob, inspected.EncryptionContext)).rejects.toBeDefined();
  });

  test('a key that is disabled or about to be deleted stops an attach at once, and leaves nothing', async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    await world.kms('DisableKey', { KeyId: KmsKeyId });
    await expect(attach(id, instance)).rejects.toMatchObject({
      code: 'InvalidKMSKey.InvalidState',
      message: expect.stringContaining(`${KmsKeyId} is disabled.`),
    });
    await world.kms('ScheduleKeyDeletion', { KeyId: KmsKeyId });
    await expect(attach(id, instance)).rejects.toThrow(`${KmsKeyId} is pending deletion.`);
    expect(await volume(id)).toMatchObject({ State: 'available', Attachments: [] });
    const events = (await world.events('EBS Volume Notification')).filter(
      (event) => event.detail.event === 'attachVolume',
    );
    expect(events).toMatchObject([
      {
        resources: [`arn:aws:ec2:us-east-1:${account}:volume/${id}`, KmsKeyId],
        detail: { result: 'failed', cause: `${KmsKeyId} is disabled.` },
      },
      { detail: { cause: `${KmsKeyId} is pending deletion.` } },
    ]);
  });

  test("a host's failure undoes the attach, with its reason", async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    hosts[0]!.fail = { code: 'InternalError', message: 'no space left on /srv' };
    await expect(attach(id, instance)).rejects.toMatchObject({
      message: expect.stringContaining('no space left on /srv'),
    });
    expect(await volume(id)).toMatchObject({ State: 'available', Attachments: [] });
    expect(await grants(KmsKeyId)).toEqual([]);
    hosts[0]!.fail = undefined;
    expect(await attach(id, instance)).toMatchObject({ State: 'attached' });
  });

  test('stop closes volumes and start opens them under a new grant; a disabled key leaves the instance stopped', async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    await attach(id, instance);
    await world.ec2('StopInstances', { InstanceIds: [instance] });
    expect(await instanceState(instance)).toBe('stopped');
    expect(await volume(id)).toMatchObject({ State: 'in-use', Attachments: [{ State: 'attached' }] });
    expect(await grants(KmsKeyId)).toEqual([]);

    await world.kms('DisableKey', { KeyId: KmsKeyId });
    await expect(world.ec2('StartInstances', { InstanceIds: [instance] })).rejects.toThrow(`${KmsKeyId} is disabled.`);
    expect(await instanceState(instance)).toBe('stopped');
    const [event] = (await world.events('EBS Volume Notification')).slice(-1);
    expect(event!.detail).toMatchObject({
      event: 'reattachVolume',
      result: 'failed',
      cause: `${KmsKeyId} is disabled.`,
    });

    await world.kms('EnableKey', { KeyId: KmsKeyId });
    await world.ec2('StartInstances', { InstanceIds: [instance] });
    expect(await instanceState(instance)).toBe('running');
    expect(await grants(KmsKeyId)).toHaveLength(1);
  });

  test('a start whose volume the host cannot open ends stopped, with the reason', async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    await attach(id, instance);
    await world.ec2('StopInstances', { InstanceIds: [instance] });
    hosts[0]!.fail = { code: 'KMSInvalidStateException', message: `${KmsKeyId} is pending import.` };
    await expect(world.ec2('StartInstances', { InstanceIds: [instance] })).rejects.toMatchObject({
      code: 'InvalidKMSKey.InvalidState',
      message: expect.stringContaining('is pending import.'),
    });
    await expect.poll(() => instanceState(instance)).toBe('stopped');
    expect(await grants(KmsKeyId)).toEqual([]);
    const event = (await world.events('EBS Volume Notification')).at(-1)!;
    expect(event.detail).toMatchObject({ event: 'reattachVolume', cause: `${KmsKeyId} is pending import.` });
  });

  test('terminating detaches; DeleteOnTermination deletes', async () => {
    const [kept, doomed] = [await newVolume({ Encrypted: true }), await newVolume()];
    const instance = await newInstance();
    await attach(kept, instance, '/dev/sdf');
    await attach(doomed, instance, '/dev/sdg');
    await world.ec2('ModifyInstanceAttribute', {
      InstanceId: instance,
      BlockDeviceMappings: [{ DeviceName: '/dev/sdg', Ebs: { DeleteOnTermination: true } }],
    });
    await world.ec2('TerminateInstances', { InstanceIds: [instance] });
    expect(await instanceState(instance)).toBe('terminated');
    expect(await volume(kept)).toMatchObject({ State: 'available', Attachments: [] });
    await expect.poll(() => code(world.ec2('DescribeVolumes', { VolumeIds: [doomed] }))).toBe('InvalidVolume.NotFound');
  });

  test('deleting a volume that a host had destroys its key first, and ends when the host has erased the image', async () => {
    const id = await newVolume({ Encrypted: true });
    const instance = await newInstance();
    await attach(id, instance);
    expect(await code(world.ec2('DeleteVolume', { VolumeId: id }))).toBe('VolumeInUse');
    await world.ec2('DetachVolume', { VolumeId: id });
    await hosts[0]!.stop();
    await world.ec2('DeleteVolume', { VolumeId: id });
    expect(await volume(id)).toMatchObject({ State: 'deleting' });
    expect(await world.call('coffer', 'InspectVolume', { VolumeId: id })).toMatchObject({ EncryptedDataKey: null });
    expect(await code(attach(id, instance))).toBe('IncorrectState');
    await hosts[0]!.catchUp();
    expect(await code(world.ec2('DescribeVolumes', { VolumeIds: [id] }))).toBe('InvalidVolume.NotFound');
    expect((await world.events()).at(-1)!.detail).toMatchObject({ event: 'deleteVolume', result: 'deleted' });
  });

  test('RunInstances makes and attaches the volumes that it maps', async () => {
    const instance = await newInstance({
      BlockDeviceMappings: [{ DeviceName: '/dev/sdh', Ebs: { VolumeSize: 2, VolumeType: 'gp3', Encrypted: true } }],
    });
    const { Volumes: found } = await world.ec2('DescribeVolumes', {
      Filters: [{ Name: 'attachment.instance-id', Values: [instance] }],
    });
    expect(found).toMatchObject([
      { Size: 2, Encrypted: true, Attachments: [{ State: 'attached', DeleteOnTermination: true }] },
    ]);
    await world.ec2('TerminateInstances', { InstanceIds: [instance] });
    await expect.poll(async () => (await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
  });

  test('RunInstances whose mapped volume can not be opened takes everything back', async () => {
    hosts[0]!.fail = { code: 'InternalError', message: 'no disk' };
    await expect(
      newInstance({ BlockDeviceMappings: [{ DeviceName: '/dev/sdh', Ebs: { VolumeSize: 2, Encrypted: true } }] }),
    ).rejects.toThrow('no disk');
    await expect.poll(async () => (await world.ec2('DescribeVolumes')).Volumes).toEqual([]);
    const { Reservations } = await world.ec2('DescribeInstances');
    await expect.poll(() => instanceState(Reservations[0].Instances[0].InstanceId)).toBe('terminated');
  });

  test('every wrong attach or detach has its AWS error and changes nothing', async () => {
    const [id, encrypted, elsewhere] = [
      await newVolume(),
      await newVolume({ Encrypted: true }),
      await newVolume({ AvailabilityZone: 'us-east-1b' }),
    ];
    const instance = await newInstance();
    const old = await newInstance({ InstanceType: 't1.micro' });
    await attach(id, instance);
    const before = JSON.stringify(await world.ec2('DescribeVolumes'));
    const cases: Array<[() => Promise<unknown>, string, RegExp]> = [
      [
        () => attach(encrypted, instance, '/dev/sdf'),
        'InvalidParameterValue',
        /Attachment point \/dev\/sdf is already in use/,
      ],
      [() => attach(encrypted, instance, 'sdf'), 'InvalidParameterValue', /already in use/],
      [() => attach(encrypted, instance, '/dev/../x'), 'InvalidParameterValue', /not a valid EBS device name/],
      [() => attach(encrypted, old), 'EncryptedVolumesNotSupported', /t1\.micro/],
      [() => attach(elsewhere, instance, '/dev/sdg'), 'InvalidVolume.ZoneMismatch', /same availability zone/],
      [() => attach(id, old), 'VolumeInUse', /already attached/],
      [() => attach('vol-0123456789abcdef0', instance), 'InvalidVolume.NotFound', /vol-0123456789abcdef0/],
      [() => attach(id, 'i-0123456789abcdef0'), 'InvalidInstanceID.NotFound', /i-0123456789abcdef0/],
      [() => attach('vol-x', instance), 'InvalidParameterValue', /vol-x/],
      [() => attach(id, 'i-x'), 'InvalidInstanceID.Malformed', /i-x/],
      [() => world.ec2('DetachVolume', { VolumeId: encrypted }), 'IncorrectState', /'available'/],
      [
        () => world.ec2('DetachVolume', { VolumeId: id, InstanceId: old }),
        'InvalidAttachment.NotFound',
        /not attached/,
      ],
      [
        () => world.ec2('DetachVolume', { VolumeId: id, Device: '/dev/sdz' }),
        'InvalidAttachment.NotFound',
        /\/dev\/sdz/,
      ],
      [
        () =>
          world.ec2('AttachVolume', { VolumeId: encrypted, InstanceId: instance, Device: '/dev/sdg', DryRun: true }),
        'DryRunOperation',
        /would have succeeded/,
      ],
      [() => world.ec2('DetachVolume', { VolumeId: id }, stranger), 'InvalidVolume.NotFound', /does not exist/],
    ];
    for (const [attempt, expected, message] of cases)
      await expect(attempt()).rejects.toMatchObject({ code: expected, message: expect.stringMatching(message) });
    expect(JSON.stringify(await world.ec2('DescribeVolumes'))).toBe(before);
  });

  test('an instance takes as many volumes as its type allows, and says so', async () => {
    const instance = await newInstance({ InstanceType: 'm5.large' });
    const letters = [...'bcdefghijklmnopqrstuvwxyz'].map((letter) => `/dev/sd${letter}`);
    const devices = [...letters, '/dev/xvdba', '/dev/xvdbb'];
    expect(devices).toHaveLength(27);
    for (const device of devices) await attach(await newVolume(), instance, device);
    await expect(attach(await newVolume(), instance, '/dev/xvdbc')).rejects.toMatchObject({
      code: 'AttachmentLimitExceeded',
      message: expect.stringContaining('27'),
    });
  });
});
