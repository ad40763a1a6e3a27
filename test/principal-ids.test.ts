/** Key policies, grants and roles mean whom they named, not whoever has the name now. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Principal } from '../src/aws/call.ts';
import { account, World } from './support/world.ts';

let world: World;
let KeyId: string;
beforeEach(async () => {
  world = await World.create();
  KeyId = (await world.kms('CreateKey')).KeyMetadata.Arn;
});
afterEach(() => world.close());

const iam = (operation: string, input: object = {}) => world.call('iam', operation, input);
const root = { AWS: `arn:aws:iam::${account}:root` };
const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement });
const all = { Effect: 'Allow', Action: 'kms:*', Resource: '*' };
const trust = (AWS: string) => policy({ Effect: 'Allow', Principal: { AWS }, Action: 'sts:AssumeRole' });

async function user(UserName: string, Path?: string): Promise<Principal & { principalId: string }> {
  const { User } = await iam('CreateUser', { UserName, Path });
  return { type: 'IAMUser', account, arn: User.Arn, principalId: User.UserId, userName: UserName };
}
async function role(RoleName: string): Promise<Principal> {
  const AssumeRolePolicyDocument = trust(account);
  const { Role } = await iam('CreateRole', { RoleName, AssumeRolePolicyDocument });
  return {
    type: 'AssumedRole',
    account,
    arn: `arn:aws:sts::${account}:assumed-role/${RoleName}/monday`,
    principalId: `${Role.RoleId}:monday`,
    sessionIssuer: { arn: Role.Arn, principalId: Role.RoleId, userName: RoleName },
  };
}
const encrypt = (principal: Principal) => world.kms('Encrypt', { KeyId, Plaintext: Buffer.from('x') }, { principal });
const refused = { code: 'AccessDeniedException' };
const putPolicy = (...statements: object[]) =>
  world.kms('PutKeyPolicy', { KeyId, Policy: policy({ ...all, Principal: root }, ...statements) });
const shownPrincipal = async () =>
  JSON.parse((await world.kms('GetKeyPolicy', { KeyId })).Policy).Statement.at(-1).Principal.AWS;

describe('a key policy', () => {
  it('gives a user made anew under the old name nothing, and shows the id of the one who is gone', async () => {
    const alice = await user('alice');
    await putPolicy({ ...all, Principal: { AWS: alice.arn } });
    await encrypt(alice);
    expect(await shownPrincipal()).toBe(alice.arn);
    await iam('DeleteUser', { UserName: 'alice' });
    expect(await shownPrincipal()).toBe(alice.principalId);
    const again = await user('alice');
    expect(again.arn).toBe(alice.arn);
    await expect(encrypt(again)).rejects.toMatchObject(refused);
    await expect(encrypt(alice)).rejects.toMatchObject(refused);
    expect(await shownPrincipal()).toBe(alice.principalId);
    await putPolicy({ ...all, Principal: { AWS: again.arn } });
    await encrypt(again);
  });

  it('follows a user who is renamed, and denies by id', async () => {
    const alice = await user('alice', '/low/');
    await putPolicy({ ...all, Principal: { AWS: [alice.arn] } });
    await iam('UpdateUser', { UserName: 'alice', NewUserName: 'alicia', NewPath: '/high/' });
    const renamed = { ...alice, arn: `arn:aws:iam::${account}:user/high/alicia`, userName: 'alicia' };
    await encrypt(renamed);
    expect(await shownPrincipal()).toEqual([renamed.arn]);
    const imposter = await user('alice', '/low/');
    await expect(encrypt(imposter)).rejects.toMatchObject(refused);
    await putPolicy(
      { ...all, Principal: { AWS: renamed.arn } },
      { ...all, Effect: 'Deny', Principal: { AWS: alice.principalId } },
    );
    await expect(encrypt(renamed)).rejects.toThrow('with an explicit deny in a resource-based policy');
  });

  it('means a role and its sessions by id too', async () => {
    const worker = await role('worker');
    for (const name of [worker.arn, worker.sessionIssuer!.arn, worker.sessionIssuer!.principalId]) {
      await putPolicy({ ...all, Principal: { AWS: name } });
      await encrypt(worker);
    }
    await putPolicy({ ...all, Principal: { AWS: worker.arn } });
    await iam('DeleteRole', { RoleName: 'worker' });
    const again = await role('worker');
    expect(again.arn).toBe(worker.arn);
    await expect(encrypt(again)).rejects.toMatchObject(refused);
    expect(await shownPrincipal()).toBe(worker.principalId);
  });

  it('exempts the one it named from a Deny with NotPrincipal, not the next of that name', async () => {
    const alice = await user('alice');
    const statements = [
      { ...all, Principal: '*' },
      { ...all, Action: 'kms:Encrypt', Effect: 'Deny', NotPrincipal: { AWS: [alice.arn, account] } },
    ];
    await putPolicy(...statements);
    await encrypt(alice);
    await iam('DeleteUser', { UserName: 'alice' });
    await expect(encrypt(await user('alice'))).rejects.toThrow('explicit deny');
  });

  it('names nobody who is not there: the name could be taken later', async () => {
    const unknown = [
      `arn:aws:iam::${account}:user/nobody`,
      `arn:aws:iam::${account}:role/nothing`,
      `arn:aws:sts::${account}:assumed-role/nothing/session`,
      'AIDA00000000000000000',
    ];
    await user('alice', '/a/');
    const wrongPathOrCase = [`arn:aws:iam::${account}:user/alice`, `arn:aws:iam::${account}:user/a/Alice`];
    for (const AWS of [...unknown, ...wrongPathOrCase]) {
      const error = {
        code: 'MalformedPolicyDocumentException',
        message: expect.stringContaining('invalid principals'),
      };
      await expect(putPolicy({ ...all, Principal: { AWS } }), AWS).rejects.toMatchObject(error);
      const Policy = policy({ ...all, Principal: root }, { ...all, Effect: 'Deny', Principal: { AWS } });
      await expect(world.kms('CreateKey', { Policy }), AWS).rejects.toMatchObject(error);
    }
  });
});

describe('a grant', () => {
  const grant = (GranteePrincipal: string, more: object = {}) =>
    world.kms('CreateGrant', { KeyId, GranteePrincipal, Operations: ['Encrypt'], Name: 'g', ...more });
  const grants = async () => (await world.kms('ListGrants', { KeyId })).Grants;

  it('is not for a user made anew, whether as grantee or to retire it', async () => {
    const [alice, bob] = [await user('alice'), await user('bob')];
    const { GrantId } = await grant(alice.arn, { RetiringPrincipal: bob.arn });
    expect(await grants()).toMatchObject([{ GranteePrincipal: alice.arn, RetiringPrincipal: bob.arn }]);
    await encrypt(alice);
    for (const UserName of ['alice', 'bob']) await iam('DeleteUser', { UserName });
    const [newAlice, newBob] = [await user('alice'), await user('bob')];
    await expect(encrypt(newAlice)).rejects.toMatchObject(refused);
    await expect(world.kms('RetireGrant', { KeyId, GrantId }, { principal: newBob })).rejects.toMatchObject(refused);
    expect(await grants()).toMatchObject([
      { GrantId, GranteePrincipal: alice.principalId, RetiringPrincipal: bob.principalId },
    ]);
    expect((await world.kms('ListGrants', { KeyId, GranteePrincipal: newAlice.arn })).Grants).toEqual([]);
    const retirable = await world.kms('ListRetirableGrants', { RetiringPrincipal: newBob.arn });
    expect(retirable.Grants).toEqual([]);
  });

  it('is found by the name that its principals have now, and made once', async () => {
    const [alice, worker] = [await user('alice'), await role('worker')];
    const { GrantId } = await grant(alice.arn, { RetiringPrincipal: worker.sessionIssuer!.arn });
    const again = await grant(alice.arn, { RetiringPrincipal: worker.sessionIssuer!.arn });
    expect(again.GrantId).toBe(GrantId);
    await iam('UpdateUser', { UserName: 'alice', NewUserName: 'alicia' });
    const arn = `arn:aws:iam::${account}:user/alicia`;
    await encrypt({ ...alice, arn, userName: 'alicia' });
    expect((await world.kms('ListGrants', { KeyId, GranteePrincipal: arn })).Grants).toHaveLength(1);
    const RetiringPrincipal = worker.sessionIssuer!.arn;
    expect((await world.kms('ListRetirableGrants', { RetiringPrincipal })).Grants).toMatchObject([{ GrantId }]);
    await world.kms('RetireGrant', { KeyId, GrantId }, { principal: worker });
  });

  it('names nobody who is not there', async () => {
    for (const more of [{}, { RetiringPrincipal: `arn:aws:iam::${account}:role/nothing` }])
      await expect(
        grant(
          'RetiringPrincipal' in more ? `arn:aws:iam::${account}:root` : `arn:aws:iam::${account}:user/nobody`,
          more,
        ),
      ).rejects.toMatchObject({ code: 'InvalidArnException' });
    expect(await grants()).toEqual([]);
  });
});

describe("a role's trust policy", () => {
  const assume = (principal: Principal) =>
    world.call(
      'sts',
      'AssumeRole',
      { RoleArn: `arn:aws:iam::${account}:role/worker`, RoleSessionName: 'monday' },
      { principal },
    );
  const shown = async () =>
    JSON.parse(decodeURIComponent((await iam('GetRole', { RoleName: 'worker' })).Role.AssumeRolePolicyDocument))
      .Statement[0].Principal.AWS;

  it('lets in whom it named, and nobody else of that name', async () => {
    const alice = await user('alice');
    await iam('CreateRole', { RoleName: 'worker', AssumeRolePolicyDocument: trust(alice.arn) });
    await assume(alice);
    expect(await shown()).toBe(alice.arn);
    await iam('DeleteUser', { UserName: 'alice' });
    await expect(assume(await user('alice'))).rejects.toMatchObject({
      code: 'AccessDenied',
      message: expect.stringContaining('because no role trust policy allows the sts:AssumeRole action'),
    });
    expect(await shown()).toBe(alice.principalId);
    expect((await iam('ListRoles')).Roles[0].AssumeRolePolicyDocument).toContain(alice.principalId);
  });

  it('names nobody who is not there', async () => {
    const AssumeRolePolicyDocument = trust(`arn:aws:iam::${account}:user/nobody`);
    await expect(iam('CreateRole', { RoleName: 'worker', AssumeRolePolicyDocument })).rejects.toMatchObject({
      code: 'MalformedPolicyDocument',
      message: `Invalid principal in policy: "AWS":"arn:aws:iam::${account}:user/nobody"`,
    });
  });
});
