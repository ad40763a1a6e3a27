/** DryRun: every operation that has it checks the request, says that it would have succeeded, and changes nothing. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { everyInput } from './support/every-operation.ts';
import { FakeHost, World } from './support/world.ts';

let world: World;
let host: FakeHost;

beforeAll(async () => {
  world = await World.create();
  host = new FakeHost(world).start();
});
afterAll(async () => {
  await host?.stop();
  await world?.close();
});

/** What requests change; not what a host does by itself meanwhile. */
const kept = [
  'ec2_attachments',
  'ec2_client_tokens',
  'ec2_instances',
  'ec2_settings',
  'ec2_snapshot_permissions',
  'ec2_tags',
  'ec2_usage',
  'ec2_volume_modifications',
];

async function state() {
  const tables = kept.map((table) => world.database.run((db) => db.selectFrom(table).selectAll().execute()));
  return Promise.all(tables);
}

test.each(Object.entries(everyInput.ec2!))('%s', async (operation, make) => {
  const input = await make(world);
  await host.idle();
  const before = await state();
  await expect(world.ec2(operation, { ...input, ClientToken: 'dry', DryRun: true })).rejects.toMatchObject({
    code: 'DryRunOperation',
    httpStatus: 412,
  });
  expect(await state()).toEqual(before);
});
