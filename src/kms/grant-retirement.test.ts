import { beforeEach, expect, test } from 'vitest';
import type { Principal } from '../aws/call.ts';
import { onlyGrants, otherAccount, root, TestKms, user } from './testing.ts';

let kms: TestKms;
let KeyId: string;
let Arn: string;
beforeEach(async () => {
  kms = await TestKms.create();
  ({ KeyId, Arn } = await kms.key());
});

const grant = (more: object = {}) => ({ KeyId, GranteePrincipal: user('a').arn, Operations: ['Decrypt'], ...more });
const make = async (more: object = {}, caller = {}) => (await kms.run('CreateGrant', grant(more), caller)).GrantId;

test('RetireGrant by token, or by key and id', async () => {
  for (const byToken of [true, false]) {
    const { GrantId, GrantToken } = await kms.run('CreateGrant', grant());
    await kms.run('RetireGrant', byToken ? { GrantToken } : { KeyId: Arn, GrantId });
    expect(kms.last.record).toMatchObject({
      requestParameters: byToken ? null : { keyId: Arn, grantId: GrantId },
      additionalEventData: { grantId: GrantId },
      resources: [{ ARN: Arn }],
    });
    expect(JSON.stringify(kms.last.record)).not.toContain(GrantToken);
    expect((await kms.run('ListGrants', { KeyId })).Grants).toEqual([]);
    expect(await kms.code('RetireGrant', byToken ? { GrantToken } : { KeyId, GrantId })).toBe('NotFoundException');
  }
});

test('RetireGrant wants one way of naming it', async () => {
  const { GrantId, GrantToken } = await kms.run('CreateGrant', grant());
  for (const input of [{}, { GrantId }, { KeyId }, { GrantToken, KeyId, GrantId }, { GrantToken, GrantId }])
    expect(await kms.fails('RetireGrant', input)).toEqual({
      code: 'ValidationException',
      message: 'Grant token OR (grant ID, key ID) must be specified',
    });
});

test('the grant says who may retire it', async () => {
  kms.authorize = onlyGrants;
  const retire = (GrantId: string, principal: Principal, via?: string) =>
    kms.run('RetireGrant', { KeyId: Arn, GrantId }, { principal, via }).then(
      () => 'retired',
      (error) => error.code,
    );
  const closed = 'AccessDeniedException';
  expect(await retire(await make(), user('a'))).toBe(closed);
  expect(await retire(await make({ Operations: ['Decrypt', 'RetireGrant'] }), user('a'))).toBe('retired');
  expect(await retire(await make({ RetiringPrincipal: user('r').arn }), user('r'))).toBe('retired');
  expect(await retire(await make({ RetiringPrincipal: user('r').arn }), user('x'))).toBe(closed);
  expect(await retire(await make(), root())).toBe('retired');
  // The retiring principal may be of another account; anyone else there learns of no grant.
  const foreign = user('r', otherAccount);
  const forForeign = { RetiringPrincipal: foreign.arn };
  expect(await retire(await make(forForeign), foreign)).toBe('retired');
  expect(await retire(await make(forForeign), root(otherAccount))).toBe(closed);
  expect(await retire('0'.repeat(64), root(otherAccount))).toBe(closed);
  // So may be the account in which the grant was made.
  kms.authorize = () => undefined;
  const made = await make({ KeyId: Arn }, { principal: user('maker', otherAccount) });
  kms.authorize = onlyGrants;
  expect(await retire(made, root(otherAccount))).toBe('retired');
});

test('a service retires what it made, or what names it', async () => {
  const service: Principal = {
    type: 'AWSService',
    account: '123456789012',
    arn: 'arn:aws:iam::aws:service/ec2.amazonaws.com',
    principalId: 'ec2.amazonaws.com',
  };
  const ec2 = { principal: service, via: 'ec2.amazonaws.com' };
  await kms.run('RetireGrant', { KeyId, GrantId: await make({}, { via: ec2.via }) }, ec2);
  const named = await make({ RetiringServicePrincipal: 'ec2.amazonaws.com' });
  expect((await kms.run('ListRetirableGrants', { RetiringServicePrincipal: 'ec2.amazonaws.com' }, ec2)).Grants).toEqual(
    [expect.objectContaining({ GrantId: named })],
  );
  await kms.run('RetireGrant', { KeyId, GrantId: named }, ec2);
  expect(await kms.code('RetireGrant', { KeyId, GrantId: await make() }, ec2)).toBe('AccessDeniedException');
});
