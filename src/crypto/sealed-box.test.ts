import { createPrivateKey, randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { SealedBoxKey, sealFor } from './sealed-box.ts';

const recipient = new SealedBoxKey();

/** `count` bytes that count up from `first`. */
const counting = (first: number, count: number) => Buffer.from(Array.from({ length: count }, (_, i) => first + i));

// Computed by another implementation: X25519 and AES-GCM from Python's cryptography 48, HKDF from its hmac and hashlib. The
// private keys are the bytes 1 to 32 for the recipient and 65 to 96 for the sender, and there is an é in the context.
test('opens what another implementation sealed', () => {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), counting(1, 32)]);
  const known = new SealedBoxKey(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }));
  expect(known.publicKey.toString('hex')).toBe('07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c');
  const sealed = Buffer.from(
    '0164b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466a66d9aa09c3908d77758762f9dff7fc5a6c8c6dee3aa1f62b5' +
      '1ab7888d03de99a9df44fa0f7775e0c12a844ec5590806c202df74e2f1791b4937a0a0bcc469aa3f80fc0aa285fda5ddca32bbed083b9f',
    'hex',
  );
  expect(known.open(sealed, 'snap-\u00e9')).toEqual(counting(0, 64));
});

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
