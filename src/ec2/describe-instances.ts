/** DescribeInstances and DescribeInstanceStatus. */
import {
  DescribeInstanceStatus$,
  type DescribeInstanceStatusRequest,
  type DescribeInstanceStatusResult,
  DescribeInstances$,
  type DescribeInstancesRequest,
  type DescribeInstancesResult,
  type Instance,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { type Filter, matchesFilters } from '../aws/filters.ts';
import { pageToken } from '../aws/pagination.ts';
import { type AccessRequest, operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { checkInstanceId } from './errors.ts';
import { findInstances, instanceState, instanceViews, reservations } from './instance-store.ts';
import { listRequest } from './list-request.ts';
import { type InstanceRow, tables } from './records.ts';
import { filterSet, items } from './trail.ts';

/** How many instances are read at a time while a page is filled. */
const scanSize = 1000;

type Values = (instance: Instance, row: InstanceRow) => ReadonlyArray<string | undefined>;
const none: Values = () => [];

/** The documented filters. Those about networks, markets and dedicated machines match nothing: there are none here. */
const instanceFilters: Readonly<Record<string, Values>> = {
  affinity: none,
  architecture: (instance) => [instance.Architecture],
  'availability-zone': (_, row) => [row.zone],
  'availability-zone-id': (instance) => [instance.Placement?.AvailabilityZoneId],
  'block-device-mapping.attach-time': (instance) => ebs(instance).map((device) => device?.AttachTime?.toISOString()),
  'block-device-mapping.delete-on-termination': (instance) =>
    ebs(instance).map((device) => String(device?.DeleteOnTermination)),
  'block-device-mapping.device-name': (instance) =>
    (instance.BlockDeviceMappings ?? []).map((device) => device.DeviceName),
  'block-device-mapping.status': (instance) => ebs(instance).map((device) => device?.Status),
  'block-device-mapping.volume-id': (instance) => ebs(instance).map((device) => device?.VolumeId),
  'boot-mode': none,
  'capacity-reservation-id': none,
  'client-token': (_, row) => [row.client_token],
  'current-instance-boot-mode': (instance) => [instance.CurrentInstanceBootMode],
  'dns-name': none,
  'ebs-optimized': (instance) => [String(instance.EbsOptimized)],
  'ena-support': (instance) => [String(instance.EnaSupport)],
  'enclave-options.enabled': () => ['false'],
  'hibernation-options.configured': () => ['false'],
  'host-id': none,
  hypervisor: (instance) => [instance.Hypervisor],
  'iam-instance-profile.arn': (instance) => [instance.IamInstanceProfile?.Arn],
  'iam-instance-profile.id': (instance) => [instance.IamInstanceProfile?.Id],
  'iam-instance-profile.name': (instance) => [instance.IamInstanceProfile?.Arn?.split('/').at(-1)],
  'image-id': (_, row) => [row.image_id],
  'instance-id': (_, row) => [row.instance_id],
  'instance-lifecycle': none,
  'instance-state-code': (_, row) => [String(instanceState(row.state).Code)],
  'instance-state-name': (_, row) => [row.state],
  'instance-type': (_, row) => [row.instance_type],
  'instance.group-id': none,
  'instance.group-name': none,
  'ip-address': none,
  'ipv6-address': none,
  'kernel-id': none,
  'key-name': (instance) => [instance.KeyName],
  'launch-index': (_, row) => [String(row.launch_index)],
  'launch-time': (instance) => [instance.LaunchTime?.toISOString()],
  'maintenance-options.auto-recovery': () => ['disabled'],
  'metadata-options.http-endpoint': (instance) => [instance.MetadataOptions?.HttpEndpoint],
  'metadata-options.http-tokens': (instance) => [instance.MetadataOptions?.HttpTokens],
  'monitoring-state': (instance) => [instance.Monitoring?.State],
  'network-interface.network-interface-id': none,
  'network-interface.subnet-id': none,
  'network-interface.vpc-id': none,
  'outpost-arn': none,
  'owner-id': (_, row) => [row.account],
  'placement-group-name': none,
  'placement-partition-number': none,
  platform: none,
  'platform-details': (instance) => [instance.PlatformDetails],
  'private-dns-name': (instance) => [instance.PrivateDnsName],
  'private-ip-address': (instance) => [instance.PrivateIpAddress],
  'product-code': none,
  'product-code.type': none,
  'ramdisk-id': none,
  reason: (instance) => [instance.StateTransitionReason],
  'requester-id': none,
  'reservation-id': (_, row) => [row.reservation_id],
  'root-device-name': (instance) => [instance.RootDeviceName],
  'root-device-type': (instance) => [instance.RootDeviceType],
  'source-dest-check': () => ['true'],
  'spot-instance-request-id': none,
  'state-reason-code': (instance) => [instance.StateReason?.Code],
  'state-reason-message': (instance) => [instance.StateReason?.Message],
  'subnet-id': none,
  'tag-key': (instance) => (instance.Tags ?? []).map((tag) => tag.Key),
  'tag:': none,
  tenancy: (instance) => [instance.Placement?.Tenancy],
  'usage-operation': (instance) => [instance.UsageOperation],
  'virtualization-type': (instance) => [instance.VirtualizationType],
  'vpc-id': none,
};

function ebs(instance: Instance) {
  return (instance.BlockDeviceMappings ?? []).map((mapping) => mapping.Ebs);
}

function filterValues(instance: Instance, row: InstanceRow, name: string): string[] {
  if (name.startsWith('tag:'))
    return (instance.Tags ?? []).filter((tag) => tag.Key === name.slice(4)).map((tag) => tag.Value ?? '');
  return (instanceFilters[name] ?? none)(instance, row).filter((value) => value !== undefined);
}

interface Found {
  readonly rows: InstanceRow[];
  readonly views: Instance[];
}

/** The instances with these ids, or all; those that pass the filters, after `start`, `limit` at most. */
async function find(
  call: Call,
  ids: readonly string[],
  filters: readonly Filter[],
  start: number,
  limit: number,
): Promise<Found> {
  const found: Found = { rows: [], views: [] };
  for (let after = start; found.rows.length < limit; ) {
    const rows = ids.length > 0 ? await findInstances(call, ids) : await scan(call, after);
    const views = await instanceViews(call, rows);
    rows.forEach((row, index) => {
      const view = views[index]!;
      if (found.rows.length === limit || !matchesFilters(filters, (name) => filterValues(view, row, name))) return;
      found.rows.push(row);
      found.views.push(view);
    });
    if (ids.length > 0 || rows.length < scanSize) break;
    after = rows.at(-1)!.seq;
  }
  return found;
}

async function scan(call: Call, after: number): Promise<InstanceRow[]> {
  return tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('seq', '>', after)
    .orderBy('seq')
    .limit(scanSize)
    .execute();
}

const named = (ids: readonly string[] | undefined) => ({
  ids,
  check: checkInstanceId,
  what: 'instances',
  parameter: 'instancesSet',
});

const instanceFilterNames = new Set(Object.keys(instanceFilters));

/** Source: EC2 API reference, DescribeInstances. */
export const describeInstances = operation<DescribeInstancesRequest, DescribeInstancesResult>({
  name: 'DescribeInstances',
  schema: DescribeInstances$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeInstances')],
  async handle(call, input) {
    const { ids, filters, start, size } = listRequest(input, named(input.InstanceIds), instanceFilterNames);
    const { rows, views } = await find(call, ids, filters, start, size + 1);
    const shown = rows.slice(0, size);
    return {
      Reservations: reservations(call, shown, views),
      ...(rows.length > size ? { NextToken: pageToken(shown.at(-1)!.seq) } : {}),
    };
  },
  record: (_call, input) => ({
    requestParameters: {
      instancesSet: items(input.InstanceIds, (instanceId) => ({ instanceId })) ?? {},
      filterSet: filterSet(input.Filters as never),
    },
    responseElements: null,
  }),
});

const statusFilters = new Set([
  'availability-zone',
  'availability-zone-id',
  'event.code',
  'event.description',
  'event.instance-event-id',
  'event.not-after',
  'event.not-before',
  'event.not-before-deadline',
  'instance-state-code',
  'instance-state-name',
  'instance-status.reachability',
  'instance-status.status',
  'system-status.reachability',
  'system-status.status',
  'attached-ebs-status.status',
  'tag:',
  'tag-key',
]);

/** Running instances only, unless all are asked for. Source: EC2 API reference, DescribeInstanceStatus. */
export const describeInstanceStatus = operation<DescribeInstanceStatusRequest, DescribeInstanceStatusResult>({
  name: 'DescribeInstanceStatus',
  schema: DescribeInstanceStatus$,
  effect: 'reads',
  access: (call): AccessRequest[] => [allow(call, 'DescribeInstanceStatus')],
  async handle(call, input) {
    const { ids, filters, start, size } = listRequest(input, named(input.InstanceIds), statusFilters);
    const running: Filter[] = [{ name: 'instance-state-name', values: [{ text: 'running', literal: 'running' }] }];
    const onInstance = filters.filter(({ name }) => name in instanceFilters || name.startsWith('tag:'));
    const onStatus = filters.filter((filter) => !onInstance.includes(filter));
    const isShown = matchesFilters(onStatus, (name) =>
      name.endsWith('.status') ? ['ok'] : name.endsWith('.reachability') ? ['passed'] : [],
    );
    const { rows } = isShown
      ? await find(call, ids, [...onInstance, ...(input.IncludeAllInstances ? [] : running)], start, size + 1)
      : { rows: [] };
    const shown = rows.slice(0, size);
    return {
      InstanceStatuses: shown.map((row) => ({
        AvailabilityZone: row.zone,
        InstanceId: row.instance_id,
        InstanceState: instanceState(row.state),
        Events: [],
        ...statuses(row.state === 'running'),
      })),
      ...(rows.length > size ? { NextToken: pageToken(shown.at(-1)!.seq) } : {}),
    };
  },
});

function statuses(isRunning: boolean) {
  const summary = isRunning
    ? ({ Status: 'ok', Details: [{ Name: 'reachability', Status: 'passed' }] } as const)
    : ({ Status: 'not-applicable', Details: [] } as const);
  return {
    InstanceStatus: { Status: summary.Status, Details: [...summary.Details] },
    SystemStatus: { Status: summary.Status, Details: [...summary.Details] },
  };
}
