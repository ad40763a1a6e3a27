import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadRootKeyFile, RootKey } from './root-key.ts';

describe('RootKey', () => {
  const rootKey = new RootKey(Buffer.alloc(32, 7));

  // Computed by another implementation: AES-GCM from Python's cryptography 48, HKDF from its hmac and hashlib.
  it.each([
    [
      'kms-material',
      '01a0a1a2a3a4a5a6a7a8a9aaab6298a58b2c842cb7928a702a8dd06fea85dea7e282e98dd014630bd3f7079a24927843270e1137e04250131faf891373',
      '0123/ab\u00e9',
      Buffer.from(Array.from({ length: 32 }, (_, i) => i)),
    ],
    ['session', '01a0a1a2a3a4a5a6a7a8a9aaabaab4b4a511193e48604c9c293de9c15c', '', Buffer.alloc(0)],
  ])('opens what another implementation sealed as %s', (purpose, sealed, additionalData, plaintext) => {
    expect(rootKey.open(purpose, Buffer.from(sealed, 'hex'), additionalData)).toEqual(plaintext);
  });

  it('opens what it sealed, for every plaintext', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.string(), (plaintext, additionalData) => {
        const sealed = rootKey.seal('test', plaintext, additionalData);
        expect(rootKey.open('test', sealed, additionalData)).toEqual(Buffer.from(plaintext));
      }),
    );
  });

  it('refuses another purpose, another binding, another key, and any changed or missing byte', () => {
    const sealed = rootKey.seal('test', Buffer.from('secret'), 'bound to this');
    expect(() => rootKey.open('other', sealed, 'bound to this')).toThrow();
    expect(() => rootKey.open('test', sealed, 'bound to that')).toThrow();
    expect(() => new RootKey(Buffer.alloc(32, 8)).open('test', sealed, 'bound to this')).toThrow();
    for (let i = 0; i < sealed.length; i++) {
      const flipped = Buffer.from(sealed);
      flipped[i]! ^= 1;
      expect(() => rootKey.open('test', flipped, 'bound to this'), `byte ${i}`).toThrow();
      expect(() => rootKey.open('test', sealed.subarray(0, i), 'bound to this'), `length ${i}`).toThrow();
    }
  });
});

describe('the root key file', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'coffer-root-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('is made once, private, and opens the same seals ever after', () => {
    const path = join(directory, 'root.key');
    const sealed = loadRootKeyFile(path).seal('test', Buffer.from('x'), '');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(path).length).toBe(32);
    expect(loadRootKeyFile(path).open('test', sealed, '').toString()).toBe('x');
  });

  it('is refused when others can read it, and when it is not whole', () => {
    const path = join(directory, 'root.key');
    loadRootKeyFile(path);
    chmodSync(path, 0o640);
    expect(() => loadRootKeyFile(path)).toThrow(/chmod 600/);
    chmodSync(path, 0o600);
    writeFileSync(path, Buffer.alloc(31));
    expect(() => loadRootKeyFile(path)).toThrow(/31 bytes instead of 32/);
  });
});
