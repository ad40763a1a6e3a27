/** The built-in image: an instance made from it is a place to attach volumes to, with no root volume and no processor. */
import {
  DescribeImages$,
  type DescribeImagesRequest,
  type DescribeImagesResult,
  type Image,
} from '@aws-sdk/client-ec2';
import { AwsError } from '../aws/errors.ts';
import { matchesFilters, parseFilters } from '../aws/filters.ts';
import { operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { stopIfDryRun } from './errors.ts';

export const builtInImageId = 'ami-0c0ffe00000000000';
export const rootDeviceName = '/dev/xvda';

const image: Image = {
  ImageId: builtInImageId,
  ImageLocation: 'amazon/coffer-attach-target',
  Name: 'coffer-attach-target',
  Description: 'A place to attach volumes to: each attached volume is an NBD socket on its host',
  State: 'available',
  OwnerId: '000000000000',
  ImageOwnerAlias: 'amazon',
  CreationDate: '2026-01-01T00:00:00.000Z',
  Public: true,
  Architecture: 'x86_64',
  ImageType: 'machine',
  PlatformDetails: 'Linux/UNIX',
  UsageOperation: 'RunInstances',
  BlockDeviceMappings: [],
  EnaSupport: true,
  Hypervisor: 'xen',
  RootDeviceName: rootDeviceName,
  RootDeviceType: 'ebs',
  VirtualizationType: 'hvm',
};

const filterValues: Readonly<Record<string, string | undefined>> = {
  architecture: image.Architecture,
  'creation-date': image.CreationDate,
  description: image.Description,
  'ena-support': 'true',
  hypervisor: image.Hypervisor,
  'image-id': image.ImageId,
  'image-type': image.ImageType,
  'is-public': 'true',
  name: image.Name,
  'owner-alias': image.ImageOwnerAlias,
  'owner-id': image.OwnerId,
  platform: undefined,
  'root-device-name': image.RootDeviceName,
  'root-device-type': image.RootDeviceType,
  state: image.State,
  'virtualization-type': image.VirtualizationType,
  'tag-key': undefined,
  'tag:': undefined,
  'block-device-mapping.snapshot-id': undefined,
  'block-device-mapping.volume-size': undefined,
  'block-device-mapping.volume-type': undefined,
  'block-device-mapping.encrypted': undefined,
};

/** @throws {AwsError} InvalidAMIID.* for any image but the built-in one */
export function checkImageId(id: string): void {
  if (!/^ami-(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(id))
    throw new AwsError('InvalidAMIID.Malformed', `Invalid id: "${id}" (expecting "ami-...")`);
  if (id !== builtInImageId)
    throw new AwsError(
      'InvalidAMIID.NotFound',
      `The image id '[${id}]' does not exist; the image for attach targets is ${builtInImageId}`,
    );
}

export const describeImages = operation<DescribeImagesRequest, DescribeImagesResult>({
  name: 'DescribeImages',
  schema: DescribeImages$,
  effect: 'reads',
  access: (call) => [allow(call, 'DescribeImages')],
  handle(_call, input) {
    const filters = parseFilters(input.Filters, new Set(Object.keys(filterValues)));
    for (const id of input.ImageIds ?? []) checkImageId(id);
    stopIfDryRun(input);
    const owners = input.Owners ?? [];
    const isOwner = owners.length === 0 || owners.some((owner) => owner === 'amazon' || owner === image.OwnerId);
    const isFound =
      isOwner && matchesFilters(filters, (name) => (filterValues[name] === undefined ? [] : [filterValues[name]]));
    return { Images: isFound ? [image] : [] };
  },
});
