import { describe, expect, test } from 'vitest';
import { devicePath } from './devices.ts';

describe('a device name', () => {
  test.each([
    ['/dev/sdf', 'dev/sdf'],
    ['sdf', 'dev/sdf'],
    ['/dev/sda1', 'dev/sda1'],
    ['/dev/sdf15', 'dev/sdf15'],
    ['xvdf', 'dev/xvdf'],
    ['/dev/xvdaa', 'dev/xvdaa'],
    ['/dev/xvda1', 'dev/xvda1'],
  ])('%s has its socket at %s', (device, path) => {
    expect(devicePath(device)).toBe(path);
  });

  test.each([
    '/dev/sdZZ',
    '/dev/sdf16',
    '/dev/sd',
    '/dev/nvme1n1',
    '/dev/../sdf',
    '../sdf',
    '/dev/sdf/../../x',
    '/dev/sdf\n',
    'Disk_D',
    ' /dev/sdf',
    '/dev/xvdaaa',
  ])('%j is refused', (device) => {
    expect(() => devicePath(device)).toThrow(/is not a valid EBS device name/);
  });

  test('is required', () => {
    expect(() => devicePath(undefined)).toThrow(/must contain the parameter device/);
  });
});
