import { describe, expect, test } from 'vitest';
import { isAwsError } from '../aws/errors.ts';
import { type VolumeSettingsRequest, volumeSettings } from './volume-rules.ts';

function refusal(request: VolumeSettingsRequest): { code: string; message: string } {
  try {
    volumeSettings(request);
  } catch (error) {
    if (isAwsError(error)) return error;
  }
  throw new Error(`not refused: ${JSON.stringify(request)}`);
}

describe('a new volume', () => {
  test.each([
    [{ Size: 1 }, { volume_type: 'gp2', size_gib: 1, iops: 100, throughput: null, multi_attach: 0 }],
    [{ VolumeType: 'gp2', Size: 1000 }, { iops: 3000 }],
    [{ VolumeType: 'gp2', Size: 16384 }, { iops: 16000 }],
    [
      { VolumeType: 'gp3', Size: 1 },
      { iops: 3000, throughput: 125 },
    ],
    [
      { VolumeType: 'gp3', Size: 65536, Iops: 80000, Throughput: 2000 },
      { iops: 80000, throughput: 2000 },
    ],
    [
      { VolumeType: 'io1', Size: 4, Iops: 200, MultiAttachEnabled: true },
      { iops: 200, multi_attach: 1 },
    ],
    [{ VolumeType: 'io2', Size: 256, Iops: 256000 }, { iops: 256000 }],
    [{ VolumeType: 'st1', Size: 125 }, { iops: null }],
    [{ VolumeType: 'sc1', Size: 16384 }, { iops: null }],
    [{ VolumeType: 'standard', Size: 1024 }, { iops: null }],
  ])('%j gets %j', (request, expected) => {
    expect(volumeSettings(request)).toMatchObject(expected);
  });

  test.each([
    [{ VolumeType: 'gp4', Size: 1 }, 'UnknownVolumeType', /'gp4'/],
    [{}, 'MissingParameter', /size\/snapshot/],
    [{ Size: 0 }, 'InvalidParameterValue', /at least 1 GiB/],
    [{ Size: -1 }, 'InvalidParameterValue', /-1.*size/],
    [{ Size: 16385 }, 'InvalidParameterValue', /16385GiB is too large for volume type gp2; maximum is 16384GiB/],
    [{ VolumeType: 'gp3', Size: 65537 }, 'InvalidParameterValue', /maximum is 65536GiB/],
    [{ VolumeType: 'io1', Size: 3, Iops: 100 }, 'InvalidParameterValue', /at least 4 GiB/],
    [{ VolumeType: 'st1', Size: 124 }, 'InvalidParameterValue', /at least 125 GiB/],
    [{ VolumeType: 'standard', Size: 1025 }, 'InvalidParameterValue', /maximum is 1024GiB/],
    [
      { VolumeType: 'gp2', Size: 1, Iops: 100 },
      'InvalidParameterCombination',
      /parameter iops is not supported for gp2/,
    ],
    [{ VolumeType: 'io1', Size: 4 }, 'InvalidParameterCombination', /iops must be specified for io1/],
    [{ VolumeType: 'gp3', Size: 10, Iops: 2999 }, 'InvalidParameterValue', /too low; minimum is 3000/],
    [
      { VolumeType: 'gp3', Size: 10, Iops: 5001 },
      'InvalidParameterValue',
      /ratio of 500\.100000 is too high; maximum is 500/,
    ],
    [{ VolumeType: 'io1', Size: 4, Iops: 201 }, 'InvalidParameterValue', /maximum is 50$/],
    [{ VolumeType: 'io2', Size: 4, Iops: 4001 }, 'InvalidParameterCombination', /1000:1 IOPS:GB/],
    [
      { VolumeType: 'gp2', Size: 1, Throughput: 125 },
      'InvalidParameterCombination',
      /throughput is not supported for gp2/,
    ],
    [{ VolumeType: 'gp3', Size: 1, Throughput: 124 }, 'InvalidParameterValue', /too low; minimum is 125/],
    [{ VolumeType: 'gp3', Size: 1, Throughput: 2001 }, 'InvalidParameterValue', /too high; maximum is 2000/],
    [{ VolumeType: 'gp3', Size: 1, Throughput: 751 }, 'InvalidParameterValue', /ratio of 0\.250333 is too high/],
    [{ VolumeType: 'gp3', Size: 1, MultiAttachEnabled: true }, 'InvalidParameterCombination', /multi-attach.*gp3/],
  ])('%j is refused: %s', (request, code, message) => {
    const error = refusal(request);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });
});

// aws-ebs-csi-driver asks for 2147483647 IOPS and reads the limit out of the refusal, with these expressions.
describe("the CSI driver's probe for the IOPS limit", () => {
  test.each([
    ['gp3', /volume iops.*is too high.*maximum is (\d+)/i, '80000'],
    ['io1', /volume iops.*is too high.*maximum is (\d+)/i, '64000'],
    ['io2', /(\d+)K IOPS/i, '256'],
  ])('reads the limit of %s', (VolumeType, expression, limit) => {
    const { message } = refusal({ VolumeType, Size: 4, Iops: 2147483647 });
    expect(expression.exec(message)?.[1]).toBe(limit);
  });
  test('learns that gp2 has none', () => {
    expect(refusal({ VolumeType: 'gp2', Size: 4, Iops: 2147483647 }).message).toContain(
      'parameter iops is not supported',
    );
  });
});
