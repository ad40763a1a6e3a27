import { beforeEach, describe, expect, test } from 'vitest';
import { otherAccount, root, TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});
const arn = (name: string) => `arn:aws:kms:us-east-1:123456789012:${name}`;

describe('aliases', () => {
  test('point to another key after UpdateAlias, to none after DeleteAlias', async () => {
    const [a, b] = [await kms.key(), await kms.key()];
    await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: a.KeyId });
    expect(kms.last.record).toMatchObject({
      requestParameters: { aliasName: 'alias/mine', targetKeyId: a.KeyId },
      resources: [{ ARN: a.Arn }, { ARN: arn('alias/mine') }],
    });
    expect(kms.last.access.map((request) => [request.action, request.resource])).toEqual([
      ['kms:CreateAlias', arn('alias/mine')],
      ['kms:CreateAlias', a.Arn],
    ]);
    expect((await kms.run('DescribeKey', { KeyId: 'alias/mine' })).KeyMetadata.KeyId).toBe(a.KeyId);
    expect(kms.last.access[0]!.context).toMatchObject({
      'kms:RequestAlias': 'alias/mine',
      'kms:ResourceAliases': ['alias/mine'],
    });
    kms.clock.advance(1000);
    await kms.run('UpdateAlias', { AliasName: 'alias/mine', TargetKeyId: b.Arn });
    expect(kms.last.access.map((request) => request.resource)).toEqual([arn('alias/mine'), a.Arn, b.Arn]);
    expect((await kms.run('DescribeKey', { KeyId: 'alias/mine' })).KeyMetadata.KeyId).toBe(b.KeyId);
    await kms.run('DescribeKey', { KeyId: a.KeyId });
    expect(kms.last.access[0]!.context).not.toHaveProperty('kms:ResourceAliases');
    const { Aliases } = await kms.run('ListAliases', { KeyId: b.KeyId });
    expect(Aliases).toMatchObject([{ AliasName: 'alias/mine', AliasArn: arn('alias/mine'), TargetKeyId: b.KeyId }]);
    expect(Aliases[0].LastUpdatedDate - Aliases[0].CreationDate).toBe(1000);
    await kms.run('DeleteAlias', { AliasName: 'alias/mine' });
    expect(await kms.fails('DescribeKey', { KeyId: 'alias/mine' })).toEqual({
      code: 'NotFoundException',
      message: `Alias ${arn('alias/mine')} is not found.`,
    });
  });

  test('are per account and region', async () => {
    const other = { principal: root(otherAccount) };
    const elsewhere = { region: 'eu-west-1' };
    for (const caller of [{}, other, elsewhere]) {
      const { KeyId } = await kms.key({}, caller);
      await kms.run('CreateAlias', { AliasName: 'alias/mine', TargetKeyId: KeyId }, caller);
      expect((await kms.run('DescribeKey', { KeyId: 'alias/mine' }, caller)).KeyMetadata.KeyId).toBe(KeyId);
    }
    await kms.run('DeleteAlias', { AliasName: 'alias/mine' }, other);
    await kms.run('DescribeKey', { KeyId: 'alias/mine' });
  });

  test('follow AWS’s rules', async () => {
    const { KeyId } = await kms.key();
    const { KeyId: hmac } = await kms.key({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' });
    await kms.run('CreateAlias', { AliasName: 'alias/taken', TargetKeyId: KeyId });
    const cases: Array<[string, object, string, string | RegExp]> = [
      [
        'CreateAlias',
        { AliasName: 'alias/taken', TargetKeyId: KeyId },
        'AlreadyExistsException',
        `An alias with the name ${arn('alias/taken')} already exists`,
      ],
      [
        'CreateAlias',
        { AliasName: 'mine', TargetKeyId: KeyId },
        'ValidationException',
        /^Alias must start with the prefix "alias\/"/,
      ],
      ['CreateAlias', { AliasName: 'alias/', TargetKeyId: KeyId }, 'InvalidAliasNameException', /./],
      ['CreateAlias', { AliasName: 'alias/aws/x', TargetKeyId: KeyId }, 'NotAuthorizedException', /alias\/aws\//],
      [
        'CreateAlias',
        { AliasName: 'alias/a b', TargetKeyId: KeyId },
        'ValidationException',
        /^1 validation error .* pattern: \^\[a-zA-Z0-9:\/_-\]\+\$$/,
      ],
      [
        'CreateAlias',
        { AliasName: `alias/${'x'.repeat(251)}`, TargetKeyId: KeyId },
        'ValidationException',
        /less than or equal to 256/,
      ],
      ['CreateAlias', { AliasName: 'alias/x' }, 'ValidationException', /Value null at 'targetKeyId'/],
      [
        'CreateAlias',
        { AliasName: 'alias/a:b', TargetKeyId: KeyId },
        'ValidationException',
        'alias/a:b contains invalid characters for an alias',
      ],
      ...['alias/taken', arn('alias/taken')].flatMap((TargetKeyId): typeof cases =>
        ['CreateAlias', 'UpdateAlias'].map((name) => [
          name,
          { AliasName: 'alias/taken', TargetKeyId },
          'ValidationException',
          'Aliases must refer to keys. Not aliases',
        ]),
      ),
      ['UpdateAlias', { AliasName: 'alias/none', TargetKeyId: KeyId }, 'NotFoundException', /alias\/none is not found/],
      ['UpdateAlias', { AliasName: 'alias/taken', TargetKeyId: hmac }, 'ValidationException', /must be the same/],
      ['DeleteAlias', { AliasName: 'alias/none' }, 'NotFoundException', /alias\/none is not found/],
    ];
    for (const [name, input, code, message] of cases) {
      const failure = await kms.fails(name, input);
      expect(failure.code, JSON.stringify(input)).toBe(code);
      if (typeof message === 'string') expect(failure.message).toBe(message);
      else expect(failure.message).toMatch(message);
    }
  });

  test('a key has at most 50', async () => {
    const { KeyId } = await kms.key();
    const { KeyId: other } = await kms.key();
    for (let i = 0; i < 50; i++) await kms.run('CreateAlias', { AliasName: `alias/${i}`, TargetKeyId: KeyId });
    expect(await kms.code('CreateAlias', { AliasName: 'alias/more', TargetKeyId: KeyId })).toBe(
      'LimitExceededException',
    );
    await kms.run('CreateAlias', { AliasName: 'alias/more', TargetKeyId: other });
    expect(await kms.code('UpdateAlias', { AliasName: 'alias/more', TargetKeyId: KeyId })).toBe(
      'LimitExceededException',
    );
  });

  test('are listed in pages, in order, the predefined one among them', async () => {
    const { KeyId } = await kms.key();
    for (const name of ['b', 'aaa', 'z', 'm'])
      await kms.run('CreateAlias', { AliasName: `alias/${name}`, TargetKeyId: KeyId });
    const names: string[] = [];
    let Marker: string | undefined;
    do {
      const page = await kms.run('ListAliases', { Limit: 2, Marker });
      names.push(...page.Aliases.map((alias: { AliasName: string }) => alias.AliasName));
      Marker = page.NextMarker;
    } while (Marker);
    expect(names).toEqual(['alias/aaa', 'alias/aws/ebs', 'alias/b', 'alias/m', 'alias/z']);
  });
});
