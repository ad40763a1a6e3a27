/**
 * Runs the checks in order and ends with one line of counts: formatting and lint, types, the layout's import rules, and
 * the tests. Each of the first three counts as one test.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');
const modules = join(root, 'node_modules');

/** Runs a package's script with the pinned Node.js, whatever `node` is on the PATH. */
function passes(title: string, script: string, args: readonly string[]): boolean {
  console.log(`\n▶ ${title}`);
  const command = [join(modules, script), ...args];
  return spawnSync(process.execPath, command, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

/** The tests' counts, or one failure when vitest itself broke. */
function runVitest(args: readonly string[]): { passed: number; failed: number } {
  const scratch = mkdtempSync(join(tmpdir(), 'coffer-test-'));
  const report = join(scratch, 'report.json');
  try {
    const fine = passes('tests', 'vitest/vitest.mjs', [
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...args,
    ]);
    const { numPassedTests, numTotalTests, numFailedTestSuites } = JSON.parse(readFileSync(report, 'utf8'));
    // A test that neither passed nor failed was skipped: here that counts as failed, there are no skipped checks.
    const failed = numTotalTests - numPassedTests;
    return { passed: numPassedTests, failed: fine ? failed : Math.max(failed, numFailedTestSuites, 1) };
  } catch (error) {
    console.error(`vitest left no report: ${error instanceof Error ? error.message : String(error)}`);
    return { passed: 0, failed: 1 };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const args = process.argv.slice(2);
const checks = [
  passes('formatting and lint (biome)', '@biomejs/biome/bin/biome', ['check', '.']),
  passes('types (tsc)', 'typescript/bin/tsc', ['--noEmit']),
];
const tests = runVitest(args);
const passed = tests.passed + checks.filter((fine) => fine).length;
const failed = tests.failed + checks.filter((fine) => !fine).length;
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
