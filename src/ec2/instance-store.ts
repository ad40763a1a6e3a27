/** Instances where they are kept, and how they look in answers. */
import type { Instance, InstanceState, Reservation } from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { instancesNotFound } from './errors.ts';
import { rootDeviceName } from './images.ts';
import { instanceTypes } from './instance-type-table.ts';
import { type AttachmentRow, type Echoed, type InstanceRow, tables } from './records.ts';
import { zoneIdOf } from './regions.ts';
import { noTags, type Tags, tagList, tagsOfAll } from './tag-store.ts';
import { attachmentsOfAll } from './volume-view.ts';

const stateCodes = { pending: 0, running: 16, 'shutting-down': 32, terminated: 48, stopping: 64, stopped: 80 } as const;

/** @throws {AwsError} InvalidInstanceID.NotFound */
export async function findInstance(call: Call, instanceId: string): Promise<InstanceRow> {
  return (await findInstances(call, [instanceId]))[0]!;
}

/**
 * The instances with these ids, in their order, each once.
 * @throws {AwsError} InvalidInstanceID.NotFound, naming all that are missing
 */
export async function findInstances(call: Call, instanceIds: readonly string[]): Promise<InstanceRow[]> {
  const ids = [...new Set(instanceIds)];
  const rows = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('instance_id', 'in', ids)
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .execute();
  const byId = new Map(rows.map((row) => [row.instance_id, row]));
  const missing = ids.filter((id) => !byId.has(id));
  if (missing.length > 0) throw instancesNotFound(missing);
  return ids.map((id) => byId.get(id)!);
}

export function instanceState(state: InstanceRow['state']): InstanceState {
  return { Code: stateCodes[state], Name: state };
}

export function instanceView(instance: InstanceRow, attachments: readonly AttachmentRow[], tags: Tags): Instance {
  const type = instanceTypes.get(instance.instance_type);
  const echoed = JSON.parse(instance.echoed) as Echoed;
  const isGone = instance.state === 'terminated';
  const hostName = `ip-${instance.private_ip.replaceAll('.', '-')}.${instance.region}.compute.internal`;
  return {
    InstanceId: instance.instance_id,
    ImageId: instance.image_id,
    State: instanceState(instance.state),
    PrivateDnsName: isGone ? '' : hostName,
    PublicDnsName: '',
    StateTransitionReason: instance.transition_reason,
    ...(instance.reason_code ? { StateReason: { Code: instance.reason_code, Message: instance.reason_message } } : {}),
    ...(echoed.keyName ? { KeyName: echoed.keyName } : {}),
    AmiLaunchIndex: instance.launch_index,
    ProductCodes: [],
    InstanceType: instance.instance_type as Instance['InstanceType'],
    LaunchTime: new Date(instance.launched_at),
    Placement: {
      AvailabilityZone: instance.zone,
      AvailabilityZoneId: zoneIdOf(instance.region, instance.zone),
      GroupName: '',
      Tenancy: 'default',
    },
    Monitoring: { State: echoed.monitoring ? 'enabled' : 'disabled' },
    ...(isGone ? {} : { PrivateIpAddress: instance.private_ip }),
    Architecture: type?.architecture ?? 'x86_64',
    BlockDeviceMappings: attachments.map((attachment) => ({
      DeviceName: attachment.device,
      Ebs: {
        AttachTime: new Date(attachment.attached_at),
        DeleteOnTermination: attachment.delete_on_termination === 1,
        Status: attachment.status,
        VolumeId: attachment.volume_id,
      },
    })),
    ClientToken: instance.client_token,
    EbsOptimized: echoed.ebsOptimized ?? false,
    EnaSupport: true,
    Hypervisor: 'xen',
    ...(echoed.profileArn ? { IamInstanceProfile: { Arn: echoed.profileArn, Id: echoed.profileId } } : {}),
    NetworkInterfaces: [],
    RootDeviceName: rootDeviceName,
    RootDeviceType: 'ebs',
    SecurityGroups: [],
    SourceDestCheck: true,
    Tags: tagList(tags),
    VirtualizationType: 'hvm',
    CpuOptions: { CoreCount: type?.vCpus ?? 1, ThreadsPerCore: 1 },
    CapacityReservationSpecification: { CapacityReservationPreference: 'open' },
    HibernationOptions: { Configured: false },
    MetadataOptions: {
      State: 'applied',
      HttpTokens: 'required',
      HttpPutResponseHopLimit: 2,
      HttpEndpoint: 'disabled',
      HttpProtocolIpv6: 'disabled',
      InstanceMetadataTags: 'disabled',
    },
    EnclaveOptions: { Enabled: false },
    PlatformDetails: 'Linux/UNIX',
    UsageOperation: 'RunInstances',
    UsageOperationUpdateTime: new Date(instance.launched_at),
    MaintenanceOptions: { AutoRecovery: 'disabled' },
    CurrentInstanceBootMode: 'legacy-bios',
  };
}

/** The views of instances, with what belongs to them read in two queries. */
export async function instanceViews(call: Call, instances: readonly InstanceRow[]): Promise<Instance[]> {
  const ids = instances.map((instance) => instance.instance_id);
  const tags = await tagsOfAll(call, ids);
  const attachments = await attachmentsOfAll(call, 'instance_id', ids);
  return instances.map((instance) =>
    instanceView(instance, attachments.get(instance.instance_id) ?? [], tags.get(instance.instance_id) ?? noTags),
  );
}

/** Instances grouped into the reservations that they were made in, in their order. */
export function reservations(call: Call, instances: readonly InstanceRow[], views: readonly Instance[]): Reservation[] {
  const grouped = new Map<string, Instance[]>();
  instances.forEach((instance, index) => {
    const group = grouped.get(instance.reservation_id);
    if (group) group.push(views[index]!);
    else grouped.set(instance.reservation_id, [views[index]!]);
  });
  return [...grouped].map(([ReservationId, Instances]) => ({
    ReservationId,
    OwnerId: call.account,
    Groups: [],
    Instances,
  }));
}
