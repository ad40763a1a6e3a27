/** The import rules of .dependency-cruiser.cjs hold. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire, stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { cruise, type ICruiseResult } from 'dependency-cruiser';
import { afterAll, expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');
const configuration = createRequire(import.meta.url)(join(root, '.dependency-cruiser.cjs'));
const workplaces: string[] = [];
afterAll(() => {
  for (const workplace of workplaces) rmSync(workplace, { recursive: true });
});

/**
 * The sources as JavaScript in a directory of their own: dependency-cruiser reads TypeScript through an interface that
 * TypeScript 7 doesn't have. Imports of types alone are kept, because they bind files together just as well.
 */
function asJavaScript(sources: Record<string, string>): string {
  const workplace = mkdtempSync(join(tmpdir(), 'coffer-layout-'));
  workplaces.push(workplace);
  cpSync(join(root, 'package.json'), join(workplace, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(workplace, 'node_modules'));
  for (const [path, source] of Object.entries(sources)) {
    const target = join(workplace, path.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, path.endsWith('.ts') ? codeOf(source) : source);
  }
  return workplace;
}

function codeOf(source: string): string {
  const withTypes = source.replace(/^import type /gm, 'import ').replace(/^export type (?=[{*])/gm, 'export ');
  return stripTypeScriptTypes(withTypes).replace(/(from\s*|import\s*\(?\s*)'(\.[^']*)\.ts'/g, "$1'$2.js'");
}

async function summaryOf(sources: Record<string, string>): Promise<{ imports: number; violations: string[] }> {
  const { output } = await cruise(['src'], {
    ...forJavaScript(configuration.options),
    ruleSet: { forbidden: forJavaScript(configuration.forbidden) },
    validate: true,
    baseDir: asJavaScript(sources),
  });
  const { summary } = output as ICruiseResult;
  const violations = summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`);
  return { imports: summary.totalDependenciesCruised ?? 0, violations };
}

/** The rules name files by their real names. */
function forJavaScript<T>(rules: T): T {
  return JSON.parse(JSON.stringify(rules).replaceAll('\\\\.ts', '\\\\.js'));
}

function allSources(): Record<string, string> {
  const paths = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(ts|json)$/.test(path) && !path.startsWith('console'))
    .map((path) => `src/${path}`);
  return Object.fromEntries(paths.map((path) => [path, readFileSync(join(root, path), 'utf8')]));
}

test('imports point one way', async () => {
  const { imports, violations } = await summaryOf(allSources());
  expect(violations).toEqual([]);
  expect(imports).toBeGreaterThan(300);
});

test('the rules notice what they forbid', async () => {
  const { violations } = await summaryOf({
    'src/kms/a.ts': "import type { B } from '../ec2/b.ts';\nexport const a = 1 as unknown as B;\n",
    'src/ec2/b.ts': "export interface B { x: 1 }\nexport { c } from './c.ts';\n",
    'src/ec2/c.ts': "export { type B } from './b.ts';\nexport const c = 1;\n",
    'src/host/d.ts': "import { database } from '../database/database.ts';\nexport const d: number = database;\n",
    'src/database/database.ts': 'export const database = 1;\n',
    'src/aws/e.ts': "export * from '../gateway/f.ts';\n",
    'src/gateway/f.ts': "import vitest from 'vitest';\nimport './missing.ts';\nexport type F = typeof vitest;\n",
  });
  expect(violations.map((violation) => violation.split(':')[0]).sort()).toEqual([
    'everything-resolves',
    'host-apart',
    'no-cycles',
    'no-development-packages-in-the-product',
    'services-apart',
    'vocabulary-at-the-bottom',
  ]);
});
