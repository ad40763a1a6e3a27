import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from './support/client.ts';
import { coffer, startServer } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

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

test('against a running server it cleans up after itself', async () => {
  await using server = await startServer();
  const { stdout } = await run(coffer, ['demo', '--data', server.dataDir]);
  expect(stdout).toMatch(/^All \d+ claims hold/m);
  expect(await new Volumes(server).all()).toEqual([]);
  expect(readdirSync(join(server.dataDir, 'volumes'))).toEqual([]);
  const { Keys } = await server.awsCli('kms', 'list-keys');
  const { KeyMetadata } = await server.awsCli('kms', 'describe-key', '--key-id', Keys[0].KeyId);
  expect(KeyMetadata.KeyState).toBe('PendingDeletion');
});

test('it stops at once, and says why, where no host serves', async () => {
  await using server = await startServer({ args: ['--no-host'] });
  await expect(run(coffer, ['demo', '--data', server.dataDir])).rejects.toMatchObject({
    exitCode: 69,
    stderr: expect.stringMatching(/^coffer: .*no host.*\n$/i),
  });
});
