/**
 * What every client of EBS and KMS depends on. Here are the answers as they come over the wire, and policies as CDK writes
 * them; beside this file, what each client does: clients-csi, clients-terraform-ebs, clients-terraform-kms,
 * clients-ansible, clients-backup (Velero and tools that move blocks).
 *
 * | what they depend on | shown by |
 * |---|---|
 * | 1 a volume's states; never `available` after its deletion | csi: "it is deleted, and gone"; terraform-ebs; here: "states" |
 * | 2 an attachment's states, its time, the device as written | csi: "two letters"; here: "states"; while a host is at it: ec2-host-sync |
 * | 3 what was changed is read back at once | terraform-ebs, terraform-kms: every test |
 * | 4 client tokens; dry runs use none up | csi: "once, however often it asks", "a dry run"; here: "tokens" |
 * | 5 a key that can't be used is an error at once | here: "a key that can't be used"; ec2-volumes |
 * | 6 NotFound names all; tag filters find nothing; 500 ids | csi: "batches of 500 ids" |
 * | 7 no empty nextToken | here: "pages" |
 * | 8 MaxResults=0 for snapshots | csi: "a snapshot is found by its name" |
 * | 9 members that are always there | here: "members" |
 * | 10 the form of errors | here: "errors" |
 * | 11 filters | csi, terraform-ebs, ansible; here: "filters"; all documented ones: ec2-describe-volumes, snapshots |
 * | 12 tags from the first read on; DeleteTags | csi: "it grows, and its tags change"; terraform-ebs (CopySnapshot) |
 * | 13 VolumeInUse, IncorrectState with "available" | csi: "its errors" |
 * | 14 KMS: rotation status, reads of keys pending deletion, ValidTo, how messages end, policies | terraform-kms; here: "a key that can't be used" |
 * | 15 action names in any case | here: "CDK" |
 */
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DetachVolumeCommand,
  EC2Client,
} from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import {
  CreateGrantCommand,
  CreateKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  GenerateDataKeyWithoutPlaintextCommand,
  KMSClient,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startServer, type TestServer, until } from './support/server.ts';
import { newUser } from './support/users.ts';
import { Volumes, zone } from './support/volumes.ts';
import { failure, sendQuery, sendSigned } from './support/wire.ts';

const account = '123456789012';
let server: TestServer;
let volumes: Volumes;
let ec2: EC2Client;
let kms: KMSClient;
let keyArn: string;
let instance: string;

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  ec2 = server.sdk(EC2Client);
  kms = server.sdk(KMSClient);
  keyArn = (await kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  instance = await volumes.runInstance();
});
afterAll(() => server?.stop());

const query = (Action: string, parameters: Record<string, string> = {}) =>
  sendQuery(server, 'ec2', { Action, Version: '2016-11-15', ...parameters });

test('states: of a volume and its attachment, from creation to deletion', async () => {
  const before = Date.now();
  const made = await ec2.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true }));
  const VolumeId = made.VolumeId!;
  expect(['creating', 'available']).toContain(made.State);
  expect((await volumes.describe(VolumeId)).State).toBe('available');
  await ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance, Device: 'xvdba' }));
  await volumes.attached(VolumeId);
  const { State, Attachments } = await volumes.describe(VolumeId);
  expect(State).toBe('in-use');
  expect(Attachments).toMatchObject([{ Device: 'xvdba', State: 'attached', InstanceId: instance, VolumeId }]);
  const attachTime = Attachments![0]!.AttachTime!.getTime();
  expect(attachTime).toBeGreaterThanOrEqual(before - 1000);
  expect(attachTime).toBeLessThanOrEqual(Date.now());
  const detached = await ec2.send(new DetachVolumeCommand({ VolumeId }));
  expect(['detaching', 'detached']).toContain(detached.State);
  await until(async () => (await volumes.describe(VolumeId)).State === 'available', 'the volume to be detached');
  expect((await volumes.describe(VolumeId)).Attachments).toEqual([]);
  await ec2.send(new DeleteVolumeCommand({ VolumeId }));
  const after = await volumes.describe(VolumeId).then(
    (volume) => volume.State,
    (error) => error.name,
  );
  expect(['deleting', 'InvalidVolume.NotFound']).toContain(after);
});

test('tokens: 64 characters, not more; each belongs to its account’s region', async () => {
  const create = (client: EC2Client, ClientToken: string, there = zone) =>
    client.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: there, ClientToken }));
  const one = await create(ec2, 'x'.repeat(64));
  expect((await create(ec2, 'x'.repeat(64))).VolumeId).toBe(one.VolumeId);
  expect(await failure(create(ec2, 'x'.repeat(65)))).toMatchObject({ name: expect.stringMatching(/^Invalid/) });
  const abroad = server.as(server.credentials, 'eu-west-1').sdk(EC2Client);
  expect((await create(abroad, 'x'.repeat(64), 'eu-west-1a')).VolumeId).not.toBe(one.VolumeId);
});

test('a key that can’t be used: a volume fails at once and leaves nothing, and KMS says why in AWS’s words', async () => {
  const before = (await volumes.all()).map(({ VolumeId }) => VolumeId);
  await kms.send(new DisableKeyCommand({ KeyId: keyArn }));
  const refusal = await failure(volumes.create({ KmsKeyId: keyArn }));
  expect(refusal).toMatchObject({ status: 400, message: expect.stringContaining(`${keyArn} is disabled.`) });
  // Others may be going meanwhile: those that tests before this one have deleted.
  expect((await volumes.all()).filter(({ VolumeId }) => !before.includes(VolumeId))).toEqual([]);
  const use = kms.send(new GenerateDataKeyWithoutPlaintextCommand({ KeyId: keyArn, NumberOfBytes: 64 }));
  expect(await failure(use)).toMatchObject({ name: 'DisabledException', message: `${keyArn} is disabled.` });
  await kms.send(new EnableKeyCommand({ KeyId: keyArn }));
  await volumes.create({ KmsKeyId: keyArn });
});

test('members: what clients read without looking is there, even when empty', async () => {
  const VolumeId = await volumes.create({ KmsKeyId: keyArn });
  const created = await query('CreateVolume', { Size: '1', AvailabilityZone: zone });
  const described = await query('DescribeVolumes', { 'VolumeId.1': VolumeId });
  for (const { text, status } of [created, described]) {
    expect(status).toBe(200);
    expect(text).toMatch(/<snapshotId\s*\/>|<snapshotId><\/snapshotId>/);
    expect(text).toMatch(/<attachmentSet\s*\/>|<attachmentSet><\/attachmentSet>/);
    expect(text).toMatch(/<multiAttachEnabled>false</);
    expect(text).toMatch(/<encrypted>(true|false)</);
    expect(text).toMatch(/<createTime>\d{4}-\d\d-\d\dT[\d:.]+Z</);
    expect(text).toMatch(/<size>1</);
    expect(text).toMatch(/<volumeType>gp2</);
    expect(text).toContain(`<availabilityZone>${zone}<`);
  }
  expect(described.text).toContain(`<kmsKeyId>${keyArn}<`);
  const snapshot = await query('CreateSnapshot', { VolumeId });
  expect(snapshot.text).toMatch(/<tagSet\s*\/>|<tagSet><\/tagSet>/);
  expect(snapshot.text).toContain(`<volumeId>${VolumeId}<`);
  expect(snapshot.text).toMatch(/<volumeSize>1</);
  expect(snapshot.text).toMatch(/<startTime>\d{4}-/);
});

test('pages: the last one has no token at all', async () => {
  for (let index = 0; index < 6; index++) await volumes.create({ Encrypted: false });
  const first = await query('DescribeVolumes', { MaxResults: '5' });
  const token = /<nextToken>([^<]+)</.exec(first.text)![1]!;
  let page = await query('DescribeVolumes', { MaxResults: '5', NextToken: token });
  for (let next = token; ; ) {
    const more = /<nextToken>([^<]*)</.exec(page.text)?.[1];
    if (more === undefined) break;
    expect(more).not.toBe('');
    expect(more).not.toBe(next);
    next = more;
    page = await query('DescribeVolumes', { MaxResults: '5', NextToken: next });
  }
  for (const whole of ['DescribeVolumes', 'DescribeSnapshots', 'DescribeTags', 'DescribeInstances'])
    expect((await query(whole)).text).not.toContain('nextToken');
  expect(page.text).not.toContain('nextToken');
});

test('filters: tags are found by resource, kind and key; filters and ids are both asked', async () => {
  const VolumeId = await volumes.create({ Encrypted: false });
  await query('CreateTags', { 'ResourceId.1': VolumeId, 'Tag.1.Key': 'purpose', 'Tag.1.Value': 'filters' });
  const filter = (...pairs: Array<readonly [string, ...string[]]>) =>
    Object.fromEntries(
      pairs.flatMap(([name, ...values], index) => [
        [`Filter.${index + 1}.Name`, name],
        ...values.map((value, at) => [`Filter.${index + 1}.Value.${at + 1}`, value]),
      ]),
    );
  const tags = await query(
    'DescribeTags',
    filter(['resource-id', VolumeId], ['resource-type', 'volume'], ['key', 'pur*', 'other']),
  );
  expect(tags.text.match(/<resourceId>/g)).toHaveLength(1);
  expect(tags.text).toContain('<value>filters<');
  const named = { 'VolumeId.1': VolumeId };
  const found = await query('DescribeVolumes', { ...named, ...filter(['tag:purpose', 'f?lt*s']) });
  expect(found.text).toContain(VolumeId);
  const other = await query('DescribeVolumes', {
    ...named,
    ...filter(['tag:purpose', 'filters'], ['availability-zone', 'us-east-1b']),
  });
  expect(other.text).not.toContain(VolumeId);
  expect(other.status).toBe(200);
});

test('errors have the form of their protocol', async () => {
  const ec2Error = await query('DescribeVolumes', { 'VolumeId.1': 'vol-00000000000000001' });
  expect(ec2Error.status).toBe(400);
  expect(ec2Error.text.replace(/<\?xml[^>]*\?>\s*/, '')).toMatch(
    /^<Response><Errors><Error><Code>InvalidVolume\.NotFound<\/Code><Message>[^<]*vol-00000000000000001[^<]*<\/Message><\/Error><\/Errors><RequestID>[0-9a-f-]{36}<\/RequestID><\/Response>$/,
  );
  const dryRun = await query('DescribeAvailabilityZones', { DryRun: 'true' });
  expect(dryRun.status).toBe(412);
  expect(dryRun.text).toContain('<Code>DryRunOperation</Code>');
  const iamError = await sendQuery(server, 'iam', { Action: 'GetUser', Version: '2010-05-08', UserName: 'nobody' });
  expect(iamError.status).toBe(404);
  expect(iamError.text).toMatch(
    /<ErrorResponse[^>]*>\s*<Error>\s*<Type>Sender<\/Type>\s*<Code>NoSuchEntity<\/Code>\s*<Message>[^<]*nobody[^<]*<\/Message>\s*<\/Error>\s*<RequestId>[0-9a-f-]{36}<\/RequestId>\s*<\/ErrorResponse>/,
  );
  const json = async (service: string, target: string, body: object) => {
    const headers = { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': target };
    const reply = await sendSigned(server, service, { headers, body: JSON.stringify(body) });
    return { status: reply.status, ...JSON.parse(reply.text) };
  };
  const missing = `arn:aws:kms:us-east-1:${account}:key/00000000-0000-4000-8000-000000000000`;
  expect(await json('kms', 'TrentService.DescribeKey', { KeyId: missing })).toMatchObject({
    status: 400,
    __type: 'NotFoundException',
    message: expect.stringContaining(missing),
  });
  const lookup = 'com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents';
  expect(await json('cloudtrail', lookup, { MaxResults: 51 })).toMatchObject({
    status: 400,
    __type: expect.stringMatching(/Exception$/),
  });
});

test('CDK: policies for an encrypted volume as it writes them, with an action in its own spelling', async () => {
  const viaEc2 = { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com' };
  const root = { AWS: `arn:aws:iam::${account}:root` };
  const Policy = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      // Administration without use: what follows decides who may use the key.
      {
        Effect: 'Allow',
        Principal: root,
        Action: ['kms:Put*', 'kms:Get*', 'kms:Schedule*', 'kms:Describe*', 'kms:List*'],
        Resource: '*',
      },
      {
        Effect: 'Allow',
        Principal: root,
        Action: ['kms:CreateGrant', 'kms:DescribeKey', 'kms:GenerateDataKeyWithoutPlainText'],
        Resource: '*',
        Condition: { StringEquals: { ...viaEc2, 'kms:CallerAccount': account } },
      },
    ],
  });
  const KeyId = (await kms.send(new CreateKeyCommand({ Policy }))).KeyMetadata!.Arn!;
  const grantForEc2 = {
    Effect: 'Allow',
    Action: 'kms:CreateGrant',
    Resource: KeyId,
    Condition: {
      Bool: { 'kms:GrantIsForAWSResource': true },
      StringEquals: { ...viaEc2, 'kms:GrantConstraintType': 'EncryptionContextSubset' },
    },
  };
  const users = server.sdk(iam.IAMClient);
  const deployer = await newUser(server, 'deployer');
  const give = (...statements: object[]) =>
    users.send(
      new iam.PutUserPolicyCommand({
        UserName: 'deployer',
        PolicyName: 'given',
        PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: statements }),
      }),
    );
  const useForEc2 = {
    Effect: 'Allow',
    Action: ['kms:DescribeKey', 'kms:GenerateDataKeyWithoutPlainText'],
    Resource: KeyId,
  };
  const allOfEc2 = { Effect: 'Allow', Action: 'ec2:*', Resource: '*' };
  await give(allOfEc2, useForEc2, grantForEc2);
  const mine = deployer.sdk(EC2Client);
  const create = () =>
    mine.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: KeyId }));
  const { VolumeId } = await create();
  await mine.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance, Device: '/dev/sdk' }));
  await volumes.attached(VolumeId!);
  await mine.send(new DetachVolumeCommand({ VolumeId }));

  // Only through EC2, and grants only for its resources.
  const direct = deployer.sdk(KMSClient);
  const dataKey = new GenerateDataKeyWithoutPlaintextCommand({ KeyId, NumberOfBytes: 64 });
  expect(await failure(direct.send(dataKey))).toMatchObject({ name: 'AccessDeniedException' });
  const grant = new CreateGrantCommand({ KeyId, GranteePrincipal: root.AWS, Operations: ['Decrypt'] });
  expect(await failure(direct.send(grant))).toMatchObject({ name: 'AccessDeniedException' });
  const never = { ...grantForEc2.Condition.StringEquals, 'kms:GrantConstraintType': 'EncryptionContextEquals' };
  await give(allOfEc2, useForEc2, { ...grantForEc2, Condition: { ...grantForEc2.Condition, StringEquals: never } });
  await until(async () => (await volumes.describe(VolumeId!)).State === 'available', 'the volume to be detached');
  const attach = mine.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance, Device: '/dev/sdk' }));
  expect(await failure(attach)).toMatchObject({ message: expect.stringContaining('kms:CreateGrant') });
});
