/** What the trail shows of key service calls, in CloudTrail's spelling. Never plaintext, ciphertext or material. */
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import type { RecordDetails } from '../aws/service.ts';
import type { Key } from './key-store.ts';

type Resource = NonNullable<RecordDetails['resources']>[number];

export const keyResource = (key: Pick<Key, 'account' | 'arn'>): Resource => ({
  accountId: key.account,
  type: 'AWS::KMS::Key',
  ARN: key.arn,
});

/** CloudTrail gives aliases the type of keys (KMS developer guide, "CreateAlias" log entry). */
export const aliasResource = (call: Call, alias: string): Resource => ({
  accountId: call.account,
  type: 'AWS::KMS::Key',
  ARN: formatArn('kms', call.region, call.account, alias),
});

/** The named members of a request that are there, each name with a small first letter; null when there are none. */
export function parameters(input: object, names: readonly string[]): Record<string, unknown> | null {
  const picked: Record<string, unknown> = {};
  for (const name of names) {
    const value = (input as Record<string, unknown>)[name];
    if (value !== undefined && value !== null) picked[lowerCamel(name)] = value;
  }
  return Object.keys(picked).length > 0 ? picked : null;
}

/** The same for a list of structures (tags). */
export function lowerCamelMembers(list: unknown): unknown {
  if (!Array.isArray(list)) return undefined;
  return list.map((item) =>
    typeof item === 'object' && item !== null
      ? Object.fromEntries(Object.entries(item).map(([name, value]) => [lowerCamel(name), value]))
      : item,
  );
}

export const lowerCamel = (name: string) => name.charAt(0).toLowerCase() + name.slice(1);

/** Made when it is needed: it reads 5 MiB of the world's calendars into memory. */
let dateFormat: Intl.DateTimeFormat | undefined;

/** A time in the words CloudTrail has for it in response elements: "Aug 10, 2022, 10:38:27 PM". */
export function trailDate(date: Date): string {
  dateFormat ??= new Intl.DateTimeFormat('en-US', { dateStyle: 'medium', timeStyle: 'medium', timeZone: 'UTC' });
  return dateFormat.format(date).replace(/\u202f/g, ' ');
}
