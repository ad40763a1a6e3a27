import { randomBytes } from 'node:crypto';
import { afterEach, expect, it } from 'vitest';
import { ManualClock } from '../aws/clock.ts';
import { RootKey } from '../crypto/root-key.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { CredentialStore } from './credential-store.ts';
import { rootPrincipal } from './principals.ts';
import { createSession } from './sessions.ts';

const databases: SqliteDatabase[] = [];
afterEach(async () => {
  for (const database of databases.splice(0)) await database.close();
});

function world() {
  const clock = new ManualClock(1_000_000);
  const rootKey = new RootKey(randomBytes(32));
  const database = new SqliteDatabase(':memory:');
  databases.push(database);
  return { clock, rootKey, store: new CredentialStore({ database, rootKey, clock }) };
}

it('a session ends at its time, and carries what limits it', async () => {
  const { clock, rootKey, store } = world();
  const limits = {
    policy: '{"Statement":[]}',
    policyArns: ['arn:aws:iam::aws:policy/IAMFullAccess'],
    tags: { a: 'b' },
  };
  const principal = rootPrincipal('123456789012');
  const session = createSession(rootKey, principal, clock.now(), clock.now() + 900_000, limits);
  const find = () => store.find(session.AccessKeyId, session.SessionToken);
  expect(await find()).toMatchObject({ principal: { arn: principal.arn, session: limits } });
  clock.advance(899_999);
  expect(await find()).toHaveProperty('principal');
  clock.advance(1);
  expect(await find()).toEqual({ problem: 'expired' });
});

it('no token passes that was changed, is for another access key, or was sealed under another root key', async () => {
  const { clock, rootKey, store } = world();
  const make = (key: RootKey) => createSession(key, rootPrincipal('123456789012'), clock.now(), clock.now() + 900_000);
  const [mine, second, foreign] = [make(rootKey), make(rootKey), make(new RootKey(randomBytes(32)))];
  const bytes = Buffer.from(mine.SessionToken, 'base64');
  for (const at of [0, 20, bytes.length - 1]) {
    const forged = Buffer.from(bytes);
    forged[at]! ^= 1;
    expect(await store.find(mine.AccessKeyId, forged.toString('base64'))).toEqual({ problem: 'token' });
  }
  for (const token of [second.SessionToken, foreign.SessionToken, '', undefined, 'x'])
    expect(await store.find(mine.AccessKeyId, token)).toEqual({ problem: 'token' });
});
