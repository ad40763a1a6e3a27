/** A user works with encrypted volumes by the policy of docs/permissions.md, and by nothing less. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AttachVolumeCommand,
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  EC2Client,
} from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import { CreateKeyCommand, KMSClient, ListGrantsCommand, RevokeGrantCommand } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Client, run } from './support/client.ts';
import { startServer, type TestServer, until } from './support/server.ts';
import { newUser } from './support/users.ts';
import { Volumes, zone } from './support/volumes.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/permissions.md'), 'utf8');
/** The page's JSON documents, in their order. */
const documents = [...page.matchAll(/```json\n(.*?)```/gs)].map(([, text]) => JSON.parse(text!));
const volumePolicy = documents[0];
const kmsActions: readonly string[] = volumePolicy.Statement.find(
  (statement: { Sid: string }) => statement.Sid === 'Keys',
).Action;

let server: TestServer;
let alice: Client;
let keyArn: string;
let instance: string;
const arn = 'arn:aws:iam::123456789012:user/alice';

beforeAll(async () => {
  server = await startServer();
  alice = await newUser(server, 'alice');
  keyArn = (await server.sdk(KMSClient).send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  instance = await new Volumes(server).runInstance();
});
afterAll(() => server?.stop());

const give = (policy: object) =>
  server.sdk(iam.IAMClient).send(
    new iam.PutUserPolicyCommand({
      UserName: 'alice',
      PolicyName: 'volumes',
      PolicyDocument: JSON.stringify(policy),
    }),
  );
/** The page's policy without some actions. */
const without = (...actions: string[]) => ({
  ...volumePolicy,
  Statement: volumePolicy.Statement.map((statement: { Action: string[] }) => ({
    ...statement,
    Action: statement.Action.filter((action) => !actions.includes(action)),
  })).filter((statement: { Action: string[] }) => statement.Action.length > 0),
});

const create = (who = alice) =>
  who
    .sdk(EC2Client)
    .send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: keyArn }));
const attach = (VolumeId: string) =>
  alice.sdk(EC2Client).send(new AttachVolumeCommand({ VolumeId, InstanceId: instance, Device: '/dev/sdf' }));
const detach = (VolumeId: string) => alice.sdk(EC2Client).send(new DetachVolumeCommand({ VolumeId }));
const state = async (VolumeId: string) =>
  (await server.sdk(EC2Client).send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).Volumes![0]!;
const attached = (id: string) =>
  until(async () => (await state(id)).Attachments?.[0]?.State === 'attached', 'the volume to be attached');
const available = (id: string) =>
  until(async () => (await state(id)).State === 'available', 'the volume to be available');

const snapshot = async (VolumeId: string, who = alice) => {
  const { SnapshotId } = await who.sdk(EC2Client).send(new CreateSnapshotCommand({ VolumeId }));
  await until(async () => {
    const found = await who.sdk(EC2Client).send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId!] }));
    return found.Snapshots![0]!.State === 'completed';
  }, 'the snapshot to be completed');
  return SnapshotId!;
};
const restore = (SnapshotId: string) =>
  alice.sdk(EC2Client).send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: zone }));
const copy = (SourceSnapshotId: string, region?: string) =>
  alice
    .sdk(EC2Client, region ? { region } : {})
    .send(new CopySnapshotCommand({ SourceSnapshotId, SourceRegion: 'us-east-1' }));

it('makes snapshots of an encrypted volume, volumes from them, and copies', async () => {
  await give(volumePolicy);
  const SnapshotId = await snapshot((await create()).VolumeId!);
  const { VolumeId, Encrypted, KmsKeyId } = await restore(SnapshotId);
  expect({ Encrypted, KmsKeyId }).toEqual({ Encrypted: true, KmsKeyId: keyArn });
  await copy(SnapshotId);
  await copy(SnapshotId, 'eu-west-1');
  await alice.sdk(EC2Client).send(new DeleteSnapshotCommand({ SnapshotId }));
  await alice.sdk(EC2Client).send(new DeleteVolumeCommand({ VolumeId }));
});

it('creates, attaches, detaches and deletes an encrypted volume', async () => {
  await give(volumePolicy);
  const { VolumeId, Encrypted } = await create();
  expect(Encrypted).toBe(true);
  await available(VolumeId!);
  await attach(VolumeId!);
  await attached(VolumeId!);
  await detach(VolumeId!);
  await available(VolumeId!);
  await alice.sdk(EC2Client).send(new DeleteVolumeCommand({ VolumeId }));
});

type Step = 'create' | 'attach' | 'restore' | 'copy' | 'copy from afar';
/** What fails when one permission is taken away. */
const needs: Record<string, readonly Step[]> = {
  'kms:DescribeKey': ['create', 'restore', 'copy', 'copy from afar'],
  'kms:GenerateDataKeyWithoutPlaintext': ['create', 'restore', 'copy'],
  'kms:CreateGrant': ['attach', 'restore', 'copy', 'copy from afar'],
  'kms:ReEncrypt*': ['restore', 'copy'],
  // That is for reading and writing blocks of snapshots.
  'kms:Decrypt': [],
};

it("the page's key permissions are the five that AWS documents", () => {
  expect([...kmsActions].sort()).toEqual(Object.keys(needs).sort());
});

it.each(Object.entries(needs))(
  'without %s exactly the operations that need it fail, at once and in plain words',
  async (action, failing) => {
    await give(volumePolicy);
    const volumeId = (await create()).VolumeId!;
    const snapshotId = await snapshot(volumeId);
    await give(without(action));
    const named = action === 'kms:ReEncrypt*' ? 'kms:ReEncryptFrom' : action;
    const refusal = {
      name: 'UnauthorizedOperation',
      message: expect.stringContaining(
        `User: ${arn} is not authorized to perform: ${named} on resource: ${keyArn} because no identity-based policy allows the ${named} action`,
      ),
    };
    const steps: Record<Step, () => Promise<unknown>> = {
      create: () => create(),
      attach: () => attach(volumeId),
      restore: () => restore(snapshotId),
      copy: () => copy(snapshotId),
      'copy from afar': () => copy(snapshotId, 'eu-west-1'),
    };
    const all = async () => {
      const own = { OwnerIds: ['self'] };
      const { Snapshots } = await server.sdk(EC2Client).send(new DescribeSnapshotsCommand(own));
      const volumes = await new Volumes(server).all();
      return [...volumes.map(({ VolumeId }) => VolumeId), ...Snapshots!.map(({ SnapshotId }) => SnapshotId)];
    };
    for (const [step, take] of Object.entries(steps)) {
      const before = await all();
      if (!failing.includes(step as Step)) await take();
      else {
        await expect(take(), step).rejects.toMatchObject(refusal);
        // What was deleted earlier may go meanwhile.
        expect((await all()).filter((id) => !before.includes(id))).toEqual([]);
      }
    }
    // Ciphertext is copied as it is: a snapshot needs no key.
    await snapshot(volumeId);
    if (failing.includes('attach')) {
      expect((await state(volumeId)).State).toBe('available');
      return;
    }
    await attached(volumeId);
    await detach(volumeId);
    await available(volumeId);
  },
);

it.each(['ec2:CreateVolume', 'ec2:AttachVolume', 'ec2:DetachVolume', 'ec2:DeleteVolume'])(
  'without %s EC2 itself refuses, whatever the key',
  async (action) => {
    await give(volumePolicy);
    const VolumeId = (await create()).VolumeId!;
    await available(VolumeId);
    await give(without(action));
    const operations: Record<string, () => Promise<unknown>> = {
      'ec2:CreateVolume': () => create(),
      'ec2:AttachVolume': () => attach(VolumeId),
      'ec2:DetachVolume': () => detach(VolumeId),
      'ec2:DeleteVolume': () => alice.sdk(EC2Client).send(new DeleteVolumeCommand({ VolumeId })),
    };
    if (action === 'ec2:DetachVolume') {
      await attach(VolumeId);
      await attached(VolumeId);
    }
    await expect(operations[action]!()).rejects.toMatchObject({
      name: 'UnauthorizedOperation',
      message: expect.stringContaining(
        `User: ${arn} is not authorized to perform: ${action} on resource: arn:aws:ec2:`,
      ),
    });
    await give(volumePolicy);
    if (action === 'ec2:DetachVolume') {
      await detach(VolumeId);
      await available(VolumeId);
    }
  },
);

it('a withdrawn grant or policy leaves an attached volume alone', async () => {
  await give(volumePolicy);
  const VolumeId = (await create()).VolumeId!;
  await available(VolumeId);
  await attach(VolumeId);
  await attached(VolumeId);
  const kms = server.sdk(KMSClient);
  const { Grants } = await kms.send(new ListGrantsCommand({ KeyId: keyArn }));
  // Others are of copies and restores that may be under way, and go with these.
  const own = Grants!.filter(({ Constraints }) => Constraints?.EncryptionContextSubset?.['aws:ebs:id'] === VolumeId);
  expect(own).toHaveLength(1);
  for (const { GrantId } of own) await kms.send(new RevokeGrantCommand({ KeyId: keyArn, GrantId }));
  await give(without(...kmsActions));
  expect((await state(VolumeId)).Attachments![0]!.State).toBe('attached');
  await detach(VolumeId);
  await available(VolumeId);
  await expect(attach(VolumeId)).rejects.toMatchObject({ name: 'UnauthorizedOperation' });
});

it('grants for AWS resources only, and a role or boundary as the page has them', async () => {
  const [, grantsOnly, trust, boundary] = documents;
  await give({
    ...volumePolicy,
    Statement: [...without('kms:CreateGrant').Statement, ...grantsOnly.Statement],
  });
  const VolumeId = (await create()).VolumeId!;
  await available(VolumeId);
  await attach(VolumeId);
  await attached(VolumeId);
  await detach(VolumeId);
  await available(VolumeId);
  const root = server.sdk(iam.IAMClient);
  await root.send(
    new iam.CreateRoleCommand({ RoleName: 'operators', AssumeRolePolicyDocument: JSON.stringify(trust) }),
  );
  const { Policy } = await root.send(
    new iam.CreatePolicyCommand({ PolicyName: 'volumes-only', PolicyDocument: JSON.stringify(boundary) }),
  );
  await root.send(new iam.PutUserPermissionsBoundaryCommand({ UserName: 'alice', PermissionsBoundary: Policy!.Arn! }));
  await create();
  await give({ Version: '2012-10-17', Statement: { Effect: 'Allow', Action: '*', Resource: '*' } });
  await expect(alice.sdk(iam.IAMClient).send(new iam.ListUsersCommand())).rejects.toThrow(
    'no permissions boundary allows the iam:ListUsers action',
  );
});

it("the page's commands work as they stand there", async () => {
  const home = mkdtempSync(join(tmpdir(), 'coffer-permissions-'));
  await using other = await startServer({ args: ['--no-host'] });
  const [volumes, , trust, boundary] = documents;
  for (const [name, document] of Object.entries({ volumes, trust, boundary }))
    writeFileSync(join(home, `${name}.json`), JSON.stringify(document));
  const prose = page.replace(/```json\n.*?```/gs, '');
  const lines = prose.split('\n').filter((line) => /^ {4}(aws | {2})/.test(line));
  // The one that is alice's to type.
  const assume = lines.find((line) => line.includes('assume-role --role-arn'))!;
  const script = lines.filter((line) => line !== assume).join('\n');
  const shell = async (who: Client, commands: string) => {
    const endpoint = `shopt -s expand_aliases\nalias aws='/usr/bin/aws --endpoint-url ${other.endpoint} --output json'`;
    return run('bash', ['-ec', `${endpoint}\n${commands}`], { cwd: home, env: who.environment(), timeoutMs: 300_000 });
  };
  const { stdout } = await shell(other, script);
  const found = (name: string) => new RegExp(`"${name}": "([^"]+)"`).exec(stdout)![1]!;
  expect(stdout.match(/"EvalDecision": "\w+"/g)).toEqual(['"EvalDecision": "allowed"', '"EvalDecision": "allowed"']);
  const hers = other.as({ accessKeyId: found('AccessKeyId'), secretAccessKey: found('SecretAccessKey') });
  expect((await shell(hers, assume)).stdout).toContain('assumed-role/operators/monday');
  await expect(shell(other, assume)).rejects.toThrow('Roles may not be assumed by root accounts.');
  rmSync(home, { recursive: true });
}, 600_000);
