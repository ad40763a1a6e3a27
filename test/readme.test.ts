/** The README's commands, typed as they stand there. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { cleanEnvironment, run } from './support/client.ts';
import { startServer } from './support/server.ts';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** The indented lines of a section. */
function commandsOf(section: string): string {
  const text = readme.split(`\n## ${section}\n`)[1]!.split('\n## ')[0]!;
  return text
    .split('\n')
    .filter((line) => line.startsWith('    '))
    .join('\n');
}

test('the first volume, step by step', async () => {
  const home = mkdtempSync(join(tmpdir(), 'coffer-readme-'));
  const dataDir = join(home, 'coffer-data');
  mkdirSync(dataDir, { mode: 0o700 });
  symlinkSync(join(root, 'bin'), join(home, 'bin'));
  await using server = await startServer({ dataDir });
  const script = commandsOf('Your first volume')
    .replaceAll('http://127.0.0.1:4600', server.endpoint)
    .replaceAll('/tmp/vol', join(home, 'vol'));
  const { stdout, stderr } = await run('bash', ['-c', `shopt -s expand_aliases\n${script}\ncat vol.img; true`], {
    cwd: home,
    env: { ...cleanEnvironment(), PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  expect(stdout).toContain('export-size: 1073741824 (1G)');
  expect(stdout).toMatch(/^0$/m);
  expect(stdout).toMatch(/ kms +Decrypt +assumed-role\/aws:ec2-infrastructure\/i-/);
  expect(stderr).toMatch(/An error occurred \(InvalidKMSKey\.InvalidState\).* is disabled\./);
  expect(stdout).toMatch(/"SnapshotId": "snap-[0-9a-f]{17}"/);
  // Nothing else was complained about.
  expect(stderr.trim().split('\n')).toHaveLength(1);
  await server.stop();
  rmSync(home, { recursive: true, force: true });
});

test('every page that the README and the pages in docs/ link to is there', async () => {
  const pages = readdirSync(join(root, 'docs')).map((name) => `docs/${name}`);
  for (const page of ['README.md', ...pages]) {
    const text = readFileSync(join(root, page), 'utf8');
    for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      expect(existsSync(join(root, dirname(page), target!)), `${page} → ${target}`).toBe(true);
    }
  }
});
