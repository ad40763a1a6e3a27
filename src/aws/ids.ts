import { randomBytes, randomUUID } from 'node:crypto';

/** A new EC2-style id: the prefix and 17 lower-case hexadecimal digits (`vol-0a1b2c3d4e5f60718`), first digit 0 as AWS has it. */
export function newResourceId(prefix: string): string {
  return `${prefix}-0${randomBytes(8).toString('hex')}`;
}

/** A new random UUID (version 4). */
export function newUuid(): string {
  return randomUUID();
}
