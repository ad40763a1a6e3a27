/**
 * docs/api-coverage.md: which operations of each AWS service are here, out of all that the official SDK lists.
 * `bin/coffer-node src/gateway/coverage.ts` writes it.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Service } from '../aws/service.ts';
import { RootKey } from '../crypto/root-key.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { createServices } from './services.ts';

const titles: Readonly<Record<string, string>> = {
  kms: 'AWS KMS',
  ec2: 'Amazon EC2 and EBS',
  ebs: 'EBS direct APIs',
  sts: 'AWS STS',
  iam: 'AWS IAM',
  cloudtrail: 'AWS CloudTrail',
  events: 'Amazon EventBridge',
  cloudformation: 'AWS CloudFormation',
};

/** The page, as Markdown. Coffer's own services, which no SDK lists, are not on it. */
export function renderCoverage(services: readonly Service[]): string {
  const listed = services.filter((service) => Object.keys(service.catalogue).length > 0);
  const rows = listed.map((service) => {
    const { present, absent } = split(service);
    return `| [${titleOf(service)}](#${service.name}) | ${present.length} | ${present.length + absent.length} |`;
  });
  return [
    '# API coverage',
    '',
    'Which operations Coffer has, out of all that the official AWS SDK lists. Any other operation is answered with the',
    "protocol's own error for unknown operations (`UnknownOperationException`, `InvalidAction`), and its message names the",
    'operation. This page is generated: `bin/coffer-node src/gateway/coverage.ts`.',
    '',
    '| Service | Operations here | Operations of AWS |',
    '|---|---:|---:|',
    ...rows,
    '',
    ...listed.flatMap(section),
  ].join('\n');
}

function split(service: Service): { present: string[]; absent: string[] } {
  const names = Object.keys(service.catalogue).sort();
  return {
    present: names.filter((name) => name in service.operations),
    absent: names.filter((name) => !(name in service.operations)),
  };
}

function titleOf(service: Service): string {
  return titles[service.name] ?? service.name;
}

function section(service: Service): string[] {
  const { present, absent } = split(service);
  return [
    `## <a id="${service.name}"></a>${titleOf(service)}`,
    '',
    ...present.map((name) => `- ${name}`),
    '',
    ...(absent.length === 0
      ? []
      : [
          '<details>',
          `<summary>Not here (${absent.length})</summary>`,
          '',
          `${absent.join(', ')}`,
          '',
          '</details>',
          '',
        ]),
  ];
}

/** The services as a server has them, made only to be looked at. */
export function allServices(): readonly Service[] {
  const database = new SqliteDatabase(':memory:');
  const rootKey = new RootKey(Buffer.alloc(32));
  return createServices({ database, rootKey, forgetCredentials: () => {} });
}

export const coveragePath = join(import.meta.dirname, '../../docs/api-coverage.md');

if (import.meta.main) writeFileSync(coveragePath, renderCoverage(allServices()));
