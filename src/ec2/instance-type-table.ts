/**
 * The instance types that an instance may claim to be. An instance here is an attach target, so a type only decides
 * whether encrypted volumes may be attached, and how many volumes at all.
 * Source: EC2 instance types guide; EBS user guide, "Requirements for Amazon EBS encryption" (the types of the first
 * generations, listed here as without encryption support) and "Amazon EBS volume limits for Amazon EC2 instances".
 */
export interface InstanceType {
  readonly name: string;
  readonly vCpus: number;
  readonly memoryMiB: number;
  readonly architecture: 'i386' | 'x86_64' | 'arm64';
  readonly hypervisor: 'xen' | 'nitro';
  readonly currentGeneration: boolean;
  readonly bareMetal: boolean;
  readonly burstable: boolean;
  readonly ebsEncryption: boolean;
  readonly volumesMax: number;
}

/** Nitro types share 28 attachments with network interfaces, of which an instance has one. */
const sharedNitroVolumes = 27;
const dedicatedVolumes = 32;
const xenVolumes = 39;

/** Size → vCPUs. Memory is the family's GiB per vCPU times that. */
const sizes: Readonly<Record<string, number>> = {
  medium: 1,
  large: 2,
  xlarge: 4,
  '2xlarge': 8,
  '4xlarge': 16,
  '8xlarge': 32,
  '9xlarge': 36,
  '10xlarge': 40,
  '12xlarge': 48,
  '16xlarge': 64,
  '18xlarge': 72,
  '24xlarge': 96,
  '32xlarge': 128,
  '48xlarge': 192,
  metal: 96,
};

interface Family {
  readonly names: string;
  readonly sizes: string;
  readonly gibPerCpu: number;
  readonly arm?: boolean;
  readonly xen?: boolean;
  readonly old?: boolean;
  readonly dedicated?: boolean;
}

const families: readonly Family[] = [
  { names: 'm3', sizes: 'medium large xlarge 2xlarge', gibPerCpu: 3.75, xen: true, old: true },
  { names: 'c3', sizes: 'large xlarge 2xlarge 4xlarge 8xlarge', gibPerCpu: 1.875, xen: true, old: true },
  { names: 'r3 i2', sizes: 'xlarge 2xlarge 4xlarge 8xlarge', gibPerCpu: 7.625, xen: true, old: true },
  { names: 'm4', sizes: 'large xlarge 2xlarge 4xlarge 10xlarge 16xlarge', gibPerCpu: 4, xen: true },
  { names: 'c4', sizes: 'large xlarge 2xlarge 4xlarge 8xlarge', gibPerCpu: 1.875, xen: true },
  { names: 'r4 i3', sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 16xlarge', gibPerCpu: 7.625, xen: true },
  {
    names: 'm5 m5a m5d m5n m6i m6a m6id',
    sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal',
    gibPerCpu: 4,
  },
  {
    names: 'm6g m6gd',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal',
    gibPerCpu: 4,
    arm: true,
  },
  {
    names: 'm7g m8g',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge',
    gibPerCpu: 4,
    arm: true,
    dedicated: true,
  },
  {
    names: 'm7i m7a',
    sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge',
    gibPerCpu: 4,
    dedicated: true,
  },
  { names: 'c5 c5d c5n', sizes: 'large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge metal', gibPerCpu: 2 },
  { names: 'c5a c6i c6a c6id', sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge', gibPerCpu: 2 },
  {
    names: 'c6g c6gd',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal',
    gibPerCpu: 2,
    arm: true,
  },
  {
    names: 'c7g c8g',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge',
    gibPerCpu: 2,
    arm: true,
    dedicated: true,
  },
  {
    names: 'c7i c7a',
    sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge',
    gibPerCpu: 2,
    dedicated: true,
  },
  {
    names: 'r5 r5a r5b r5d r5n r6i r6a r6id',
    sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge',
    gibPerCpu: 8,
  },
  {
    names: 'r6g r6gd',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal',
    gibPerCpu: 8,
    arm: true,
  },
  {
    names: 'r7g r8g',
    sizes: 'medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge',
    gibPerCpu: 8,
    arm: true,
    dedicated: true,
  },
  {
    names: 'r7i r7a',
    sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge',
    gibPerCpu: 8,
    dedicated: true,
  },
  { names: 'i3en i4i', sizes: 'large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge', gibPerCpu: 8 },
  { names: 'x2idn', sizes: '16xlarge 24xlarge 32xlarge', gibPerCpu: 16 },
];

/** Burstable sizes: vCPUs and GiB. */
const burstable: Readonly<Record<string, readonly [vCpus: number, gib: number]>> = {
  nano: [2, 0.5],
  micro: [2, 1],
  small: [2, 2],
  medium: [2, 4],
  large: [2, 8],
  xlarge: [4, 16],
  '2xlarge': [8, 32],
};

/** The types that can't take encrypted volumes: vCPUs, GiB, and whether they are 32-bit. */
const withoutEncryption: Readonly<Record<string, readonly [vCpus: number, gib: number, is32Bit?: true]>> = {
  't1.micro': [1, 0.612, true],
  'm1.small': [1, 1.7, true],
  'm1.medium': [1, 3.75],
  'm1.large': [2, 7.5],
  'm1.xlarge': [4, 15],
  'm2.xlarge': [2, 17.1],
  'm2.2xlarge': [4, 34.2],
  'm2.4xlarge': [8, 68.4],
  'c1.medium': [2, 1.7, true],
  'c1.xlarge': [8, 7],
  'cc2.8xlarge': [32, 60.5],
  'hs1.8xlarge': [17, 117],
};

function buildTable(): Map<string, InstanceType> {
  const table = new Map<string, InstanceType>();
  const add = (type: InstanceType) => void table.set(type.name, type);
  const usual = { bareMetal: false, burstable: false, currentGeneration: true, ebsEncryption: true } as const;
  for (const [name, [vCpus, gib, is32Bit]] of Object.entries(withoutEncryption)) {
    add({
      ...usual,
      name,
      vCpus,
      memoryMiB: Math.floor(gib * 1024),
      architecture: is32Bit ? 'i386' : 'x86_64',
      hypervisor: 'xen',
      currentGeneration: false,
      ebsEncryption: false,
      volumesMax: xenVolumes,
    });
  }
  for (const family of ['t2', 't3', 't3a', 't4g']) {
    for (const [size, [vCpus, gib]] of Object.entries(burstable)) {
      const hypervisor = family === 't2' ? 'xen' : 'nitro';
      add({
        ...usual,
        name: `${family}.${size}`,
        vCpus: family === 't2' && gib <= 2 ? 1 : vCpus,
        memoryMiB: gib * 1024,
        architecture: family === 't4g' ? 'arm64' : 'x86_64',
        hypervisor,
        burstable: true,
        volumesMax: hypervisor === 'xen' ? xenVolumes : sharedNitroVolumes,
      });
    }
  }
  for (const family of families) {
    for (const name of family.names.split(' ')) {
      for (const size of family.sizes.split(' ')) {
        const vCpus = sizes[size]!;
        add({
          ...usual,
          name: `${name}.${size}`,
          vCpus,
          memoryMiB: Math.floor(vCpus * family.gibPerCpu * 1024),
          architecture: family.arm ? 'arm64' : 'x86_64',
          hypervisor: family.xen ? 'xen' : 'nitro',
          currentGeneration: !family.old,
          bareMetal: size === 'metal',
          volumesMax: family.xen ? xenVolumes : family.dedicated ? dedicatedVolumes : sharedNitroVolumes,
        });
      }
    }
  }
  return table;
}

export const instanceTypes: ReadonlyMap<string, InstanceType> = buildTable();
