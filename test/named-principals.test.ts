import { expect, it } from 'vitest';
import { namedPrincipals } from '../src/gateway/named-principals.ts';
import { World } from './support/world.ts';

const account = '123456789012';
const user = (name: string) => `arn:aws:iam::${account}:user/${name}`;
const trusting = (...AWS: string[]) =>
  JSON.stringify({
    Version: '2012-10-17',
    Statement: { Effect: 'Allow', Principal: { AWS }, Action: 'sts:AssumeRole' },
  });

it('policies and grants of old mean those whom they named, not who has the name later', async () => {
  const world = await World.create();
  try {
    const iam = (operation: string, input: object) => world.call('iam', operation, input);
    const alice = (await iam('CreateUser', { UserName: 'alice', Path: '/staff/' })).User;
    await iam('CreateUser', { UserName: 'bob' });
    const role = (
      await iam('CreateRole', { RoleName: 'worker', AssumeRolePolicyDocument: trusting(alice.Arn, user('bob')) })
    ).Role;
    const session = `arn:aws:sts::${account}:assumed-role/worker/monday`;
    const policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' },
        { Effect: 'Allow', Principal: { AWS: [alice.Arn, session] }, Action: 'kms:Encrypt', Resource: '*' },
      ],
    });
    const { KeyId } = (await world.kms('CreateKey', { Policy: policy })).KeyMetadata;
    const untouched = (await world.kms('CreateKey')).KeyMetadata.KeyId;
    const grant = { KeyId, GranteePrincipal: user('bob'), RetiringPrincipal: alice.Arn, Operations: ['Decrypt'] };
    await world.kms('CreateGrant', grant);
    const host = `arn:aws:sts::${account}:assumed-role/aws:ec2-infrastructure/i-1`;
    await world.kms('CreateGrant', { ...grant, GranteePrincipal: host });
    await world.database.run(async (db) => {
      // As it was before ids were kept, bob being gone and alice's old name free.
      await db.updateTable('iam_identities').set({ trusted_ids: null }).execute();
      await db.updateTable('kms_keys').set({ principals: null }).execute();
      await db.updateTable('kms_grants').set({ retiring: alice.Arn }).execute();
      await db
        .updateTable('kms_grants')
        .set({ grantee: user('bob') })
        .where('grantee', '<>', host)
        .execute();
    });
    await iam('DeleteUser', { UserName: 'bob' });

    await world.database.run((db) => namedPrincipals.up(db));
    world.restart();

    await iam('CreateUser', { UserName: 'bob' });
    const trust = JSON.parse(
      decodeURIComponent((await iam('GetRole', { RoleName: 'worker' })).Role.AssumeRolePolicyDocument),
    );
    expect(trust.Statement.Principal.AWS).toEqual([alice.Arn, expect.stringMatching(/^AIDA[A-Z2-7]{16}$/)]);
    await iam('UpdateUser', { UserName: 'alice', NewUserName: 'alicia' });
    const renamed = { ...alice, Arn: `arn:aws:iam::${account}:user/staff/alicia` };
    const shown = JSON.parse((await world.kms('GetKeyPolicy', { KeyId })).Policy);
    expect(shown.Statement[1].Principal.AWS).toEqual([renamed.Arn, session]);
    const { Grants } = await world.kms('ListGrants', { KeyId });
    expect(Grants).toHaveLength(2);
    for (const each of Grants) expect(each.RetiringPrincipal).toBe(renamed.Arn);
    expect(Grants.map((each: { GranteePrincipal: string }) => each.GranteePrincipal).sort()).toEqual([
      expect.stringMatching(/^AIDA[A-Z2-7]{16}$/),
      host,
    ]);
    const rows = await world.database.run((db) => db.selectFrom('kms_keys').select(['key_id', 'principals']).execute());
    const principals = Object.fromEntries(rows.map((row) => [row.key_id, JSON.parse(row.principals ?? 'null')]));
    expect(principals[untouched] ?? {}).toEqual({});
    expect(principals[KeyId]).toEqual({ [alice.Arn]: alice.UserId, [session]: `${role.RoleId}:monday` });
  } finally {
    await world.close();
  }
});
