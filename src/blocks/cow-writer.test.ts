import { expect, test } from 'vitest';
import { CowWriter } from './cow-writer.ts';

test('a point in time that was completed since it was listed is not taken up, and keeps nobody from opening the volume', () => {
  expect(CowWriter.reopen('/nowhere/vol-0123456789abcdef0.snap-0123456789abcdef0.cow')).toBeUndefined();
});
