/** Whatever a request brings, IAM and STS answer with an error of the client, and change nothing. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AwsError } from '../src/aws/errors.ts';
import { RootKey } from '../src/crypto/root-key.ts';
import { createIam, createSts } from '../src/iam/index.ts';
import { account, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.close());

const rootKey = new RootKey(Buffer.alloc(32));
const services = [createIam({ rootKey, forgetCredentials: () => {} }), createSts({ rootKey })];
const operations = services.flatMap((service) =>
  Object.values(service.operations)
    .filter(({ audience }) => audience !== 'service')
    .map(({ name }) => [service.name, name] as const),
);
const members = [
  'UserName',
  'GroupName',
  'RoleName',
  'PolicyName',
  'PolicyArn',
  'PolicyDocument',
  'AssumeRolePolicyDocument',
  'Path',
  'PathPrefix',
  'Marker',
  'VersionId',
  'AccessKeyId',
  'Status',
  'NewUserName',
  'NewGroupName',
  'NewPath',
  'RoleArn',
  'RoleSessionName',
  'Policy',
  'PermissionsBoundary',
  'PolicySourceArn',
  'InstanceProfileName',
  'ExternalId',
  'Description',
];
const hostile = [
  '',
  ' ',
  '*',
  '../..',
  '%',
  "' or 1=1 --",
  'a'.repeat(5000),
  'ａｌｉｃｅ',
  '\u0000',
  '$' + '{aws:username}',
  '{"Statement":[]}',
  `arn:aws:iam::${account}:role/`,
  'arn:aws:iam::x',
  'null',
  '{"Statement":{"Effect":"Allow","Action":{},"Resource":[[]]}}',
];

const state = async () =>
  world.database.run(async (db) => {
    const tables = [
      'iam_identities',
      'iam_policies',
      'iam_inline_policies',
      'iam_attachments',
      'iam_tags',
      'iam_instance_profiles',
      'access_keys',
    ];
    const counts: unknown[] = [];
    for (const table of tables) counts.push((await db.selectFrom(table).selectAll().execute()).length);
    return counts;
  });

it.each(operations)('%s:%s', async (service, operation) => {
  const before = await state();
  const inputs: object[] = [{}];
  for (const value of hostile) {
    inputs.push(Object.fromEntries(members.map((name) => [name, value])));
    inputs.push({
      ...Object.fromEntries(members.map((name) => [name, value])),
      UserName: 'nobody',
      // The two operations for which the rest would do.
      GroupName: operation === 'CreateGroup' ? 'no body' : 'nobody',
      InstanceProfileName: operation === 'CreateInstanceProfile' ? 'no body' : 'nobody',
      RoleName: 'nobody',
      PolicyName: 'none',
      Path: '/',
      PathPrefix: '/',
      NewPath: '/',
      PolicyDocument: value,
      ActionNames: [value],
      TagKeys: [value],
      Tags: [{ Key: value, Value: value }],
    });
  }
  for (const input of inputs) {
    const outcome = await world.call(service, operation, input).then(
      () => undefined,
      (error) => error,
    );
    // Lists and the like may well succeed; what fails must be told to the caller as the caller's fault.
    if (outcome !== undefined) expect(outcome).toBeInstanceOf(AwsError);
    if (outcome !== undefined) expect(outcome.fault).toBe('client');
  }
  expect(await state()).toEqual(before);
});

it('there are no operations without a check of their input', () => {
  expect(operations.length).toBeGreaterThan(60);
});
