import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Principal } from '../aws/call.ts';
import { TestKms } from './testing.ts';

let kms: TestKms;
let KeyId: string;
let Arn: string;
beforeEach(async () => {
  kms = await TestKms.create();
  ({ KeyId, Arn } = await kms.key());
});

const rootArn = 'arn:aws:iam::123456789012:root';
const all = { Effect: 'Allow', Principal: { AWS: rootArn }, Action: 'kms:*', Resource: '*' };
const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const put = (Policy: string, more: object = {}, principal?: Principal) =>
  kms.run('PutKeyPolicy', { KeyId, PolicyName: 'default', Policy, ...more }, { principal });
const alice: Principal = {
  type: 'IAMUser',
  account: '123456789012',
  arn: 'arn:aws:iam::123456789012:user/alice',
  principalId: 'AIDAALICE',
};

describe('key policies', () => {
  test('a key has the default policy until another is put, which comes back as it was', async () => {
    const { Policy, PolicyName } = await kms.run('GetKeyPolicy', { KeyId });
    expect(PolicyName).toBe('default');
    expect(JSON.parse(Policy)).toEqual({
      Version: '2012-10-17',
      Id: 'key-default-1',
      Statement: [{ Sid: 'Enable IAM User Permissions', ...all }],
    });
    const mine = `{ "Version":"2012-10-17",\n\t"Statement": [${JSON.stringify(all)}] }`;
    await put(mine);
    expect((await kms.run('GetKeyPolicy', { KeyId })).Policy).toBe(mine);
    expect(kms.last.access[0]!.resourcePolicy).toEqual(JSON.parse(mine));
    expect(await kms.run('ListKeyPolicies', { KeyId })).toEqual({ PolicyNames: ['default'], Truncated: false });
    expect((await kms.key({ Policy: mine })).KeyState).toBe('Enabled');
  });

  test('there is one policy, named default', async () => {
    expect(await kms.fails('GetKeyPolicy', { KeyId, PolicyName: 'other' })).toEqual({
      code: 'NotFoundException',
      message: 'No such policy exists',
    });
    expect(await kms.code('PutKeyPolicy', { KeyId, PolicyName: 'other', Policy: policy(all) })).toBe(
      'UnsupportedOperationException',
    );
    await kms.run('PutKeyPolicy', { KeyId, Policy: policy(all) });
  });

  test('takes what IAM’s grammar has', async () => {
    const statements: object[] = [
      {
        ...all,
        Principal: '*',
        Condition: { StringEquals: { 'kms:CallerAccount': ['1', '2'] }, Bool: { 'kms:X': true } },
      },
      { ...all, Principal: { AWS: ['123456789012', alice.arn, '*'], Service: 'ec2.amazonaws.com' } },
      { Effect: 'Deny', NotPrincipal: { AWS: alice.arn }, NotAction: ['kms:*'], NotResource: 'x', Sid: 's' },
      { Effect: 'Allow', Principal: { Federated: 'cognito-identity.amazonaws.com' }, Action: [], Resource: [] },
      // Without Action or Resource a statement has no effect, but is accepted.
      { Effect: 'Allow', Principal: { AWS: rootArn } },
    ];
    for (const statement of statements) await put(policy(all, statement));
    await put(JSON.stringify({ Version: '2008-10-17', Id: 'x', Statement: all }));
  });

  const invalidPrincipal = 'Policy contains a statement with one or more invalid principals.';
  const malformed: ReadonlyArray<[string, string, string?]> = [
    ['no JSON', '{'],
    ['no object', '[]'],
    ['a null', 'null'],
    ['no statement', '{"Version":"2012-10-17"}'],
    ['an empty list of statements', policy()],
    ['another version', JSON.stringify({ Version: '2020-01-01', Statement: [all] })],
    ['an unknown element', JSON.stringify({ Statement: [all], Extra: 1 })],
    ['a statement that is no object', JSON.stringify({ Statement: ['x'] })],
    ['an unknown element of a statement', policy({ ...all, Actions: 'x' })],
    ['no effect', policy({ ...all, Effect: undefined })],
    ['two effects', policy(all).replace('"Effect":"Allow"', '"Effect":"Deny","Effect":"Allow"')],
    ['another effect', policy({ ...all, Effect: 'allow' })],
    ['no principal', policy({ ...all, Principal: undefined })],
    ['both Action and NotAction', policy({ ...all, NotAction: 'x' })],
    ['an action that is a number', policy({ ...all, Action: 5 })],
    ['a condition that is a list', policy({ ...all, Condition: [] })],
    ['a condition value that is an object', policy({ ...all, Condition: { Bool: { a: {} } } })],
    ['an empty principal', policy({ ...all, Principal: {} }), invalidPrincipal],
    ['a principal that is no ARN', policy({ ...all, Principal: { AWS: 'alice' } }), invalidPrincipal],
    [
      'a group as principal',
      policy({ ...all, Principal: { AWS: 'arn:aws:iam::123456789012:group/g' } }),
      invalidPrincipal,
    ],
    ['an unknown kind of principal', policy({ ...all, Principal: { Group: 'x' } }), invalidPrincipal],
    ['a service that is none', policy({ ...all, Principal: { Service: 'ec2' } }), invalidPrincipal],
  ];
  for (const [name, text, message] of malformed) {
    test(`refuses ${name}`, async () => {
      const refused = await kms.fails('PutKeyPolicy', { KeyId, Policy: text });
      expect(refused).toEqual({ code: 'MalformedPolicyDocumentException', message: message ?? expect.any(String) });
      expect(refused).toEqual(await kms.fails('CreateKey', { Policy: text }));
      expect(refused.message).not.toContain('update the key policy in the future');
    });
  }

  test('refuses to lock its author out, unless told to', async () => {
    const lockedOut = {
      code: 'MalformedPolicyDocumentException',
      message: 'The new key policy will not allow you to update the key policy in the future.',
    };
    const use = { ...all, Action: ['kms:Encrypt', 'kms:Get*'] };
    const lockouts = [
      policy(use),
      policy({ ...all, Principal: { AWS: 'arn:aws:iam::210987654321:root' } }),
      policy({ ...all, Principal: { AWS: 'arn:aws:iam::123456789012:user/bob' } }),
      policy({ ...all, Condition: { Bool: { 'aws:MultiFactorAuthPresent': 'true' } } }),
      policy(all, { ...all, Effect: 'Deny', Action: 'kms:Put*' }),
      policy({ ...all, Resource: 'arn:aws:kms:us-east-1:123456789012:key/other' }),
      policy({ ...all, Action: undefined, NotAction: 'kms:PutKeyPolicy' }),
      policy({ ...all, Resource: undefined }),
    ];
    for (const Policy of lockouts) {
      await expect(put(Policy, {}, alice)).rejects.toMatchObject(lockedOut);
      expect(await kms.code('CreateKey', { Policy }, { principal: alice })).toBe(lockedOut.code);
    }
    const before = (await kms.run('GetKeyPolicy', { KeyId })).Policy;
    expect(before).toContain('key-default-1');
    for (const Policy of [
      policy(all),
      policy({ ...all, Principal: { AWS: alice.arn }, Action: 'KMS:putkeypolicy', Resource: Arn }),
      policy({ ...all, Principal: '*', Action: 'kms:Put???Policy' }),
      policy({ ...all, Action: undefined, NotAction: 'kms:Delete*' }),
    ])
      await put(Policy, {}, alice);
    await put(lockouts[0]!, { BypassPolicyLockoutSafetyCheck: true }, alice);
    expect(kms.last.access[0]!.context).toMatchObject({ 'kms:BypassPolicyLockoutSafetyCheck': 'true' });
  });

  test('takes no longer over a policy made of wildcards', async () => {
    const began = process.threadCpuUsage();
    const hostile = { ...all, Action: `kms:${'*?'.repeat(200)}x`, Resource: `${'*?'.repeat(5_000)}x` };
    await put(policy(all, hostile));
    expect(process.threadCpuUsage(began).user / 1000).toBeLessThan(500);
  });

  test('refuses a policy of more than 32 KiB', async () => {
    const long = policy({ ...all, Sid: 'x'.repeat(32_768) });
    expect(await kms.code('PutKeyPolicy', { KeyId, Policy: long })).toBe('LimitExceededException');
    expect(await kms.code('PutKeyPolicy', { KeyId, Policy: 'x'.repeat(131_073) })).toBe('ValidationException');
  });

  test('answers any JSON with a policy or a named error', async () => {
    const element = fc.oneof(fc.json(), fc.constantFrom(rootArn, '*', 'kms:*', 'Allow'), fc.jsonValue());
    const statement = fc.record(
      { Effect: element, Principal: element, Action: element, Resource: element, Condition: element },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(statement, fc.array(statement), fc.jsonValue()), async (Statement) => {
        const Policy = JSON.stringify({ Statement });
        const outcome = await put(Policy).then(
          () => 'put',
          (error) => error.code,
        );
        expect(['put', 'MalformedPolicyDocumentException', 'LimitExceededException', 'ValidationException']).toContain(
          outcome,
        );
      }),
      { numRuns: 300 },
    );
  });
});
