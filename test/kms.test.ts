/** The key service through the clients that people have: the aws CLI, the JavaScript SDK and boto3, on a real server. */
import {
  CancelKeyDeletionCommand,
  ConnectCustomKeyStoreCommand,
  CreateAliasCommand,
  CreateGrantCommand,
  CreateKeyCommand,
  DecryptCommand,
  DeleteAliasCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GenerateDataKeyWithoutPlaintextCommand,
  GenerateRandomCommand,
  GetKeyPolicyCommand,
  GetKeyRotationStatusCommand,
  KMSClient,
  KMSServiceException,
  ListAliasesCommand,
  ListGrantsCommand,
  ListKeyPoliciesCommand,
  ListKeysCommand,
  ListResourceTagsCommand,
  ListRetirableGrantsCommand,
  PutKeyPolicyCommand,
  paginateListAliases,
  ReEncryptCommand,
  RetireGrantCommand,
  RevokeGrantCommand,
  ScheduleKeyDeletionCommand,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateAliasCommand,
  UpdateKeyDescriptionCommand,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Client, run } from './support/client.ts';
import { coffer, startServer, type TestServer } from './support/server.ts';

const account = '123456789012';
const volume = { 'aws:ebs:id': 'vol-0123456789abcdef0' };
let server: TestServer;
let kms: KMSClient;

beforeAll(async () => {
  server = await startServer();
  kms = server.sdk(KMSClient);
});
afterAll(() => server?.stop());

async function newKey(client = kms): Promise<{ KeyId: string; Arn: string }> {
  const { KeyMetadata } = await client.send(new CreateKeyCommand({}));
  return { KeyId: KeyMetadata!.KeyId!, Arn: KeyMetadata!.Arn! };
}

/** The error of a call that must fail, as the SDK understands it. */
async function failure(promise: Promise<unknown>): Promise<{ name: string; message: string }> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(KMSServiceException);
  const { name, message, $metadata, $fault } = error as KMSServiceException;
  expect($metadata.httpStatusCode).toBe(400);
  expect($metadata.requestId).toMatch(/^[0-9a-f-]{36}$/);
  expect($fault).toBe('client');
  return { name, message };
}

async function newAccount(): Promise<Client> {
  const { stdout } = await run(coffer, ['account', 'create'], {
    env: { ...server.environment(), COFFER_ENDPOINT: server.endpoint },
  });
  const { AccessKeyId, SecretAccessKey } = JSON.parse(stdout);
  return server.as({ accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey });
}

describe('with the JavaScript SDK', () => {
  test('a key, from its making to its scheduled end', async () => {
    const created = await kms.send(
      new CreateKeyCommand({ Description: 'first', Tags: [{ TagKey: 'a', TagValue: 'b' }] }),
    );
    const { KeyId, Arn, CreationDate } = created.KeyMetadata!;
    expect(Math.abs(Date.now() - CreationDate!.getTime())).toBeLessThan(60_000);
    expect(Arn).toBe(`arn:aws:kms:us-east-1:${account}:key/${KeyId}`);
    expect((await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata).toEqual(created.KeyMetadata);
    await kms.send(new UpdateKeyDescriptionCommand({ KeyId, Description: 'second' }));
    await kms.send(new DisableKeyCommand({ KeyId }));
    expect((await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata).toMatchObject({
      Description: 'second',
      KeyState: 'Disabled',
      Enabled: false,
    });
    await kms.send(new EnableKeyCommand({ KeyId }));
    expect((await kms.send(new ListKeysCommand({}))).Keys).toContainEqual({ KeyId, KeyArn: Arn });
    await kms.send(new TagResourceCommand({ KeyId, Tags: [{ TagKey: 'c', TagValue: '' }] }));
    await kms.send(new UntagResourceCommand({ KeyId, TagKeys: ['a'] }));
    expect((await kms.send(new ListResourceTagsCommand({ KeyId }))).Tags).toEqual([{ TagKey: 'c', TagValue: '' }]);
    expect(await kms.send(new GetKeyRotationStatusCommand({ KeyId }))).toMatchObject({ KeyRotationEnabled: false });
    const scheduled = await kms.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
    expect(scheduled).toMatchObject({ KeyId: Arn, KeyState: 'PendingDeletion', PendingWindowInDays: 7 });
    expect(Math.abs(scheduled.DeletionDate!.getTime() - Date.now() - 7 * 86_400_000)).toBeLessThan(60_000);
    expect((await kms.send(new CancelKeyDeletionCommand({ KeyId }))).KeyId).toBe(Arn);
    expect((await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata?.KeyState).toBe('Disabled');
  });

  test('aliases, over pages', async () => {
    const [a, b] = [await newKey(), await newKey()];
    for (const name of ['one', 'two', 'three'])
      await kms.send(new CreateAliasCommand({ AliasName: `alias/sdk/${name}`, TargetKeyId: a.KeyId }));
    await kms.send(new UpdateAliasCommand({ AliasName: 'alias/sdk/two', TargetKeyId: b.Arn }));
    expect((await kms.send(new DescribeKeyCommand({ KeyId: 'alias/sdk/two' }))).KeyMetadata?.Arn).toBe(b.Arn);
    await kms.send(new DeleteAliasCommand({ AliasName: 'alias/sdk/three' }));
    const names: string[] = [];
    for await (const page of paginateListAliases({ client: kms, pageSize: 1 }, {}))
      names.push(...page.Aliases!.map((alias) => alias.AliasName!));
    expect(names.filter((name) => name.startsWith('alias/sdk/') || name.startsWith('alias/aws/'))).toEqual([
      'alias/aws/ebs',
      'alias/sdk/one',
      'alias/sdk/two',
    ]);
    const { Aliases } = await kms.send(new ListAliasesCommand({ KeyId: a.KeyId }));
    expect(Aliases).toMatchObject([{ AliasName: 'alias/sdk/one', TargetKeyId: a.KeyId }]);
    expect(Aliases![0]!.CreationDate).toBeInstanceOf(Date);
  });

  test('policies', async () => {
    const { KeyId } = await newKey();
    const { Policy } = await kms.send(new GetKeyPolicyCommand({ KeyId, PolicyName: 'default' }));
    expect(JSON.parse(Policy!).Statement[0].Principal).toEqual({ AWS: `arn:aws:iam::${account}:root` });
    await kms.send(new PutKeyPolicyCommand({ KeyId, PolicyName: 'default', Policy: Policy!.replaceAll('\n', ' ') }));
    expect((await kms.send(new ListKeyPoliciesCommand({ KeyId }))).PolicyNames).toEqual(['default']);
    expect(await failure(kms.send(new PutKeyPolicyCommand({ KeyId, Policy: '{}' })))).toMatchObject({
      name: 'MalformedPolicyDocumentException',
    });
  });

  test('encryption, with every kind of text in its context', async () => {
    const [a, b] = [await newKey(), await newKey()];
    const EncryptionContext = { 'schlüssel ✓': '値 "quoted" \\ \n', __proto__x: 'x', empty: '' };
    const Plaintext = Buffer.from([0, 255, 128, 10]);
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId: a.KeyId, Plaintext, EncryptionContext }));
    const decrypted = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext }));
    expect(Buffer.from(decrypted.Plaintext!)).toEqual(Plaintext);
    expect(decrypted.KeyId).toBe(a.Arn);
    const moved = await kms.send(
      new ReEncryptCommand({ CiphertextBlob, SourceEncryptionContext: EncryptionContext, DestinationKeyId: b.KeyId }),
    );
    expect(moved).toMatchObject({ SourceKeyId: a.Arn, KeyId: b.Arn });
    const opened = await kms.send(new DecryptCommand({ CiphertextBlob: moved.CiphertextBlob }));
    expect(Buffer.from(opened.Plaintext!)).toEqual(Plaintext);
  });

  test('data keys and random bytes', async () => {
    const { KeyId } = await newKey();
    const key = await kms.send(new GenerateDataKeyCommand({ KeyId, NumberOfBytes: 64, EncryptionContext: volume }));
    const alone = await kms.send(
      new GenerateDataKeyWithoutPlaintextCommand({ KeyId, NumberOfBytes: 64, EncryptionContext: volume }),
    );
    expect(alone).not.toHaveProperty('Plaintext');
    for (const { CiphertextBlob } of [key, alone]) {
      const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext: volume }));
      expect(Plaintext).toHaveLength(64);
    }
    expect((await kms.send(new GenerateRandomCommand({ NumberOfBytes: 12 }))).Plaintext).toHaveLength(12);
  });

  test('grants', async () => {
    const { KeyId, Arn } = await newKey();
    const host = `arn:aws:sts::${account}:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0`;
    const make = () =>
      kms.send(
        new CreateGrantCommand({
          KeyId,
          GranteePrincipal: host,
          RetiringPrincipal: `arn:aws:iam::${account}:root`,
          Operations: ['Decrypt'],
          Constraints: { EncryptionContextSubset: volume },
        }),
      );
    const [one, two, three] = [await make(), await make(), await make()];
    const { Grants } = await kms.send(new ListGrantsCommand({ KeyId, GrantId: one.GrantId }));
    expect(Grants).toMatchObject([
      { GrantId: one.GrantId, KeyId: Arn, GranteePrincipal: host, Constraints: { EncryptionContextSubset: volume } },
    ]);
    const RetiringPrincipal = `arn:aws:iam::${account}:root`;
    expect((await kms.send(new ListRetirableGrantsCommand({ RetiringPrincipal }))).Grants).toHaveLength(3);
    await kms.send(new RetireGrantCommand({ GrantToken: one.GrantToken }));
    await kms.send(new RetireGrantCommand({ KeyId: Arn, GrantId: two.GrantId }));
    await kms.send(new RevokeGrantCommand({ KeyId, GrantId: three.GrantId }));
    expect((await kms.send(new ListGrantsCommand({ KeyId }))).Grants).toEqual([]);
  });

  test('errors by their names', async () => {
    const { KeyId, Arn } = await newKey();
    const { CiphertextBlob } = await kms.send(
      new EncryptCommand({ KeyId, Plaintext: Buffer.from('x'), EncryptionContext: volume }),
    );
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/errors', TargetKeyId: KeyId }));
    const missing = '11111111-2222-4333-8444-555555555555';
    const missingArn = Arn.replace(KeyId, missing);
    const cases: Array<[object, string, string?]> = [
      [new DescribeKeyCommand({ KeyId: missing }), 'NotFoundException', `Key '${missingArn}' does not exist`],
      // AWS says no more than the name; the SDK then calls the message so.
      [new DecryptCommand({ CiphertextBlob }), 'InvalidCiphertextException', 'UnknownError'],
      [
        new DecryptCommand({ CiphertextBlob, KeyId: (await newKey()).KeyId, EncryptionContext: volume }),
        'IncorrectKeyException',
      ],
      [new EnableKeyCommand({ KeyId: 'alias/errors' }), 'InvalidArnException'],
      [
        new CreateAliasCommand({ AliasName: 'alias/errors', TargetKeyId: KeyId }),
        'AlreadyExistsException',
        `An alias with the name arn:aws:kms:us-east-1:${account}:alias/errors already exists`,
      ],
      [new ListKeysCommand({ Marker: 'x' }), 'InvalidMarkerException'],
      [new TagResourceCommand({ KeyId, Tags: [{ TagKey: 'aws:x', TagValue: '' }] }), 'TagException'],
      [
        new GenerateDataKeyCommand({ KeyId, NumberOfBytes: 32, DryRun: true }),
        'DryRunOperationException',
        'The request would have succeeded, but the DryRun option is set.',
      ],
      [
        new GenerateRandomCommand({ NumberOfBytes: 1025 }),
        'ValidationException',
        "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
      ],
      [new RetireGrantCommand({ GrantToken: 'x' }), 'InvalidGrantTokenException'],
      [new RevokeGrantCommand({ KeyId, GrantId: 'x' }), 'InvalidGrantIdException'],
      [new DescribeKeyCommand({ KeyId: 5 as unknown as string }), 'SerializationException'],
    ];
    for (const [command, name, message] of cases) {
      const error = await failure(kms.send(command as DescribeKeyCommand));
      expect(error.name).toBe(name);
      if (message !== undefined) expect(error.message).toBe(message);
    }
    await kms.send(new DisableKeyCommand({ KeyId }));
    const disabled = { name: 'DisabledException', message: `${Arn} is disabled.` };
    expect(await failure(kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext: volume })))).toEqual(
      disabled,
    );
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId }));
    expect(await failure(kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') })))).toEqual({
      name: 'KMSInvalidStateException',
      message: `${Arn} is pending deletion.`,
    });
    const pending = await kms.send(new CreateKeyCommand({ Origin: 'EXTERNAL' }));
    expect(
      await failure(kms.send(new GenerateDataKeyCommand({ KeyId: pending.KeyMetadata!.KeyId, KeySpec: 'AES_256' }))),
    ).toEqual({ name: 'KMSInvalidStateException', message: `${pending.KeyMetadata!.Arn} is pending import.` });
  });

  test('what custom key stores would do is refused with the reason', async () => {
    const connect = new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: 'cks-1' });
    await expect(kms.send(connect)).rejects.toMatchObject({
      name: 'UnsupportedOperationException',
      message: expect.stringContaining('Custom key stores are not supported'),
    });
  });

  test('other accounts and regions have keys of their own', async () => {
    const { KeyId, Arn } = await newKey();
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }));
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/isolated', TargetKeyId: KeyId }));
    const stranger = (await newAccount()).sdk(KMSClient);
    const elsewhere = server.as(server.credentials, 'eu-west-1').sdk(KMSClient);
    for (const client of [stranger, elsewhere]) {
      const describe = (name: string) => failure(client.send(new DescribeKeyCommand({ KeyId: name })));
      for (const name of [KeyId, 'alias/isolated']) expect((await describe(name)).name).toBe('NotFoundException');
      expect((await describe(Arn)).name).toBe(client === stranger ? 'AccessDeniedException' : 'NotFoundException');
      expect((await failure(client.send(new DecryptCommand({ CiphertextBlob })))).name).toBe('AccessDeniedException');
      expect((await client.send(new ListKeysCommand({}))).Keys).toEqual([]);
    }
    const theirs = (await stranger.send(new DescribeKeyCommand({ KeyId: 'alias/aws/ebs' }))).KeyMetadata!;
    const ours = (await kms.send(new DescribeKeyCommand({ KeyId: 'alias/aws/ebs' }))).KeyMetadata!;
    expect(theirs).toMatchObject({ KeyManager: 'AWS', KeyState: 'Enabled' });
    expect(theirs.Arn).not.toBe(ours.Arn);
  });

  test('the AWS managed key is used through EC2 only', async () => {
    const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId: 'alias/aws/ebs' }));
    const { KeyId, Arn } = KeyMetadata!;
    await kms.send(new GetKeyPolicyCommand({ KeyId }));
    for (const [action, command] of [
      ['Encrypt', new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') })],
      ['GenerateDataKeyWithoutPlaintext', new GenerateDataKeyWithoutPlaintextCommand({ KeyId, NumberOfBytes: 64 })],
      ['ScheduleKeyDeletion', new ScheduleKeyDeletionCommand({ KeyId })],
      ['DisableKey', new DisableKeyCommand({ KeyId })],
    ] as const) {
      const error = await failure(kms.send(command as EncryptCommand));
      expect(error.name).toBe('AccessDeniedException');
      expect(error.message).toContain(
        `User: arn:aws:iam::${account}:root is not authorized to perform: kms:${action} on resource: ${Arn} because `,
      );
    }
  });

  test('a key is there, and opens its ciphertexts, after the server was killed', async () => {
    const { KeyId, Arn } = await newKey();
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }));
    await server.kill9('control plane');
    await server.restart();
    const decrypted = await server.sdk(KMSClient).send(new DecryptCommand({ CiphertextBlob }));
    expect(decrypted).toMatchObject({ KeyId: Arn });
    expect(Buffer.from(decrypted.Plaintext!).toString()).toBe('x');
    kms = server.sdk(KMSClient);
  });
});

test('with the aws CLI: the commands that people type', async () => {
  const aws = (...args: string[]) => server.awsCli('kms', ...args);
  const { KeyMetadata } = await aws('create-key', '--description', 'from the CLI');
  const keyId = KeyMetadata.KeyId as string;
  await aws('create-alias', '--alias-name', 'alias/cli', '--target-key-id', keyId);
  expect((await aws('describe-key', '--key-id', 'alias/cli')).KeyMetadata.Arn).toBe(KeyMetadata.Arn);
  const context = ['--encryption-context', 'aws:ebs:id=vol-1'];
  const encrypted = await aws(
    'encrypt',
    '--key-id',
    'alias/cli',
    '--plaintext',
    Buffer.from('hello').toString('base64'),
    ...context,
  );
  const decrypted = await aws('decrypt', '--ciphertext-blob', encrypted.CiphertextBlob, ...context);
  expect(Buffer.from(decrypted.Plaintext, 'base64').toString()).toBe('hello');
  await aws('disable-key', '--key-id', keyId);
  await expect(aws('generate-data-key', '--key-id', 'alias/cli', '--key-spec', 'AES_256')).rejects.toMatchObject({
    stderr: expect.stringMatching(
      new RegExp(
        `\\(DisabledException\\) when calling the GenerateDataKey operation.*: ${KeyMetadata.Arn} is disabled\\.`,
      ),
    ),
  });
  const scheduled = await aws('schedule-key-deletion', '--key-id', keyId, '--pending-window-in-days', '7');
  expect(scheduled.KeyState).toBe('PendingDeletion');
  const { Aliases } = await aws('list-aliases');
  expect(Aliases.map((alias: { AliasName: string }) => alias.AliasName)).toContain('alias/cli');
});

test('with boto3: states, errors and pages, as Python sees them', async () => {
  const answer = await server.boto3(`
kms = client('kms')
def code(call, **kw):
    try:
        call(**kw)
    except kms.exceptions.ClientError as e:
        return [e.response['Error']['Code'], e.response['Error']['Message'], e.response['ResponseMetadata']['HTTPStatusCode']]
key = kms.create_key(Tags=[{'TagKey': 'a', 'TagValue': 'b'}])['KeyMetadata']
k, arn = key['KeyId'], key['Arn']
blob = kms.encrypt(KeyId=k, Plaintext=b'hello', EncryptionContext={'a': 'b'})['CiphertextBlob']
kms.create_alias(AliasName='alias/boto', TargetKeyId=k)
g = kms.create_grant(KeyId=k, GranteePrincipal='arn:aws:iam::123456789012:root', Operations=['Decrypt'], Name='n')
result = {
  'arn': arn,
  'plaintext': kms.decrypt(CiphertextBlob=blob, EncryptionContext={'a': 'b'})['Plaintext'].decode(),
  'bytes': len(kms.generate_data_key_without_plaintext(KeyId='alias/boto', NumberOfBytes=64)['CiphertextBlob']),
  'created': key['CreationDate'].timestamp(),
  'aliases': [a['AliasName'] for p in kms.get_paginator('list_aliases').paginate(PaginationConfig={'PageSize': 1}) for a in p['Aliases'] if 'boto' in a['AliasName']],
  'grants': [x['Name'] for p in kms.get_paginator('list_grants').paginate(KeyId=k) for x in p['Grants']],
  'tags': kms.list_resource_tags(KeyId=k)['Tags'],
  'wrongContext': code(kms.decrypt, CiphertextBlob=blob),
  'flipped': code(kms.decrypt, CiphertextBlob=blob[:-1] + bytes([blob[-1] ^ 1]), EncryptionContext={'a': 'b'}),
  'proto': code(kms.decrypt, CiphertextBlob=kms.encrypt(KeyId=k, Plaintext=b'x', EncryptionContext={'__proto__': 'x'})['CiphertextBlob']),
  'noKey': code(kms.describe_key, KeyId='nonsense'),
  'noAlias': code(kms.describe_key, KeyId='alias/none'),
}
kms.retire_grant(GrantToken=g['GrantToken'])
kms.disable_key(KeyId=k)
result['disabled'] = code(kms.decrypt, CiphertextBlob=blob, EncryptionContext={'a': 'b'})
kms.schedule_key_deletion(KeyId=k)
result['pending'] = code(kms.enable_key, KeyId=k)
result['modelled'] = False
try:
    kms.enable_key(KeyId=k)
except kms.exceptions.KMSInvalidStateException:
    result['modelled'] = True
answer(result)
`);
  expect(answer).toMatchObject({
    plaintext: 'hello',
    bytes: 64 + 93,
    aliases: ['alias/boto'],
    grants: ['n'],
    tags: [{ TagKey: 'a', TagValue: 'b' }],
    wrongContext: ['InvalidCiphertextException', '', 400],
    flipped: ['InvalidCiphertextException', '', 400],
    proto: ['InvalidCiphertextException', '', 400],
    noKey: ['NotFoundException', "Invalid keyId 'nonsense'", 400],
    noAlias: ['NotFoundException', `Alias arn:aws:kms:us-east-1:${account}:alias/none is not found.`, 400],
    disabled: ['DisabledException', `${answer.arn} is disabled.`, 400],
    pending: ['KMSInvalidStateException', `${answer.arn} is pending deletion.`, 400],
    modelled: true,
  });
  expect(Math.abs(Date.now() / 1000 - answer.created)).toBeLessThan(60);
});

test('the trail tells of each call what AWS documents, and no secret', async () => {
  const { KeyId, Arn } = await newKey();
  const EncryptionContext = { 'aws:ebs:id': 'vol-0fedcba9876543210' };
  const { CiphertextBlob } = await kms.send(
    new GenerateDataKeyWithoutPlaintextCommand({ KeyId, NumberOfBytes: 64, EncryptionContext }),
  );
  const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext }));
  await failure(kms.send(new DecryptCommand({ CiphertextBlob })));
  const { Events } = await server.awsCli(
    'cloudtrail',
    'lookup-events',
    '--lookup-attributes',
    `AttributeKey=ResourceName,AttributeValue=${Arn}`,
  );
  const records = Events.map((event: { CloudTrailEvent: string }) => JSON.parse(event.CloudTrailEvent)).reverse();
  expect(records).toMatchObject([
    { eventName: 'CreateKey', responseElements: { keyMetadata: { keyId: KeyId } }, readOnly: false },
    {
      eventName: 'GenerateDataKeyWithoutPlaintext',
      eventSource: 'kms.amazonaws.com',
      userIdentity: { arn: `arn:aws:iam::${account}:root` },
      requestParameters: { keyId: KeyId, numberOfBytes: 64, encryptionContext: EncryptionContext },
      responseElements: null,
      readOnly: true,
      resources: [{ ARN: Arn, accountId: account }],
    },
    {
      eventName: 'Decrypt',
      requestParameters: { encryptionContext: EncryptionContext, encryptionAlgorithm: 'SYMMETRIC_DEFAULT' },
      responseElements: null,
      readOnly: true,
    },
    { eventName: 'Decrypt', errorCode: 'InvalidCiphertextException', resources: [{ ARN: Arn }] },
  ]);
  const text = JSON.stringify(Events);
  for (const secret of [Plaintext!, CiphertextBlob!]) {
    expect(text).not.toContain(Buffer.from(secret).toString('base64').slice(0, 24));
    expect(text).not.toContain(Buffer.from(secret).toString('hex').slice(0, 24));
  }
  expect(server.output).not.toContain(Buffer.from(Plaintext!).toString('base64'));
});
