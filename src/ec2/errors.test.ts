import { expect, test } from 'vitest';
import { checkInstanceId, checkVolumeId } from './errors.ts';

test.each([
  ['a list', ['vol-0123456789abcdef0'], ['i-0123456789abcdef0']],
  [
    'an object that reads as one',
    { toString: (): string => 'vol-0123456789abcdef0' },
    { toString: (): string => 'i-0123456789abcdef0' },
  ],
])('%s is no id: internal operations take any JSON', (_what, volume, instance) => {
  expect(() => checkVolumeId(volume as never)).toThrow(/is invalid/);
  expect(() => checkInstanceId(instance as never)).toThrow(/Invalid id/);
});
