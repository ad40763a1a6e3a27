import { describe, expect, it } from 'vitest';
import type { Call, Principal } from '../aws/call.ts';
import { systemClock } from '../aws/clock.ts';
import type { AccessRequest, GrantStatement, PolicyDocument } from '../aws/service.ts';
import { authorize, decide } from './authorize.ts';
import { infrastructurePrincipal, rootPrincipal } from './principals.ts';

const mine = '111122223333';
const theirs = '444455556666';
const keyArn = `arn:aws:kms:us-east-1:${mine}:key/1234abcd-12ab-34cd-56ef-1234567890ab`;
const defaultPolicy: PolicyDocument = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${mine}:root` }, Action: 'kms:*', Resource: '*' }],
};
const decrypt: AccessRequest = {
  action: 'kms:Decrypt',
  resource: keyArn,
  resourceAccount: mine,
  resourcePolicy: defaultPolicy,
};
const ask = (principal: Principal, request: AccessRequest, via?: string) =>
  authorize(
    {
      principal,
      account: principal.account,
      via,
      region: 'us-east-1',
      clock: systemClock,
      sourceIp: '127.0.0.1',
    } as Call,
    request,
  );

const instance = infrastructurePrincipal(mine, 'us-east-1', 'i-0123456789abcdef0');
const grant: GrantStatement = {
  grantId: 'g',
  granteePrincipal: instance.arn,
  operations: ['Decrypt'],
  encryptionContextSubset: { 'aws:ebs:id': 'vol-1' },
};
const withGrant = (context: Record<string, string>, over: Partial<GrantStatement> = {}): AccessRequest => ({
  ...decrypt,
  context,
  grants: async () => [{ ...grant, ...over }],
});

describe("an account's root", () => {
  it('uses the keys whose policy names its account', async () => {
    expect(await ask(rootPrincipal(mine), decrypt)).toBeUndefined();
  });
  it('is refused where the key policy says nothing of it', async () => {
    const resourcePolicy = { Statement: [] };
    expect((await ask(rootPrincipal(mine), { ...decrypt, resourcePolicy }))?.reason).toMatch(
      /no resource-based policy/,
    );
  });
  it("is refused another account's key", async () => {
    expect(await ask(rootPrincipal(theirs), decrypt)).toMatchObject({ explicit: false });
  });
  it("is refused another account's resource without a policy", async () => {
    const request = {
      action: 'ec2:DeleteVolume',
      resource: 'arn:aws:ec2:us-east-1:1:volume/vol-1',
      resourceAccount: mine,
    };
    expect(await ask(rootPrincipal(theirs), request)).toBeDefined();
    expect(await ask(rootPrincipal(mine), request)).toBeUndefined();
  });
  it('is refused by an explicit deny, whatever allows', async () => {
    const resourcePolicy: PolicyDocument = {
      Statement: [
        ...(defaultPolicy.Statement as []),
        { Effect: 'Deny', Principal: '*', Action: 'KMS:decrypt', Resource: '*' },
      ],
    };
    expect(await ask(rootPrincipal(mine), { ...decrypt, resourcePolicy })).toMatchObject({ explicit: true });
  });
  it('is allowed by a conditional statement exactly when the conditions are met', async () => {
    const [statement] = defaultPolicy.Statement as [object];
    const when = (Condition: object) =>
      ask(rootPrincipal(mine), {
        ...decrypt,
        resourcePolicy: { Statement: [{ ...statement, Condition }] } as unknown as PolicyDocument,
      });
    expect(await when({ StringEquals: { 'kms:CallerAccount': mine } })).toBeUndefined();
    expect(await when({ StringEquals: { 'kms:CallerAccount': theirs } })).toBeDefined();
    expect(await when({ StringEquals: { 'kms:ViaService': 'ec2.us-east-1.amazonaws.com' } })).toBeDefined();
    expect(await when({ NoSuchOperator: { 'kms:CallerAccount': mine } })).toBeDefined();
  });
  it("uses another account's key when that key's policy names its account", async () => {
    const resourcePolicy: PolicyDocument = {
      Statement: [{ Effect: 'Allow', Principal: { AWS: theirs }, Action: 'kms:Decrypt', Resource: '*' }],
    };
    expect(await ask(rootPrincipal(theirs), { ...decrypt, resourcePolicy })).toBeUndefined();
    const encrypt = { ...decrypt, action: 'kms:Encrypt', resourcePolicy };
    expect(await ask(rootPrincipal(theirs), encrypt)).toBeDefined();
  });
  it('is denied by a deny whose operator is not known, rather than allowed by mistake', async () => {
    const resourcePolicy = {
      Statement: [
        ...(defaultPolicy.Statement as []),
        { Effect: 'Deny', Principal: '*', Action: '*', Resource: '*', Condition: { NoSuchOperator: { a: 'b' } } },
      ],
    } as unknown as PolicyDocument;
    expect(await ask(rootPrincipal(mine), { ...decrypt, resourcePolicy })).toMatchObject({ explicit: true });
  });
});

describe('an AWS managed key', () => {
  const managed: AccessRequest = { ...decrypt, onlyVia: 'ec2.amazonaws.com' };
  it('is used through its service only', async () => {
    expect(await ask(rootPrincipal(mine), managed, 'ec2.amazonaws.com')).toBeUndefined();
    expect((await ask(rootPrincipal(mine), managed))?.reason).toMatch(/through ec2.amazonaws.com only/);
    expect(await ask(rootPrincipal(mine), managed, 'cloudtrail.amazonaws.com')).toBeDefined();
  });
  it('is not for other accounts, not even through the service', async () => {
    expect(await ask(rootPrincipal(theirs), managed, 'ec2.amazonaws.com')).toBeDefined();
  });
  it('shows its metadata to its account', async () => {
    expect(await ask(rootPrincipal(mine), { ...managed, action: 'kms:DescribeKey' })).toBeUndefined();
    expect(await ask(rootPrincipal(mine), { ...managed, action: 'kms:DisableKey' })).toBeDefined();
  });
});

describe("an instance's infrastructure role", () => {
  it('has nothing without a grant, default key policy or not', async () => {
    expect(await ask(instance, decrypt)).toBeDefined();
  });
  it('describes the key with such a grant too: what has no encryption context is not bound to one', async () => {
    const operations = ['Decrypt', 'DescribeKey'];
    for (const constraint of [{}, { encryptionContextSubset: undefined, encryptionContextEquals: { a: 'b' } }]) {
      const request = { ...withGrant({}, { operations, ...constraint }), action: 'kms:DescribeKey' };
      expect(await ask(instance, request)).toBeUndefined();
      expect(await ask(instance, withGrant({}, { operations, ...constraint }))).toBeDefined();
    }
  });
  it('uses a grant with a source only where a service says that it acts for that source', async () => {
    const sourceArn = `arn:aws:ec2:us-east-1:${mine}:volume/vol-1`;
    const context = { 'kms:EncryptionContext:aws:ebs:id': 'vol-1' };
    expect(await ask(instance, withGrant(context, { sourceArn }))).toBeDefined();
    expect(await ask(instance, withGrant({ ...context, 'aws:SourceArn': sourceArn }, { sourceArn }))).toBeUndefined();
    const other = { ...context, 'aws:SourceArn': `${sourceArn}1` };
    expect(await ask(instance, withGrant(other, { sourceArn }))).toBeDefined();
  });
  it('decrypts with a grant for the volume it names', async () => {
    expect(await ask(instance, withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1' }))).toBeUndefined();
    expect(
      await ask(
        instance,
        withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1', 'kms:EncryptionContext:more': 'x' }),
      ),
    ).toBeUndefined();
  });
  it('does not decrypt for another volume, without context, or for another instance', async () => {
    expect(await ask(instance, withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-2' }))).toBeDefined();
    expect(await ask(instance, withGrant({}))).toBeDefined();
    const other = infrastructurePrincipal(mine, 'us-east-1', 'i-0fedcba9876543210');
    expect(await ask(other, withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1' }))).toBeDefined();
  });
  it('does only the operations of the grant', async () => {
    const request = { ...withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1' }), action: 'kms:Encrypt' };
    expect(await ask(instance, request)).toBeDefined();
  });
  it('must match an equals constraint whole', async () => {
    const equals = { encryptionContextSubset: undefined, encryptionContextEquals: { 'aws:ebs:id': 'vol-1' } };
    expect(await ask(instance, withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1' }, equals))).toBeUndefined();
    expect(
      await ask(
        instance,
        withGrant({ 'kms:EncryptionContext:aws:ebs:id': 'vol-1', 'kms:EncryptionContext:b': '' }, equals),
      ),
    ).toBeDefined();
  });
});

describe("a key policy beside the limits of the caller's own policies", () => {
  const boundary: PolicyDocument = { Statement: { Effect: 'Allow', Action: 'ec2:*', Resource: '*' } };
  const role = { ...infrastructurePrincipal(mine, 'us-east-1', 'i-1') };
  const reason = async (principal: Principal, ...statements: object[]) => {
    const resourcePolicy = { Statement: statements } as unknown as PolicyDocument;
    const call = { principal, account: mine, region: 'us-east-1', clock: systemClock } as Call;
    const permissions = { identity: [], boundary, session: undefined, tags: {} };
    return (await decide(call, { ...decrypt, resourcePolicy }, permissions))?.reason;
  };
  const allow = { Effect: 'Allow', Action: 'kms:*', Resource: '*' };

  it('allows by itself whom it names, and anyone; the role behind a session within the limits', async () => {
    expect(await reason(role, { ...allow, Principal: { AWS: role.arn } })).toBeUndefined();
    expect(await reason(role, { ...allow, Principal: '*' })).toBeUndefined();
    expect(await reason(role, { ...allow, Principal: { AWS: mine } }, { ...allow, Principal: '*' })).toBeUndefined();
    expect(await reason(role, { ...allow, Principal: { AWS: role.sessionIssuer!.arn } })).toMatch(/boundary/);
  });
  it('denies with NotPrincipal whoever has a boundary, named or not', async () => {
    const everybodyElse = { ...allow, Effect: 'Deny', NotPrincipal: { AWS: [role.arn, mine] } };
    expect(await reason(role, { ...allow, Principal: '*' }, everybodyElse)).toMatch(/explicit deny/);
  });
});

describe('keys of an encryption context that differ only in case', () => {
  const pairs = (context: Record<string, string>) =>
    Object.fromEntries(Object.entries(context).map(([key, value]) => [`kms:EncryptionContext:${key}`, value]));
  const both = pairs({ App: 'a', APP: 'b' });
  const subset = { encryptionContextSubset: { app: 'a' } };
  const equals = { encryptionContextSubset: undefined, encryptionContextEquals: { app: 'a' } };
  const mayDecrypt = async (context: Record<string, string>, over: Partial<GrantStatement>) =>
    (await ask(instance, withGrant(context, over))) === undefined;

  it("meet a grant's constraint in any case, and only with its value in all of them", async () => {
    for (const over of [subset, equals]) {
      expect(await mayDecrypt(pairs({ APP: 'a' }), over)).toBe(true);
      expect(await mayDecrypt(pairs({ APP: 'A' }), over)).toBe(false);
      expect(await mayDecrypt(both, over)).toBe(false);
    }
    expect(await mayDecrypt(pairs({ App: 'a', APP: 'a', more: 'x' }), subset)).toBe(true);
    expect(await mayDecrypt(pairs({ App: 'a', APP: 'a' }), equals)).toBe(false);
  });
  it('are one condition key: an Allow must hold for all their values, a Deny for one', async () => {
    const [allowing] = defaultPolicy.Statement as [object];
    const when = (Effect: string, value: string) =>
      ask(rootPrincipal(mine), {
        ...decrypt,
        context: both,
        resourcePolicy: {
          Statement: [
            { ...allowing, Effect, Condition: { StringEquals: { 'kms:EncryptionContext:app': value } } },
            ...(Effect === 'Deny' ? [allowing] : []),
          ],
        } as unknown as PolicyDocument,
      });
    for (const value of ['a', 'b']) {
      expect(await when('Allow', value)).toMatchObject({ explicit: false });
      expect(await when('Deny', value)).toMatchObject({ explicit: true });
    }
    expect(await when('Deny', 'c')).toBeUndefined();
  });
  it('are not had by a letter that only looks the same', async () => {
    expect(await mayDecrypt(pairs({ '\u212Aey': 'a' }), { encryptionContextSubset: { key: 'a' } })).toBe(false);
  });
});

describe('across accounts', () => {
  const alice: Principal = {
    type: 'IAMUser',
    account: theirs,
    arn: `arn:aws:iam::${theirs}:user/alice`,
    principalId: 'AIDAEXAMPLE',
  };
  const allowing = (Action: string): PolicyDocument => ({ Statement: { Effect: 'Allow', Action, Resource: '*' } });
  const reasonFor = async (owner: string | undefined, own: PolicyDocument[], boundary?: PolicyDocument) => {
    const resourcePolicy: PolicyDocument = {
      Statement: owner ? [{ Effect: 'Allow', Principal: { AWS: owner }, Action: 'kms:*', Resource: '*' }] : [],
    };
    const call = { principal: alice, account: theirs, region: 'us-east-1', clock: systemClock } as Call;
    const permissions = { identity: own, boundary, session: undefined, tags: {} };
    return (await decide(call, { ...decrypt, resourcePolicy }, permissions))?.reason;
  };
  it('a user needs the consent of both, however the owner names it', async () => {
    for (const owner of [theirs, alice.arn]) {
      expect(await reasonFor(owner, [allowing('kms:Decrypt')])).toBeUndefined();
      expect(await reasonFor(owner, [])).toMatch(/no identity-based policy/);
      expect(await reasonFor(owner, [allowing('kms:Decrypt')], allowing('ec2:*'))).toMatch(/no permissions boundary/);
    }
    expect(await reasonFor(undefined, [allowing('*')])).toMatch(/no resource-based policy/);
    expect(await reasonFor(mine, [allowing('*')])).toMatch(/no resource-based policy/);
  });
});

describe('a key of another account', () => {
  const them = rootPrincipal(theirs);
  const user: Principal = {
    type: 'IAMUser',
    account: theirs,
    arn: `arn:aws:iam::${theirs}:user/u`,
    principalId: 'AIDAU',
    userName: 'u',
  };
  const kms = (Effect: 'Allow' | 'Deny'): PolicyDocument => ({
    Version: '2012-10-17',
    Statement: [{ Effect, Action: 'kms:*', Resource: '*' }],
  });
  const keyPolicy = (...principals: string[]): PolicyDocument => ({
    Statement: principals.map((AWS) => ({ Effect: 'Allow', Principal: { AWS }, Action: 'kms:Decrypt', Resource: '*' })),
  });
  const call = { principal: user, account: theirs, region: 'us-east-1', clock: systemClock, sourceIp: '' } as Call;
  const grantTo = (granteePrincipal: string) => ({
    grants: async () => [{ grantId: 'g', granteePrincipal, operations: ['Decrypt'] }],
  });
  const judge = (request: Partial<AccessRequest>, more: object = {}) =>
    decide(
      call,
      { ...decrypt, ...request },
      { identity: [], boundary: undefined, session: undefined, tags: {}, ...more },
    );

  it('refuses what the resource does not open, in one way', async () => {
    const hidden = await judge({});
    expect(hidden).toMatchObject({ isHidden: true, explicit: false });
    for (const identity of [[kms('Allow')], [kms('Deny')], [kms('Allow'), kms('Deny')]])
      expect(await judge({}, { identity })).toEqual(hidden);
    const denying: PolicyDocument = {
      Statement: [
        ...(keyPolicy('*').Statement as []),
        { Effect: 'Deny', Principal: '*', Action: 'kms:*', Resource: '*' },
      ],
    };
    const withDeny = await judge({ resourcePolicy: denying, ...grantTo(user.arn) }, { identity: [kms('Allow')] });
    expect(withDeny).toMatchObject({ isHidden: true, explicit: false, reason: hidden!.reason });
    expect(await ask(them, { ...decrypt, onlyVia: 'ec2.amazonaws.com' }, 'ec2.amazonaws.com')).toMatchObject({
      isHidden: true,
    });
  });
  it('asks both sides, whomever the resource names', async () => {
    for (const principal of ['*', theirs, user.arn]) {
      const resourcePolicy = keyPolicy(principal);
      expect((await judge({ resourcePolicy }))?.reason).toMatch(/no identity-based policy/);
      expect(await judge({ resourcePolicy }, { identity: [kms('Allow')] })).toBeUndefined();
      expect(await judge({ resourcePolicy }, { identity: [kms('Allow')], boundary: kms('Deny') })).toMatchObject({
        explicit: true,
      });
      const session = [{ Statement: [] }];
      expect((await judge({ resourcePolicy }, { identity: [kms('Allow')], session }))?.reason).toMatch(/no session/);
    }
  });
  it('lets a grant stand for both sides, within what limits and denies the caller', async () => {
    expect(await judge(grantTo(user.arn))).toBeUndefined();
    expect((await judge(grantTo(user.arn), { identity: [kms('Deny')] }))?.reason).toMatch(/deny in an identity-based/);
    expect(await judge({ ...grantTo(user.arn), action: 'kms:Encrypt' })).toMatchObject({ isHidden: true });
    expect(await judge(grantTo(`${user.arn}x`), { identity: [kms('Allow')] })).toMatchObject({ isHidden: true });
  });
  it('leaves a grant to an account to its identity policies', async () => {
    const request = grantTo(`arn:aws:iam::${theirs}:root`);
    expect(await ask(them, { ...decrypt, ...request })).toBeUndefined();
    expect((await judge(request))?.reason).toMatch(/no identity-based policy/);
    expect(await judge(request, { identity: [kms('Allow')] })).toBeUndefined();
    expect(await judge(request, { identity: [kms('Allow')], boundary: { Statement: [] } })).toBeDefined();
  });
});
