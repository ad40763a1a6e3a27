/** What a crash of the control plane or of a host leaves, and who mends it. */
import { describe, expect, test } from 'vitest';
import type { SyncResponse } from '../src/aws/host-protocol.ts';
import {
  attach,
  grants,
  instanceState,
  newHost,
  newInstance,
  newKey,
  newVolume,
  useWorldWithHosts,
  volume,
  world,
} from './support/attachments.ts';

useWorldWithHosts();

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
