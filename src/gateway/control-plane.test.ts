import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startControlPlane } from './control-plane.ts';

let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'coffer-plane-'));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const start = () =>
  startControlPlane({ dataDir, listen: { host: '127.0.0.1', port: 0 }, log: pino({ level: 'silent' }) });

test('a data directory that lost its root key is not given another one', async () => {
  await (await start()).close();
  const rootKey = join(dataDir, 'root.key');
  renameSync(rootKey, `${rootKey}.away`);
  await expect(start()).rejects.toThrow(/root key .*root\.key is missing.*restore it/);
  // Not even by the second try.
  await expect(start()).rejects.toThrow(/is missing/);
  writeFileSync(rootKey, Buffer.alloc(32, 7), { mode: 0o600 });
  await expect(start()).rejects.toThrow(/root key .* is not the one .*restore it/);
  renameSync(`${rootKey}.away`, rootKey);
  await (await start()).close();
});
