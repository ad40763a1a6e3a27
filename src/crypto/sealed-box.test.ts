import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { SealedBoxKey, sealFor } from './sealed-box.ts';

const recipient = new SealedBoxKey();

test('gives back what was sealed, for any length', () => {
  for (const length of [0, 1, 64, 1000]) {
    const secret = randomBytes(length);
    expect(recipient.open(sealFor(recipient.publicKey, secret, 'a'), 'a')).toEqual(secret);
  }
});

test('the same secret sealed twice shows nothing in common', () => {
  const secret = randomBytes(64);
  const [one, two] = [sealFor(recipient.publicKey, secret, 'a'), sealFor(recipient.publicKey, secret, 'a')];
  expect(one.subarray(1, 33).equals(two.subarray(1, 33))).toBe(false);
  expect(one.includes(secret)).toBe(false);
  expect(one.subarray(33).equals(two.subarray(33))).toBe(false);
});

test('opens for nobody else, for no other context, and not when a bit is changed', () => {
  const sealed = sealFor(recipient.publicKey, randomBytes(64), 'snap-1');
  expect(() => new SealedBoxKey().open(sealed, 'snap-1')).toThrow();
  expect(() => recipient.open(sealed, 'snap-2')).toThrow();
  for (let index = 0; index < sealed.length; index++) {
    const changed = Buffer.from(sealed);
    changed[index]! ^= 1;
    // The top bit of an X25519 public key is ignored (RFC 7748, section 5), but is bound in by the salt.
    expect(() => recipient.open(changed, 'snap-1'), `byte ${index}`).toThrow();
  }
  expect(() => recipient.open(sealed.subarray(0, 40), 'snap-1')).toThrow('not a sealed box');
});

test('refuses public keys of another length, and the point that makes every shared secret the same', () => {
  expect(() => sealFor(Buffer.alloc(31), Buffer.alloc(64), 'a')).toThrow(RangeError);
  expect(() => sealFor(Buffer.alloc(32), Buffer.alloc(64), 'a')).toThrow();
});
