import { readFileSync } from 'node:fs';
import * as sts from '@aws-sdk/client-sts';
import { expect, test } from 'vitest';
import { allServices, coveragePath, renderCoverage } from './coverage.ts';
import { fakeService } from './testing.ts';

test('docs/api-coverage.md says what is here; bin/coffer-node src/gateway/coverage.ts writes it anew', () => {
  expect(readFileSync(coveragePath, 'utf8')).toBe(renderCoverage(allServices()));
});

test('operations that are here are counted and listed apart from those that are not', () => {
  const page = renderCoverage([fakeService('sts', 'awsQuery', sts, ['GetCallerIdentity'])]);
  expect(page).toContain('| [AWS STS](#sts) | 1 | 11 |');
  expect(page).toContain('\n- GetCallerIdentity\n');
  expect(page).toMatch(/Not here \(10\).*\n\nAssumeRole, /);
});

test('every operation is one that AWS has, and is named by its own name', () => {
  for (const service of allServices()) {
    for (const [name, operation] of Object.entries(service.operations)) {
      expect(operation.name).toBe(name);
      if (service.protocol !== 'internalJson')
        expect(operation.schema, `${service.name} ${name}`).toBe(service.catalogue[name]);
    }
  }
});
