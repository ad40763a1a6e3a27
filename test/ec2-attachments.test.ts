/** Attachments, instances and hosts, message by message: what Sync says, believes and undoes. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SyncResponse } from '../src/aws/host-protocol.ts';
import { account, FakeHost, infrastructure, stranger, World, zone } from './support/world.ts';

let world: World;
let hosts: FakeHost[];

beforeEach(async () => {
  world = await World.create();
  hosts = [];
});
afterEach(async () => {
  for (const host of hosts) await host.stop();
  await world.close();
});

function newHost(options: ConstructorParameters<typeof FakeHost>[1] = {}): FakeHost {
  const host = new FakeHost(world, options);
  hosts.push(host);
  return host;
}

async function newKey(): Promise<string> {
  return (await world.kms('CreateKey', {})).KeyMetadata.Arn;
}

async function newVolume(more: object = {}): Promise<string> {
  return (await world.ec2('CreateVolume', { Size: 1, AvailabilityZone: zone, ...more })).VolumeId;
}

async function newInstance(more: object = {}): Promise<string> {
  const input = { ImageId: 'ami-0c0ffe00000000000', MinCount: 1, MaxCount: 1, ...more };
  return (await world.ec2('RunInstances', input)).Instances[0].InstanceId;
}

const attach = (VolumeId: string, InstanceId: string, Device = '/dev/sdf') =>
  world.ec2('AttachVolume', { VolumeId, InstanceId, Device });

async function volume(id: string) {
  return (await world.ec2('DescribeVolumes', { VolumeIds: [id] })).Volumes[0];
}

async function instanceState(id: string): Promise<string> {
  return (await world.ec2('DescribeInstances', { InstanceIds: [id] })).Reservations[0].Instances[0].State.Name;
}

async function grants(KeyId: string): Promise<object[]> {
  return (await world.kms('ListGrants', { KeyId })).Grants;
}

const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error) => error.code ?? String(error),
  );

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
    expect(Reservations[0].Instances[0].State.Name).toBe('terminated');
  });

  test('a Multi-Attach volume has one attachment on a host', async () => {
    const id = await newVolume({ VolumeType: 'io2', Size: 4, Iops: 100, MultiAttachEnabled: true, Encrypted: true });
    const [one, two] = [await newInstance(), await newInstance()];
    await attach(id, one);
    const before = JSON.stringify(await volume(id));
    await expect(attach(id, two)).rejects.toMatchObject({
      code: 'UnsupportedOperation',
      message: expect.stringContaining(`'${id}' is attached to instance '${one}'`),
    });
    expect(await code(attach(id, one, '/dev/sdg'))).toBe('VolumeInUse');
    expect(JSON.stringify(await volume(id))).toBe(before);
    await world.ec2('StopInstances', { InstanceIds: [two] });
    expect(await code(attach(id, two))).toBe('UnsupportedOperation');
    await world.ec2('StartInstances', { InstanceIds: [two] });
    await world.ec2('DetachVolume', { VolumeId: id });
    expect(await attach(id, two)).toMatchObject({ State: 'attached' });
  });

  test('a Multi-Attach volume is at instances of several hosts, each on its own', async () => {
    const id = await newVolume({ VolumeType: 'io2', Size: 4, Iops: 100, MultiAttachEnabled: true, Encrypted: true });
    const one = await newInstance();
    const other = newHost({ hostId: 'other' });
    await other.sync();
    other.start();
    const two = await newInstance();
    await attach(id, one);
    await attach(id, two);
    expect(await code(attach(id, two, '/dev/sdg'))).toBe('VolumeInUse');
    expect(await code(world.ec2('DetachVolume', { VolumeId: id }))).toBe('MissingParameter');
    await world.ec2('DetachVolume', { VolumeId: id, InstanceId: one });
    expect(await volume(id)).toMatchObject({ State: 'in-use', Attachments: [{ InstanceId: two }] });
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

describe('Sync', () => {
  test('waits while nothing is new, and answers as soon as something is', async () => {
    const host = newHost();
    const first = await host.sync();
    const started = performance.now();
    const waiting = host.sync({ sinceVersion: first.version });
    await new Promise((resolve) => setTimeout(resolve, 50));
    const instance = await newInstance();
    const second = await waiting;
    expect(performance.now() - started).toBeLessThan(2000);
    expect(second.version).not.toBe(first.version);
    expect(second.instances).toMatchObject([{ instanceId: instance, state: 'running' }]);
  });

  test('says the same after a restart of the control plane', async () => {
    const host = newHost();
    await host.sync();
    await newInstance();
    const before = await host.sync();
    world.restart();
    expect((await host.sync()).version).toBe(before.version);
  });

  test('a newer request of the host ends the wait of an older one', async () => {
    const host = newHost();
    const { version } = await host.sync();
    const older = host.sync({ sinceVersion: version });
    await new Promise((resolve) => setTimeout(resolve, 20));
    const started = performance.now();
    await host.sync();
    await older;
    expect(performance.now() - started).toBeLessThan(1000);
  });

  test('shows a host only its own, and takes no other name', async () => {
    const a = newHost({ hostId: 'a', zones: ['us-east-1a'] });
    const b = newHost({ hostId: 'b', zones: ['us-east-1b'] });
    await a.sync();
    await b.sync();
    const [onA, onB] = [await newInstance(), await newInstance({ Placement: { AvailabilityZone: 'us-east-1b' } })];
    expect((await a.sync()).instances.map((each) => each.instanceId)).toEqual([onA]);
    expect((await b.sync()).instances.map((each) => each.instanceId)).toEqual([onB]);
    await expect(b.sync({ hostId: 'a' })).rejects.toMatchObject({ code: 'AccessDeniedException' });
    await expect(world.call('coffer-host', 'Sync', {})).rejects.toMatchObject({ code: 'AccessDeniedException' });
  });

  test('a later process of the host takes over; the earlier one is told', async () => {
    const earlier = newHost({ startedAt: world.clock.now() - 1000 });
    const later = newHost({ startedAt: world.clock.now() });
    await earlier.sync();
    await later.sync();
    await expect(earlier.sync()).rejects.toMatchObject({ code: 'HostSuperseded' });
  });

  test('an instance that no host served goes to the first that does, with its volumes', async () => {
    const id = await newVolume({ Encrypted: true });
    const instance = await newInstance();
    const attaching = attach(id, instance);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await volume(id)).toMatchObject({ State: 'in-use', Attachments: [{ State: 'attaching' }] });
    await newHost({ zones: ['us-east-1b'] }).sync();
    const host = newHost({ hostId: 'other', zones: [zone] });
    await host.catchUp();
    expect(await attaching).toMatchObject({ State: 'attached' });
  });

  test('reports about an earlier wish, or that arrive late, are not believed', async () => {
    const host = newHost();
    await host.sync();
    const id = await newVolume();
    const instance = await newInstance();
    const attaching = attach(id, instance);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const wish = (await host.sync()).attachments[0]!;
    const report = { volumeId: id, instanceId: instance, device: '/dev/sdf', state: 'attached' as const };
    await host.sync({ attachments: [{ ...report, generation: wish.generation - 1 }] });
    await host.sync({ sequence: 1, attachments: [{ ...report, generation: wish.generation }] });
    expect(await volume(id)).toMatchObject({ Attachments: [{ State: 'attaching' }] });
    await host.sync({ attachments: [{ ...report, generation: wish.generation }] });
    expect(await attaching).toMatchObject({ State: 'attached' });

    const detaching = world.ec2('DetachVolume', { VolumeId: id });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await host.sync({ attachments: [{ ...report, state: 'detached', generation: wish.generation }] });
    expect(await volume(id)).toMatchObject({ Attachments: [{ State: 'detaching' }] });
    const closing = (await host.sync()).attachments[0]!;
    expect(closing).toMatchObject({ desired: 'detached' });
    expect(closing.generation).toBeGreaterThan(wish.generation);
    await host.sync({ attachments: [{ ...report, state: 'detached', generation: closing.generation }] });
    expect(await detaching).toMatchObject({ State: 'detached' });
  });

  test('hands out credentials only while a volume is to be opened, and not again when the host holds some', async () => {
    const host = newHost();
    await host.sync();
    const instance = await newInstance();
    const attaching = attach(await newVolume({ Encrypted: true }), instance);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const { credentials } = await host.sync();
    expect(credentials).toHaveLength(1);
    const held = [{ sessionName: instance, expiration: credentials[0]!.expiration }];
    expect((await host.sync({ credentials: held })).credentials).toEqual([]);
    world.clock.advance(3600_000 - 4 * 60_000);
    expect((await host.sync({ credentials: held })).credentials).toHaveLength(1);
    host.obey(await host.sync());
    expect((await host.sync()).credentials).toEqual([]);
    await attaching;
  });

  test.each([
    ['no list', { attachments: 'x' }],
    ['no zones', { zones: 5 }],
    ['a relative directory', { dataDir: '../x' }],
    ['no sequence', { sequence: 'one' }],
  ])('refuses %s', async (_, wrong) => {
    await expect(newHost().sync(wrong as never)).rejects.toMatchObject({ code: 'ValidationException' });
  });
});

describe('after a crash', () => {
  test('of the control plane amid an attach, the next Sync finishes it', async () => {
    const host = newHost();
    await host.sync();
    const id = await newVolume({ Encrypted: true });
    const instance = await newInstance();
    const cancelled = new AbortController();
    const lost = world.ec2(
      'AttachVolume',
      { VolumeId: id, InstanceId: instance, Device: '/dev/sdf' },
      { cancelled: cancelled.signal },
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    cancelled.abort();
    expect(await lost).toMatchObject({ State: 'attaching' });
    world.restart();
    await host.catchUp();
    expect(await volume(id)).toMatchObject({ State: 'in-use', Attachments: [{ State: 'attached' }] });
  });

  test('of the host, its volumes are opened again; a key that became unusable is told, and mended later', async () => {
    const KmsKeyId = await newKey();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const first = newHost();
    await first.sync();
    first.start();
    const instance = await newInstance();
    await attach(id, instance);
    await first.stop();

    world.clock.advance(1000);
    const second = newHost();
    second.fail = { code: 'DisabledException', message: `${KmsKeyId} is disabled.` };
    const answer: SyncResponse = await second.sync();
    expect(answer.attachments).toMatchObject([{ volumeId: id, desired: 'attached' }]);
    expect(answer.credentials).toHaveLength(1);
    second.obey(answer);
    await second.sync();
    await second.sync();
    expect(await volume(id)).toMatchObject({ State: 'in-use', Attachments: [{ State: 'attached' }] });
    expect((await world.ec2('DescribeVolumeStatus', { VolumeIds: [id] })).VolumeStatuses).toMatchObject([
      { VolumeStatus: { Status: 'impaired' } },
    ]);
    const failures = (await world.events()).filter((event) => event.detail.result === 'failed');
    expect(failures).toMatchObject([{ detail: { event: 'reattachVolume', cause: `${KmsKeyId} is disabled.` } }]);
    second.fail = undefined;
    await second.catchUp();
    expect((await world.ec2('DescribeVolumeStatus', { VolumeIds: [id] })).VolumeStatuses).toMatchObject([
      { VolumeStatus: { Status: 'ok' } },
    ]);
  });

  test('of the control plane amid a stop, the next Sync finishes it', async () => {
    const host = newHost();
    await host.sync();
    host.start();
    const id = await newVolume({ Encrypted: true });
    const instance = await newInstance();
    await attach(id, instance);
    await host.stop();
    const cancelled = new AbortController();
    cancelled.abort();
    await world.ec2('StopInstances', { InstanceIds: [instance] }, { cancelled: cancelled.signal });
    expect(await instanceState(instance)).toBe('stopping');
    world.restart();
    await world.housekeeping();
    await host.catchUp();
    expect(await instanceState(instance)).toBe('stopped');
  });

  test('of a host for good, Force takes its volume away, and nothing else does', async () => {
    const KmsKeyId = await newKey();
    const host = newHost();
    await host.sync();
    host.start();
    const id = await newVolume({ Encrypted: true, KmsKeyId });
    const instance = await newInstance();
    await attach(id, instance);
    await host.stop();
    const gone = new AbortController();
    gone.abort();
    const detach = (Force: boolean) => world.ec2('DetachVolume', { VolumeId: id, Force }, { cancelled: gone.signal });
    expect(await detach(false)).toMatchObject({ State: 'detaching' });
    expect(await detach(true)).toMatchObject({ State: 'detaching' });
    world.clock.advance(61_000);
    expect(await detach(true)).toMatchObject({ State: 'detached' });
    expect(await volume(id)).toMatchObject({ State: 'available' });
    expect(await grants(KmsKeyId)).toEqual([]);
  });
});
