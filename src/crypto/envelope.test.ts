import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type EncryptionContext,
  envelopeOverhead,
  envelopeSender,
  openEnvelope,
  sealEnvelope,
  sealInto,
} from './envelope.ts';

/** `count` bytes that count up from `first`. */
const counting = (first: number, count: number) =>
  Buffer.from(Array.from({ length: count }, (_, i) => (first + i) % 256));

const material = counting(0x10, 32);
const sender = { keyId: counting(0x30, 16), materialId: counting(0x50, 16) };
const header =
  '01303132333435363738393a3b3c3d3e3f505152535455565758595a5b5c5d5e5f' +
  '707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f' +
  'b0b1b2b3b4b5b6b7b8b9babb';

/**
 * What follows the header, computed by another implementation: HKDF from Python's hmac and hashlib, AES-GCM from Python's
 * cryptography 38 (OpenSSL 3.0), keys of the context sorted by their encoded bytes.
 */
const knownAnswers: ReadonlyArray<{ name: string; plaintext: Buffer; context: EncryptionContext; rest: string }> = [
  { name: 'nothing at all', plaintext: Buffer.alloc(0), context: {}, rest: '0071ae3298e2a1c554e501dec0dbc77e' },
  {
    name: "a volume's data key",
    plaintext: counting(0, 64),
    context: { 'aws:ebs:id': 'vol-0123456789abcdef0' },
    rest:
      '4bdc51c502c47df7733b8e36048792c903b96bc4932ab428a452c8c01983be031f95d56162375bd25448c6b3c68f6aced9fa07a6c4f608bd2985' +
      'af26bd33078f35307291fce7847a48c9b632138c900f',
  },
  {
    name: 'a context whose order by UTF-16 and by UTF-8 differs',
    plaintext: Buffer.from('attack at dawn'),
    context: { '\uff5e': 'b', '\u{1f600}': 'a', Project: '', a: '\u00e9' },
    rest: '2aa927a765aa5b910f12e05c7fe4f7cc4ddd65495a1943082b4560e4a8da',
  },
];

const contexts = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), { maxKeys: 5 });
const plaintexts = fc.uint8Array({ maxLength: 200 });

describe('the ciphertext envelope', () => {
  for (const { name, plaintext, context, rest } of knownAnswers) {
    test(`is the one another implementation computes: ${name}`, () => {
      const blob = Buffer.concat([Buffer.from(header, 'hex'), Buffer.alloc(plaintext.length + 16)]);
      sealInto(blob, material, plaintext, context);
      expect(blob.toString('hex')).toBe(header + rest);
      expect(openEnvelope(material, blob, context)).toEqual(plaintext);
    });
  }

  test('opens to what was sealed, and names who sealed it', () => {
    fc.assert(
      fc.property(plaintexts, contexts, (plaintext, context) => {
        const blob = sealEnvelope(material, sender, plaintext, context);
        expect(blob).toHaveLength(plaintext.length + envelopeOverhead);
        expect(envelopeSender(blob)).toEqual(sender);
        expect(openEnvelope(material, blob, context)).toEqual(Buffer.from(plaintext));
      }),
      { numRuns: 200 },
    );
  });

  test('does not depend on the order in which the context was written', () => {
    const blob = sealEnvelope(material, sender, Buffer.from('x'), { a: '1', b: '2', c: '3' });
    expect(openEnvelope(material, blob, { c: '3', a: '1', b: '2' })).toEqual(Buffer.from('x'));
  });

  test('is another one each time', () => {
    const blobs = Array.from({ length: 50 }, () =>
      sealEnvelope(material, sender, Buffer.from('x'), {}).toString('hex'),
    );
    expect(new Set(blobs).size).toBe(50);
  });

  test('is refused when a single bit differs', () => {
    const blob = sealEnvelope(material, sender, counting(0, 64), { 'aws:ebs:id': 'vol-1' });
    for (let bit = 0; bit < blob.length * 8; bit++) {
      const flipped = Buffer.from(blob);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      const opened = envelopeSender(flipped) && openEnvelope(material, flipped, { 'aws:ebs:id': 'vol-1' });
      expect(opened, `bit ${bit}`).toBeUndefined();
    }
  });

  test('is refused when cut short or made longer', () => {
    const blob = sealEnvelope(material, sender, counting(0, 64), {});
    for (let length = 0; length < blob.length; length++) {
      const cut = blob.subarray(0, length);
      expect(envelopeSender(cut) && openEnvelope(material, cut, {}), `${length} bytes`).toBeUndefined();
    }
    expect(openEnvelope(material, Buffer.concat([blob, Buffer.of(0)]), {})).toBeUndefined();
  });

  test('is refused with any other context', () => {
    fc.assert(
      fc.property(contexts, contexts, (sealed, opened) => {
        const blob = sealEnvelope(material, sender, Buffer.from('x'), sealed);
        const isSame = JSON.stringify(Object.entries(sealed).sort()) === JSON.stringify(Object.entries(opened).sort());
        expect(openEnvelope(material, blob, opened) !== undefined).toBe(isSame);
      }),
      { numRuns: 300 },
    );
    // Where the boundary between key and value, or between pairs, could be mistaken.
    const blob = sealEnvelope(material, sender, Buffer.from('x'), { ab: 'c' });
    for (const context of [{ a: 'bc' }, { abc: '' }, { ab: 'c', '': '' }, {}, { AB: 'c' }] as EncryptionContext[])
      expect(openEnvelope(material, blob, context)).toBeUndefined();
  });

  test('is refused with other material', () => {
    const blob = sealEnvelope(material, sender, Buffer.from('x'), {});
    expect(openEnvelope(randomBytes(32), blob, {})).toBeUndefined();
  });
});
