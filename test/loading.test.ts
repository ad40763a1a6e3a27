/** What the processes that run for long load at their start, and what only when it is needed: it stays in memory. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const source = join(import.meta.dirname, '../src');

/** Prints, as JSON, the files and the parts of Node.js that are loaded with a module. */
const script = `
  const { registerHooks } = await import('node:module');
  const files = [];
  registerHooks({ load: (url, context, next) => (files.push(url), next(url, context)) });
  await import(process.argv[1]);
  const builtins = process.moduleLoadList.flatMap((name) => name.match(/^NativeModule (.*)/)?.[1] ?? []);
  process.stdout.write(JSON.stringify([...files, ...builtins]), () => process.exit());`;

async function loadedWith(file: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', script, join(source, file)],
    { timeout: 60_000, maxBuffer: 16 * 1024 * 1024 },
  );
  return JSON.parse(stdout) as string[];
}

describe('at its start', () => {
  it('the host loads no SDK client, no TLS and no WebSockets', async () => {
    const loaded = await loadedWith('cli/host.ts');
    expect(loaded).toContain('http');
    expect(loaded.filter((name) => /^tls$|^http2$|undici|\/client-[a-z0-9]+\//.test(name))).toEqual([]);
  });

  it('the server loads nothing of the host that it only starts, no S3 client and no WebSockets', async () => {
    const loaded = await loadedWith('cli/serve.ts');
    expect(loaded).toContain('http');
    expect(loaded.filter((name) => /undici|\/client-s3\/|\/host\/(agent|main|volumes|movers)/.test(name))).toEqual([]);
  });
});
