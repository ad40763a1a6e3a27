/** What Terraform's AWS provider does for KMS: every change is read back at once. Points: see clients.test.ts. */
import { constants, publicEncrypt, randomBytes } from 'node:crypto';
import * as kmsSdk from '@aws-sdk/client-kms';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer } from './support/server.ts';
import { failure } from './support/wire.ts';

const account = '123456789012';
let server: TestServer;
let kms: kmsSdk.KMSClient;

beforeAll(async () => {
  server = await startServer();
  kms = server.sdk(kmsSdk.KMSClient);
});
afterAll(() => server?.stop());

test('the provider asks who it is', async () => {
  const identity = await server.sdk(STSClient).send(new GetCallerIdentityCommand({}));
  expect(identity).toMatchObject({ Account: account, Arn: `arn:aws:iam::${account}:root` });
});

const policyOf = (...actions: string[]) => ({
  Version: '2012-10-17',
  Id: 'key',
  Statement: [
    {
      Sid: 'everything',
      Effect: 'Allow',
      Principal: { AWS: `arn:aws:iam::${account}:root` },
      Action: 'kms:*',
      Resource: '*',
    },
    { Sid: 'some', Effect: 'Allow', Principal: { AWS: '*' }, Action: actions, Resource: '*' },
  ],
});

/** The provider's read of aws_kms_key: any error is fatal. */
async function readKey(KeyId: string) {
  const { KeyMetadata } = await kms.send(new kmsSdk.DescribeKeyCommand({ KeyId }));
  const { Policy } = await kms.send(new kmsSdk.GetKeyPolicyCommand({ KeyId, PolicyName: 'default' }));
  const rotation =
    KeyMetadata!.Origin === 'AWS_KMS' ? await kms.send(new kmsSdk.GetKeyRotationStatusCommand({ KeyId })) : undefined;
  const tags: Record<string, string> = {};
  for await (const page of kmsSdk.paginateListResourceTags({ client: kms }, { KeyId }))
    for (const { TagKey, TagValue } of page.Tags!) tags[TagKey!] = TagValue!;
  return { metadata: KeyMetadata!, policy: JSON.parse(Policy!), rotation, tags };
}

describe('aws_kms_key', () => {
  test('is made, rotated, changed, disabled and scheduled for deletion, and reads back each time', async () => {
    const { KeyMetadata } = await kms.send(
      new kmsSdk.CreateKeyCommand({
        BypassPolicyLockoutSafetyCheck: false,
        KeySpec: 'SYMMETRIC_DEFAULT',
        KeyUsage: 'ENCRYPT_DECRYPT',
        Description: 'volumes',
        MultiRegion: false,
        Policy: JSON.stringify(policyOf('kms:Decrypt')),
        Tags: [{ TagKey: 'team', TagValue: 'storage' }],
      }),
    );
    const KeyId = KeyMetadata!.KeyId!;
    expect(await readKey(KeyId)).toMatchObject({
      metadata: {
        KeyId,
        Arn: `arn:aws:kms:us-east-1:${account}:key/${KeyId}`,
        AWSAccountId: account,
        KeySpec: 'SYMMETRIC_DEFAULT',
        CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
        KeyUsage: 'ENCRYPT_DECRYPT',
        KeyState: 'Enabled',
        KeyManager: 'CUSTOMER',
        Origin: 'AWS_KMS',
        Enabled: true,
        MultiRegion: false,
        Description: 'volumes',
      },
      policy: policyOf('kms:Decrypt'),
      rotation: { KeyRotationEnabled: false },
      tags: { team: 'storage' },
    });

    await kms.send(new kmsSdk.EnableKeyRotationCommand({ KeyId, RotationPeriodInDays: 180 }));
    expect((await readKey(KeyId)).rotation).toMatchObject({ KeyRotationEnabled: true, RotationPeriodInDays: 180 });
    await kms.send(new kmsSdk.EnableKeyRotationCommand({ KeyId, RotationPeriodInDays: 90 }));
    expect((await readKey(KeyId)).rotation!.RotationPeriodInDays).toBe(90);
    await kms.send(new kmsSdk.DisableKeyRotationCommand({ KeyId }));
    expect((await readKey(KeyId)).rotation!.KeyRotationEnabled).toBe(false);

    await kms.send(new kmsSdk.UpdateKeyDescriptionCommand({ KeyId, Description: 'other' }));
    const policy = policyOf('kms:Decrypt', 'kms:GenerateDataKeyWithoutPlainText');
    await kms.send(new kmsSdk.PutKeyPolicyCommand({ KeyId, PolicyName: 'default', Policy: JSON.stringify(policy) }));
    await kms.send(new kmsSdk.UntagResourceCommand({ KeyId, TagKeys: ['team'] }));
    await kms.send(new kmsSdk.TagResourceCommand({ KeyId, Tags: [{ TagKey: 'stage', TagValue: 'one' }] }));
    await kms.send(new kmsSdk.DisableKeyCommand({ KeyId }));
    expect(await readKey(KeyId)).toMatchObject({
      metadata: { KeyState: 'Disabled', Enabled: false, Description: 'other' },
      policy,
      tags: { stage: 'one' },
    });

    const scheduled = await kms.send(new kmsSdk.ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
    expect(scheduled).toMatchObject({ KeyState: 'PendingDeletion', PendingWindowInDays: 7 });
    const pending = await readKey(KeyId);
    expect(pending.metadata).toMatchObject({ KeyState: 'PendingDeletion', DeletionDate: scheduled.DeletionDate });
    expect(pending.rotation!.KeyRotationEnabled).toBe(false);
    const use = kms.send(new kmsSdk.GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256' }));
    expect(await failure(use)).toMatchObject({
      name: 'KMSInvalidStateException',
      message: expect.stringMatching(/ is pending deletion\.$/),
    });
    await kms.send(new kmsSdk.CancelKeyDeletionCommand({ KeyId }));
    expect((await readKey(KeyId)).metadata).toMatchObject({ KeyState: 'Disabled', Enabled: false });
  });

  test.each([
    ['RSA_2048', 'SIGN_VERIFY'],
    ['ECC_NIST_P256', 'SIGN_VERIFY'],
    ['HMAC_256', 'GENERATE_VERIFY_MAC'],
  ] as const)('of spec %s reads back too: its rotation is off, which is no error', async (KeySpec, KeyUsage) => {
    const { KeyMetadata } = await kms.send(new kmsSdk.CreateKeyCommand({ KeySpec, KeyUsage }));
    const read = await readKey(KeyMetadata!.KeyId!);
    expect(read).toMatchObject({ metadata: { KeySpec, KeyUsage }, rotation: { KeyRotationEnabled: false }, tags: {} });
    const enabling = kms.send(new kmsSdk.EnableKeyRotationCommand({ KeyId: KeyMetadata!.KeyId }));
    expect(await failure(enabling)).toMatchObject({ name: 'UnsupportedOperationException' });
  });
});

describe('aws_kms_external_key', () => {
  async function importMaterial(KeyId: string, material: Buffer, more: object): Promise<void> {
    const { ImportToken, PublicKey } = await kms.send(
      new kmsSdk.GetParametersForImportCommand({
        KeyId,
        WrappingAlgorithm: 'RSAES_OAEP_SHA_256',
        WrappingKeySpec: 'RSA_2048',
      }),
    );
    const key = { key: Buffer.from(PublicKey!), format: 'der', type: 'spki' } as const;
    const options = { ...key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const EncryptedKeyMaterial = publicEncrypt(options, material);
    await kms.send(new kmsSdk.ImportKeyMaterialCommand({ KeyId, ImportToken, EncryptedKeyMaterial, ...more }));
  }

  test('waits for its material, takes it with an end to the second, and reads back', async () => {
    const { KeyMetadata } = await kms.send(new kmsSdk.CreateKeyCommand({ Origin: 'EXTERNAL' }));
    const KeyId = KeyMetadata!.KeyId!;
    expect((await readKey(KeyId)).metadata).toMatchObject({ KeyState: 'PendingImport', Enabled: false });
    const use = kms.send(new kmsSdk.EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }));
    expect(await failure(use)).toMatchObject({
      name: 'KMSInvalidStateException',
      message: expect.stringMatching(/ is pending import\.$/),
    });
    const material = randomBytes(32);
    const ValidTo = new Date((Math.floor(Date.now() / 1000) + 86_400) * 1000);
    await importMaterial(KeyId, material, { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo });
    expect((await readKey(KeyId)).metadata).toMatchObject({
      KeyState: 'Enabled',
      Enabled: true,
      Origin: 'EXTERNAL',
      ExpirationModel: 'KEY_MATERIAL_EXPIRES',
      ValidTo,
    });
    await importMaterial(KeyId, material, { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' });
    const { metadata } = await readKey(KeyId);
    expect(metadata.ExpirationModel).toBe('KEY_MATERIAL_DOES_NOT_EXPIRE');
    expect(metadata.ValidTo).toBeUndefined();
    await kms.send(new kmsSdk.EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }));
  });
});

describe('aws_kms_alias and aws_kms_grant', () => {
  let KeyId: string;
  beforeAll(async () => {
    KeyId = (await kms.send(new kmsSdk.CreateKeyCommand({}))).KeyMetadata!.KeyId!;
  });

  async function aliases(): Promise<Map<string, string | undefined>> {
    const found = new Map<string, string | undefined>();
    for await (const page of kmsSdk.paginateListAliases({ client: kms, pageSize: 3 }, {}))
      for (const { AliasName, TargetKeyId } of page.Aliases!) found.set(AliasName!, TargetKeyId);
    return found;
  }

  test('an alias is found in the list of all, in the page that it is on', async () => {
    const names = Array.from({ length: 8 }, (_, index) => `alias/terraform-${index}`);
    for (const AliasName of names) await kms.send(new kmsSdk.CreateAliasCommand({ AliasName, TargetKeyId: KeyId }));
    const found = await aliases();
    for (const name of names) expect(found.get(name)).toBe(KeyId);
    const next = (await kms.send(new kmsSdk.CreateKeyCommand({}))).KeyMetadata!.KeyId!;
    await kms.send(new kmsSdk.UpdateAliasCommand({ AliasName: names[7], TargetKeyId: next }));
    expect((await aliases()).get(names[7]!)).toBe(next);
    for (const AliasName of names) await kms.send(new kmsSdk.DeleteAliasCommand({ AliasName }));
    expect((await aliases()).has(names[0]!)).toBe(false);
  });

  test('a grant is found in the list of all, and is gone when revoked or retired', async () => {
    const GranteePrincipal = `arn:aws:iam::${account}:root`;
    const listed = async () => {
      const grants = new Map<string, kmsSdk.GrantListEntry>();
      for await (const page of kmsSdk.paginateListGrants({ client: kms, pageSize: 2 }, { KeyId }))
        for (const grant of page.Grants!) grants.set(grant.GrantId!, grant);
      return grants;
    };
    const made: string[] = [];
    for (const Name of ['a', 'b', 'c', undefined]) {
      const grant = await kms.send(
        new kmsSdk.CreateGrantCommand({
          KeyId,
          GranteePrincipal,
          Operations: ['Encrypt', 'Decrypt', 'GenerateDataKey'],
          Constraints: { EncryptionContextEquals: { Department: 'Finance' } },
          RetiringPrincipal: GranteePrincipal,
          Name,
        }),
      );
      made.push(grant.GrantId!);
    }
    const grants = await listed();
    expect(grants.get(made[1]!)).toMatchObject({
      Name: 'b',
      GranteePrincipal,
      RetiringPrincipal: GranteePrincipal,
      KeyId: expect.stringContaining(KeyId),
      Operations: expect.arrayContaining(['Encrypt', 'Decrypt', 'GenerateDataKey']),
      Constraints: { EncryptionContextEquals: { Department: 'Finance' } },
      CreationDate: expect.any(Date),
    });
    // Clients read Name of every grant.
    expect(grants.get(made[3]!)!.Name).toBe('');
    await kms.send(new kmsSdk.RevokeGrantCommand({ KeyId, GrantId: made[0] }));
    await kms.send(new kmsSdk.RetireGrantCommand({ KeyId: grants.get(made[1]!)!.KeyId, GrantId: made[1] }));
    expect([...(await listed()).keys()].sort()).toEqual(made.slice(2).sort());
  });
});
