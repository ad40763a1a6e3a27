/** Key material through the clients that people have, on a real server: the commands of docs/keys.md, typed as they stand there. */
import { createDecipheriv, createHmac, createPublicKey, hkdfSync, randomBytes, verify } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import {
  type AlgorithmSpec,
  CreateKeyCommand,
  type CreateKeyRequest,
  DecryptCommand,
  DeleteImportedKeyMaterialCommand,
  DescribeKeyCommand,
  EnableKeyRotationCommand,
  EncryptCommand,
  GenerateMacCommand,
  GetKeyRotationStatusCommand,
  GetParametersForImportCommand,
  ImportKeyMaterialCommand,
  IncorrectKeyMaterialException,
  InvalidImportTokenException,
  KMSClient,
  KMSInvalidStateException,
  paginateListKeyRotations,
  ReplicateKeyCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
  SignCommand,
  UpdatePrimaryRegionCommand,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Openssl } from '../src/kms/testing-openssl.ts';
import { run } from './support/client.ts';
import { filesUnder, findIn, formsOf } from './support/files.ts';
import { startServer, type TestServer } from './support/server.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/keys.md'), 'utf8');
let server: TestServer;
let kms: KMSClient;
let openssl: Openssl;
let home: string;

beforeAll(async () => {
  openssl = new Openssl();
  home = mkdtempSync(join(tmpdir(), 'coffer-material-'));
  server = await startServer({ args: ['--no-host'] });
  kms = server.sdk(KMSClient);
});
afterAll(async () => {
  await server?.stop();
  openssl?.remove();
  if (home) rmSync(home, { recursive: true, force: true });
});

/** The indented lines of a section of the page, as one script. */
async function runSection(title: string, then: string): Promise<string> {
  const text = page.split(`\n## ${title}\n`)[1]!.split('\n## ')[0]!;
  const lines = text.split('\n').filter((line) => line.startsWith('    '));
  const script = `set -e\nshopt -s expand_aliases\nalias aws='aws --endpoint-url ${server.endpoint}'\n`;
  const options = { cwd: home, env: { ...server.environment(), PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } };
  return (await run('bash', ['-c', `${script}${lines.join('\n')}\n${then}\n`], options)).stdout;
}

async function newKey(input: CreateKeyRequest = {}): Promise<string> {
  return (await kms.send(new CreateKeyCommand(input))).KeyMetadata!.KeyId!;
}

async function parametersFor(KeyId: string, material: Uint8Array, algorithm: AlgorithmSpec = 'RSAES_OAEP_SHA_256') {
  const input = { KeyId, WrappingAlgorithm: algorithm, WrappingKeySpec: 'RSA_2048' } as const;
  const { PublicKey, ImportToken } = await kms.send(new GetParametersForImportCommand(input));
  return { KeyId, ImportToken: ImportToken!, EncryptedKeyMaterial: openssl.wrap(algorithm, PublicKey!, material) };
}

const forGood = { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' } as const;
const Plaintext = Buffer.from('a secret');

describe('the commands of docs/keys.md', () => {
  test('importing', async () => {
    const printed = await runSection('Importing key material', 'aws kms describe-key --key-id $KEY_ID');
    const { KeyMetadata } = JSON.parse(printed.slice(printed.lastIndexOf('{\n    "KeyMetadata"')));
    expect(KeyMetadata).toMatchObject({ KeySpec: 'RSA_2048', Origin: 'EXTERNAL', KeyState: 'PendingImport' });
  });

  test('rotation', async () => {
    expect(JSON.parse(await runSection('Rotation', 'true'))).toMatchObject({ KeyRotationEnabled: true });
  });

  test('multi-Region keys', async () => {
    const printed = await runSection('Multi-Region keys', 'aws kms describe-key --key-id $KEY_ID');
    expect(printed).toMatch(/^\s*hello\{$/m);
    const { KeyMetadata } = JSON.parse(printed.slice(printed.lastIndexOf('{\n    "KeyMetadata"')));
    expect(KeyMetadata.MultiRegionConfiguration).toMatchObject({
      MultiRegionKeyType: 'REPLICA',
      PrimaryKey: { Region: 'eu-west-1' },
    });
  });
});

test('an import token outlives a crash, and what was imported does too', async () => {
  const material = randomBytes(32);
  const KeyId = await newKey({ Origin: 'EXTERNAL' });
  const parameters = await parametersFor(KeyId, material);
  await server.kill9('control plane');
  await server.restart();
  await kms.send(new ImportKeyMaterialCommand({ ...parameters, ...forGood }));
  const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext }));
  await server.kill9('control plane');
  await server.restart();
  expect(Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext!)).toEqual(Plaintext);
  const again = new ImportKeyMaterialCommand({ ...parameters, ...forGood });
  await expect(kms.send(again)).rejects.toBeInstanceOf(InvalidImportTokenException);

  // Decrypted outside, with what the page says of ciphertexts.
  const blob = Buffer.from(CiphertextBlob!);
  const key = Buffer.from(hkdfSync('sha256', material, blob.subarray(33, 65), 'coffer kms v1', 32));
  const decipher = createDecipheriv('aes-256-gcm', key, blob.subarray(65, 77));
  decipher.setAAD(blob.subarray(0, 77)).setAuthTag(blob.subarray(-16));
  expect(Buffer.concat([decipher.update(blob.subarray(77, -16)), decipher.final()])).toEqual(Plaintext);

  const needles = new Map(formsOf('material', material));
  expect(filesUnder(server.dataDir).flatMap((path) => findIn(path, needles) ?? [])).toEqual([]);
});

test('deleted material comes back only as it was', async () => {
  const KeyId = await newKey({ Origin: 'EXTERNAL', KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
  const material = randomBytes(32);
  await kms.send(new ImportKeyMaterialCommand({ ...(await parametersFor(KeyId, material)), ...forGood }));
  await kms.send(new DeleteImportedKeyMaterialCommand({ KeyId }));
  const mac = new GenerateMacCommand({ KeyId, Message: Plaintext, MacAlgorithm: 'HMAC_SHA_256' });
  await expect(kms.send(mac)).rejects.toBeInstanceOf(KMSInvalidStateException);
  const other = new ImportKeyMaterialCommand({ ...(await parametersFor(KeyId, randomBytes(32))), ...forGood });
  await expect(kms.send(other)).rejects.toBeInstanceOf(IncorrectKeyMaterialException);
  const inSeconds = (seconds: number) => new Date((Math.ceil(Date.now() / 1000) + seconds) * 1000);
  const ValidTo = inSeconds(3600);
  await kms.send(new ImportKeyMaterialCommand({ ...(await parametersFor(KeyId, material)), ValidTo }));
  const expected = createHmac('sha256', material).update(Plaintext).digest();
  expect(Buffer.from((await kms.send(mac)).Mac!)).toEqual(expected);
  expect((await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata).toMatchObject({ ValidTo });
  const parameters = await parametersFor(KeyId, material);
  await kms.send(new ImportKeyMaterialCommand({ ...parameters, ValidTo: inSeconds(3) }));
  const failure = () =>
    kms.send(mac).then(
      () => undefined,
      (error: Error) => error,
    );
  await expect.poll(failure).toBeInstanceOf(KMSInvalidStateException);
});

test('an imported RSA key signs as it does outside', async () => {
  const KeyId = await newKey({ Origin: 'EXTERNAL', KeySpec: 'RSA_3072', KeyUsage: 'SIGN_VERIFY' });
  const pair = openssl.keyPair('-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:3072');
  const parameters = await parametersFor(KeyId, pair.secret, 'RSA_AES_KEY_WRAP_SHA_256');
  await kms.send(new ImportKeyMaterialCommand({ ...parameters, ...forGood }));
  const input = { KeyId, Message: Plaintext, SigningAlgorithm: 'RSASSA_PKCS1_V1_5_SHA_256' } as const;
  const { Signature } = await kms.send(new SignCommand(input));
  const publicKey = createPublicKey({ key: pair.publicKey, format: 'der', type: 'spki' });
  expect(verify('sha256', Plaintext, publicKey, Signature!)).toBe(true);
});

test('a key is rotated on demand, and its rotations are listed', async () => {
  const KeyId = await newKey();
  const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext }));
  await kms.send(new EnableKeyRotationCommand({ KeyId, RotationPeriodInDays: 90 }));
  for (let i = 0; i < 3; i++) await kms.send(new RotateKeyOnDemandCommand({ KeyId }));
  expect(await kms.send(new GetKeyRotationStatusCommand({ KeyId }))).toMatchObject({ RotationPeriodInDays: 90 });
  const rotations = [];
  const input = { KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' } as const;
  for await (const { Rotations } of paginateListKeyRotations({ client: kms, pageSize: 2 }, input))
    rotations.push(...Rotations!);
  expect(rotations.map((rotation) => rotation.KeyMaterialState)).toEqual([...Array(3).fill('NON_CURRENT'), 'CURRENT']);
  const opened = await kms.send(new DecryptCommand({ CiphertextBlob }));
  expect(Buffer.from(opened.Plaintext!)).toEqual(Plaintext);
  expect(opened.KeyMaterialId).toBe(rotations[0]!.KeyMaterialId);
  const [rotated] = await trail('RotateKey', 'us-east-1');
  expect(rotated).toMatchObject({
    eventType: 'AwsServiceEvent',
    userIdentity: { accountId: '123456789012', invokedBy: 'AWS Internal' },
    requestParameters: null,
    serviceEventDetails: { rotationType: 'ON_DEMAND', currentKeyMaterialId: rotations[3]!.KeyMaterialId, keyId: KeyId },
  });
  expect(rotated).not.toHaveProperty('requestID');
  const [decrypted] = await trail('Decrypt', 'us-east-1');
  expect(decrypted!.additionalEventData).toEqual({ keyMaterialId: opened.KeyMaterialId });
});

test('a replica is made and promoted, and both regions’ trails tell of it', async () => {
  const KeyId = await newKey({ MultiRegion: true });
  const west = server.as(server.credentials, 'eu-west-1').sdk(KMSClient);
  const { ReplicaKeyMetadata } = await kms.send(new ReplicateKeyCommand({ KeyId, ReplicaRegion: 'eu-west-1' }));
  expect(ReplicaKeyMetadata).toMatchObject({ KeyId, MultiRegionConfiguration: { MultiRegionKeyType: 'REPLICA' } });
  const { CiphertextBlob } = await west.send(new EncryptCommand({ KeyId, Plaintext }));
  expect(Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext!)).toEqual(Plaintext);
  await kms.send(new UpdatePrimaryRegionCommand({ KeyId, PrimaryRegion: 'eu-west-1' }));
  const arn = ReplicaKeyMetadata!.Arn;
  expect((await trail('ReplicateKey', 'us-east-1'))[0]).toMatchObject({ requestParameters: { keyId: KeyId } });
  expect((await trail('CreateKey', 'eu-west-1'))[0]).toMatchObject({
    awsRegion: 'eu-west-1',
    userIdentity: { type: 'Root', invokedBy: 'AWS Internal' },
    resources: [{ ARN: arn }],
  });
  expect((await trail('UpdatePrimaryRegion', 'us-east-1'))[0]).toMatchObject({ requestParameters: { keyId: KeyId } });
  expect((await trail('UpdatePrimaryRegion', 'eu-west-1'))[0]).toMatchObject({ requestParameters: { keyId: arn } });
  const scheduled = await west.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
  expect(scheduled).toMatchObject({ KeyState: 'PendingReplicaDeletion', PendingWindowInDays: 7 });
});

async function trail(EventName: string, region: string) {
  const client = server.as(server.credentials, region).sdk(CloudTrailClient);
  const LookupAttributes = [{ AttributeKey: 'EventName', AttributeValue: EventName } as const];
  const { Events } = await client.send(new LookupEventsCommand({ LookupAttributes }));
  return Events!.map((event) => JSON.parse(event.CloudTrailEvent!));
}
