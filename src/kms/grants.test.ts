import { beforeEach, describe, expect, test } from 'vitest';
import type { Principal } from '../aws/call.ts';
import type { GrantStatement } from '../aws/service.ts';
import { onlyGrants, otherAccount, root, TestKms, user } from './testing.ts';

let kms: TestKms;
let KeyId: string;
let Arn: string;
beforeEach(async () => {
  kms = await TestKms.create();
  ({ KeyId, Arn } = await kms.key());
});

const host = 'arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0';
const volume = { EncryptionContextSubset: { 'aws:ebs:id': 'vol-1' } };
const session = (arn: string): Principal => ({
  type: 'AssumedRole',
  account: '123456789012',
  arn,
  principalId: '123456789012:aws:ec2-infrastructure:i-0123456789abcdef0',
  sessionIssuer: {
    arn: 'arn:aws:iam::123456789012:role/hosts',
    principalId: '123456789012:aws:ec2-infrastructure',
    userName: 'aws:ec2-infrastructure',
  },
});
const grant = (more: object = {}) => ({ KeyId, GranteePrincipal: user('a').arn, Operations: ['Decrypt'], ...more });
const throughEc2 = { via: 'ec2.amazonaws.com' };

describe('CreateGrant', () => {
  test('as EC2 makes it for a host, and as the trail shows it', async () => {
    const { GrantId, GrantToken } = await kms.run(
      'CreateGrant',
      { KeyId: Arn, GranteePrincipal: host, Operations: ['Decrypt'], Constraints: volume },
      throughEc2,
    );
    expect(GrantId).toMatch(/^[0-9a-f]{64}$/);
    expect(GrantToken).toMatch(/^[A-Za-z0-9+/=]{1,8192}$/);
    expect(kms.last.record).toEqual({
      requestParameters: {
        keyId: Arn,
        granteePrincipal: '123456789012:aws:ec2-infrastructure:i-0123456789abcdef0',
        operations: ['Decrypt'],
        constraints: { encryptionContextSubset: { 'aws:ebs:id': 'vol-1' } },
      },
      responseElements: { grantId: GrantId, keyId: Arn },
      resources: [{ ARN: Arn, accountId: '123456789012', type: 'AWS::KMS::Key' }],
    });
    expect(kms.last.access[0]!.context).toMatchObject({
      'kms:GrantIsForAWSResource': 'true',
      'kms:GrantConstraintType': 'EncryptionContextSubset',
      'kms:GrantOperations': ['Decrypt'],
      'kms:GranteePrincipal': host,
      'kms:EncryptionContext:aws:ebs:id': 'vol-1',
    });
    expect((await kms.run('ListGrants', { KeyId })).Grants).toEqual([
      {
        KeyId: Arn,
        GrantId,
        Name: '',
        CreationDate: new Date(kms.clock.now()),
        GranteePrincipal: host,
        IssuingAccount: 'arn:aws:iam::123456789012:root',
        Operations: ['Decrypt'],
        Constraints: volume,
      },
    ]);
  });

  test('gives the evaluator the caller’s grants of the operation on this key, and nobody else’s', async () => {
    const other = await kms.key();
    const Operations = ['Decrypt', 'DescribeKey'];
    await kms.run('CreateGrant', grant({ GranteePrincipal: host, Constraints: volume, Operations }));
    await kms.run('CreateGrant', grant({ GranteePrincipal: host, Operations: ['GenerateDataKey'] }));
    await kms.run('CreateGrant', grant({ GranteePrincipal: host.replace('i-0', 'i-1'), Operations }));
    await kms.run('CreateGrant', grant({ GranteePrincipal: host, KeyId: other.KeyId, Operations }));
    await kms.run(
      'CreateGrant',
      grant({ GranteePrincipal: 'arn:aws:iam::123456789012:role/hosts', Operations: ['Encrypt', 'DescribeKey'] }),
    );
    let found: readonly GrantStatement[] = [];
    kms.authorize = async (_call, request) => {
      found = await request.grants!();
      return undefined;
    };
    await kms.run('DescribeKey', { KeyId }, { principal: session(host) });
    expect(found.map((one) => one.operations[0]).sort()).toEqual(['Decrypt', 'Encrypt']);
    expect(found.find((one) => one.granteePrincipal === host)).toMatchObject({
      operations: ['Decrypt', 'DescribeKey'],
      encryptionContextSubset: { 'aws:ebs:id': 'vol-1' },
    });
    await kms.run('DescribeKey', { KeyId }, { principal: user('nobody') });
    expect(found).toEqual([]);
  });

  test('repeated with the same name and content it finds the first one', async () => {
    const named = grant({ Name: 'volume-1', Constraints: volume, Operations: ['Decrypt', 'Encrypt'] });
    const first = await kms.run('CreateGrant', named);
    const again = await kms.run('CreateGrant', { ...named, Operations: ['Encrypt', 'Decrypt'] });
    expect(again.GrantId).toBe(first.GrantId);
    expect(again.GrantToken).not.toBe(first.GrantToken);
    for (const different of [
      { Operations: ['Decrypt'] },
      { Constraints: undefined },
      { GranteePrincipal: user('b').arn },
      { RetiringPrincipal: user('b').arn },
      { Name: 'volume-2' },
      { Name: undefined },
    ])
      expect((await kms.run('CreateGrant', { ...named, ...different })).GrantId).not.toBe(first.GrantId);
    const nameless = grant();
    expect((await kms.run('CreateGrant', nameless)).GrantId).not.toBe((await kms.run('CreateGrant', nameless)).GrantId);
  });

  test('takes every kind of principal that AWS does, and no other', async () => {
    const principals = [
      'arn:aws:iam::123456789012:root',
      'arn:aws:iam::210987654321:user/path/to/alice',
      'arn:aws:iam::123456789012:role/service-role/x',
      'arn:aws:sts::123456789012:assumed-role/x/session@example.com',
      'arn:aws:sts::123456789012:federated-user/bob',
      host,
    ];
    for (const GranteePrincipal of principals) await kms.run('CreateGrant', grant({ GranteePrincipal }));
    for (const principal of [
      'alice',
      'ec2.amazonaws.com',
      'arn:aws:iam::123456789012:group/g',
      'arn:aws:s3:::bucket',
      'arn:aws:iam::12345:root',
    ]) {
      const wrong = {
        code: 'InvalidArnException',
        message: `ARN does not refer to a valid principal: ${principal}`,
      };
      expect(await kms.fails('CreateGrant', grant({ GranteePrincipal: principal }))).toEqual(wrong);
      expect(await kms.fails('CreateGrant', grant({ RetiringPrincipal: principal }))).toEqual(wrong);
    }
    expect(await kms.code('CreateGrant', grant({ GranteePrincipal: '*' }))).toBe('ValidationException');
  });

  test('takes operations that the key has', async () => {
    const hmac = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    await kms.run('CreateGrant', grant({ KeyId: hmac.KeyId, Operations: ['GenerateMac', 'VerifyMac', 'DescribeKey'] }));
    const refused: object[] = [
      { Operations: ['Sign'] },
      { Operations: [] },
      { KeyId: hmac.KeyId, Operations: ['Decrypt'] },
      { KeyId: hmac.KeyId, Operations: ['GenerateMac'], Constraints: volume },
    ];
    for (const more of refused) expect(await kms.code('CreateGrant', grant(more))).toBe('ValidationException');
    expect(await kms.fails('CreateGrant', grant({ Operations: ['Fly'] }))).toEqual({
      code: 'ValidationException',
      message: expect.stringMatching(
        /^1 validation error detected: Value '\[Fly\]' at 'operations' failed to satisfy constraint: Member must satisfy constraint: \[Member must satisfy enum value set: \[/,
      ),
    });
  });

  test('takes one constraint, of 8 pairs and 384 characters at most', async () => {
    const pairs = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']));
    await kms.run('CreateGrant', grant({ Constraints: { EncryptionContextEquals: pairs(8) } }));
    for (const Constraints of [
      { EncryptionContextEquals: pairs(9) },
      { EncryptionContextSubset: { k: 'x'.repeat(384) } },
      { EncryptionContextEquals: pairs(1), EncryptionContextSubset: pairs(1) },
    ])
      expect(await kms.code('CreateGrant', grant({ Constraints }))).toBe('ValidationException');
  });

  const source = 'arn:aws:ec2:us-east-1:123456789012:volume/vol-1';

  test('takes a source for keys of all kinds, alone or beside an encryption context', async () => {
    const hmac = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    await kms.run(
      'CreateGrant',
      grant({ KeyId: hmac.KeyId, Operations: ['GenerateMac'], Constraints: { SourceArn: source } }),
    );
    const { GrantId } = await kms.run('CreateGrant', grant({ Constraints: { ...volume, SourceArn: source } }));
    expect(kms.last.access[0]!.context).toMatchObject({
      'kms:GrantConstraintSourceArn': source,
      'kms:GrantConstraintType': ['EncryptionContextSubset', 'SourceArn'],
    });
    expect((await kms.run('ListGrants', { KeyId, GrantId })).Grants[0].Constraints).toEqual({
      ...volume,
      SourceArn: source,
    });
    for (const SourceArn of ['arn:aws:ec2', 'arn:aws:s3:::a-bucket-without-account', `${source}${'x'.repeat(512)}`])
      expect(await kms.code('CreateGrant', grant({ Constraints: { SourceArn } }))).toBe('ValidationException');
  });

  test('takes a service for a grantee, with a source and someone to retire it', async () => {
    const toService = { GranteePrincipal: undefined, GranteeServicePrincipal: 'rds.amazonaws.com' };
    const whole = {
      ...toService,
      RetiringServicePrincipal: 'rds.amazonaws.com',
      Constraints: { SourceArn: source },
    };
    const { GrantId } = await kms.run('CreateGrant', grant(whole));
    expect(kms.last.access[0]!.context).toMatchObject({
      'kms:GranteeServicePrincipal': 'rds.amazonaws.com',
      'kms:RetiringServicePrincipal': 'rds.amazonaws.com',
    });
    const [entry] = (await kms.run('ListGrants', { KeyId, GrantId })).Grants;
    expect(entry).toMatchObject({
      GranteeServicePrincipal: 'rds.amazonaws.com',
      RetiringServicePrincipal: 'rds.amazonaws.com',
    });
    expect(entry).not.toHaveProperty('GranteePrincipal');
    const refused: object[] = [
      { ...whole, GranteePrincipal: user('a').arn },
      { ...whole, RetiringPrincipal: user('a').arn },
      { ...whole, RetiringServicePrincipal: undefined },
      { ...whole, Constraints: undefined },
      { ...whole, GranteeServicePrincipal: 'rds' },
      { ...toService, GranteeServicePrincipal: undefined },
    ];
    for (const more of refused) expect(await kms.code('CreateGrant', grant(more))).toBe('ValidationException');
    // Only the service itself may ask for its grants.
    expect(await kms.code('ListGrants', { KeyId, GranteeServicePrincipal: 'rds.amazonaws.com' })).toBe(
      'ValidationException',
    );
    expect(await kms.code('ListRetirableGrants', { RetiringServicePrincipal: 'rds.amazonaws.com' })).toBe(
      'ValidationException',
    );
  });

  test('a key has 50,000 at most', async () => {
    await kms.database.run((db) => db.updateTable('kms_keys').set({ grant_count: 49_999 }).execute());
    const { GrantId } = await kms.run('CreateGrant', grant());
    expect(await kms.fails('CreateGrant', grant())).toMatchObject({
      code: 'LimitExceededException',
      message: expect.stringContaining(Arn),
    });
    await kms.run('RevokeGrant', { KeyId, GrantId });
    await kms.run('CreateGrant', grant());
  });

  test('who may create grants only by a grant passes on no more than that', async () => {
    kms.authorize = onlyGrants;
    await kms.run('CreateGrant', grant({ Operations: ['Decrypt', 'CreateGrant'], Constraints: volume }));
    const as = { principal: user('a') };
    const stricter = { EncryptionContextEquals: { 'aws:ebs:id': 'vol-1', more: 'x' } };
    for (const Constraints of [volume, stricter])
      await kms.run('CreateGrant', grant({ GranteePrincipal: user('b').arn, Constraints }), as);
    const wider: object[] = [
      {},
      { Constraints: { EncryptionContextSubset: { 'aws:ebs:id': 'vol-2' } } },
      { Constraints: { EncryptionContextSubset: { more: 'x' } } },
      { Constraints: volume, Operations: ['Decrypt', 'Encrypt'] },
    ];
    for (const more of wider)
      expect(await kms.code('CreateGrant', grant({ GranteePrincipal: user('b').arn, ...more }), as)).toBe(
        'AccessDeniedException',
      );
  });
});

describe('grant tokens', () => {
  test('are taken where the API takes them, and refused when they are not genuine', async () => {
    const { GrantToken } = await kms.run('CreateGrant', grant());
    const calls: Array<[string, object]> = [
      ['DescribeKey', { KeyId }],
      ['Encrypt', { KeyId, Plaintext: Buffer.from('x') }],
      ['GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 32 }],
      ['CreateGrant', grant()],
    ];
    for (const [name, input] of calls) {
      await kms.run(name, { ...input, GrantTokens: [GrantToken] });
      for (const bad of ['x', Buffer.from(GrantToken, 'base64').fill(0, 20, 21).toString('base64')])
        expect(await kms.code(name, { ...input, GrantTokens: [bad] })).toBe('InvalidGrantTokenException');
      const many = Array.from({ length: 11 }, () => GrantToken);
      expect(await kms.code(name, { ...input, GrantTokens: many })).toBe('ValidationException');
    }
  });

  test('belong to their region', async () => {
    const { GrantToken } = await kms.run('CreateGrant', grant());
    expect(await kms.code('RetireGrant', { GrantToken }, { region: 'eu-west-1' })).toBe('InvalidGrantTokenException');
  });
});

test('RevokeGrant by key and id', async () => {
  const { GrantId } = await kms.run('CreateGrant', grant());
  const other = await kms.key();
  expect(await kms.code('RevokeGrant', { KeyId: other.KeyId, GrantId })).toBe('NotFoundException');
  expect(await kms.code('RevokeGrant', { KeyId, GrantId: 'x' })).toBe('InvalidGrantIdException');
  expect(await kms.code('RevokeGrant', { KeyId, GrantId, DryRun: true })).toBe('DryRunOperationException');
  await kms.run('RevokeGrant', { KeyId, GrantId });
  expect(kms.last.record).toMatchObject({ requestParameters: { keyId: KeyId, grantId: GrantId } });
  expect(await kms.code('RevokeGrant', { KeyId, GrantId })).toBe('NotFoundException');
});

describe('lists of grants', () => {
  test('go page by page, and by grantee or id', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++)
      ids.push((await kms.run('CreateGrant', grant({ GranteePrincipal: user(i < 2 ? 'a' : 'b').arn }))).GrantId);
    const seen: string[] = [];
    let Marker: string | undefined;
    do {
      const page = await kms.run('ListGrants', { KeyId, Limit: 2, Marker });
      seen.push(...page.Grants.map((one: { GrantId: string }) => one.GrantId));
      Marker = page.NextMarker;
    } while (Marker);
    expect(seen.sort()).toEqual(ids.sort());
    expect((await kms.run('ListGrants', { KeyId, GranteePrincipal: user('a').arn })).Grants).toHaveLength(2);
    expect((await kms.run('ListGrants', { KeyId, GrantId: ids[0] })).Grants).toHaveLength(1);
    expect(await kms.code('ListGrants', { KeyId, GrantId: 'x' })).toBe('InvalidGrantIdException');
  });

  test('ListRetirableGrants goes over all keys of the region', async () => {
    const RetiringPrincipal = user('r').arn;
    const other = await kms.key();
    await kms.run('CreateGrant', grant({ RetiringPrincipal }));
    await kms.run('CreateGrant', grant({ RetiringPrincipal, KeyId: other.KeyId }));
    await kms.run('CreateGrant', grant());
    expect((await kms.run('ListRetirableGrants', { RetiringPrincipal })).Grants).toHaveLength(2);
    expect(kms.last.access).toMatchObject([{ action: 'kms:ListRetirableGrants', resource: RetiringPrincipal }]);
    expect((await kms.run('ListRetirableGrants', { RetiringPrincipal }, { region: 'eu-west-1' })).Grants).toEqual([]);
    // Another account learns nothing about it.
    const stranger = { principal: root(otherAccount) };
    expect((await kms.run('ListRetirableGrants', { RetiringPrincipal }, stranger)).Grants).toEqual([]);
  });
});

test('a caller’s grants are found by index, however many others there are', async () => {
  const plan = await kms.database.run(async (db) => {
    const { sql } = await import('kysely');
    const query = sql<{ detail: string }>`explain query plan select * from kms_grants
      where key_id = 'k' and region = 'r' and grantee in ('a', 'b')`;
    return (await query.execute(db)).rows.map((row) => row.detail).join();
  });
  expect(plan).toContain('kms_grants_grantee');
});
