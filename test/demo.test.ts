import { expect, test } from 'vitest';
import { run } from './support/client.ts';
import { coffer } from './support/server.ts';

test('coffer demo tells its story in under 30 seconds, and every claim holds', async () => {
  const started = performance.now();
  const { stdout } = await run(coffer, ['demo', '--json'], { timeoutMs: 55_000 });
  const seconds = (performance.now() - started) / 1000;
  const claims = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(claims.filter((claim) => !claim.holds)).toEqual([]);
  expect(claims.length).toBeGreaterThanOrEqual(18);
  expect(seconds).toBeLessThan(30);
});
