import { beforeEach, expect, test } from 'vitest';
import type { AnyDatabase, Call, Principal } from '../aws/call.ts';
import { findGrants } from './grant-lookup.ts';
import { insertGrant, newGrantRow } from './grant-store.ts';
import { KeyStore } from './key-store.ts';
import { account, root, TestKms } from './testing.ts';

const user = (name: string): Principal => ({
  type: 'IAMUser',
  account,
  arn: `arn:aws:iam::${account}:user/${name}`,
  principalId: `arn:aws:iam::${account}:user/${name}`,
  userName: name,
});
const region = 'us-east-1';

let kms: TestKms;
let keys: KeyStore;
let KeyId: string;
beforeEach(async () => {
  kms = await TestKms.create();
  keys = new KeyStore(kms.rootKey);
  ({ KeyId } = await kms.key());
});

const callOn = (db: AnyDatabase, principal: Principal) =>
  ({
    db,
    clock: kms.clock,
    principal,
    account,
    region,
    invoke: async (_service: string, _name: string, { Names }: { Names: string[] }) => ({
      Ids: Object.fromEntries(Names.map((each) => [each, each])),
    }),
  }) as unknown as Call;

/** How many grants give `operation` to a user, by the key as it is now. */
async function count(db: AnyDatabase, name: string, operation = 'Decrypt'): Promise<number> {
  const key = await keys.byId({ db, clock: kms.clock }, region, KeyId);
  return (await findGrants(callOn(db, user(name)), key!, operation)).length;
}

const give = (name: string, Operations: string[]) =>
  kms.run('CreateGrant', { KeyId, GranteePrincipal: user(name).arn, Operations }, { principal: root() });

test('the grants of a caller for an operation, as soon as they are made and until they end', async () => {
  const look = (name: string, operation?: string) => kms.database.run((db) => count(db, name, operation));
  expect([await look('a'), await look('b')]).toEqual([0, 0]);
  const { GrantId } = await give('a', ['Decrypt', 'Encrypt']);
  await give('a', ['Decrypt']);
  for (const again of [1, 2, 3]) {
    expect([again, await look('a'), await look('a', 'Encrypt'), await look('b')]).toEqual([again, 2, 1, 0]);
    expect([await look('a', 'Sign'), await look('a', 'Dec')]).toEqual([0, 0]);
  }
  await kms.run('RevokeGrant', { KeyId, GrantId });
  expect([await look('a'), await look('a', 'Encrypt')]).toEqual([1, 0]);
});

test('a grant whose making is undone gives nothing, whoever looked it up meanwhile', async () => {
  const seen: number[] = [];
  const undone = kms.database.run(async (db) => {
    const call = callOn(db, user('a'));
    const before = (await keys.byId(call, region, KeyId))!;
    const input = { KeyId, GranteePrincipal: user('a').arn, Operations: ['Decrypt' as const] };
    await insertGrant(call, before, await newGrantRow(call, input, before));
    for (let times = 0; times < 3; times++) seen.push((await findGrants(call, before, 'Decrypt')).length);
    throw new Error('undone');
  });
  await expect(undone).rejects.toThrow('undone');
  expect(seen).toEqual([1, 1, 1]);
  expect(await kms.database.run((db) => count(db, 'a'))).toBe(0);
});
