import {
  DescribeInstanceTypes$,
  type DescribeInstanceTypesRequest,
  type DescribeInstanceTypesResult,
  type InstanceTypeInfo,
} from '@aws-sdk/client-ec2';
import { AwsError } from '../aws/errors.ts';
import { matchesFilters, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart, pageToken } from '../aws/pagination.ts';
import { operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { invalidCombination, stopIfDryRun } from './errors.ts';
import { type InstanceType, instanceTypes } from './instance-type-table.ts';

const filterNames = new Set([
  'auto-recovery-supported',
  'bare-metal',
  'burstable-performance-supported',
  'current-generation',
  'ebs-info.ebs-optimized-support',
  'ebs-info.encryption-support',
  'ebs-info.nvme-support',
  'free-tier-eligible',
  'hibernation-supported',
  'hypervisor',
  'instance-storage-supported',
  'instance-type',
  'memory-info.size-in-mib',
  'processor-info.supported-architecture',
  'supported-root-device-type',
  'supported-usage-class',
  'supported-virtualization-type',
  'vcpu-info.default-vcpus',
]);

/** Source: EC2 API reference, DescribeInstanceTypes. */
export const describeInstanceTypes = operation<DescribeInstanceTypesRequest, DescribeInstanceTypesResult>({
  name: 'DescribeInstanceTypes',
  schema: DescribeInstanceTypes$,
  effect: 'reads',
  access: (call) => [allow(call, 'DescribeInstanceTypes')],
  handle(_call, input) {
    const filters = parseFilters(input.Filters, filterNames);
    const named = input.InstanceTypes ?? [];
    if (named.length > 0 && input.MaxResults !== undefined)
      throw invalidCombination('The parameter MaxResults cannot be used with the parameter InstanceTypes');
    const unknown = named.filter((name) => !instanceTypes.has(name));
    if (unknown.length > 0)
      throw new AwsError(
        'InvalidInstanceType',
        `The following supplied instance types do not exist: [${unknown.join(', ')}]`,
      );
    const start = pageStart(input.NextToken);
    const size = pageSize(input.MaxResults, 5, 100);
    stopIfDryRun(input);
    const chosen = named.length > 0 ? named.map((name) => instanceTypes.get(name)!) : [...instanceTypes.values()];
    const found = chosen.map(describe).filter((info) => matchesFilters(filters, (name) => filterValues(info, name)));
    const page = named.length > 0 ? found : found.slice(start, start + size);
    const isLast = named.length > 0 || start + size >= found.length;
    return { InstanceTypes: page, ...(isLast ? {} : { NextToken: pageToken(start + size) }) };
  },
});

function describe(type: InstanceType): InstanceTypeInfo {
  const isNitro = type.hypervisor === 'nitro';
  return {
    InstanceType: type.name as InstanceTypeInfo['InstanceType'],
    CurrentGeneration: type.currentGeneration,
    FreeTierEligible: false,
    SupportedUsageClasses: ['on-demand'],
    SupportedRootDeviceTypes: ['ebs'],
    SupportedVirtualizationTypes: ['hvm'],
    BareMetal: type.bareMetal,
    ...(type.bareMetal ? {} : { Hypervisor: type.hypervisor }),
    ProcessorInfo: { SupportedArchitectures: [type.architecture] },
    VCpuInfo: { DefaultVCpus: type.vCpus, DefaultCores: type.vCpus, DefaultThreadsPerCore: 1 },
    MemoryInfo: { SizeInMiB: type.memoryMiB },
    InstanceStorageSupported: false,
    EbsInfo: {
      EbsOptimizedSupport: isNitro ? 'default' : type.currentGeneration ? 'supported' : 'unsupported',
      EncryptionSupport: type.ebsEncryption ? 'supported' : 'unsupported',
      NvmeSupport: isNitro ? 'required' : 'unsupported',
      MaximumEbsAttachments: type.volumesMax,
      AttachmentLimitType: type.volumesMax === 27 ? 'shared' : 'dedicated',
    },
    NetworkInfo: {
      MaximumNetworkInterfaces: 1,
      MaximumNetworkCards: 1,
      DefaultNetworkCardIndex: 0,
      Ipv4AddressesPerInterface: 1,
      EnaSupport: isNitro ? 'required' : 'unsupported',
    },
    PlacementGroupInfo: { SupportedStrategies: ['partition', 'spread'] },
    HibernationSupported: false,
    BurstablePerformanceSupported: type.burstable,
    DedicatedHostsSupported: false,
    AutoRecoverySupported: false,
    SupportedBootModes: ['legacy-bios', 'uefi'],
    NitroEnclavesSupport: 'unsupported',
    NitroTpmSupport: 'unsupported',
  };
}

function filterValues(info: InstanceTypeInfo, name: string): readonly string[] {
  const values: Record<string, unknown> = {
    'auto-recovery-supported': info.AutoRecoverySupported,
    'bare-metal': info.BareMetal,
    'burstable-performance-supported': info.BurstablePerformanceSupported,
    'current-generation': info.CurrentGeneration,
    'ebs-info.ebs-optimized-support': info.EbsInfo?.EbsOptimizedSupport,
    'ebs-info.encryption-support': info.EbsInfo?.EncryptionSupport,
    'ebs-info.nvme-support': info.EbsInfo?.NvmeSupport,
    'free-tier-eligible': info.FreeTierEligible,
    'hibernation-supported': info.HibernationSupported,
    hypervisor: info.Hypervisor,
    'instance-storage-supported': info.InstanceStorageSupported,
    'instance-type': info.InstanceType,
    'memory-info.size-in-mib': info.MemoryInfo?.SizeInMiB,
    'processor-info.supported-architecture': info.ProcessorInfo?.SupportedArchitectures?.[0],
    'supported-root-device-type': 'ebs',
    'supported-usage-class': 'on-demand',
    'supported-virtualization-type': 'hvm',
    'vcpu-info.default-vcpus': info.VCpuInfo?.DefaultVCpus,
  };
  return values[name] === undefined ? [] : [String(values[name])];
}
