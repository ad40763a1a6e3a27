/** Keys that another account uses: two accounts, real clients, policies and grants on both sides, and both trails. */
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import { AttachVolumeCommand, CreateVolumeCommand, EC2Client } from '@aws-sdk/client-ec2';
import * as iam from '@aws-sdk/client-iam';
import * as sdk from '@aws-sdk/client-kms';
import { KMSClient, type KMSServiceException } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Client, run } from './support/client.ts';
import { coffer, startServer, type TestServer, until } from './support/server.ts';
import { newUser } from './support/users.ts';
import { Volumes, zone } from './support/volumes.ts';

const owner = '123456789012';
let server: TestServer;
/** The key's account, and the other one: its root and a user. */
let mine: KMSClient;
let theirs: KMSClient;
let theirRoot: Client;
let bob: Client;
let bobArn: string;
let account: string;
let keyId: string;
let keyArn: string;
const aliasArn = `arn:aws:kms:us-east-1:${owner}:alias/shared`;
const Plaintext = Buffer.from('x');

beforeAll(async () => {
  server = await startServer();
  const made = JSON.parse((await run(coffer, ['account', 'create', '--name', 'b', '--data', server.dataDir])).stdout);
  account = made.Account;
  theirRoot = server.as({ accessKeyId: made.AccessKeyId, secretAccessKey: made.SecretAccessKey });
  mine = server.sdk(KMSClient);
  theirs = theirRoot.sdk(KMSClient);
  bob = await newUser(theirRoot, 'bob');
  bobArn = `arn:aws:iam::${account}:user/bob`;
  const { KeyMetadata } = await mine.send(new sdk.CreateKeyCommand({}));
  keyId = KeyMetadata!.KeyId!;
  keyArn = KeyMetadata!.Arn!;
  await mine.send(new sdk.CreateAliasCommand({ AliasName: 'alias/shared', TargetKeyId: keyId }));
});
afterAll(() => server?.stop());
beforeEach(async () => {
  await open();
  await allowBob();
});

const ownersOwn = { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${owner}:root` }, Action: 'kms:*', Resource: '*' };
/** Gives the key its owner's statement and these. */
const open = (...statements: object[]) =>
  mine.send(
    new sdk.PutKeyPolicyCommand({
      KeyId: keyId,
      Policy: JSON.stringify({ Version: '2012-10-17', Statement: [ownersOwn, ...statements] }),
    }),
  );
const to = (AWS: string, Action: string | string[] = 'kms:*', more = {}) => ({
  Effect: 'Allow',
  Principal: { AWS },
  Action,
  Resource: '*',
  ...more,
});
/** Gives bob an identity policy of these statements, or none. */
const allowBob = (...Statement: object[]) => {
  const users = theirRoot.sdk(iam.IAMClient);
  const named = { UserName: 'bob', PolicyName: 'p' };
  if (Statement.length > 0)
    return users.send(
      new iam.PutUserPolicyCommand({ ...named, PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement }) }),
    );
  return users.send(new iam.DeleteUserPolicyCommand(named)).catch(() => undefined);
};
const kmsOnKeys = (Action: string | string[] = 'kms:*') => ({ Effect: 'Allow', Action, Resource: keyArn });
const encrypt = (who: KMSClient, KeyId = keyArn) => who.send(new sdk.EncryptCommand({ KeyId, Plaintext }));
const failure = (promise: Promise<unknown>): Promise<{ name: string; message: string }> =>
  promise.then(
    () => ({ name: 'succeeded', message: '' }),
    ({ name, message }: KMSServiceException) => ({ name, message }),
  );
const closed = (arn: string, action: string, what = 'this resource') => ({
  name: 'AccessDeniedException',
  message:
    `User: ${arn} is not authorized to perform: kms:${action} on ${what} because the resource does not exist in this ` +
    'Region, no resource-based policies allow access, or a resource-based policy explicitly denies access',
});

describe('a key that is not open to another account', () => {
  // Input of every operation that names a key, valid for any key as far as it can be.
  const grant = { GranteePrincipal: `arn:aws:iam::${owner}:root`, Operations: ['Decrypt'] as sdk.GrantOperation[] };
  const GrantId = '0'.repeat(64);
  const inputs: Record<string, object> = {
    CancelKeyDeletion: {},
    CreateGrant: grant,
    DeleteImportedKeyMaterial: {},
    DescribeKey: {},
    DisableKey: {},
    DisableKeyRotation: {},
    EnableKey: {},
    EnableKeyRotation: {},
    Encapsulate: { EncapsulationAlgorithm: 'ML_KEM' },
    Decapsulate: { EncapsulationAlgorithm: 'ML_KEM', SharedSecretCiphertextBlob: Buffer.alloc(768) },
    Encrypt: { Plaintext },
    Decrypt: { CiphertextBlob: Buffer.from('nonsense') },
    DeriveSharedSecret: { KeyAgreementAlgorithm: 'ECDH', PublicKey: Buffer.alloc(91) },
    GenerateDataKey: { NumberOfBytes: 16 },
    GenerateDataKeyPair: { KeyPairSpec: 'ECC_NIST_P256' },
    GenerateDataKeyPairWithoutPlaintext: { KeyPairSpec: 'ECC_NIST_P256' },
    GenerateDataKeyWithoutPlaintext: { NumberOfBytes: 16 },
    GenerateMac: { MacAlgorithm: 'HMAC_SHA_256', Message: Plaintext },
    GetKeyLastUsage: {},
    GetKeyPolicy: {},
    GetKeyRotationStatus: {},
    GetParametersForImport: { WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_2048' },
    GetPublicKey: {},
    ImportKeyMaterial: {
      ImportToken: Plaintext,
      EncryptedKeyMaterial: Plaintext,
      ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
    },
    ListAliases: {},
    ListGrants: {},
    ListKeyPolicies: {},
    ListKeyRotations: {},
    ListResourceTags: {},
    PutKeyPolicy: { Policy: '{}' },
    ReplicateKey: { ReplicaRegion: 'eu-west-1' },
    RetireGrant: { GrantId },
    RevokeGrant: { GrantId },
    RotateKeyOnDemand: {},
    ScheduleKeyDeletion: {},
    Sign: { SigningAlgorithm: 'ECDSA_SHA_256', Message: Plaintext },
    TagResource: { Tags: [{ TagKey: 'a', TagValue: 'b' }] },
    UntagResource: { TagKeys: ['a'] },
    UpdateKeyDescription: { Description: 'theirs now' },
    UpdatePrimaryRegion: { PrimaryRegion: 'eu-west-1' },
    Verify: { SigningAlgorithm: 'ECDSA_SHA_256', Message: Plaintext, Signature: Plaintext },
    VerifyMac: { MacAlgorithm: 'HMAC_SHA_256', Message: Plaintext, Mac: Plaintext },
  };
  const across = new Set(
    (
      'CreateGrant Decapsulate Decrypt DeriveSharedSecret DescribeKey Encapsulate Encrypt GenerateDataKey ' +
      'GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac ' +
      'GetKeyRotationStatus GetPublicKey ListGrants RetireGrant RevokeGrant Sign Verify VerifyMac'
    ).split(' '),
  );
  const noKey = () => keyArn.replace(/.$/, (last) => (last === '0' ? '1' : '0'));
  const commands = sdk as unknown as Record<string, new (input: object) => Parameters<KMSClient['send']>[0]>;
  const send = (who: KMSClient, name: string, input: object) =>
    failure(who.send(new commands[`${name}Command`]!(input)) as Promise<unknown>);

  test.each(Object.keys(inputs))('%s says the same of it and of one that does not exist', async (name) => {
    const there = await send(theirs, name, { ...inputs[name], KeyId: keyArn });
    const missing = await send(theirs, name, { ...inputs[name], KeyId: noKey() });
    if (name === 'ListAliases') {
      expect(there).toEqual({ name: 'NotFoundException', message: `Key '${keyArn}' does not exist` });
      expect(missing).toEqual({ name: 'NotFoundException', message: `Key '${noKey()}' does not exist` });
    } else {
      expect(there).toEqual(closed(`arn:aws:iam::${account}:root`, name));
      expect(missing).toEqual(there);
    }
  });

  test('aliases of it say no more, nor does a ciphertext, nor a pair of keys', async () => {
    const arn = `arn:aws:iam::${account}:root`;
    for (const name of ['Encrypt', 'DescribeKey', 'Decrypt'])
      for (const KeyId of [aliasArn, `${aliasArn}-not`, `arn:aws:kms:us-east-1:${owner}:alias/aws/ebs`])
        expect(await send(theirs, name, { ...inputs[name], KeyId })).toEqual(closed(arn, name));
    const { CiphertextBlob } = await encrypt(mine);
    expect(await send(theirs, 'Decrypt', { CiphertextBlob })).toEqual(
      closed(arn, 'Decrypt', 'the resource associated with this ciphertext'),
    );
    const { KeyMetadata } = await theirs.send(new sdk.CreateKeyCommand({}));
    const own = (await encrypt(theirs, KeyMetadata!.Arn!)).CiphertextBlob;
    for (const DestinationKeyId of [keyArn, noKey()])
      expect(await send(theirs, 'ReEncrypt', { CiphertextBlob: own, DestinationKeyId })).toEqual(
        closed(arn, 'ReEncryptTo'),
      );
    for (const SourceKeyId of [keyArn, noKey()])
      expect(
        await send(theirs, 'ReEncrypt', { CiphertextBlob: own, SourceKeyId, DestinationKeyId: KeyMetadata!.Arn }),
      ).toEqual(closed(arn, 'ReEncryptFrom'));
    for (const TargetKeyId of [keyArn, noKey()])
      expect(await send(theirs, 'CreateAlias', { AliasName: 'alias/grabbed', TargetKeyId })).toEqual(
        closed(arn, 'CreateAlias'),
      );
  });

  test('what is true of it alone makes no difference: its tags, aliases and state, and a grant to someone else', async () => {
    await mine.send(new sdk.TagResourceCommand({ KeyId: keyId, Tags: [{ TagKey: 'team', TagValue: 'red' }] }));
    const deny = (Condition: object) => ({ Effect: 'Deny', Action: 'kms:*', Resource: '*', Condition });
    await allowBob(
      { Effect: 'Allow', Action: 'kms:*', Resource: '*' },
      deny({ StringEquals: { 'aws:ResourceTag/team': 'red' } }),
      deny({ 'ForAnyValue:StringLike': { 'kms:ResourceAliases': 'alias/*' } }),
      deny({ StringEquals: { 'kms:KeySpec': 'SYMMETRIC_DEFAULT' } }),
    );
    await mine.send(new sdk.DisableKeyCommand({ KeyId: keyId }));
    const made = await mine
      .send(new sdk.EnableKeyCommand({ KeyId: keyId }))
      .then(() => mine.send(new sdk.CreateGrantCommand({ KeyId: keyId, ...grant })));
    const who = bob.sdk(KMSClient);
    for (const KeyId of [keyArn, noKey()]) {
      expect(await send(who, 'Encrypt', { KeyId, Plaintext })).toEqual(closed(bobArn, 'Encrypt'));
      expect(await send(who, 'RetireGrant', { KeyId, GrantId: made.GrantId })).toEqual(closed(bobArn, 'RetireGrant'));
    }
    await mine.send(new sdk.UntagResourceCommand({ KeyId: keyId, TagKeys: ['team'] }));
    await mine.send(new sdk.RevokeGrantCommand({ KeyId: keyId, GrantId: made.GrantId }));
  });

  test('the operations that AWS has within one account stay there, whatever the key policy allows', async () => {
    await open(to(`arn:aws:iam::${account}:root`));
    for (const name of Object.keys(inputs)) {
      const { name: code } = await send(theirs, name, { ...inputs[name], KeyId: keyArn });
      if (name === 'ListAliases') expect(code).toBe('NotFoundException');
      else if (name === 'RetireGrant' || !across.has(name))
        expect([name, code]).toEqual([name, 'AccessDeniedException']);
      else expect([name, code]).not.toEqual([name, 'AccessDeniedException']);
    }
    expect((await mine.send(new sdk.DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata).toMatchObject({
      Description: '',
      Enabled: true,
    });
  });
});

describe('a key that its policy opens', () => {
  test('is used by key ARN or alias ARN, and only by those', async () => {
    await open(to(`arn:aws:iam::${account}:root`, ['kms:Encrypt', 'kms:Decrypt', 'kms:DescribeKey', 'kms:ReEncrypt*']));
    for (const KeyId of [keyArn, aliasArn]) {
      const { CiphertextBlob } = await encrypt(theirs, KeyId);
      const opened = await theirs.send(new sdk.DecryptCommand({ CiphertextBlob }));
      expect(opened).toMatchObject({ KeyId: keyArn, Plaintext: new Uint8Array(Plaintext) });
      await theirs.send(new sdk.DecryptCommand({ CiphertextBlob, KeyId }));
    }
    for (const KeyId of [keyId, 'alias/shared'])
      expect((await failure(encrypt(theirs, KeyId))).name).toBe('NotFoundException');
    // Out of one account's key into the other's.
    const { KeyMetadata } = await theirs.send(new sdk.CreateKeyCommand({}));
    const { CiphertextBlob } = await encrypt(theirs);
    const moved = await theirs.send(
      new sdk.ReEncryptCommand({ CiphertextBlob, DestinationKeyId: KeyMetadata!.KeyId! }),
    );
    expect(moved).toMatchObject({ SourceKeyId: keyArn, KeyId: KeyMetadata!.Arn });
    // The aws CLI as well.
    expect((await theirRoot.awsCli('kms', 'describe-key', '--key-id', aliasArn)).KeyMetadata).toMatchObject({
      AWSAccountId: owner,
      Arn: keyArn,
    });
    // What the policy leaves out stays closed, and nobody sees the key in a list.
    const mac = theirs.send(new sdk.GenerateDataKeyCommand({ KeyId: keyArn, NumberOfBytes: 16 }));
    expect(await failure(mac)).toEqual(closed(`arn:aws:iam::${account}:root`, 'GenerateDataKey'));
    const listed = (await theirs.send(new sdk.ListKeysCommand({}))).Keys!;
    expect(listed.map(({ KeyArn }) => KeyArn)).not.toContain(keyArn);
  });

  test('needs the identity policy of the caller too, also when it names the caller', async () => {
    const who = bob.sdk(KMSClient);
    for (const principal of [`arn:aws:iam::${account}:root`, bobArn, '*']) {
      await open(to(principal, 'kms:Encrypt'));
      await allowBob();
      expect(await failure(encrypt(who))).toEqual({
        name: 'AccessDeniedException',
        message: `User: ${bobArn} is not authorized to perform: kms:Encrypt on resource: ${keyArn} because no identity-based policy allows the kms:Encrypt action`,
      });
      await allowBob(kmsOnKeys());
      await encrypt(who);
      await allowBob(kmsOnKeys(), { Effect: 'Deny', Action: 'kms:Encrypt', Resource: '*' });
      expect((await failure(encrypt(who))).message).toContain('explicit deny in an identity-based policy');
    }
    // The identity policy alone opens nothing.
    await allowBob({ Effect: 'Allow', Action: 'kms:*', Resource: '*' });
    await open();
    expect(await failure(encrypt(who))).toEqual(closed(bobArn, 'Encrypt'));
    await open(to('*'), { ...to(bobArn), Effect: 'Deny' });
    expect(await failure(encrypt(who))).toEqual(closed(bobArn, 'Encrypt'));
  });

  test('to kms:CallerAccount', async () => {
    const onlyFrom = (accountId: string) => ({ Condition: { StringEquals: { 'kms:CallerAccount': accountId } } });
    await open(to('*', 'kms:Encrypt', onlyFrom(account)));
    await encrypt(theirs);
    await open(to('*', 'kms:Encrypt', onlyFrom(owner)));
    expect((await failure(encrypt(theirs))).name).toBe('AccessDeniedException');
  });
});

describe('grants', () => {
  const decryptGrant = (who: KMSClient, more: Partial<sdk.CreateGrantRequest> = {}) =>
    who.send(new sdk.CreateGrantCommand({ KeyId: keyArn, GranteePrincipal: bobArn, Operations: ['Decrypt'], ...more }));

  test('open a key to a principal of another account by themselves', async () => {
    const { CiphertextBlob } = await encrypt(mine);
    const decrypt = () => bob.sdk(KMSClient).send(new sdk.DecryptCommand({ CiphertextBlob }));
    expect((await failure(decrypt())).name).toBe('AccessDeniedException');
    const { GrantId, GrantToken } = await decryptGrant(mine);
    await decrypt();
    expect(await failure(encrypt(bob.sdk(KMSClient)))).toEqual(closed(bobArn, 'Encrypt'));
    await allowBob({ Effect: 'Deny', Action: 'kms:Decrypt', Resource: '*' });
    expect((await failure(decrypt())).message).toContain('explicit deny in an identity-based policy');
    await allowBob();
    await mine.send(new sdk.RevokeGrantCommand({ KeyId: keyArn, GrantId }));
    const again = bob.sdk(KMSClient).send(new sdk.DecryptCommand({ CiphertextBlob, GrantTokens: [GrantToken!] }));
    expect((await failure(again)).name).toBe('AccessDeniedException');
  });

  test('to an account are passed on by its identity policies', async () => {
    const { CiphertextBlob } = await encrypt(mine);
    const decrypt = () => bob.sdk(KMSClient).send(new sdk.DecryptCommand({ CiphertextBlob }));
    const { GrantId } = await decryptGrant(mine, { GranteePrincipal: `arn:aws:iam::${account}:root` });
    await theirs.send(new sdk.DecryptCommand({ CiphertextBlob }));
    expect((await failure(decrypt())).message).toContain('no identity-based policy allows the kms:Decrypt action');
    await allowBob(kmsOnKeys('kms:Decrypt'));
    await decrypt();
    await mine.send(new sdk.RevokeGrantCommand({ KeyId: keyArn, GrantId }));
  });

  test('are made, listed and revoked by another account where the key policy lets it', async () => {
    expect(await failure(decryptGrant(theirs))).toEqual(closed(`arn:aws:iam::${account}:root`, 'CreateGrant'));
    await open(to(`arn:aws:iam::${account}:root`, ['kms:CreateGrant', 'kms:ListGrants', 'kms:RevokeGrant']));
    const { GrantId } = await decryptGrant(theirs, { Name: 'once' });
    expect((await decryptGrant(theirs, { Name: 'once' })).GrantId).toBe(GrantId);
    const [grant] = (await theirs.send(new sdk.ListGrantsCommand({ KeyId: keyArn, GrantId }))).Grants!;
    expect(grant).toMatchObject({ KeyId: keyArn, IssuingAccount: `arn:aws:iam::${account}:root` });
    await theirs.send(new sdk.RevokeGrantCommand({ KeyId: keyArn, GrantId }));
    expect((await mine.send(new sdk.ListGrantsCommand({ KeyId: keyArn, GrantId }))).Grants).toEqual([]);
  });

  test('are retired by whom they name, by the account they were made in, and by nobody else', async () => {
    const retire = (who: KMSClient, by: sdk.RetireGrantRequest) => failure(who.send(new sdk.RetireGrantCommand(by)));
    const who = bob.sdk(KMSClient);
    const forBob = await decryptGrant(mine, { RetiringPrincipal: bobArn });
    const retirable = (await who
      .send(new sdk.ListRetirableGrantsCommand({ RetiringPrincipal: bobArn }))
      .catch((error) => error)) as { name: string };
    expect(retirable.name).toBe('AccessDeniedException');
    const list = await theirs.send(new sdk.ListRetirableGrantsCommand({ RetiringPrincipal: bobArn }));
    expect(list.Grants).toMatchObject([{ KeyId: keyArn, GrantId: forBob.GrantId }]);
    const byId = { KeyId: keyArn, GrantId: forBob.GrantId! };
    expect(await retire(theirs, byId)).toEqual(closed(`arn:aws:iam::${account}:root`, 'RetireGrant'));
    expect(await retire(theirs, { GrantToken: forBob.GrantToken! })).toEqual(
      closed(`arn:aws:iam::${account}:root`, 'RetireGrant'),
    );
    // A deny on either side holds.
    await open({ ...to(bobArn, 'kms:RetireGrant'), Effect: 'Deny' });
    expect(await retire(who, byId)).toEqual(closed(bobArn, 'RetireGrant'));
    await open();
    await allowBob({ Effect: 'Deny', Action: 'kms:RetireGrant', Resource: '*' });
    expect((await retire(who, byId)).message).toContain('explicit deny in an identity-based policy');
    await allowBob();
    expect((await retire(who, { ...byId, DryRun: true })).name).toBe('DryRunOperationException');
    expect((await retire(who, byId)).name).toBe('succeeded');
    expect((await retire(who, byId)).name).toBe('AccessDeniedException');
    // To an account: its root, and whom its identity policies let.
    const forAccount = await decryptGrant(mine, { RetiringPrincipal: `arn:aws:iam::${account}:root` });
    const accountsById = { KeyId: keyArn, GrantId: forAccount.GrantId! };
    expect((await retire(who, accountsById)).message).toContain('no identity-based policy');
    await allowBob(kmsOnKeys('kms:RetireGrant'));
    expect((await retire(who, { GrantToken: forAccount.GrantToken! })).name).toBe('succeeded');
    // The account in which it was made.
    await open(to(`arn:aws:iam::${account}:root`, 'kms:CreateGrant'));
    const made = await decryptGrant(theirs);
    expect((await retire(theirs, { GrantToken: made.GrantToken! })).name).toBe('succeeded');
    // A key policy can't let anyone.
    await open(to(`arn:aws:iam::${account}:root`, 'kms:RetireGrant'));
    const last = await decryptGrant(mine);
    expect((await retire(theirs, { GrantToken: last.GrantToken! })).name).toBe('AccessDeniedException');
    await mine.send(new sdk.RevokeGrantCommand({ KeyId: keyArn, GrantId: last.GrantId }));
  });
});

describe('the trail', () => {
  const eventsOf = async (who: Client, eventName: string) => {
    const { Events } = await who
      .sdk(CloudTrailClient)
      .send(new LookupEventsCommand({ LookupAttributes: [{ AttributeKey: 'EventName', AttributeValue: eventName }] }));
    return Events!.map(({ CloudTrailEvent }) => JSON.parse(CloudTrailEvent!));
  };

  test('of both accounts has what was allowed, under one sharedEventID', async () => {
    await open(to(`arn:aws:iam::${account}:root`, 'kms:Encrypt'));
    await allowBob(kmsOnKeys());
    await encrypt(bob.sdk(KMSClient), aliasArn);
    const [used] = await eventsOf(theirRoot, 'Encrypt');
    const [seen] = await eventsOf(server, 'Encrypt');
    expect(used).toMatchObject({
      userIdentity: { type: 'IAMUser', arn: bobArn, userName: 'bob' },
      recipientAccountId: account,
      requestParameters: { keyId: aliasArn },
      resources: [{ ARN: keyArn, accountId: owner, type: 'AWS::KMS::Key' }],
      sharedEventID: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(seen).toMatchObject({ recipientAccountId: owner, sharedEventID: used.sharedEventID });
    expect(seen.eventID).not.toBe(used.eventID);
    expect(seen.requestID).toBe(used.requestID);
    expect(seen.userIdentity).toEqual({
      type: 'AWSAccount',
      principalId: used.userIdentity.principalId,
      accountId: account,
    });
    const { eventID: _1, userIdentity: _2, recipientAccountId: _3, ...shared } = used;
    expect(seen).toMatchObject(shared);
    // What a call of one account alone leaves has no such id.
    await encrypt(mine);
    expect((await eventsOf(server, 'Encrypt'))[0]).not.toHaveProperty('sharedEventID');
  });

  test('of the owner has nothing of what was refused, the caller’s no more than the refusal said', async () => {
    const before = (await eventsOf(server, 'GenerateDataKey')).length;
    const noKey = keyArn.replace(/.$/, (last) => (last === '0' ? '1' : '0'));
    for (const KeyId of [keyArn, noKey, aliasArn])
      await failure(theirs.send(new sdk.GenerateDataKeyCommand({ KeyId, NumberOfBytes: 16 })));
    const refused = (await eventsOf(theirRoot, 'GenerateDataKey')).slice(0, 3);
    for (const event of refused) {
      expect(event).toMatchObject({ errorCode: 'AccessDeniedException', resources: [] });
      expect(event).not.toHaveProperty('sharedEventID');
    }
    expect(await eventsOf(server, 'GenerateDataKey')).toHaveLength(before);
  });

  test('tells the owner when a key was last used, by whomever', async () => {
    const { KeyMetadata } = await mine.send(new sdk.CreateKeyCommand({}));
    const [KeyId, arn] = [KeyMetadata!.KeyId!, KeyMetadata!.Arn!];
    const policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [ownersOwn, to(`arn:aws:iam::${account}:root`)],
    });
    await mine.send(new sdk.PutKeyPolicyCommand({ KeyId, Policy: policy }));
    const usage = () => mine.send(new sdk.GetKeyLastUsageCommand({ KeyId }));
    expect(await usage()).toMatchObject({
      KeyId,
      KeyLastUsage: {},
      KeyCreationDate: KeyMetadata!.CreationDate,
      TrackingStartDate: KeyMetadata!.CreationDate,
    });
    await encrypt(mine, arn);
    await encrypt(theirs, arn);
    await failure(
      theirs.send(new sdk.GenerateMacCommand({ KeyId: arn, MacAlgorithm: 'HMAC_SHA_256', Message: Plaintext })),
    );
    const [seen] = await eventsOf(server, 'Encrypt');
    expect(seen).toMatchObject({ userIdentity: { accountId: account }, resources: [{ ARN: arn }] });
    expect((await usage()).KeyLastUsage).toEqual({
      Operation: 'Encrypt',
      Timestamp: new Date(seen.eventTime),
      CloudTrailEventId: seen.eventID,
      KmsRequestId: seen.requestID,
    });
    expect((await failure(theirs.send(new sdk.GetKeyLastUsageCommand({ KeyId: arn })))).name).toBe(
      'AccessDeniedException',
    );
  });

  test('of both has what was allowed and failed', async () => {
    await open(to(`arn:aws:iam::${account}:root`, 'kms:GenerateMac'));
    const mac = { KeyId: keyArn, MacAlgorithm: 'HMAC_SHA_256' as const, Message: Plaintext };
    expect((await failure(theirs.send(new sdk.GenerateMacCommand(mac)))).name).toBe('InvalidKeyUsageException');
    const [seen] = await eventsOf(server, 'GenerateMac');
    expect(seen).toMatchObject({ errorCode: 'InvalidKeyUsageException', userIdentity: { type: 'AWSAccount' } });
  });
});

describe('volumes', () => {
  const permissions = ['kms:CreateGrant', 'kms:Decrypt', 'kms:DescribeKey', 'kms:GenerateDataKeyWithoutPlaintext'];

  test('of one account are encrypted under the key of another, as long as it is open', async () => {
    const volumes = new Volumes(theirRoot as TestServer);
    const state = async () => (await volumes.describe(volumeId)).State;
    await expect(volumes.create({ KmsKeyId: keyArn })).rejects.toMatchObject({ name: 'UnauthorizedOperation' });
    await open(to(`arn:aws:iam::${account}:root`, permissions));
    const volumeId = await volumes.create({ KmsKeyId: keyArn });
    await until(async () => (await state()) === 'available', 'the volume to be available');
    expect(await volumes.describe(volumeId)).toMatchObject({ Encrypted: true, KmsKeyId: keyArn });
    const instance = await volumes.runInstance();
    const attach = () =>
      volumes.ec2.send(new AttachVolumeCommand({ VolumeId: volumeId, InstanceId: instance, Device: '/dev/sdf' }));
    await attach();
    await until(
      async () => (await volumes.describe(volumeId)).Attachments?.[0]?.State === 'attached',
      'the volume to be attached',
    );
    const host = `arn:aws:sts::${account}:assumed-role/aws:ec2-infrastructure/${instance}`;
    const grantsOfHost = async () =>
      (await mine.send(new sdk.ListGrantsCommand({ KeyId: keyArn, GranteePrincipal: host }))).Grants;
    expect(await grantsOfHost()).toMatchObject([{ IssuingAccount: `arn:aws:iam::${account}:root` }]);
    await volumes.detach(volumeId);
    expect(await grantsOfHost()).toEqual([]);
    await open();
    await expect(attach()).rejects.toMatchObject({
      name: 'UnauthorizedOperation',
      message: expect.stringContaining('kms:CreateGrant'),
    });
  });

  test('EC2 lends a user no permission on a foreign key that the user does not have', async () => {
    await open(to(`arn:aws:iam::${account}:root`, permissions));
    await allowBob({ Effect: 'Allow', Action: 'ec2:*', Resource: '*' });
    const create = new CreateVolumeCommand({ Size: 1, AvailabilityZone: zone, Encrypted: true, KmsKeyId: keyArn });
    await expect(bob.sdk(EC2Client).send(create)).rejects.toMatchObject({
      name: 'UnauthorizedOperation',
      message: expect.stringContaining('no identity-based policy allows the kms:DescribeKey action'),
    });
  });
});
