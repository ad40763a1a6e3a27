import { describe, expect, it } from 'vitest';
import type { AccessRequest, PolicyDocument, PolicyStatement } from '../../aws/service.ts';
import { infrastructurePrincipal, rootPrincipal } from '../principals.ts';
import type { RequestContext } from './context.ts';
import { evaluateIdentityPolicy, evaluateResourcePolicy } from './evaluate.ts';

const account = '111122223333';
const volume = `arn:aws:ec2:us-east-1:${account}:volume/vol-1`;
const request: AccessRequest = { action: 'ec2:AttachVolume', resource: volume, resourceAccount: account };

const context = (values: Record<string, string | string[]> = {}): RequestContext => {
  const byName = new Map(Object.entries(values).map(([key, value]) => [key.toLowerCase(), [value].flat()]));
  const lists = new Set(Object.keys(values).filter((key) => Array.isArray(values[key])));
  return { get: (key) => byName.get(key.toLowerCase()), isMultivalued: (key) => lists.has(key) };
};
const document = (...statements: Partial<PolicyStatement>[]): PolicyDocument => ({
  Version: '2012-10-17',
  Statement: statements.map((statement) => ({ Effect: 'Allow', Action: '*', Resource: '*', ...statement })),
});
const says = (statement: Partial<PolicyStatement>, values: Record<string, string | string[]> = {}) =>
  evaluateIdentityPolicy(document(statement), request, context(values)).effect;
const when = (Condition: PolicyStatement['Condition'], values: Record<string, string | string[]> = {}) =>
  says({ Condition }, values) === 'allow';

describe('actions and resources', () => {
  it('match by wildcards, actions without regard to case, resources with', () => {
    expect(says({ Action: 'EC2:attach*' })).toBe('allow');
    expect(says({ Action: ['kms:*', 'ec2:?ttachVolume'] })).toBe('allow');
    expect(says({ Action: 'ec2:Attach' })).toBe('silent');
    expect(says({ Resource: `arn:aws:ec2:*:${account}:volume/*` })).toBe('allow');
    expect(says({ Resource: volume.toUpperCase() })).toBe('silent');
  });
  it('leave out what a variable without a value could name, in an Allow; nothing for its sake, in a Deny', () => {
    const NotResource = `arn:aws:ec2:*:*:volume/\${aws:PrincipalTag/none}`;
    expect(says({ Resource: undefined, NotResource })).toBe('silent');
    expect(says({ Resource: undefined, NotResource: `arn:aws:kms:*:*:key/\${a:b}` })).toBe('allow');
    expect(says({ Effect: 'Deny', Resource: undefined, NotResource })).toBe('deny');
  });
  it('are turned around by NotAction and NotResource', () => {
    expect(says({ Action: undefined, NotAction: 'kms:*' })).toBe('allow');
    expect(says({ Action: undefined, NotAction: 'ec2:*' })).toBe('silent');
    expect(says({ Resource: undefined, NotResource: volume })).toBe('silent');
    expect(says({ Resource: undefined, NotResource: '*snapshot*' })).toBe('allow');
  });
  it('let a deny win wherever it stands', () => {
    const policy = document({}, { Effect: 'Deny', Action: 'ec2:AttachVolume' }, {});
    expect(evaluateIdentityPolicy(policy, request, context()).effect).toBe('deny');
  });
});

describe('policy variables', () => {
  const owned = { Resource: `arn:aws:ec2:*:*:volume/\${aws:PrincipalTag/volume}` };
  it('stand for the values of the request', () => {
    expect(says(owned, { 'aws:PrincipalTag/volume': 'vol-1' })).toBe('allow');
    expect(says(owned, { 'aws:PrincipalTag/volume': 'vol-2' })).toBe('silent');
  });
  it('match nothing when the request has no value, unless they bring one', () => {
    expect(says(owned)).toBe('silent');
    expect(says({ Resource: `arn:aws:ec2:*:*:volume/\${aws:PrincipalTag/volume, 'vol-1'}` })).toBe('allow');
  });
  it('give text, never wildcards', () => {
    expect(says(owned, { 'aws:PrincipalTag/volume': '*' })).toBe('silent');
    expect(says(owned, { 'aws:PrincipalTag/volume': 'vol-?' })).toBe('silent');
    expect(says(owned, { 'aws:PrincipalTag/volume': '\u{E000}' })).toBe('silent');
  });
  it('can write the special characters themselves', () => {
    const starred = { ...request, resource: 'a*b' };
    const policy = document({ Resource: `a\${*}b` });
    expect(evaluateIdentityPolicy(policy, starred, context()).effect).toBe('allow');
    expect(evaluateIdentityPolicy(policy, { ...request, resource: 'axb' }, context()).effect).toBe('silent');
  });
  it('are plain text in documents of the old version', () => {
    const old: PolicyDocument = { ...document({ Resource: `a\${b}c` }), Version: '2008-10-17' };
    expect(evaluateIdentityPolicy(old, { ...request, resource: `a\${b}c` }, context({ b: 'x' })).effect).toBe('allow');
  });
});

describe('conditions', () => {
  it('must all be met; one of several values is enough for each', () => {
    const both = { StringEquals: { a: ['1', '2'], b: '3' } };
    expect(when(both, { a: '2', b: '3' })).toBe(true);
    expect(when(both, { a: '2', b: '4' })).toBe(false);
    expect(when(both, { a: '2' })).toBe(false);
  });
  it.each([
    ['StringEquals', 'x', 'x', true],
    ['StringEquals', 'x', 'X', false],
    ['StringEqualsIgnoreCase', 'x', 'X', true],
    ['StringNotEquals', 'x', 'y', true],
    ['StringLike', 'a*?', 'abc', true],
    ['StringLike', 'a*', 'b', false],
    ['StringNotLike', 'a*', 'b', true],
    ['NumericLessThan', '10', '9.5', true],
    ['NumericLessThanEquals', '10', '10', true],
    ['NumericGreaterThan', '10', '1e2', true],
    ['NumericEquals', '10', 'ten', false],
    ['NumericNotEquals', '10', '11', true],
    ['DateGreaterThan', '2026-01-01T00:00:00Z', '2026-01-01T00:00:01Z', true],
    ['DateLessThan', '2026-01-01T00:00:00Z', '1767225599', true],
    ['DateEquals', '2026-01-01', '2026-01-01T00:00:00Z', true],
    ['Bool', 'true', 'True', true],
    ['Bool', 'false', 'true', false],
    ['BinaryEquals', 'QmFzZTY0', 'QmFzZTY0', true],
    ['IpAddress', '10.0.0.0/8', '10.255.1.1', true],
    ['IpAddress', '10.0.0.0/8', '11.0.0.1', false],
    ['IpAddress', '10.0.0.0/33', '10.0.0.1', false],
    ['IpAddress', '2001:db8::/32', '2001:db8::1', true],
    ['NotIpAddress', '10.0.0.0/8', '11.0.0.1', true],
    ['ArnLike', 'arn:aws:ec2:*:*:volume/*', volume, true],
    ['ArnEquals', 'arn:aws:ec2:*:volume/*', volume, false],
    ['ArnNotLike', 'arn:aws:kms:*:*:*', volume, true],
  ])('%s %s with %s: %s', (operator, wanted, actual, expected) => {
    expect(when({ [operator]: { key: wanted } }, { key: actual })).toBe(expected);
  });
  it('on a key that the request does not have are met only when negated or IfExists', () => {
    expect(when({ StringEquals: { key: 'x' } })).toBe(false);
    expect(when({ StringNotEquals: { key: 'x' } })).toBe(true);
    expect(when({ StringEqualsIfExists: { key: 'x' } })).toBe(true);
    expect(when({ StringEqualsIfExists: { key: 'x' } }, { key: 'y' })).toBe(false);
    expect(when({ Null: { key: 'true' } })).toBe(true);
    expect(when({ Null: { key: 'false' } })).toBe(false);
    expect(when({ Null: { key: 'false' } }, { key: '' })).toBe(true);
  });
  it('over several values need any, or all of them', () => {
    const any = { 'ForAnyValue:StringEquals': { key: ['a', 'b'] } };
    expect(when(any, { key: ['z', 'b'] })).toBe(true);
    expect(when(any, { key: ['z'] })).toBe(false);
    expect(when(any)).toBe(false);
    const all = { 'ForAllValues:StringEquals': { key: ['a', 'b'] } };
    expect(when(all, { key: ['a', 'b', 'a'] })).toBe(true);
    expect(when(all, { key: ['a', 'z'] })).toBe(false);
    expect(when(all)).toBe(true);
    expect(when({ 'ForAnyValue:StringNotEquals': { key: 'a' } })).toBe(false);
  });
  it('with an operator that does not exist never allow, and always deny', () => {
    expect(says({ Condition: { StringEqual: { a: 'b' } } }, { a: 'b' })).toBe('silent');
    expect(says({ Effect: 'Deny', Condition: { constructor: { a: 'b' } } })).toBe('deny');
  });
  it('on a key with several values need a set operator: without one an Allow is not met, a Deny by any of them', () => {
    const tags = { 'aws:TagKeys': ['a'] };
    const condition = { StringEquals: { 'aws:TagKeys': 'a' } };
    expect(when(condition, tags)).toBe(false);
    expect(says({ Effect: 'Deny', Condition: condition }, tags)).toBe('deny');
    expect(says({ Resource: `\${aws:TagKeys}*` }, tags)).toBe('silent');
  });
  it('that something is not equal to what is no number, date, address or ARN never allow, and always deny', () => {
    for (const [operator, value, nonsense] of [
      ['NumericNotEquals', '1', 'ten'],
      ['DateNotEquals', '2026-01-01', 'soon'],
      ['NotIpAddress', '10.0.0.1', '192.0.2.0/33'],
      ['ArnNotLike', volume, 'volume'],
    ] as const) {
      const Condition = { [operator]: { key: nonsense } };
      expect(when(Condition, { key: value }), operator).toBe(false);
      expect(says({ Effect: 'Deny', Condition }, { key: value }), operator).toBe('deny');
    }
  });
  it('have variables with string, ARN and Bool operators, and plain text with the others', () => {
    const same = (operator: string, key: string) => when({ [operator]: { [key]: `\${${key}}` } }, { [key]: '1' });
    expect(same('StringEquals', 'a:b')).toBe(true);
    expect(same('NumericEquals', 'a:b')).toBe(false);
    expect(same('BinaryEquals', 'a:b')).toBe(false);
  });
  it('see keys without regard to case', () => {
    expect(when({ stringequals: { 'AWS:SourceIP': '1' } }, { 'aws:SourceIp': '1' })).toBe(true);
  });
});

describe('principals of a resource policy', () => {
  const naming = (statement: Partial<PolicyStatement>, principal = rootPrincipal(account)) =>
    evaluateResourcePolicy(document(statement), principal, request, context());
  const instance = infrastructurePrincipal(account, 'us-east-1', 'i-1');

  it('are named as the account, by ARN, or as anyone', () => {
    expect(naming({ Principal: { AWS: account } })).toMatchObject({ effect: 'allow', naming: 'account' });
    expect(naming({ Principal: { AWS: `arn:aws:iam::${account}:root` } }, instance).naming).toBe('account');
    expect(naming({ Principal: { AWS: instance.arn } }, instance).naming).toBe('principal');
    expect(naming({ Principal: { AWS: instance.sessionIssuer!.arn } }, instance).naming).toBe('role');
    expect(naming({ Principal: '*' }).naming).toBe('anyone');
    expect(naming({ Principal: { AWS: '*' } }).naming).toBe('anyone');
  });
  it('are not covered by what names somebody else, a service, or nobody', () => {
    expect(naming({ Principal: { AWS: '444455556666' } }).effect).toBe('silent');
    expect(naming({ Principal: { AWS: `arn:evil:iam::${account}:root` } }).effect).toBe('silent');
    expect(naming({ Principal: { Service: 'ec2.amazonaws.com' } }).effect).toBe('silent');
    expect(naming({}).effect).toBe('silent');
  });
  it('are denied by NotPrincipal unless they are in it', () => {
    const deny = { Effect: 'Deny' as const, NotPrincipal: { AWS: account } };
    expect(naming(deny).effect).toBe('silent');
    expect(naming(deny, rootPrincipal('444455556666')).effect).toBe('deny');
  });
  it('are in a NotPrincipal by themselves: their account alone exempts its root, and nobody else', () => {
    const except = (...AWS: string[]) => naming({ Effect: 'Deny', NotPrincipal: { AWS } }, instance).effect;
    expect(except(account)).toBe('deny');
    expect(except(`arn:aws:iam::${account}:root`)).toBe('deny');
    expect(except(instance.sessionIssuer!.arn, account)).toBe('silent');
    expect(except('*')).toBe('silent');
    const allow = { NotPrincipal: { AWS: account } };
    expect([naming(allow).effect, naming(allow, instance).effect]).toEqual(['silent', 'silent']);
  });
});
