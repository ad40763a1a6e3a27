/** Hosts, message by message: what Sync says, and what it believes. */
import { describe, expect, test } from 'vitest';
import { syncWaitMaxMs } from '../src/aws/host-protocol.ts';
import { attach, newHost, newInstance, newVolume, useWorldWithHosts, volume, world } from './support/attachments.ts';
import { zone } from './support/world.ts';

useWorldWithHosts();

const until = (id: string, State: 'attaching' | 'detaching') =>
  expect.poll(() => volume(id)).toMatchObject({ Attachments: [{ State }] });

describe('Sync', () => {
  test('waits while nothing is new, and answers as soon as something is', async () => {
    const host = newHost();
    const first = await host.sync();
    const started = performance.now();
    let answered = false;
    const waiting = host.sync({ sinceVersion: first.version }).finally(() => {
      answered = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(answered).toBe(false);
    const instance = await newInstance();
    const second = await waiting;
    expect(performance.now() - started).toBeLessThan(syncWaitMaxMs * 0.75);
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
    expect(performance.now() - started).toBeLessThan(syncWaitMaxMs * 0.75);
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

  test('takes no start that is no time, which nobody could be told of', async () => {
    const host = newHost();
    await expect(host.sync({ startedAt: 8.64e15 + 1 })).rejects.toMatchObject({ message: /startedAt must be a time/ });
    await host.sync({ startedAt: 8.64e15 });
    await expect(world.call('coffer', 'DescribeHosts')).resolves.toBeDefined();
  });

  test('an instance that no host served goes to the first that does, with its volumes', async () => {
    const id = await newVolume({ Encrypted: true });
    const instance = await newInstance();
    const attaching = attach(id, instance);
    await until(id, 'attaching');
    expect(await volume(id)).toMatchObject({ State: 'in-use' });
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
    await until(id, 'attaching');
    const wish = (await host.sync()).attachments[0]!;
    const report = { volumeId: id, instanceId: instance, device: '/dev/sdf', state: 'attached' as const };
    await host.sync({ attachments: [{ ...report, generation: wish.generation - 1 }] });
    await host.sync({ sequence: 1, attachments: [{ ...report, generation: wish.generation }] });
    expect(await volume(id)).toMatchObject({ Attachments: [{ State: 'attaching' }] });
    await host.sync({ attachments: [{ ...report, generation: wish.generation }] });
    expect(await attaching).toMatchObject({ State: 'attached' });

    const detaching = world.ec2('DetachVolume', { VolumeId: id });
    await until(id, 'detaching');
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
    const id = await newVolume({ Encrypted: true });
    const attaching = attach(id, instance);
    await until(id, 'attaching');
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

  test('a host from before snapshots, which has not been restarted yet, opens volumes as well', async () => {
    const host = newHost();
    await host.sync();
    const instance = await newInstance();
    const id = await newVolume({ Encrypted: true });
    const attaching = attach(id, instance);
    await until(id, 'attaching');
    const { credentials } = await host.sync();
    expect(credentials).toMatchObject([{ instanceId: instance }]);
    const held = [{ instanceId: instance, expiration: credentials[0]!.expiration }];
    expect((await host.sync({ credentials: held as never })).credentials).toEqual([]);
    host.obey(await host.sync());
    await host.sync();
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
