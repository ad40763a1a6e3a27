/** What RunInstances is asked for: how many instances of which type, where, and with which volumes. */
import type { BlockDeviceMapping, RunInstancesRequest } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { AccessRequest } from '../aws/service.ts';
import { checkClientToken, earlierResult } from './client-tokens.ts';
import { devicePath } from './devices.ts';
import { outcomeKey } from './encryption-outcomes.ts';
import { invalidCombination, invalidValue, missingParameter } from './errors.ts';
import { checkImageId } from './images.ts';
import { type ChosenProfile, profileOf } from './instance-profile.ts';
import { instanceTypes } from './instance-type-table.ts';
import { findZone, type Zone, zonesOf } from './regions.ts';
import type { RestorePlan } from './restores.ts';
import { noTags, type Tags, tagsFromSpecifications } from './tag-store.ts';
import { type VolumeSettings, volumeSettings } from './volume-rules.ts';
import { allowSource, restoreOf, sizeFor } from './volumes.ts';

const defaultInstanceType = 'm5.large';
const instancesPerRequestMax = 100;
/** The size of a mapped volume whose size the request leaves open, GiB. */
const mappedSizeGib = 8;

export interface MappedVolume {
  readonly device: string;
  readonly settings: VolumeSettings;
  readonly key: string | undefined;
  readonly restore: RestorePlan | undefined;
  /** Leave to use the snapshot. */
  readonly source: readonly AccessRequest[];
  readonly deleteOnTermination: boolean;
}

/** What a request is to bring about. */
export interface Launch {
  readonly count: number;
  readonly type: string;
  readonly zone: Zone;
  readonly volumes: readonly MappedVolume[];
  /** Whether a request with the same token did it already; what its volumes were made from may be gone. */
  readonly isRepeated: boolean;
  readonly profile: ChosenProfile | undefined;
  readonly instanceTags: Tags;
  readonly volumeTags: Tags;
}

/** @throws {AwsError} the EC2 error for the first rule that is broken */
export async function planLaunch(call: Call, input: RunInstancesRequest): Promise<Launch> {
  checkClientToken(input);
  refuseWhatIsNotHere(input);
  if (!input.ImageId) throw missingParameter('ImageId');
  checkImageId(input.ImageId);
  const { MinCount: min, MaxCount: max } = input;
  if (min === undefined) throw missingParameter('MinCount');
  if (max === undefined) throw missingParameter('MaxCount');
  if (min < 1 || max < 1)
    throw invalidValue(`Value (${Math.min(min, max)}) for the instance count is invalid. Expecting at least 1.`);
  if (min > max) throw invalidCombination(`MinCount (${min}) must not be greater than MaxCount (${max}).`);
  if (min > instancesPerRequestMax)
    throw new AwsError('InstanceLimitExceeded', `One request can run ${instancesPerRequestMax} instances, not ${min}.`);
  const type = input.InstanceType || defaultInstanceType;
  if (!instanceTypes.has(type)) throw invalidValue(`Invalid value '${type}' for InstanceType.`);
  const named = findZone(call.region, input.Placement?.AvailabilityZone, input.Placement?.AvailabilityZoneId);
  const isRepeated = (await earlierResult(call, 'RunInstances', input)) !== undefined;
  const tags = tagsFromSpecifications(input.TagSpecifications, ['instance', 'volume', 'network-interface']);
  return {
    count: Math.min(max, instancesPerRequestMax),
    type,
    zone: named ?? zonesOf(call.region)[0]!,
    volumes: isRepeated ? [] : await planVolumes(call, input.BlockDeviceMappings ?? []),
    isRepeated,
    profile: isRepeated ? undefined : await profileOf(call, input.IamInstanceProfile),
    instanceTags: tags.get('instance') ?? noTags,
    volumeTags: tags.get('volume') ?? noTags,
  };
}

/** There are no networks, templates, markets or dedicated machines here; a request that names one must not seem to work. */
function refuseWhatIsNotHere(input: RunInstancesRequest): void {
  const [group] = [...(input.SecurityGroupIds ?? []), ...(input.SecurityGroups ?? [])];
  if (group) throw new AwsError('InvalidGroup.NotFound', `The security group '${group}' does not exist`);
  if (input.SubnetId)
    throw new AwsError('InvalidSubnetID.NotFound', `The subnet ID '${input.SubnetId}' does not exist`);
  if (input.LaunchTemplate)
    throw new AwsError('InvalidLaunchTemplateId.NotFound', 'The specified launch template does not exist.');
  if (input.InstanceMarketOptions) throw new AwsError('UnsupportedOperation', 'Only on-demand instances can be run.');
  if (input.NetworkInterfaces?.length)
    throw new AwsError('UnsupportedOperation', 'Instances have no network interfaces to configure.');
  const tenancy = input.Placement?.Tenancy;
  if (tenancy && tenancy !== 'default')
    throw new AwsError('UnsupportedOperation', `The tenancy '${tenancy}' is not supported; use 'default'.`);
}

async function planVolumes(call: Call, mappings: readonly BlockDeviceMapping[]): Promise<MappedVolume[]> {
  const planned: MappedVolume[] = [];
  const taken = new Set<string>();
  for (const { DeviceName: device, Ebs: ebs, VirtualName: ephemeral, NoDevice: none } of mappings) {
    if (none !== undefined) continue;
    const path = devicePath(device);
    if (taken.has(path))
      throw new AwsError(
        'InvalidBlockDeviceMapping',
        `The device '${device}' is used in more than one block-device mapping`,
      );
    taken.add(path);
    if (ephemeral || !ebs)
      throw new AwsError(
        'InvalidBlockDeviceMapping',
        `The mapping of '${device}' has no EBS volume; instances have no other disks.`,
      );
    const restore = await restoreOf(call, ebs);
    planned.push({
      device: device!,
      settings: volumeSettings({ ...ebs, Size: sizeFor(ebs.VolumeSize, restore) ?? mappedSizeGib }),
      key: await outcomeKey(call, ebs, restore?.snapshot),
      restore,
      source: await allowSource(call, 'RunInstances', restore),
      deleteOnTermination: ebs.DeleteOnTermination ?? true,
    });
  }
  return planned;
}
