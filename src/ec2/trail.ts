/** What the trail shows of EC2's calls: the XML names of the API, lists as `items`. Source: records that CloudTrail gives. */
import type { CreateVolumeRequest, TagSpecification, Volume } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import type { RecordDetails } from '../aws/service.ts';

type LookupResources = NonNullable<RecordDetails['lookupResources']>;

export function volumeResource(volumeId: string | undefined): LookupResources {
  return volumeId ? [{ type: 'AWS::EC2::Volume', name: volumeId }] : [];
}

export function instanceResources(...instanceIds: ReadonlyArray<string | undefined>): LookupResources {
  return instanceIds.flatMap((name) => (name ? [{ type: 'AWS::EC2::Instance', name }] : []));
}

export function snapshotResources(...snapshotIds: ReadonlyArray<string | undefined>): LookupResources {
  return snapshotIds.flatMap((name) => (name ? [{ type: 'AWS::EC2::Snapshot', name }] : []));
}

/** `{items: […]}`, the trail's form of a list; undefined for one that is empty or absent. */
export function items<T, U>(list: readonly T[] | undefined, view: (item: T) => U): { items: U[] } | undefined {
  return list && list.length > 0 ? { items: list.map(view) } : undefined;
}

/** Without the members that are undefined. */
export function compact(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}

export function tagSpecificationSet(specifications: readonly TagSpecification[] | undefined) {
  return items(specifications, ({ ResourceType, Tags }) => ({
    resourceType: ResourceType,
    tags: (Tags ?? []).map(({ Key, Value }) => ({ key: Key, value: Value })),
  }));
}

export function filterSet(filters: ReadonlyArray<{ Name?: string; Values?: string[] }> | undefined) {
  return items(filters, ({ Name, Values }) => ({ name: Name, valueSet: items(Values, (value) => ({ value })) })) ?? {};
}

export function createVolumeRecord(call: Call, input: CreateVolumeRequest, output: Volume | undefined): RecordDetails {
  const requestParameters = compact({
    size: input.Size === undefined ? undefined : String(input.Size),
    zone: input.AvailabilityZone,
    availabilityZoneId: input.AvailabilityZoneId,
    volumeType: input.VolumeType,
    iops: input.Iops,
    throughput: input.Throughput,
    encrypted: input.Encrypted,
    masterEncryptionKeyId: input.KmsKeyId || undefined,
    multiAttachEnabled: input.MultiAttachEnabled,
    snapshotId: input.SnapshotId,
    volumeInitializationRate: input.VolumeInitializationRate,
    clientToken: input.ClientToken,
    tagSpecificationSet: tagSpecificationSet(input.TagSpecifications),
    dryRun: input.DryRun,
  });
  if (!output) return { requestParameters };
  return {
    requestParameters,
    responseElements: compact({
      requestId: call.requestId,
      volumeId: output.VolumeId,
      size: String(output.Size),
      zone: output.AvailabilityZone,
      status: output.State,
      createTime: output.CreateTime?.getTime(),
      volumeType: output.VolumeType,
      snapshotId: output.SnapshotId || undefined,
      iops: output.Iops,
      throughput: output.Throughput,
      encrypted: output.Encrypted,
      masterEncryptionKeyId: output.KmsKeyId,
      multiAttachEnabled: output.MultiAttachEnabled,
      tagSet: items(output.Tags, ({ Key, Value }) => ({ key: Key, value: Value })) ?? {},
    }),
    lookupResources: volumeResource(output.VolumeId),
  };
}
