/** What becomes of imported key material: it expires, is deleted, comes back, and is followed by other material. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';
import { importing, never } from './testing-import.ts';
import { Openssl } from './testing-openssl.ts';

const day = 86_400_000;
const west = { region: 'eu-west-1' };
const Message = Buffer.from('the message');
let kms: TestKms;
let openssl: Openssl;
const { wrapped, importInto, importCode, newKey, describeKey, materials } = importing(() => ({ kms, openssl }));

beforeAll(() => {
  openssl = new Openssl();
});
afterAll(() => openssl?.remove());
beforeEach(async () => {
  kms = await TestKms.create();
});

describe('material that is gone', () => {
  test('expires at its time, before anyone has destroyed it', async () => {
    const { KeyId, Arn } = await newKey();
    const material = randomBytes(32);
    const ValidTo = new Date(kms.clock.now() + 10 * day);
    const { KeyMaterialId } = await importInto(KeyId, material, { ValidTo: new Date(ValidTo.getTime() + 999) });
    expect(await describeKey(KeyId)).toMatchObject({ ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo });
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
    kms.clock.advance(10 * day - 1);
    await kms.run('Decrypt', { CiphertextBlob });
    kms.clock.advance(1);
    const pending = { code: 'KMSInvalidStateException', message: `${Arn} is pending import.` };
    expect(await kms.fails('Decrypt', { CiphertextBlob })).toEqual(pending);
    expect(await kms.fails('Encrypt', { KeyId, Plaintext: Message })).toEqual(pending);
    expect(await kms.fails('DisableKey', { KeyId })).toEqual(pending);
    expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
    await kms.housekeeping();
    await kms.housekeeping();
    expect(kms.events).toEqual([
      {
        source: 'aws.kms',
        detailType: 'KMS Imported Key Material Expiration',
        resources: [Arn],
        detail: { 'key-id': KeyId },
        account: '123456789012',
        region: 'us-east-1',
      },
    ]);
    const row = await kms.database.run((db) => db.selectFrom('kms_material').selectAll().executeTakeFirstOrThrow());
    expect(row).toMatchObject({ sealed: null, public_key: null });
    const gone = await describeKey(KeyId);
    expect(gone).toMatchObject({ KeyState: 'PendingImport', CurrentKeyMaterialId: KeyMaterialId });
    expect(gone).not.toHaveProperty('ExpirationModel');
    expect(await importCode(KeyId, randomBytes(32))).toBe('IncorrectKeyMaterialException');
    expect(await importInto(KeyId, material)).toMatchObject({ KeyMaterialId });
    expect((await kms.run('Decrypt', { CiphertextBlob })).Plaintext).toEqual(Message);
    expect(await describeKey(KeyId)).toMatchObject({
      KeyState: 'Enabled',
      ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
    });
  });

  test('what is imported again in time does not expire at the old time', async () => {
    const { KeyId } = await newKey();
    const material = randomBytes(32);
    await importInto(KeyId, material, { ValidTo: new Date(kms.clock.now() + day) });
    await importInto(KeyId, material, { ValidTo: new Date(kms.clock.now() + 3 * day) });
    kms.clock.advance(2 * day);
    await kms.housekeeping();
    expect((await describeKey(KeyId)).KeyState).toBe('Enabled');
    const { material_id: MaterialId } = await kms.database.run((db) =>
      db.selectFrom('kms_material').selectAll().executeTakeFirstOrThrow(),
    );
    await kms.run('DeleteExpiredKeyMaterial', { KeyId, MaterialId });
    expect((await describeKey(KeyId)).KeyState).toBe('Enabled');
    kms.clock.advance(day);
    await kms.run('DeleteExpiredKeyMaterial', { KeyId, MaterialId });
    const { CurrentKeyMaterialId } = await describeKey(KeyId);
    await importInto(KeyId, material, { ValidTo: new Date(kms.clock.now() + day) });
    kms.clock.advance(day);
    await kms.run('DeleteExpiredKeyMaterial', { KeyId, MaterialId });
    expect(kms.last.record!.serviceEventDetails).toEqual({ keyId: KeyId, keyMaterialId: CurrentKeyMaterialId });
  });

  test.each([
    ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', 32],
    ['HMAC_256', 'GENERATE_VERIFY_MAC', 32],
    ['ECC_NIST_P384', 'SIGN_VERIFY', 'P-384'],
  ])('%s: is deleted at once, and can come back only as it was', async (KeySpec, KeyUsage, kind) => {
    const make = () =>
      typeof kind === 'number'
        ? randomBytes(kind)
        : openssl.keyPair('-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${kind}`).secret;
    const { KeyId, Arn } = await newKey({ KeySpec, KeyUsage });
    const material = make();
    await importInto(KeyId, material);
    const { CurrentKeyMaterialId } = await describeKey(KeyId);
    const deleted = await kms.run('DeleteImportedKeyMaterial', { KeyId });
    const shown = CurrentKeyMaterialId ? { KeyMaterialId: CurrentKeyMaterialId } : {};
    expect(deleted).toEqual({ KeyId: Arn, ...shown });
    expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
    expect(await importCode(KeyId, make())).toBe('IncorrectKeyMaterialException');
    await importInto(KeyId, material);
    expect((await describeKey(KeyId)).KeyState).toBe('Enabled');
    expect(await importCode(KeyId, make())).toBe('IncorrectKeyMaterialException');
  });

  test('a private key is the same however it is encoded', async () => {
    const { KeyId } = await newKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' });
    const { secret, publicKey } = openssl.keyPair('-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256');
    await importInto(KeyId, secret);
    const from = openssl.file('whole.der', secret);
    const to = openssl.file('bare.der');
    openssl.run('ec', '-inform', 'DER', '-in', from, '-outform', 'DER', '-no_public', '-out', openssl.file('sec1.der'));
    const sec1 = openssl.file('sec1.der');
    openssl.run('pkcs8', '-topk8', '-nocrypt', '-inform', 'DER', '-in', sec1, '-outform', 'DER', '-out', to);
    expect(openssl.read('bare.der').length).toBeLessThan(secret.length);
    await importInto(KeyId, openssl.read('bare.der'));
    const compressed = ['-inform', 'DER', '-in', from, '-outform', 'DER', '-conv_form', 'compressed', '-out', sec1];
    openssl.run('ec', ...compressed);
    openssl.run('pkcs8', '-topk8', '-nocrypt', '-inform', 'DER', '-in', sec1, '-outform', 'DER', '-out', to);
    await importInto(KeyId, openssl.read('bare.der'));
    expect((await kms.run('GetPublicKey', { KeyId })).PublicKey).toEqual(publicKey);
  });

  test('the same material under another key is another material', async () => {
    const material = randomBytes(32);
    const ids = await Promise.all(
      [await newKey(), await newKey()].map(async ({ KeyId }) => (await importInto(KeyId, material)).KeyMaterialId),
    );
    expect(new Set(ids).size).toBe(2);
  });

  test('a key to be deleted stays that when its material goes, and waits for it when it is taken back', async () => {
    const { KeyId } = await newKey();
    await importInto(KeyId, randomBytes(32), { ValidTo: new Date(kms.clock.now() + day) });
    await kms.run('ScheduleKeyDeletion', { KeyId });
    kms.clock.advance(day);
    await kms.housekeeping();
    expect((await describeKey(KeyId)).KeyState).toBe('PendingDeletion');
    await kms.run('CancelKeyDeletion', { KeyId });
    expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
  });

  test('deleting is for imported material, and for material that is there', async () => {
    const own = await kms.key();
    expect(await kms.code('DeleteImportedKeyMaterial', { KeyId: own.KeyId })).toBe('UnsupportedOperationException');
    const { KeyId, Arn } = await newKey();
    expect(await kms.run('DeleteImportedKeyMaterial', { KeyId })).toEqual({ KeyId: Arn });
    await importInto(KeyId, randomBytes(32));
    const KeyMaterialId = 'a'.repeat(64);
    expect(await kms.code('DeleteImportedKeyMaterial', { KeyId, KeyMaterialId })).toBe('NotFoundException');
  });
});

describe('new material for a key', () => {
  test('waits for rotation, then encrypts, and the key needs all that it has had', async () => {
    const { KeyId, Arn } = await newKey();
    const [first, second] = [randomBytes(32), randomBytes(32)];
    const NEW = { ImportType: 'NEW_KEY_MATERIAL' };
    const a = (await importInto(KeyId, first, NEW)).KeyMaterialId;
    expect(await kms.fails('RotateKeyOnDemand', { KeyId })).toEqual({
      code: 'KMSInvalidStateException',
      message: `No available key material pending rotation for the key: ${Arn}.`,
    });
    expect(await importCode(KeyId, first, NEW)).toBe('IncorrectKeyMaterialException');
    expect(await importCode(KeyId, second)).toBe('IncorrectKeyMaterialException');
    const { CiphertextBlob: old } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
    const b = (await importInto(KeyId, second, { ...NEW, KeyMaterialDescription: 'the second' })).KeyMaterialId;
    const third = { KeyId, ...(await wrapped(KeyId, randomBytes(32))), ...never, ...NEW };
    expect(await kms.fails('ImportKeyMaterial', third)).toEqual({
      code: 'KMSInvalidStateException',
      message: expect.stringMatching(
        `^New key material \\(id: [0-9a-f]{64}\\) cannot be imported into KMS key ${Arn}, ` +
          `because another key material \\(id: ${b}\\) is pending rotation\\.$`,
      ),
    });
    const imported = { KeyId, ImportState: 'IMPORTED', ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' };
    const waiting = { KeyMaterialId: b, KeyMaterialDescription: 'the second', ...imported };
    expect(await materials(KeyId)).toEqual([
      { KeyMaterialId: a, KeyMaterialState: 'CURRENT', ...imported },
      { ...waiting, KeyMaterialState: 'PENDING_ROTATION' },
    ]);
    expect((await describeKey(KeyId)).CurrentKeyMaterialId).toBe(a);
    kms.clock.advance(1000);
    expect(await kms.run('RotateKeyOnDemand', { KeyId })).toEqual({ KeyId: Arn });
    expect(await materials(KeyId)).toEqual([
      { KeyMaterialId: a, KeyMaterialState: 'NON_CURRENT', ...imported },
      { ...waiting, KeyMaterialState: 'CURRENT', RotationType: 'ON_DEMAND', RotationDate: new Date(kms.clock.now()) },
    ]);
    expect(kms.events).toMatchObject([{ detailType: 'KMS CMK Rotation' }]);
    const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
    expect(await kms.run('Decrypt', { CiphertextBlob })).toMatchObject({ KeyMaterialId: b });
    expect(await kms.run('Decrypt', { CiphertextBlob: old })).toMatchObject({ KeyMaterialId: a, Plaintext: Message });
    // The old one is needed like the new one.
    await kms.run('DeleteImportedKeyMaterial', { KeyId, KeyMaterialId: a });
    expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
    expect(await kms.code('Decrypt', { CiphertextBlob })).toBe('KMSInvalidStateException');
    expect((await materials(KeyId))[0]).toEqual({
      KeyId,
      KeyMaterialId: a,
      KeyMaterialState: 'NON_CURRENT',
      ImportState: 'PENDING_IMPORT',
    });
    expect(await importCode(KeyId, second, { KeyMaterialId: a })).toBe('IncorrectKeyMaterialException');
    await importInto(KeyId, first, { KeyMaterialId: a, ImportType: 'EXISTING_KEY_MATERIAL' });
    expect((await kms.run('Decrypt', { CiphertextBlob: old })).Plaintext).toEqual(Message);
  });

  test('what waits can be deleted or expire, and the key goes on', async () => {
    const { KeyId } = await newKey();
    const NEW = { ImportType: 'NEW_KEY_MATERIAL' };
    await importInto(KeyId, randomBytes(32));
    const { KeyMaterialId } = await importInto(KeyId, randomBytes(32), NEW);
    await kms.run('DeleteImportedKeyMaterial', { KeyId, KeyMaterialId });
    expect(await materials(KeyId)).toHaveLength(1);
    expect((await describeKey(KeyId)).KeyState).toBe('Enabled');
    await importInto(KeyId, randomBytes(32), { ...NEW, ValidTo: new Date(kms.clock.now() + day) });
    expect((await describeKey(KeyId)).ExpirationModel).toBe('KEY_MATERIAL_DOES_NOT_EXPIRE');
    kms.clock.advance(day);
    expect(await kms.code('RotateKeyOnDemand', { KeyId })).toBe('KMSInvalidStateException');
    await kms.housekeeping();
    expect(await materials(KeyId)).toHaveLength(1);
    await importInto(KeyId, randomBytes(32), { ...NEW, ValidTo: new Date(kms.clock.now() + day) });
    await kms.run('RotateKeyOnDemand', { KeyId });
    expect((await describeKey(KeyId)).ValidTo).toEqual(new Date(kms.clock.now() + day));
  });
});

test('each region of a multi-Region key has its material imported by itself', async () => {
  const { KeyId } = await newKey({ MultiRegion: true });
  const [first, second] = [randomBytes(32), randomBytes(32)];
  const NEW = { ImportType: 'NEW_KEY_MATERIAL' };
  expect(await kms.code('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' })).toBe('KMSInvalidStateException');
  await importInto(KeyId, first, { ValidTo: new Date(kms.clock.now() + 300 * day), KeyMaterialDescription: 'here' });
  const { ReplicaKeyMetadata: replica } = await kms.run('ReplicateKey', { KeyId, ReplicaRegion: 'eu-west-1' });
  expect(replica).toMatchObject({ KeyState: 'PendingImport', Origin: 'EXTERNAL' });
  const { CiphertextBlob } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
  expect(await kms.code('Decrypt', { CiphertextBlob }, west)).toBe('KMSInvalidStateException');
  expect(await importCode(KeyId, second, {}, west)).toBe('IncorrectKeyMaterialException');
  expect(await importCode(KeyId, first, NEW, west)).toBe('UnsupportedOperationException');
  await importInto(KeyId, first, {}, west);
  expect((await kms.run('Decrypt', { CiphertextBlob }, west)).Plaintext).toEqual(Message);
  expect(await describeKey(KeyId, west)).toMatchObject({ ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' });

  await importInto(KeyId, second, NEW);
  const states = async (at = {}) =>
    (await materials(KeyId, at)).map((item: { KeyMaterialState: string }) => item.KeyMaterialState);
  expect(await states()).toEqual(['CURRENT', 'PENDING_MULTI_REGION_IMPORT_AND_ROTATION']);
  expect(await kms.code('RotateKeyOnDemand', { KeyId })).toBe('KMSInvalidStateException');
  await importInto(KeyId, second, {}, west);
  expect(await states(west)).toEqual(['CURRENT', 'PENDING_ROTATION']);
  await kms.run('RotateKeyOnDemand', { KeyId });
  expect(await states(west)).toEqual(['NON_CURRENT', 'CURRENT']);
  const { CiphertextBlob: young } = await kms.run('Encrypt', { KeyId, Plaintext: Message });
  for (const blob of [CiphertextBlob, young])
    expect((await kms.run('Decrypt', { CiphertextBlob: blob }, west)).Plaintext).toEqual(Message);

  kms.clock.advance(300 * day);
  expect((await describeKey(KeyId)).KeyState).toBe('PendingImport');
  expect((await kms.run('Decrypt', { CiphertextBlob }, west)).Plaintext).toEqual(Message);
  await kms.housekeeping();
  expect(kms.events.filter(({ detailType }) => detailType.includes('Expiration'))).toMatchObject([
    { region: 'us-east-1' },
  ]);
});
