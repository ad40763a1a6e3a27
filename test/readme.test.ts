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
    timeoutMs: 170_000,
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

const pages = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)];
const textOf = (page: string) => readFileSync(join(root, page), 'utf8');

/** What links into a page can name: its headings, as GitHub names them, and anchors of its own. */
function anchorsOf(page: string): string[] {
  const headings = [...textOf(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
  return [...headings, ...[...textOf(page).matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)];
}

test('every page, and every heading in it, that the README and the pages in docs/ link to is there', () => {
  for (const page of pages) {
    for (const [, path, anchor] of textOf(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)) {
      const target = path ? join(dirname(page), path) : page;
      expect(existsSync(join(root, target)), `${page} → ${target}`).toBe(true);
      if (anchor) expect(anchorsOf(target), `${page} → ${target}#${anchor}`).toContain(anchor);
    }
  }
});

test('every command of coffer that they show exists, with the options that it is shown with', async () => {
  const help = await run(join(root, 'bin/coffer'), ['--help']);
  const commands = new Set([...help.stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name));
  const shown = new Map<string, Set<string>>();
  for (const page of pages) {
    const text = textOf(page).replaceAll(/\\\n\s*/g, ' ');
    for (const [, words] of text.matchAll(/(?:^ {4}|`|\$ |\/bin\/)coffer ((?:[^`\n#|;)]|\s#)+)/gm)) {
      const [first = '', second = ''] = words!.split(' ');
      // Not what it prints ("coffer is ready on …"), nor names in formats ("coffer kms v1").
      if (!commands.has(first)) continue;
      const command = /^(account|key|volume|snapshot|store)$/.test(first) ? `${first} ${second}` : first;
      const options = shown.get(command) ?? new Set();
      for (const [option] of words!.matchAll(/(?<= )--[a-z-]+/g)) options.add(option);
      shown.set(command, options);
    }
  }
  expect(shown.size).toBeGreaterThan(10);
  for (const [command, options] of shown) {
    const { stdout } = await run(join(root, 'bin/coffer'), [...command.trim().split(' '), '--help']);
    expect(stdout).toContain(`Usage: coffer ${command.trim()}`);
    for (const option of options) expect(stdout, `coffer ${command}`).toMatch(new RegExp(`^ .*${option}( |$)`, 'm'));
  }
});
