/**
 * What a volume of each type may be: size, IOPS, throughput, and the errors for what it may not.
 * Source: EC2 API reference, CreateVolume; EBS user guide, "Amazon EBS volume types".
 */
import { AwsError } from '../aws/errors.ts';
import { invalidCombination, invalidValue, missingParameter } from './errors.ts';

interface TypeRule {
  readonly sizeGibMin: number;
  readonly sizeGibMax: number;
  /** For types with provisioned IOPS. */
  readonly iops?: {
    readonly min: number;
    readonly max: number;
    readonly perGibMax: number;
    readonly standard?: number;
  };
  readonly throughput?: { readonly min: number; readonly max: number };
  readonly multiAttach?: true;
}

const typeRules: Readonly<Record<string, TypeRule>> = {
  standard: { sizeGibMin: 1, sizeGibMax: 1024 },
  gp2: { sizeGibMin: 1, sizeGibMax: 16384 },
  gp3: {
    sizeGibMin: 1,
    sizeGibMax: 65536,
    iops: { min: 3000, max: 80000, perGibMax: 500, standard: 3000 },
    throughput: { min: 125, max: 2000 },
  },
  io1: { sizeGibMin: 4, sizeGibMax: 16384, iops: { min: 100, max: 64000, perGibMax: 50 }, multiAttach: true },
  io2: { sizeGibMin: 4, sizeGibMax: 65536, iops: { min: 100, max: 256000, perGibMax: 1000 }, multiAttach: true },
  st1: { sizeGibMin: 125, sizeGibMax: 16384 },
  sc1: { sizeGibMin: 125, sizeGibMax: 16384 },
};

/** MiB/s that one provisioned I/O a second gives at most. */
const throughputPerIopsMax = 0.25;

/** What a volume gets that is changed to a type with provisioned IOPS, unless they are named. */
const modifiedIopsStandard = 3000;
/** gp2 volumes above this size, GiB, do more MiB/s than gp3's standard: this many. */
const gp2FastAboveGib = 170;
const gp2FastMibs = 250;

export interface VolumeSettingsRequest {
  readonly VolumeType?: string | undefined;
  readonly Size?: number | undefined;
  readonly Iops?: number | undefined;
  readonly Throughput?: number | undefined;
  readonly MultiAttachEnabled?: boolean | undefined;
}

export interface VolumeSettings {
  readonly volume_type: string;
  readonly size_gib: number;
  readonly iops: number | null;
  readonly throughput: number | null;
  readonly multi_attach: 0 | 1;
}

/**
 * The settings of a new, empty volume.
 * @throws {AwsError} the EC2 error for the first rule that is broken
 */
export function volumeSettings(request: VolumeSettingsRequest): VolumeSettings {
  const type = request.VolumeType || 'gp2';
  const rule = typeRules[type];
  if (!rule) throw new AwsError('UnknownVolumeType', `Unsupported volume type '${type}' for volume creation.`);
  for (const [name, value] of Object.entries({
    size: request.Size,
    iops: request.Iops,
    throughput: request.Throughput,
  })) {
    if (typeof value === 'number' && value < 0)
      throw invalidValue(`Value (${value}) for parameter ${name} is invalid. Value must be a positive integer.`);
  }
  if (request.Iops && !rule.iops) throw invalidCombination(`The parameter iops is not supported for ${type} volumes.`);
  if (rule.iops && !rule.iops.standard && !request.Iops)
    throw invalidCombination(`The parameter iops must be specified for ${type} volumes.`);
  if (request.Throughput && !rule.throughput)
    throw invalidCombination(`The parameter throughput is not supported for ${type} volumes.`);
  if (request.MultiAttachEnabled && !rule.multiAttach)
    throw invalidCombination(`The parameter multi-attach-enabled is not supported for ${type} volumes.`);
  const size = checkSize(type, rule, request.Size);
  const iops = iopsOf(type, rule, size, request.Iops || undefined);
  return {
    volume_type: type,
    size_gib: size,
    iops,
    throughput: throughputOf(rule, iops, request.Throughput || undefined),
    multi_attach: request.MultiAttachEnabled ? 1 : 0,
  };
}

export interface ModificationRequest {
  readonly Size?: number | undefined;
  readonly VolumeType?: string | undefined;
  readonly Iops?: number | undefined;
  readonly Throughput?: number | undefined;
  readonly MultiAttachEnabled?: boolean | undefined;
}

/**
 * The settings of a volume after a modification. What is not named stays as it is; with another type, IOPS and throughput
 * begin anew. Source: EC2 API reference, ModifyVolume.
 * @throws {AwsError} the EC2 error for the first rule that is broken
 */
export function modifiedSettings(now: VolumeSettings, request: ModificationRequest): VolumeSettings {
  const type = request.VolumeType || now.volume_type;
  const isSameType = type === now.volume_type;
  const asked = [request.Size, request.VolumeType, request.Iops, request.Throughput, request.MultiAttachEnabled];
  if (asked.every((value) => value === undefined))
    throw missingParameter('size, volumeType, iops, throughput or multiAttachEnabled');
  if (request.Size !== undefined && request.Size < now.size_gib)
    throw invalidValue(
      `New size cannot be smaller than existing size: the volume has ${now.size_gib} GiB, and ${request.Size} GiB were asked for.`,
    );
  if (type === 'standard' && !isSameType)
    throw invalidCombination(`A volume of type ${now.volume_type} can't be changed to type standard.`);
  const rule = typeRules[type];
  const kept = isSameType ? { iops: now.iops, throughput: now.throughput } : unlessNamed(now, type);
  const iops = request.Iops ?? kept.iops ?? undefined;
  const throughput = request.Throughput ?? kept.throughput ?? undefined;
  return volumeSettings({
    VolumeType: type,
    Size: request.Size ?? now.size_gib,
    // Only what the type lets be chosen is carried over.
    ...(rule?.iops || request.Iops !== undefined ? { Iops: iops } : {}),
    ...(rule?.throughput || request.Throughput !== undefined ? { Throughput: throughput } : {}),
    MultiAttachEnabled: request.MultiAttachEnabled ?? (isSameType && now.multi_attach === 1),
  });
}

/**
 * What a volume gets with another type. From gp2 to gp3 it gets no slower. Source: EC2 API reference, ModifyVolume; EBS user
 * guide, "Modify an Amazon EBS volume using Elastic Volumes operations".
 */
function unlessNamed(now: VolumeSettings, type: string): Pick<VolumeSettings, 'iops' | 'throughput'> {
  if (now.volume_type !== 'gp2' || type !== 'gp3') return { iops: modifiedIopsStandard, throughput: null };
  return {
    iops: Math.max(modifiedIopsStandard, now.iops ?? 0),
    throughput: now.size_gib > gp2FastAboveGib ? gp2FastMibs : null,
  };
}

function checkSize(type: string, rule: TypeRule, size: number | undefined): number {
  if (size === undefined || size === null) throw missingParameter('size/snapshot');
  if (size < rule.sizeGibMin)
    throw invalidValue(
      `The volume size is invalid for ${type} volumes: ${size} GiB. ${type} volumes must be at least ` +
        `${rule.sizeGibMin} GiB in size. Please specify a volume size above the minimum limit.`,
    );
  if (size > rule.sizeGibMax)
    throw invalidValue(`Volume of ${size}GiB is too large for volume type ${type}; maximum is ${rule.sizeGibMax}GiB`);
  return size;
}

function iopsOf(type: string, rule: TypeRule, size: number, asked: number | undefined): number | null {
  // gp2 has no setting of its own: 3 IOPS for each GiB, within bounds.
  if (type === 'gp2') return Math.min(16000, Math.max(100, 3 * size));
  if (!rule.iops) return null;
  const { min, max, perGibMax, standard } = rule.iops;
  const iops = asked ?? standard!;
  if (iops < min) throw invalidValue(`Volume iops of ${iops} is too low; minimum is ${min}.`);
  // Clients probe with an impossible number and read the limit out of this message and the next.
  if (type === 'io2' && (iops > max || iops > perGibMax * size))
    throw invalidCombination(
      'io2 volumes configured with greater than 64 TiB or 256K IOPS or 1000:1 IOPS:GB ratio are not supported',
    );
  if (iops > max) throw invalidValue(`Volume iops of ${iops} is too high; maximum is ${max}.`);
  if (iops !== standard && iops > perGibMax * size)
    throw invalidValue(`Iops to volume size ratio of ${(iops / size).toFixed(6)} is too high; maximum is ${perGibMax}`);
  return iops;
}

function throughputOf(rule: TypeRule, iops: number | null, asked: number | undefined): number | null {
  if (!rule.throughput) return null;
  const { min, max } = rule.throughput;
  const throughput = asked ?? min;
  if (throughput < min) throw invalidValue(`Volume throughput of ${throughput} is too low; minimum is ${min}.`);
  if (throughput > max) throw invalidValue(`Volume throughput of ${throughput} is too high; maximum is ${max}.`);
  const ratio = throughput / (iops ?? 1);
  if (ratio > throughputPerIopsMax)
    throw invalidValue(
      `Throughput (MiBps) to iops ratio of ${ratio.toFixed(6)} is too high; maximum is 0.250000 MiBps per iops`,
    );
  return throughput;
}
