/** What `npm start` and `npm test` install, tried with npm itself on packages that need no registry. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { cleanEnvironment, run } from './support/client.ts';

const timeoutMs = 120_000;
let scratch: string;
/** A checkout whose packages are `node`, which is the one that runs this test, and `for-tests`. */
let root: string;

const environment = (): NodeJS.ProcessEnv => ({ ...cleanEnvironment(), HOME: scratch, npm_config_offline: 'true' });
const has = (name: string) => existsSync(join(root, 'node_modules', name));

/** Runs bin/coffer-node there; whether it installed anything. */
async function start(extra: NodeJS.ProcessEnv = {}): Promise<boolean> {
  const env = { ...environment(), ...extra };
  const { stdout, stderr } = await run(join(root, 'bin/coffer-node'), ['-p', '6 * 7'], { env, timeoutMs });
  expect(stdout).toBe('42\n');
  return stderr.includes('installing the locked packages');
}

/** A package as npm packs it; what a package.json calls it by. */
async function pack(name: string, bin: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(scratch, name, 'package');
  mkdirSync(join(folder, 'bin'), { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, version: '1.0.0' }));
  for (const [file, text] of Object.entries(bin)) writeFileSync(join(folder, 'bin', file), text, { mode: 0o755 });
  const archive = join(scratch, `${name}.tgz`);
  await run('tar', ['czf', archive, '-C', join(scratch, name), 'package']);
  return `file:${archive}`;
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'coffer-install-'));
  const checkout = join(scratch, 'checkout');
  cpSync(join(import.meta.dirname, '../bin'), join(checkout, 'bin'), { recursive: true });
  const packages = {
    name: 'checkout',
    dependencies: { node: await pack('node', { node: `#!/bin/sh\nexec '${process.execPath}' "$@"\n` }) },
    devDependencies: { 'for-tests': await pack('for-tests', {}) },
  };
  writeFileSync(join(checkout, 'package.json'), JSON.stringify(packages));
  await run('npm', ['install', '--package-lock-only', '--silent'], { cwd: checkout, env: environment(), timeoutMs });
}, timeoutMs);

beforeEach(() => {
  root = mkdtempSync(join(scratch, 'clone-'));
  cpSync(join(scratch, 'checkout'), root, { recursive: true });
});

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

test('starting installs what Coffer needs, testing the rest too, and starting again takes nothing away', async () => {
  expect(await start()).toBe(true);
  expect(await start()).toBe(false);
  expect({ product: has('node'), development: has('for-tests') }).toEqual({ product: true, development: false });

  expect(await start({ COFFER_PACKAGES: 'all', NODE_ENV: 'production' })).toBe(true);
  expect(await start({ COFFER_PACKAGES: 'all' })).toBe(false);
  expect(await start()).toBe(false);
  expect({ product: has('node'), development: has('for-tests') }).toEqual({ product: true, development: true });

  const later = new Date(Date.now() + 60_000);
  utimesSync(join(root, 'package-lock.json'), later, later);
  expect(await start(), 'the locked packages have changed').toBe(true);
  expect(has('for-tests')).toBe(true);
});

test('starting and testing at the same time', async () => {
  await Promise.all([start(), start({ COFFER_PACKAGES: 'all' }), start()]);
  expect({ product: has('node'), development: has('for-tests') }).toEqual({ product: true, development: true });
});
