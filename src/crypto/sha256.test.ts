import { createHash, randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { sha256 } from './sha256.ts';

test('many at once, of memory of all kinds, are what OpenSSL says otherwise', async () => {
  const pooled = Buffer.from('from the pool of small buffers');
  const inputs = [pooled, pooled.subarray(3, 9), Buffer.alloc(0), new Uint8Array(5), randomBytes(2 ** 19)];
  inputs.push(...Array.from({ length: 60 }, (_, index) => randomBytes(4096 + index)));
  const digests = await Promise.all(inputs.map(sha256));
  expect(digests).toEqual(inputs.map((bytes) => createHash('sha256').update(bytes).digest()));
});
