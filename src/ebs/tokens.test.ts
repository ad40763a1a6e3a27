import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { RootKey } from '../crypto/root-key.ts';
import { Tokens, tokenLifeMs } from './tokens.ts';

const tokens = new Tokens(new RootKey(randomBytes(32)));
const subject = { kind: 'block', account: '111122223333', snapshots: 'snap-1' } as const;
const now = Date.parse('2026-01-01T00:00:00Z');
const token = tokens.make(subject, 70_000_000, now + tokenLifeMs);

test('names its index until it expires', () => {
  expect(token).toMatch(/^[A-Za-z0-9+/=]{1,256}$/);
  expect(tokens.read(subject, token, now)).toBe(70_000_000);
  expect(tokens.read(subject, token, now + tokenLifeMs - 1)).toBe(70_000_000);
  expect(tokens.read(subject, token, now + tokenLifeMs)).toBeUndefined();
});

test('is good for nobody and nothing else', () => {
  for (const other of [{ kind: 'page' as const }, { account: '444455556666' }, { snapshots: 'snap-2' }])
    expect(tokens.read({ ...subject, ...other }, token, now)).toBeUndefined();
  expect(new Tokens(new RootKey(randomBytes(32))).read(subject, token, now)).toBeUndefined();
  const bytes = Buffer.from(token, 'base64');
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes);
    changed[index]! ^= 1;
    expect(tokens.read(subject, changed.toString('base64'), now), `byte ${index}`).toBeUndefined();
  }
  for (const garbage of ['', 'AAAA', 'x'.repeat(256)]) expect(tokens.read(subject, garbage, now)).toBeUndefined();
});
