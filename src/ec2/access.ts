/**
 * What a caller must be allowed to do, in the words of EC2's policies: actions, resource ARNs, condition keys.
 * Source: service authorization reference, "Actions, resources, and condition keys for Amazon EC2".
 */
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { AccessRequest, Denial } from '../aws/service.ts';
import type { Echoed, InstanceRow, VolumeRow } from './records.ts';
import { zoneIdOf } from './zones.ts';

type Context = Record<string, string | readonly string[]>;

/** Leave to do `action` on `resource` (default: everything, for actions that know no resource). */
export function allow(call: Call, action: string, resource = '*', context: Context = {}): AccessRequest {
  return {
    action: `ec2:${action}`,
    resource,
    resourceAccount: call.account,
    context: { 'ec2:Region': call.region, ...context },
  };
}

export function volumeArn(volume: { account: string; region: string; volume_id: string }): string {
  return formatArn('ec2', volume.region, volume.account, `volume/${volume.volume_id}`);
}

export function instanceArn(instance: { account: string; region: string; instance_id: string }): string {
  return formatArn('ec2', instance.region, instance.account, `instance/${instance.instance_id}`);
}

/** Leave to do `action` on an existing volume. */
export function allowOnVolume(
  call: Call,
  action: string,
  volume: VolumeRow,
  tags: ReadonlyMap<string, string>,
  more: Context = {},
) {
  return allow(call, action, volumeArn(volume), {
    ...volumeContext(volume),
    ...(volume.snapshot_id
      ? { 'ec2:ParentSnapshot': formatArn('ec2', volume.region, '', `snapshot/${volume.snapshot_id}`) }
      : {}),
    ...resourceTagContext(tags),
    'ec2:VolumeID': volume.volume_id,
    ...more,
  });
}

/** Leave to do `action` on an existing instance. */
export function allowOnInstance(
  call: Call,
  action: string,
  instance: InstanceRow,
  tags: ReadonlyMap<string, string>,
  more: Context = {},
) {
  const { profileArn, ebsOptimized } = JSON.parse(instance.echoed) as Echoed;
  return allow(call, action, instanceArn(instance), {
    ...zoneContext(instance.zone),
    ...launchContext({ profileArn, ebsOptimized }),
    'ec2:InstanceID': instance.instance_id,
    'ec2:InstanceType': instance.instance_type,
    'ec2:RootDeviceType': 'ebs',
    'ec2:Tenancy': 'default',
    ...resourceTagContext(tags),
    ...more,
  });
}

/** The condition keys of what an instance is run with. */
export function launchContext({ profileArn, ebsOptimized }: Pick<Echoed, 'profileArn' | 'ebsOptimized'>): Context {
  return {
    'ec2:EbsOptimized': String(ebsOptimized ?? false),
    ...(profileArn ? { 'ec2:InstanceProfile': profileArn } : {}),
  };
}

/**
 * The condition keys of a request that changes an attribute of a resource, named as in the API (`AutoEnableIO`), or
 * several.
 */
export function attributeContext(attributes: Readonly<Record<string, string | boolean | number | undefined>>): Context {
  const set = Object.entries(attributes).filter(([, value]) => value !== undefined);
  const context: Context = {};
  for (const [name, value] of set) context[`ec2:Attribute/${name}`] = String(value);
  if (set.length > 0) context['ec2:Attribute'] = set.length === 1 ? set[0]![0] : set.map(([name]) => name);
  return context;
}

/** A zone by name and by id (`us-east-1a`, `use1-az1`). */
export function zoneContext(zone: string): Context {
  const id = zoneIdOf(zone.slice(0, -1), zone);
  return { 'ec2:AvailabilityZone': zone, ...(id ? { 'ec2:AvailabilityZoneId': id } : {}) };
}

/** Leave to tag what `creating` makes, when the request has tags for it. */
export function allowTagsOnCreate(
  call: Call,
  creating: string,
  resource: string,
  tags: ReadonlyMap<string, string>,
): AccessRequest[] {
  if (tags.size === 0) return [];
  return [allow(call, 'CreateTags', resource, { 'ec2:CreateAction': creating, ...requestTagContext(tags) })];
}

/**
 * The condition keys that a volume's settings give.
 * @param volume `key_arn` of a new volume: the key as the request names it
 */
export function volumeContext(volume: {
  zone: string;
  encrypted: 0 | 1;
  size_gib: number;
  volume_type: string;
  iops?: number | null;
  throughput?: number | null;
  key_arn?: string | null | undefined;
  initialization_rate?: number | null | undefined;
}): Context {
  return {
    ...zoneContext(volume.zone),
    'ec2:Encrypted': volume.encrypted ? 'true' : 'false',
    'ec2:VolumeSize': String(volume.size_gib),
    'ec2:VolumeType': volume.volume_type,
    ...(volume.iops ? { 'ec2:VolumeIops': String(volume.iops) } : {}),
    ...(volume.throughput ? { 'ec2:VolumeThroughput': String(volume.throughput) } : {}),
    ...(volume.key_arn ? { 'ec2:KmsKeyId': volume.key_arn } : {}),
    ...(volume.initialization_rate ? { 'ec2:VolumeInitializationRate': String(volume.initialization_rate) } : {}),
  };
}

export function requestTagContext(tags: ReadonlyMap<string, string>): Context {
  const context: Context = {};
  for (const [key, value] of tags) context[`aws:RequestTag/${key}`] = value;
  if (tags.size > 0) context['aws:TagKeys'] = [...tags.keys()];
  return context;
}

function resourceTagContext(tags: ReadonlyMap<string, string>): Context {
  const context: Context = {};
  for (const [key, value] of tags) {
    context[`aws:ResourceTag/${key}`] = value;
    context[`ec2:ResourceTag/${key}`] = value;
  }
  return context;
}

/** A refusal, as EC2 words it. */
export function unauthorized(call: Call, denial: Denial): AwsError {
  return new AwsError(
    'UnauthorizedOperation',
    `You are not authorized to perform this operation. ${denialSentence(call, denial)}`,
    { httpStatus: 403 },
  );
}
